// What Python must not do itself around libstable-diffusion, and what differs between its versions: build_native.py
// defines the LB_SD_* macros by what it finds in the header. Declarations are fed to cffi, without preprocessor lines.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "llamabox_log.h"
#include "stable-diffusion.h"

// Bumped whenever a name or meaning below changes. llamabox/bindings/ffi.py refuses a module with another number.
enum { LB_IMAGES_INTERFACE = 1 };

// Path of the shared library that the module's symbols came from, or NULL. Static storage.
const char * lb_library_path(void);

// Send the library's log to llamabox_log.h. Not thread-safe: before any model is loaded.
void lb_log_install(void);

// The library's defaults, but: parameters stay in memory after an image, and pictures can be encoded.
void lb_ctx_params_init(sd_ctx_params_t * params);

// Draw params->batch_count images. NULL, or an array for lb_free_images(); an image that failed has no data.
sd_image_t * lb_generate(sd_ctx_t * ctx, const sd_img_gen_params_t * params);
void         lb_free_images(sd_image_t * images, int32_t n_images);

// Free the data of one image that the library returned.
void lb_free_image(sd_image_t image);

upscaler_ctx_t * lb_new_upscaler(const char * path, int32_t n_threads, int32_t tile_size);

// Whether this library can stop a drawing that has begun, and doing so; false where it cannot. Any thread.
bool lb_can_cancel(void);
bool lb_cancel(sd_ctx_t * ctx);

// What lb_generate() is at, by the lines that the library logs, since it reports tiles and steps alike: 0 preparing,
// 1 sampling, 2 after it. Then how long the first two of the last call took.
int32_t lb_phase(void);
int64_t lb_prepare_us(void);
int64_t lb_sampling_us(void);
