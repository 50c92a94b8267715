// How ggml's CPU backend reaches the kernels. Multiplication with quantised weights is a buffer type: libllama puts the
// weights that it supports there, and they are packed as they are read. Attention and GELU are found by their
// operations.
// This file is compiled into libggml-cpu (llama.cmake), because its base classes are not in ggml's public headers.
#include "ggml-backend-impl.h"
#include "ggml-cpu.h"
#include "traits.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>

#include "attention.h"
#include "gelu.h"
#include "pages.h"
#include "weights.h"

#ifdef LB_LANES

namespace llamabox {

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

class Gelu final : public ggml::cpu::tensor_traits {
    bool work_size(int, const ggml_tensor *, size_t & size) override {
        size = 0;
        return true;
    }

    bool compute_forward(ggml_compute_params * params, ggml_tensor * op) override {
        gelu(params, op);
        return true;
    }
};

static ggml::cpu::tensor_traits * unary(const ggml_tensor * op) {
    static Gelu kernel;
    return takes_gelu(op) ? &kernel : nullptr;
}

static ggml_backend_buffer_type_t buffer_type();

class Kernels final : public ggml::cpu::extra_buffer_type {
    bool supports_op(ggml_backend_dev_t, const ggml_tensor * op) override {
        const ggml_tensor * weights = op->src[0];
        const ggml_tensor * tokens  = op->src[1];
        const bool is_product = op->op == GGML_OP_MUL_MAT ? ggml_n_dims(weights) == 2 : op->op == GGML_OP_MUL_MAT_ID;
        return is_product && is_packed(weights) && packed_as(weights) && tokens->type == GGML_TYPE_F32
               && tokens->nb[0] == sizeof(float) && ggml_is_contiguous(op)
               && (!tokens->buffer || ggml_backend_buft_is_host(tokens->buffer->buft));
    }

    ggml::cpu::tensor_traits * get_tensor_traits(const ggml_tensor * op) override {
        switch (op->op) {
            case GGML_OP_MUL_MAT:
            case GGML_OP_MUL_MAT_ID: return is_packed(op->src[0]) ? (Packed *) op->src[0]->extra : nullptr;
            case GGML_OP_FLASH_ATTN_EXT: return attention(op);
            case GGML_OP_UNARY: return unary(op);
            default: return nullptr;
        }
    }

    static bool is_packed(const ggml_tensor * tensor) {
        return tensor->buffer && tensor->buffer->buft == buffer_type();
    }
};

// A view reads the packed tensor below it from the start, so only a view of whole first rows can be read.
static ggml_status init_tensor(ggml_backend_buffer_t, ggml_tensor * tensor) {
    const ggml_tensor * whole = tensor->view_src;
    GGML_ASSERT(!whole || (tensor->view_offs == 0 && tensor->ne[0] == whole->ne[0] && ggml_is_contiguous(tensor)));
    tensor->extra = packed_as(tensor);
    return GGML_STATUS_SUCCESS;
}

static void set_tensor(ggml_backend_buffer_t, ggml_tensor * tensor, const void * data, size_t offset, size_t size) {
    GGML_ASSERT(tensor->extra && offset == 0 && size == ggml_nbytes(tensor));
    ((const Packed *) tensor->extra)->pack(tensor, data);
}

static const char * buffer_type_name(ggml_backend_buffer_type_t) { return "CPU_LLAMABOX"; }

// Whether new buffers are locked in memory. libllama locks only weights that the CPU reads as the file has them.
static bool locks = false;

// ggml's own way to free a buffer of the CPU.
static void (*free_memory)(ggml_backend_buffer_t) = nullptr;

static void free_buffer(ggml_backend_buffer_t buffer) {
    Pages::leave(ggml_backend_buffer_get_base(buffer), ggml_backend_buffer_get_size(buffer));
    free_memory(buffer);
}

static ggml_backend_buffer_t alloc_buffer(ggml_backend_buffer_type_t type, size_t size) {
    ggml_backend_buffer_t buffer = ggml_backend_buft_alloc_buffer(ggml_backend_cpu_buffer_type(), size);
    if (buffer) {
        buffer->buft              = type;
        free_memory               = buffer->iface.free_buffer;
        buffer->iface.free_buffer = free_buffer;
        buffer->iface.init_tensor = init_tensor;
        buffer->iface.set_tensor  = set_tensor;
        buffer->iface.get_tensor  = nullptr; // nobody reads packed weights
        buffer->iface.cpy_tensor  = nullptr;
        Pages::take(ggml_backend_buffer_get_base(buffer), size);
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

} // namespace llamabox

#endif

// Let ggml's CPU backend offer the buffer type, before its own ones. Call it before the first model is loaded, as ggml
// copies the list; further calls change nothing. Returns the name of the instructions that the kernels use, or NULL
// where this processor has none of them.
extern "C" __attribute__((visibility("default"))) const char * llamabox_kernels(void) {
#ifdef LB_LANES
    auto & types = ggml_backend_cpu_get_extra_buffer_types();
    if (std::find(types.begin(), types.end(), llamabox::buffer_type()) == types.end()) {
        types.insert(types.begin(), llamabox::buffer_type());
    }
    return llamabox::lanes_name;
#else
    return nullptr;
#endif
}

// Whether there is attention for heads with `size` keys, or values, of a type.
extern "C" __attribute__((visibility("default"))) bool llamabox_kernels_attend(ggml_type type, int64_t size) {
#ifdef LB_LANES
    return llamabox::Attend::takes(type, size);
#else
    (void) type;
    (void) size;
    return false;
#endif
}

// Set whether weights that are packed from now on are locked in memory. Freeing unlocks them.
extern "C" __attribute__((visibility("default"))) void llamabox_kernels_lock(bool on) {
#ifdef LB_LANES
    llamabox::locks = on;
#else
    (void) on;
#endif
}

// Set how much processor time, in ns, the first access to a huge page may take: where several take more, the buffer's
// further pages are small until the model is packed (pages.h).
extern "C" __attribute__((visibility("default"))) void llamabox_kernels_patience(int64_t ns) {
#ifdef LB_LANES
    llamabox::Pages::have_patience(ns);
#else
    (void) ns;
#endif
}
