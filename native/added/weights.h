// Packed weights of every type, and the operations with them: GGML_OP_MUL_MAT and GGML_OP_MUL_MAT_ID.
#pragma once

#include "ggml-cpu-impl.h"
#include "traits.h"

#include "experts.h"
#include "halves.h"
#include "multiply.h"
#include "pages.h"
#include "pieces.h"

#ifdef LB_LANES

namespace llamabox {

// Bytes of tokens that stay in a core's own cache while the weights pass by.
static constexpr size_t PANEL = 512 * 1024;
// Pieces of the weights for each thread. More of them even out slow threads, fewer cost less.
static constexpr int PIECES = 4;

// The operations of a type of weights. A packed tensor's `extra` points to one; it has no other state.
class Packed : public ggml::cpu::tensor_traits {
  public:
    // Pack all rows of a tensor from ggml's blocks.
    virtual void pack(const ggml_tensor * tensor, const void * data) const = 0;
    // Bytes that the packed rows take.
    virtual size_t packed_size(const ggml_tensor * tensor) const = 0;
};

static inline const float * row_of(const ggml_tensor * tokens, int64_t i1, int64_t i2, int64_t i3) {
    return (const float *) ((const char *) tokens->data + i1 * tokens->nb[1] + i2 * tokens->nb[2] + i3 * tokens->nb[3]);
}

// Of all tokens the row-th.
static inline const float * row_of(const ggml_tensor * tokens, int64_t row) {
    const int64_t i1 = row % tokens->ne[1], rest = row / tokens->ne[1];
    return row_of(tokens, i1, rest % tokens->ne[2], rest / tokens->ne[2]);
}

template <class F> class PackedAs final : public Packed {
    void pack(const ggml_tensor * tensor, const void * data) const override {
        const int64_t blocks = tensor->ne[0] / F::columns;
        const int64_t groups = ggml_nrows(tensor) / LB_LANES;
        const auto *  from   = (const typename F::Block *) data;
#ifdef GGML_USE_OPENMP // most of the time goes into taking the memory
#pragma omp parallel for
#endif
        for (int64_t group = 0; group < groups; group++) {
            uint8_t * to = (uint8_t *) tensor->data + group * group_size(tensor);
            Pages::enter(to, group_size(tensor));
            for (int64_t block = 0; block < blocks; block++, to += F::size) {
                for (int row = 0; row < LB_LANES; row++) {
                    F::pack(to, row, from[(group * LB_LANES + row) * blocks + block]);
                }
            }
        }
    }

    size_t packed_size(const ggml_tensor * tensor) const override {
        return (size_t) (ggml_nrows(tensor) / LB_LANES * group_size(tensor));
    }

    // Bytes of a group: LB_LANES whole rows.
    static int64_t group_size(const ggml_tensor * tensor) { return tensor->ne[0] / F::columns * F::size; }

    bool work_size(int, const ggml_tensor * op, size_t & size) override {
        const int64_t n = op->src[1]->ne[0];
        size = op->op == GGML_OP_MUL_MAT_ID ? Visits::size(op) + token_size<F>(n) * (size_t) ggml_nelements(op->src[2])
                                            : token_size<F>(n) * (size_t) ggml_nrows(op->src[1]);
        return true;
    }

    bool compute_forward(ggml_compute_params * params, ggml_tensor * op) override {
        if (params->ith == 0) {
            Pages::at_work();
        }
        switch (op->op) {
            case GGML_OP_MUL_MAT: multiply_all(params, op); return true;
            case GGML_OP_MUL_MAT_ID: multiply_experts(params, op); return true;
            default: return false;
        }
    }

    static void multiply_all(const ggml_compute_params * params, ggml_tensor * op) {
        const ggml_tensor * tokens = op->src[1];
        const int64_t       n      = tokens->ne[0];
        const int64_t       many   = ggml_nrows(tokens);
        const int64_t       slices = many < params->nth ? params->nth : 1; // of a row
        for (int64_t i = params->ith; i < many * slices; i += params->nth) {
            const int64_t row   = i / slices;
            const int64_t first = n / F::columns * (i % slices) / slices;
            const int64_t last  = n / F::columns * (i % slices + 1) / slices;
            auto *        to    = (uint8_t *) params->wdata + (size_t) row * token_size<F>(n);
            quantize_token<F>(to, row_of(tokens, row), first, last);
        }
        begin_pieces(params);
        const int64_t groups = op->src[0]->ne[1] / LB_LANES;
        const int64_t pieces = groups < params->nth * PIECES ? groups : params->nth * PIECES;
        for (int64_t piece = params->ith; piece < pieces; piece = next_piece(params)) {
            multiply_groups(params, op, groups * piece / pieces, groups * (piece + 1) / pieces);
        }
    }

    // Multiply groups `first` to before `last` of the weights with all tokens. dst is contiguous (supports_op).
    static void multiply_groups(const ggml_compute_params * params, ggml_tensor * op, int64_t first, int64_t last) {
        const int64_t n      = op->src[0]->ne[0];
        const int64_t many   = ggml_nrows(op);
        const int64_t stride = op->ne[0];
        const int64_t panel  = panel_of(n);
        for (int64_t token = 0; token < many; token += panel) {
            const auto *  rows  = (const uint8_t *) params->wdata + (size_t) token * token_size<F>(n);
            const int64_t count = std::min(many - token, panel);
            for (int64_t group = first; group < last; group++) {
                const auto * weights = (const uint8_t *) op->src[0]->data + group * group_size(op->src[0]);
                multiply<F>(weights, rows, count, n, (float *) op->data + token * stride + group * LB_LANES, stride);
            }
        }
    }

    // How many tokens of n columns are multiplied with a group before the next group comes.
    static int64_t panel_of(int64_t n) {
        const int64_t fits = (int64_t) (PANEL / token_size<F>(n)) / TILE * TILE;
        return std::max<int64_t>(fits, TILE);
    }

    // A mixture of experts: each token visits some of them.
    static void multiply_experts(const ggml_compute_params * params, ggml_tensor * op) {
        const ggml_tensor * weights = op->src[0];
        const ggml_tensor * tokens  = op->src[1];
        const Visits        visits(op, params->wdata);
        if (params->ith == 0) {
            visits.sort();
        }
        ggml_barrier(params->threadpool);
        const int64_t n    = tokens->ne[0];
        auto *        rows = (uint8_t *) params->wdata + Visits::size(op);
        for (int64_t i = params->ith; i < visits.count; i += params->nth) {
            const int64_t visit = visits.order[i];
            const float * from  = row_of(tokens, visit % visits.n_used % tokens->ne[1], visit / visits.n_used, 0);
            quantize_token<F>(rows + (size_t) i * token_size<F>(n), from, 0, n / F::columns);
        }
        begin_pieces(params);
        const int64_t groups = weights->ne[1] / LB_LANES;
        const int64_t pieces = std::min<int64_t>(groups, params->nth); // pieces of one expert
        for (int64_t i = params->ith; i < pieces * visits.n_experts; i = next_piece(params)) {
            const int64_t expert = i / pieces, piece = i % pieces;
            multiply_visits(op, visits, rows, expert, groups * piece / pieces, groups * (piece + 1) / pieces);
        }
    }

    // Multiply groups `first` to before `last` of an expert with the tokens that visit it.
    static void multiply_visits(ggml_tensor * op, const Visits & visits, const uint8_t * rows, int64_t expert,
                                int64_t first, int64_t last) {
        constexpr int64_t MOST = 64;
        alignas(64) float results[MOST * LB_LANES];
        const int64_t     n      = op->src[0]->ne[0];
        const int64_t     panel  = std::min(panel_of(n), MOST);
        const int64_t     groups = op->src[0]->ne[1] / LB_LANES;
        const int64_t     end    = visits.first[expert + 1];
        for (int64_t at = visits.first[expert]; at < end; at += panel) {
            const int64_t count = std::min(end - at, panel);
            for (int64_t group = first; group < last; group++) {
                const auto * weights =
                    (const uint8_t *) op->src[0]->data + (expert * groups + group) * group_size(op->src[0]);
                multiply<F>(weights, rows + (size_t) at * token_size<F>(n), count, n, results, LB_LANES);
                for (int64_t i = 0; i < count; i++) {
                    float * to = (float *) op->data + visits.order[at + i] * op->ne[0] + group * LB_LANES;
                    memcpy(to, results + i * LB_LANES, LB_LANES * sizeof(float));
                }
            }
        }
    }
};

// The same of weights in half precision.
class PackedHalves final : public Packed {
    void pack(const ggml_tensor * tensor, const void * data) const override {
        const int64_t n      = tensor->ne[0];
        const int64_t groups = ggml_nrows(tensor) / LB_LANES;
        const auto *  from   = (const ggml_fp16_t *) data;
        auto *        to     = (ggml_fp16_t *) tensor->data;
#ifdef GGML_USE_OPENMP
#pragma omp parallel for
#endif
        for (int64_t group = 0; group < groups; group++) {
            for (int64_t i = 0; i < n; i++) {
                for (int row = 0; row < LB_LANES; row++) {
                    to[(group * n + i) * LB_LANES + row] = from[(group * LB_LANES + row) * n + i];
                }
            }
        }
    }

