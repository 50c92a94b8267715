// How ggml's CPU backend comes to the kernels. Multiplication with quantised weights is a buffer type: libllama puts
// there the weights that it supports, and they are packed as they are read. Attention is asked for by the operation.
// This file is compiled into libggml-cpu (llama.cmake), for what it derives from is not in ggml's public headers.
#include "ggml-backend-impl.h"
#include "ggml-cpu.h"
#include "traits.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>

#include "attention.h"
#include "multiply.h"

#ifdef LB_LANES

namespace llamabox {

// A piece of the tokens that stays in a core's own cache while the weights pass by.
static constexpr size_t PANEL = 512 * 1024;
// Pieces of the weights for each thread: more even out what the threads are slowed down by, fewer cost less.
static constexpr int PIECES = 4;

// What to do with a type's weights. The one piece of state behind a packed tensor: tensor->extra.
class Packed : public ggml::cpu::tensor_traits {
  public:
    // All rows of a tensor, from ggml's blocks.
    virtual void pack(const ggml_tensor * tensor, const void * data) const = 0;
    // Bytes that they take.
    virtual size_t packed_size(const ggml_tensor * tensor) const = 0;
};

template <class F> class PackedAs final : public Packed {
    void pack(const ggml_tensor * tensor, const void * data) const override {
        const int64_t blocks = tensor->ne[0] / F::columns;
        const auto *  from   = (const typename F::Block *) data;
        auto *        to     = (uint8_t *) tensor->data;
        for (int64_t first = 0; first < tensor->ne[1]; first += LB_LANES) {
            for (int64_t block = 0; block < blocks; block++, to += F::size) {
                for (int row = 0; row < LB_LANES; row++) {
                    F::pack(to, row, from[(first + row) * blocks + block]);
                }
            }
        }
    }

    size_t packed_size(const ggml_tensor * tensor) const override {
        return (size_t) (tensor->ne[1] / LB_LANES * group_size(tensor));
    }

    // Bytes of LB_LANES whole rows.
    static int64_t group_size(const ggml_tensor * tensor) { return tensor->ne[0] / F::columns * F::size; }

    bool work_size(int, const ggml_tensor * op, size_t & size) override {
        size = token_size(op->src[1]->ne[0]) * (size_t) ggml_nrows(op->src[1]);
        return true;
    }

    bool compute_forward(ggml_compute_params * params, ggml_tensor * op) override {
        if (op->op != GGML_OP_MUL_MAT) {
            return false;
        }
        quantize(params, op->src[1]);
        if (params->ith == 0) {
            ggml_threadpool_chunk_set(params->threadpool, params->nth);
        }
        ggml_barrier(params->threadpool);

        const int64_t groups = op->src[0]->ne[1] / LB_LANES;
        const int64_t pieces = groups < params->nth * PIECES ? groups : params->nth * PIECES;
        for (int64_t piece = params->ith; piece < pieces; piece = ggml_threadpool_chunk_add(params->threadpool, 1)) {
            multiply_groups(params, op, groups * piece / pieces, groups * (piece + 1) / pieces);
        }
        return true;
    }

    static void quantize(const ggml_compute_params * params, const ggml_tensor * tokens) {
        const int64_t n    = tokens->ne[0];
        const int64_t many = ggml_nrows(tokens);
        for (int64_t i = params->ith; i < many; i += params->nth) {
            const int64_t i3 = i / (tokens->ne[1] * tokens->ne[2]);
            const int64_t i2 = i / tokens->ne[1] % tokens->ne[2];
            const int64_t i1 = i % tokens->ne[1];
            const char *  at = (const char *) tokens->data + i1 * tokens->nb[1] + i2 * tokens->nb[2] + i3 * tokens->nb[3];
            quantize_token<F>((uint8_t *) params->wdata + (size_t) i * token_size(n), (const float *) at, n);
        }
    }

    // Rows of the weights from group `first` to before group `last`, for all tokens. dst is contiguous (supports).
    static void multiply_groups(const ggml_compute_params * params, ggml_tensor * op, int64_t first, int64_t last) {
        const int64_t n      = op->src[0]->ne[0];
        const int64_t many   = ggml_nrows(op);
        const int64_t stride = op->ne[0];
        const int64_t fits   = (int64_t) (PANEL / token_size(n)) / TILE * TILE;
        const int64_t panel  = fits > TILE ? fits : TILE;
        for (int64_t token = 0; token < many; token += panel) {
            const auto *  rows  = (const uint8_t *) params->wdata + (size_t) token * token_size(n);
            const int64_t count = many - token < panel ? many - token : panel;
            for (int64_t group = first; group < last; group++) {
                const auto * weights = (const uint8_t *) op->src[0]->data + group * group_size(op->src[0]);
                multiply<F>(weights, rows, count, n, (float *) op->data + token * stride + group * LB_LANES, stride);
            }
        }
    }
};

// Which way a tensor is packed; nullptr: not at all.
static Packed * packed_as(const ggml_tensor * weights) {
    static PackedAs<Q4_0> q4_0;
    static PackedAs<Q4_1> q4_1;
    static PackedAs<Q5_0> q5_0;
    static PackedAs<Q5_1> q5_1;
    static PackedAs<Q8_0> q8_0;
    static PackedAs<Q4_K> q4_k;
    static PackedAs<Q5_K> q5_k;
    static PackedAs<Q6_K> q6_k;
    constexpr bool wide = LB_LANES == 16; // with eight lanes ggml's own kernels for these are as fast or faster
    if (ggml_n_dims(weights) != 2 || weights->ne[1] % LB_LANES != 0) {
        return nullptr;
    }
    switch (weights->type) {
        case GGML_TYPE_Q4_0: return &q4_0;
        case GGML_TYPE_Q4_1: return &q4_1;
        case GGML_TYPE_Q5_0: return &q5_0;
        case GGML_TYPE_Q5_1: return &q5_1;
        case GGML_TYPE_Q8_0: return takes_bytes ? &q8_0 : nullptr;
        case GGML_TYPE_Q4_K: return wide ? &q4_k : nullptr;
        case GGML_TYPE_Q5_K: return wide ? &q5_k : nullptr;
        case GGML_TYPE_Q6_K: return wide ? &q6_k : nullptr;
        default: return nullptr;
    }
}

class Attention final : public ggml::cpu::tensor_traits {
    bool work_size(int, const ggml_tensor *, size_t & size) override {
        size = 0;
        return true;
    }

