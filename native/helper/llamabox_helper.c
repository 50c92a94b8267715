#ifndef _GNU_SOURCE
#define _GNU_SOURCE // dladdr, dl_iterate_phdr
#endif

#include "llamabox_helper.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#ifdef __linux__
#include <link.h>
#endif

#ifdef LB_LLAMA_MEDIA
#include "mtmd.h"
#endif

const char * lb_library_path(void) {
    Dl_info info;
    return dladdr((void *) llama_backend_init, &info) ? info.dli_fname : NULL;
}

#ifdef __linux__

struct found {
    const char * library; // how its file's name begins
    char         path[PATH_MAX];
};

// The linker's list is locked meanwhile: opening a library here would wait for who opens one and waits for the list.
static int look_up(struct dl_phdr_info * info, size_t size, void * data) {
    struct found * found = data;
    (void) size;
    const char * name = strrchr(info->dlpi_name, '/');
    if (name == NULL || strncmp(name + 1, found->library, strlen(found->library)) != 0
        || strlen(info->dlpi_name) >= sizeof(found->path)) {
        return 0;
    }
    strcpy(found->path, info->dlpi_name);
    return 1;
}

// What a loaded file has by a name that its libraries' own are not among, or NULL. Loaded backends show their names to
// nobody: ask the file.
static void * symbol_of(const char * path, const char * name) {
    void * handle = dlopen(path, RTLD_NOW | RTLD_NOLOAD);
    if (handle == NULL) {
        return NULL;
    }
    void * symbol = dlsym(handle, name);
    dlclose(handle); // what has loaded it holds it, too
    return symbol;
}

// What native/added has in a library, or NULL where it was built without.
static void * added(const char * library, const char * name) {
    struct found found = { .library = library };
    return dl_iterate_phdr(look_up, &found) != 0 ? symbol_of(found.path, name) : NULL;
}

// The same in the CPU backend that computes. In a portable build there may be others: ggml opens each to choose, and
// one with names that are unique in a process (STB_GNU_UNIQUE: static variables of inline functions) is never unloaded.
static void * kernels_symbol(const char * name) {
    const ggml_backend_reg_t cpu    = ggml_backend_reg_by_name("CPU");
    const char *             known  = "ggml_backend_set_n_threads";
    void *                   inside = cpu ? ggml_backend_reg_get_proc_address(cpu, known) : NULL;
    Dl_info                  info;
    return inside != NULL && dladdr(inside, &info) ? symbol_of(info.dli_fname, name) : NULL;
}

#else

static void * added(const char * library, const char * name) {
    (void) library;
    (void) name;
    return NULL; // nothing is added there yet
}

static void * kernels_symbol(const char * name) {
    (void) name;
    return NULL; // nor there
}

#endif

static const char * g_kernels = NULL;

const char * lb_use_kernels(void) {
    typedef const char * (*use_t)(void);
    const use_t use = (use_t) kernels_symbol("llamabox_kernels");
    g_kernels       = use != NULL ? use() : NULL;
    return g_kernels;
}

const char * lb_kernels(void) { return g_kernels; }

bool lb_attends(enum ggml_type type, int64_t size) {
    bool (*attend)(enum ggml_type, int64_t) =
        (bool (*)(enum ggml_type, int64_t)) kernels_symbol("llamabox_kernels_attend");
    return attend != NULL && attend(type, size);
}

void lb_lock_packed(bool on) {
    void (*lock)(bool) = (void (*)(bool)) kernels_symbol("llamabox_kernels_lock");
    if (lock != NULL) {
        lock(on);
    }
}

size_t lb_untouched(void) {
    size_t (*untouched)(void) = (size_t (*)(void)) added("libllama.", "llamabox_untouched");
    return untouched != NULL ? untouched() : 0;
}

void lb_forget_pages(void * address, size_t n_bytes) {
    madvise(address, n_bytes, MADV_DONTNEED); // what is locked in memory stays
}

// ---- log -------------------------------------------------------------------------------------------------------

void lb_log_callback(enum ggml_log_level level, const char * text, void * user_data) {
    (void) user_data;
    lb_log_write((int32_t) level, text);
}

#ifdef LB_GGML_TELLS_ABORTS
// What ggml aborts for goes where its other lines go, once the reader has taken it; only then a debugger's trace.
static void on_abort(const char * message) {
    lb_log_write(LB_LOG_ERROR, message);
    lb_log_write(LB_LOG_ERROR, "\n");
    if (!lb_log_drain(1000)) {
        fprintf(stderr, "%s\n", message);
    }
    void (*trace)(void) = (void (*)(void)) dlsym(RTLD_DEFAULT, "ggml_print_backtrace");
    if (trace != NULL) {
        trace(); // nothing with GGML_NO_BACKTRACE
    }
}
#endif

void lb_log_install(void) {
#ifdef LB_GGML_TELLS_ABORTS
    ggml_set_abort_callback(on_abort);
#endif
    ggml_log_set(lb_log_callback, NULL);
    llama_log_set(lb_log_callback, NULL);
#ifdef LB_LLAMA_MEDIA
    mtmd_log_set(lb_log_callback, NULL);
#endif
}

// ---- progress of decodes and loads -----------------------------------------------------------------------------

static int64_t n_nodes;

bool lb_count_node(void * data) {
    (void) data;
    // Not an atomic increment: where two contexts compute at a time a count may be lost, which nobody misses.
    __atomic_store_n(&n_nodes, __atomic_load_n(&n_nodes, __ATOMIC_RELAXED) + 1, __ATOMIC_RELAXED);
    return false;
}

int64_t lb_n_nodes(void) { return __atomic_load_n(&n_nodes, __ATOMIC_RELAXED); }

bool lb_load_progress(float progress, void * user_data) {
    struct lb_load_state * state = user_data;
    __atomic_store_n(&state->progress_ppm, (int32_t) (progress * 1e6f), __ATOMIC_RELAXED);
    return __atomic_load_n(&state->cancel, __ATOMIC_RELAXED) == 0;
}

// ---- rpc -------------------------------------------------------------------------------------------------------

uint64_t lb_fnv(const uint8_t * data, size_t size, uint64_t hash) {
    for (size_t i = 0; i < size; i++) {
        hash = (hash ^ data[i]) * 0x100000001b3u;
    }
    return hash;
}