    size_t packed_size(const ggml_tensor * tensor) const override { return ggml_nbytes(tensor); }

    bool work_size(int, const ggml_tensor * op, size_t & size) override {
        size = (size_t) ggml_nelements(op->src[1]) * sizeof(float);
        return true;
    }

    bool compute_forward(ggml_compute_params * params, ggml_tensor * op) override {
        if (op->op != GGML_OP_MUL_MAT) {
            return false;
        }
        const int64_t n      = op->src[1]->ne[0];
        const int64_t many   = ggml_nrows(op->src[1]);
        const int64_t tiles  = (many + HALF_TILE - 1) / HALF_TILE;
        const int64_t slices = tiles < params->nth ? params->nth : 1; // of a tile
        for (int64_t i = params->ith; i < tiles * slices; i += params->nth) {
            const int64_t tile = i / slices;
            put_tile(op->src[1], (float *) params->wdata + tile * HALF_TILE * n, tile * HALF_TILE,
                     n * (i % slices) / slices, n * (i % slices + 1) / slices);
        }
        begin_pieces(params);
        const int64_t groups = op->src[0]->ne[1] / LB_LANES;
        const int64_t pieces = std::min<int64_t>(groups, params->nth * PIECES);
        for (int64_t piece = params->ith; piece < pieces; piece = next_piece(params)) {
            multiply_groups(params, op, groups * piece / pieces, groups * (piece + 1) / pieces);
        }
        return true;
    }