    bool compute_forward(ggml_compute_params * params, ggml_tensor * op) override {
        attend(params, op);
        return true;
    }
};

static ggml::cpu::tensor_traits * attention(const ggml_tensor * op) {
    static Attention kernel;
    return Attend::supports(op) ? &kernel : nullptr;
}

static ggml_backend_buffer_type_t buffer_type();

class Kernels final : public ggml::cpu::extra_buffer_type {
    bool supports_op(ggml_backend_dev_t, const ggml_tensor * op) override {
        const ggml_tensor * weights = op->src[0];
        const ggml_tensor * tokens  = op->src[1];
        return op->op == GGML_OP_MUL_MAT && is_packed(weights) && packed_as(weights) && tokens->type == GGML_TYPE_F32 &&
               tokens->nb[0] == sizeof(float) && ggml_is_contiguous(op) &&
               (!tokens->buffer || ggml_backend_buft_is_host(tokens->buffer->buft));
    }

    ggml::cpu::tensor_traits * get_tensor_traits(const ggml_tensor * op) override {
        switch (op->op) {
            case GGML_OP_MUL_MAT: return is_packed(op->src[0]) ? (Packed *) op->src[0]->extra : nullptr;
            case GGML_OP_FLASH_ATTN_EXT: return attention(op);
            default: return nullptr;
        }
    }

