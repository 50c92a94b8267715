// What llamabox uses of stable-diffusion.h, in its order.

enum sample_method_t { SAMPLE_METHOD_COUNT, ... };
enum scheduler_t { SCHEDULER_COUNT, ... };
enum preview_t { PREVIEW_NONE, PREVIEW_PROJ, PREVIEW_TAE, PREVIEW_VAE, ... };
enum lora_apply_mode_t { LORA_APPLY_AUTO, ... };

typedef struct {
    bool enabled;
    float target_overlap;
    ...;
} sd_tiling_params_t;

typedef struct {
    const char* model_path;
    const char* clip_l_path;
    const char* clip_g_path;
    const char* t5xxl_path;
    const char* diffusion_model_path;
    const char* vae_path;
    const char* taesd_path;
    const char* control_net_path;
    int n_threads;
    enum lora_apply_mode_t lora_apply_mode;
    bool enable_mmap;
    bool keep_clip_on_cpu;
    bool keep_control_net_on_cpu;
    bool keep_vae_on_cpu;
    bool flash_attn;
    bool diffusion_flash_attn;
    ...;
} sd_ctx_params_t;

typedef struct {
    uint32_t width;
    uint32_t height;
    uint32_t channel;
    uint8_t* data;
} sd_image_t;

typedef struct {
    int* layers;
    size_t layer_count;
    float layer_start;
    float layer_end;
    float scale;
} sd_slg_params_t;

typedef struct {
    float txt_cfg;
    float distilled_guidance;
    sd_slg_params_t slg;
    ...;
} sd_guidance_params_t;

typedef struct {
    sd_guidance_params_t guidance;
    enum scheduler_t scheduler;
    enum sample_method_t sample_method;
    int sample_steps;
    float eta;
    ...;
} sd_sample_params_t;

typedef struct {
    bool is_high_noise;
    float multiplier;
    const char* path;
    ...;
} sd_lora_t;

typedef struct {
    const sd_lora_t* loras;
    uint32_t lora_count;
    const char* prompt;
    const char* negative_prompt;
    int clip_skip;
    sd_image_t init_image;
    sd_image_t mask_image;
    int width;
    int height;
    sd_sample_params_t sample_params;
    float strength;
    int64_t seed;
    int batch_count;
    sd_image_t control_image;
    float control_strength;
    sd_tiling_params_t vae_tiling_params;
    ...;
} sd_img_gen_params_t;

typedef struct sd_ctx_t sd_ctx_t;

typedef void (*sd_progress_cb_t)(int step, int steps, float time, void* data);
typedef void (*sd_preview_cb_t)(int step, int frame_count, sd_image_t* frames, bool is_noisy, void* data);

void sd_set_progress_callback(sd_progress_cb_t cb, void* data);
void sd_set_preview_callback(sd_preview_cb_t cb, enum preview_t mode, int interval, bool denoised, bool noisy, void* data);
int32_t sd_get_num_physical_cores();
const char* sd_get_system_info();
bool sd_ctx_supports_image_generation(const sd_ctx_t* sd_ctx);

const char* sd_sample_method_name(enum sample_method_t sample_method);
const char* sd_scheduler_name(enum scheduler_t scheduler);

sd_ctx_t* new_sd_ctx(const sd_ctx_params_t* sd_ctx_params);
void free_sd_ctx(sd_ctx_t* sd_ctx);

enum sample_method_t sd_get_default_sample_method(const sd_ctx_t* sd_ctx);
enum scheduler_t sd_get_default_scheduler(const sd_ctx_t* sd_ctx, enum sample_method_t sample_method);

void sd_img_gen_params_init(sd_img_gen_params_t* sd_img_gen_params);

typedef struct upscaler_ctx_t upscaler_ctx_t;

void free_upscaler_ctx(upscaler_ctx_t* upscaler_ctx);
sd_image_t upscale(upscaler_ctx_t* upscaler_ctx, sd_image_t input_image, uint32_t upscale_factor);
int get_upscale_factor(upscaler_ctx_t* upscaler_ctx);

bool preprocess_canny(sd_image_t image, float high_threshold, float low_threshold, float weak, float strong, bool inverse);

const char* sd_commit(void);
const char* sd_version(void);