    static int count_at(int64_t token, int64_t many) { return (int) std::min<int64_t>(many - token, HALF_TILE); }

    static void put_tile(const ggml_tensor * tokens, float * to, int64_t token, int64_t first, int64_t last) {
        const float * rows[HALF_TILE];
        const int     count = count_at(token, ggml_nrows(tokens));
        for (int t = 0; t < count; t++) {
            rows[t] = row_of(tokens, token + t);
        }
        HALF_TILES[count - 1].put(to, rows, first, last);
    }

    // Multiply groups `first` to before `last` of the weights with all tokens.
    static void multiply_groups(const ggml_compute_params * params, ggml_tensor * op, int64_t first, int64_t last) {
        const int64_t n     = op->src[0]->ne[0];
        const int64_t many  = ggml_nrows(op);
        const int64_t fits  = (int64_t) (PANEL / ((size_t) n * sizeof(float))) / HALF_TILE * HALF_TILE;
        const int64_t panel = std::max<int64_t>(fits, HALF_TILE);
        for (int64_t begin = 0; begin < many; begin += panel) {
            const int64_t end = std::min(begin + panel, many);
            for (int64_t group = first; group < last; group++) {
                const auto * weights = (const uint8_t *) op->src[0]->data + group * n * HALVES;
                for (int64_t token = begin; token < end; token += HALF_TILE) {
                    const auto * tile = (const float *) params->wdata + token * n;
                    float *      to   = (float *) op->data + token * op->ne[0] + group * LB_LANES;
                    HALF_TILES[count_at(token, many) - 1].multiply(weights, tile, n, to, op->ne[0]);
                }
            }
        }
    }
};

// How a tensor is packed, or nullptr where it is not.
static Packed * packed_as(const ggml_tensor * weights) {
    static PackedAs<Q4_0>   q4_0;
    static PackedAs<Q4_1>   q4_1;
    static PackedAs<Q5_0>   q5_0;
    static PackedAs<Q5_1>   q5_1;
    static PackedAs<Q8_0>   q8_0;
    static PackedAs<Q4_K>   q4_k;
    static PackedAs<Q5_K>   q5_k;
    static PackedAs<Q6_K>   q6_k;
    static PackedAs<IQ4_NL> iq4_nl;
    static PackedAs<IQ4_XS> iq4_xs;
    static PackedAs<MXFP4>  mxfp4;
    static PackedHalves     halves;
    if (ggml_n_dims(weights) < 2 || ggml_n_dims(weights) > 3 || weights->ne[1] % LB_LANES != 0) {
        return nullptr;
    }
    // With AVX-VNNI ggml's own kernels for K-quants are as fast, except for experts: they take tokens one by one.
    const bool pays = LB_LANES == 16 || !takes_bytes || ggml_n_dims(weights) == 3;
    switch (weights->type) {
        case GGML_TYPE_Q4_0: return &q4_0;
        case GGML_TYPE_Q4_1: return &q4_1;
        case GGML_TYPE_Q5_0: return &q5_0;
        case GGML_TYPE_Q5_1: return &q5_1;
        case GGML_TYPE_Q8_0: return &q8_0;
        case GGML_TYPE_Q4_K: return pays ? &q4_k : nullptr;
        case GGML_TYPE_Q5_K: return pays ? &q5_k : nullptr;
        case GGML_TYPE_Q6_K: return pays ? &q6_k : nullptr;
        case GGML_TYPE_IQ4_NL: return &iq4_nl;
        case GGML_TYPE_IQ4_XS: return &iq4_xs;
        case GGML_TYPE_MXFP4: return &mxfp4;
        case GGML_TYPE_F16: return ggml_n_dims(weights) == 2 && weights->ne[0] % 2 == 0 ? &halves : nullptr;
        default: return nullptr;
    }
}

} // namespace llamabox

#endif
