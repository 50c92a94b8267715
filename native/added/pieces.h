// How the threads of an operation share its work: they take pieces of it until there are no more.
#pragma once

#include "ggml-cpu-impl.h"

namespace llamabox {

// All threads call it before the first piece, which each has by its own number; it waits for all of them.
static void begin_pieces(const ggml_compute_params * params) {
    if (params->ith == 0) {
        ggml_threadpool_chunk_set(params->threadpool, params->nth);
    }
    ggml_barrier(params->threadpool);
}

// The number of the next one that nobody has taken.
static int64_t next_piece(const ggml_compute_params * params) { return ggml_threadpool_chunk_add(params->threadpool, 1); }

}  // namespace llamabox
