#ifndef _GNU_SOURCE
#define _GNU_SOURCE // dladdr
#endif

#include "llamabox_diffusion.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

const char * lb_library_path(void) {
    Dl_info info;
    return dladdr((void *) sd_version, &info) ? info.dli_fname : NULL;
}

// ---- log and phase -----------------------------------------------------------------------------------------------

static int32_t g_phase;
static int64_t g_called_us;
static int64_t g_began_us;
static int64_t g_ended_us;

static int64_t now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t) now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

// These lines are logged by the thread that draws.
static void watch_phase(const char * text) {
    if (strstr(text, "generating image:")) {
        g_began_us = now_us();
        __atomic_store_n(&g_phase, 1, __ATOMIC_RELAXED);
    } else if (strstr(text, "sampling completed") || strstr(text, "sampling for image")) {
        g_ended_us = now_us();
        __atomic_store_n(&g_phase, 2, __ATOMIC_RELAXED);
    }
}

static void on_log(enum sd_log_level_t level, const char * text, void * data) {
    (void) data;
    watch_phase(text);
    lb_log_write((int32_t) level + LB_LOG_DEBUG, text);
}

void lb_log_install(void) { sd_set_log_callback(on_log, NULL); }

int32_t lb_phase(void) { return __atomic_load_n(&g_phase, __ATOMIC_RELAXED); }

int64_t lb_prepare_us(void) { return g_began_us - g_called_us; }

int64_t lb_sampling_us(void) { return g_ended_us - g_began_us; }

// ---- cancelling -----------------------------------------------------------------------------------------------

// Looked for in the library itself: the module runs beside one that has it, and beside one that has not.
typedef void (*cancel_t)(sd_ctx_t * ctx, int mode);

enum { CANCEL_ALL = 0, CANCEL_RESET = 2 }; // sd_cancel_mode_t

static cancel_t find_cancel(void) {
    const char * path   = lb_library_path();
    void *       handle = path ? dlopen(path, RTLD_LAZY | RTLD_NOLOAD) : NULL;
    if (!handle) {
        return NULL;
    }
    cancel_t found;
    *(void **) &found = dlsym(handle, "sd_cancel_generation");
    dlclose(handle); // only what RTLD_NOLOAD counted up: the library stays
    return found;
}

bool lb_can_cancel(void) { return find_cancel() != NULL; }

bool lb_cancel(sd_ctx_t * ctx) {
    const cancel_t cancel = find_cancel();
    if (!cancel) {
        return false;
    }
    cancel(ctx, CANCEL_ALL);
    return true;
}

// ---- what differs between versions -------------------------------------------------------------------------------

void lb_ctx_params_init(sd_ctx_params_t * params) {
    sd_ctx_params_init(params);
#ifdef LB_SD_FREES_PARAMS
    params->free_params_immediately = false;
#endif
#ifdef LB_SD_DECODES_ONLY
    params->vae_decode_only = false;
#endif
}

sd_image_t * lb_generate(sd_ctx_t * ctx, const sd_img_gen_params_t * params) {
    __atomic_store_n(&g_phase, 0, __ATOMIC_RELAXED);
    g_called_us = g_began_us = g_ended_us = now_us();
    const cancel_t cancel                 = find_cancel();
    if (cancel) {
        cancel(ctx, CANCEL_RESET); // one that came too late for the drawing before
    }
#ifdef LB_SD_RETURNS_BOOL
    sd_image_t * images   = NULL;
    int          n_images = 0;
    if (!generate_image(ctx, params, &images, &n_images)) {
        lb_free_images(images, images ? n_images : 0);
        return NULL;
    }
    return images;
#else
    return generate_image(ctx, params);
#endif
}

void lb_free_image(sd_image_t image) { free(image.data); }

void lb_free_images(sd_image_t * images, int32_t n_images) {
    for (int32_t i = 0; images && i < n_images; i++) {
        free(images[i].data);
    }
    free(images);
}

upscaler_ctx_t * lb_new_upscaler(const char * path, int32_t n_threads, int32_t tile_size) {
#ifdef LB_SD_UPSCALER_BACKENDS
    return new_upscaler_ctx(path, false, false, n_threads, tile_size, NULL, NULL);
#else
    return new_upscaler_ctx(path, false, false, n_threads, tile_size);
#endif
}
