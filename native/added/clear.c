// Clears buffers without touching them. libllama clears all cells of a new context. That used to take their memory at
// once, and two seconds for 720 MiB on a machine that had to find it. Pages that are given back to the system read as
// zeros, and take memory only when something is written to them.
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ggml-backend.h"

// Bytes. Smaller buffers, such as the logits', stay in huge pages, because they are read whole at every step.
enum { LARGE = 64 << 20 };

static size_t n_untouched = 0;

// Bytes that were cleared without being touched so far. They take memory as they are used.
__attribute__((visibility("default"))) size_t llamabox_untouched(void) {
    return __atomic_load_n(&n_untouched, __ATOMIC_RELAXED);
}

void __real_ggml_backend_buffer_clear(ggml_backend_buffer_t buffer, uint8_t value);

// The linker has libllama call this in place of ggml_backend_buffer_clear (llama.cmake). Only the CPU's own buffers are
// plain memory of the process; others may be a GPU's, or pinned for one.
void __wrap_ggml_backend_buffer_clear(ggml_backend_buffer_t buffer, uint8_t value) {
    const bool is_own = ggml_backend_buffer_get_type(buffer) == ggml_backend_cpu_buffer_type();
    if (value != 0 || !is_own || ggml_backend_buffer_get_size(buffer) < LARGE) {
        __real_ggml_backend_buffer_clear(buffer, value);
        return;
    }
    char * const    start = ggml_backend_buffer_get_base(buffer);
    char * const    end   = start + ggml_backend_buffer_get_size(buffer);
    const uintptr_t page  = (uintptr_t) sysconf(_SC_PAGESIZE);
    char * const    first = (char *) (((uintptr_t) start + page - 1) / page * page);
    char * const    last  = (char *) ((uintptr_t) end / page * page);
    if (first >= last || madvise(first, (size_t) (last - first), MADV_DONTNEED) != 0) {
        memset(start, 0, (size_t) (end - start)); // locked memory cannot be given back
        return;
    }
    // With huge pages the first cell of each layer would take one, and little would be saved.
    madvise(first, (size_t) (last - first), MADV_NOHUGEPAGE);
    memset(start, 0, (size_t) (first - start));
    memset(last, 0, (size_t) (end - last));
    __atomic_fetch_add(&n_untouched, (size_t) (last - first), __ATOMIC_RELAXED);
}
