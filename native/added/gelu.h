// The function between the two products of most encoders' layers, for GGML_OP_UNARY: ggml looks it up element by
// element in a table of 16-bit numbers.
#pragma once

#include "attention.h"

#ifdef LB_LANES

namespace llamabox {

// gelu(x) = x / (1 + exp(−2 y)), which is x / 2 · (1 + tanh(y)), y = √(2/π) · x · (1 + 0.044715 x²). As in ggml, 0 for
// −10 and below.
static inline Floats gelu_of(Floats x) {
    const Floats slope = times_plus(times(x, x), floats(-2.0f * 0.79788456f * 0.044715f), floats(-2.0f * 0.79788456f));
    return where_above(x, -10.0f, over(x, plus(floats(1.0f), exp_of(times(x, slope)))));
}

static void gelu(float * to, const float * from, int64_t n) {
    for (; n >= LB_LANES; n -= LB_LANES, to += LB_LANES, from += LB_LANES) {
        store(to, gelu_of(load_floats(from)));
    }
    if (n > 0) {
        alignas(64) float rest[LB_LANES] = {};
        memcpy(rest, from, (size_t) n * sizeof(float));
        store(rest, gelu_of(load_floats(rest)));
        memcpy(to, rest, (size_t) n * sizeof(float));
    }
}

static bool takes_gelu(const ggml_tensor * op) {
    return op->op == GGML_OP_UNARY && ggml_get_unary_op(op) == GGML_UNARY_OP_GELU && op->type == GGML_TYPE_F32
           && op->src[0]->type == GGML_TYPE_F32 && ggml_is_contiguous(op) && ggml_is_contiguous(op->src[0]);
}

// This thread's share of the operation: whole rows.
static void gelu(const ggml_compute_params * params, ggml_tensor * op) {
    const int64_t n = op->ne[0], rows = ggml_nrows(op);
    const int64_t first = rows * params->ith / params->nth, last = rows * (params->ith + 1) / params->nth;
    gelu((float *) op->data + first * n, (const float *) op->src[0]->data + first * n, (last - first) * n);
}

} // namespace llamabox

#endif
