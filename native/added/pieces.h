// How the threads of an operation share its work: each takes a piece at a time until none is left.
#pragma once

#include "ggml-cpu-impl.h"

namespace llamabox {

// Every thread calls this before its first piece, whose number is the thread's own. Waits for all threads.
static void begin_pieces(const ggml_compute_params * params) {
    if (params->ith == 0) {
        ggml_threadpool_chunk_set(params->threadpool, params->nth);
    }
    ggml_barrier(params->threadpool);
}

// The number of the next piece that nobody has taken.
static int64_t next_piece(const ggml_compute_params * params) {
    return ggml_threadpool_chunk_add(params->threadpool, 1);
}

} // namespace llamabox