    static bool is_packed(const ggml_tensor * tensor) { return tensor->buffer && tensor->buffer->buft == buffer_type(); }
};

static ggml_status init_tensor(ggml_backend_buffer_t, ggml_tensor * tensor) {
    tensor->extra = packed_as(tensor);
    return GGML_STATUS_SUCCESS;
}

static void set_tensor(ggml_backend_buffer_t, ggml_tensor * tensor, const void * data, size_t offset, size_t size) {
    GGML_ASSERT(tensor->extra && offset == 0 && size == ggml_nbytes(tensor));
    ((const Packed *) tensor->extra)->pack(tensor, data);
}

static const char * buffer_type_name(ggml_backend_buffer_type_t) { return "CPU_LLAMABOX"; }

// Whether buffers are locked in memory from now on. libllama locks the model's only where the CPU reads them as they are.
static bool locks = false;

static ggml_backend_buffer_t alloc_buffer(ggml_backend_buffer_type_t type, size_t size) {
    ggml_backend_buffer_t buffer = ggml_backend_buft_alloc_buffer(ggml_backend_cpu_buffer_type(), size);
    if (buffer) {
        buffer->buft              = type;
        buffer->iface.init_tensor = init_tensor;
        buffer->iface.set_tensor  = set_tensor;
        buffer->iface.get_tensor  = nullptr; // nobody reads packed weights
        buffer->iface.cpy_tensor  = nullptr;
    }
    if (buffer && locks && mlock(ggml_backend_buffer_get_base(buffer), size) != 0) {
        GGML_LOG_WARN("warning: failed to mlock %zu bytes of packed weights: %s\n", size, strerror(errno));
    }
    return buffer;
}

static size_t alloc_size(ggml_backend_buffer_type_t, const ggml_tensor * tensor) {
    const Packed * packed = packed_as(tensor);
    return packed ? packed->packed_size(tensor) : ggml_nbytes(tensor);
}

static size_t alignment(ggml_backend_buffer_type_t) { return 64; }

static ggml_backend_buffer_type_t buffer_type() {
    static Kernels                  kernels;
    static ggml_backend_buffer_type type = {
        /* .iface   = */ { buffer_type_name, alloc_buffer, alignment, nullptr, alloc_size, nullptr },
        /* .device  = */ ggml_backend_reg_dev_get(ggml_backend_cpu_reg(), 0),
        /* .context = */ &kernels,
    };
    return &type;
}

}  // namespace llamabox

#endif

// Let ggml's CPU backend offer the buffer type, before its own ones but for the one with AMX, which multiplies whole
// tiles. Before the first model is loaded, and once: ggml copies the list. Returns what the kernels compute with, or NULL
// where this processor has no vectors for them.
extern "C" __attribute__((visibility("default"))) const char * llamabox_kernels(void) {
#ifdef LB_LANES
    auto &     types  = ggml_backend_cpu_get_extra_buffer_types();
    const auto is_amx = [](ggml_backend_buffer_type_t type) { return strcmp(ggml_backend_buft_name(type), "AMX") == 0; };
    if (std::find(types.begin(), types.end(), llamabox::buffer_type()) == types.end()) {
        types.insert(std::find_if_not(types.begin(), types.end(), is_amx), llamabox::buffer_type());
    }
    return llamabox::lanes_name;
#else
    return nullptr;
#endif
}

// Whether there is attention for heads whose keys, or values, are of a type and have so many elements.
extern "C" __attribute__((visibility("default"))) bool llamabox_kernels_attend(ggml_type type, int64_t size) {
#ifdef LB_LANES
    return llamabox::Attend::takes(type, size);
#else
    (void) type;
    (void) size;
    return false;
#endif
}

// Have the weights that are packed from now on locked in memory, or not. What is freed is unlocked.
extern "C" __attribute__((visibility("default"))) void llamabox_kernels_lock(bool on) {
#ifdef LB_LANES
    llamabox::locks = on;
#else
    (void) on;
#endif
}
