// For LD_PRELOAD: libraries of ggml's CPU backend see a processor that lacks features, or has more than this one.
//
// MASKED_PROCESSOR is a list such as "7.0.ebx.5=0 1.0.ecx.28=1": leaf, subleaf and register of CPUID, and a bit of it.
// Each CPUID that ggml_backend_score runs is replaced by a breakpoint, whose handler answers in its place.
#define _GNU_SOURCE
#include <cpuid.h>
#include <dlfcn.h>
#include <link.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

static const int REGISTERS[4] = { REG_RAX, REG_RBX, REG_RCX, REG_RDX };

static void answer(int signal, siginfo_t * info, void * context) {
    (void) signal;
    (void) info;
    greg_t *       registers = ((ucontext_t *) context)->uc_mcontext.gregs;
    const uint32_t leaf = (uint32_t) registers[REG_RAX], subleaf = (uint32_t) registers[REG_RCX];
    uint32_t       values[4];
    __cpuid_count(leaf, subleaf, values[0], values[1], values[2], values[3]);
    const char * wanted = getenv("MASKED_PROCESSOR");
    for (int length = 0; wanted; wanted += length) {
        unsigned in_leaf, in_subleaf, bit, on;
        char     name;
        if (sscanf(wanted, " %x.%x.e%cx.%u=%u%n", &in_leaf, &in_subleaf, &name, &bit, &on, &length) != 5) {
            break;
        }
        if (in_leaf == leaf && in_subleaf == subleaf) {
            uint32_t * value = &values[name - 'a'];
            *value           = (*value & ~(1u << bit)) | on << bit;
        }
    }
    for (int i = 0; i < 4; i++) {
        registers[REGISTERS[i]] = values[i];
    }
}

static void mask(void * library) {
    unsigned char *        code = dlsym(library, "ggml_backend_score");
    const ElfW(Sym) *      symbol;
    Dl_info                info;
    const struct sigaction act = { .sa_sigaction = answer, .sa_flags = SA_SIGINFO };
    if (!code || !dladdr1(code, &info, (void **) &symbol, RTLD_DL_SYMENT)) {
        return;
    }
    const uintptr_t page  = (uintptr_t) sysconf(_SC_PAGESIZE);
    const uintptr_t begin = (uintptr_t) code & ~(page - 1), end = (uintptr_t) code + symbol->st_size;
    if (sigaction(SIGTRAP, &act, NULL) != 0 ||
        mprotect((void *) begin, end - begin, PROT_READ | PROT_WRITE | PROT_EXEC) != 0) {
        abort();
    }
    for (size_t i = 0; i + 1 < symbol->st_size; i++) {
        if (code[i] == 0x0f && code[i + 1] == 0xa2) {
            code[i]     = 0xcc;  // int3
            code[i + 1] = 0x90;  // nop
        }
    }
}

void * dlopen(const char * path, int flags) {
    void * (*const real)(const char *, int) = (void * (*) (const char *, int) ) dlsym(RTLD_NEXT, "dlopen");
    void * library                          = real(path, flags);
    if (library && path && strstr(path, "libggml-cpu-")) {
        mask(library);
    }
    return library;
}
