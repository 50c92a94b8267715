// A mixture of experts: which tokens each expert multiplies.
#pragma once

#include "ggml-impl.h"

#include <algorithm>

namespace llamabox {

// Which tokens visit which experts (GGML_OP_MUL_MAT_ID). The tables lie at the start of the operation's work memory.
// Visit v is of token v / n_used, to the expert in place v % n_used of the token's list; its result is row v.
struct Visits {
    const ggml_tensor * experts; // [n_used, tokens]: numbers of experts
    int64_t             n_used, n_experts, count;
    int32_t *           first; // for each expert, where its visits begin in `order`; then the end
    int32_t *           order; // the visits, sorted by expert

    Visits(const ggml_tensor * op, void * room) :
        experts(op->src[2]), n_used(experts->ne[0]), n_experts(op->src[0]->ne[2]), count(ggml_nelements(experts)),
        first((int32_t *) room), order(first + n_experts + 1) {}

    // Bytes of the tables, rounded up to whole vectors.
    static size_t size(const ggml_tensor * op) {
        const int64_t numbers = op->src[0]->ne[2] + 1 + ggml_nelements(op->src[2]);
        return ((size_t) numbers * sizeof(int32_t) + 63) / 64 * 64;
    }

    int32_t expert_of(int64_t visit) const {
        const char * at =
            (const char *) experts->data + visit / n_used * experts->nb[1] + visit % n_used * experts->nb[0];
        return *(const int32_t *) at;
    }

    // Fill both tables, by a counting sort.
    void sort() const {
        std::fill(first, first + n_experts + 1, 0);
        for (int64_t visit = 0; visit < count; visit++) {
            GGML_ASSERT(expert_of(visit) >= 0 && expert_of(visit) < n_experts);
            first[expert_of(visit) + 1]++;
        }
        for (int64_t expert = 0; expert < n_experts; expert++) {
            first[expert + 1] += first[expert];
        }
        for (int64_t visit = 0; visit < count; visit++) {
            order[first[expert_of(visit)]++] = (int32_t) visit;
        }
        for (int64_t expert = n_experts; expert > 0; expert--) { // each expert's entry is where its visits end now
            first[expert] = first[expert - 1];
        }
        first[0] = 0;
    }
};

} // namespace llamabox
