// mtmd.h: image and audio chunks of a prompt.

//if media
enum mtmd_input_chunk_type {
    MTMD_INPUT_CHUNK_TYPE_TEXT,
    MTMD_INPUT_CHUNK_TYPE_IMAGE,
    MTMD_INPUT_CHUNK_TYPE_AUDIO,
    ...
};

typedef struct mtmd_context      mtmd_context;
typedef struct mtmd_bitmap       mtmd_bitmap;
typedef struct mtmd_image_tokens mtmd_image_tokens;
typedef struct mtmd_input_chunk  mtmd_input_chunk;
typedef struct mtmd_input_chunks mtmd_input_chunks;
typedef struct mtmd_batch        mtmd_batch;

typedef struct mtmd_input_text {
    const char * text;
    size_t text_len;
    bool add_special;
    bool parse_special;
    ...;
} mtmd_input_text;

typedef struct mtmd_input_part {
    const struct mtmd_input_text * text;
    const struct mtmd_bitmap * bitmap;
    ...;
} mtmd_input_part;

struct mtmd_context_params {
    bool use_gpu;
    ggml_backend_dev_t device;
    bool print_timings;
    int n_threads;
    enum llama_flash_attn_type flash_attn_type;
    bool warmup;
    int image_min_tokens;
    int image_max_tokens;
    int32_t batch_max_tokens;
    ...;
};

struct mtmd_context_params mtmd_context_params_default(void);

mtmd_context * mtmd_init_from_file(const char * mmproj_fname, const struct llama_model * text_model, const struct mtmd_context_params ctx_params);
void           mtmd_free(mtmd_context * ctx);

bool mtmd_decode_use_non_causal(const mtmd_context * ctx, const mtmd_input_chunk * chunk);
bool mtmd_decode_use_mrope(const mtmd_context * ctx);
bool mtmd_support_vision(const mtmd_context * ctx);
bool mtmd_support_audio(const mtmd_context * ctx);
int  mtmd_get_audio_sample_rate(const mtmd_context * ctx);

mtmd_bitmap * mtmd_bitmap_init(uint32_t nx, uint32_t ny, const unsigned char * data);
mtmd_bitmap * mtmd_bitmap_init_from_audio(size_t n_samples, const float * data);
void          mtmd_bitmap_free(mtmd_bitmap * bitmap);
uint32_t      mtmd_bitmap_get_nx(const mtmd_bitmap * bitmap);
uint32_t      mtmd_bitmap_get_ny(const mtmd_bitmap * bitmap);
bool          mtmd_bitmap_is_audio(const mtmd_bitmap * bitmap);
const char *  mtmd_bitmap_get_id(const mtmd_bitmap * bitmap);
void          mtmd_bitmap_set_id(mtmd_bitmap * bitmap, const char * id);

mtmd_input_chunks *      mtmd_input_chunks_init(void);
size_t                   mtmd_input_chunks_size(const mtmd_input_chunks * chunks);
const mtmd_input_chunk * mtmd_input_chunks_get(const mtmd_input_chunks * chunks, size_t idx);
void                     mtmd_input_chunks_free(mtmd_input_chunks * chunks);

enum mtmd_input_chunk_type mtmd_input_chunk_get_type(const mtmd_input_chunk * chunk);
const llama_token *        mtmd_input_chunk_get_tokens_text(const mtmd_input_chunk * chunk, size_t * n_tokens_output);
const mtmd_image_tokens *  mtmd_input_chunk_get_tokens_image(const mtmd_input_chunk * chunk);
size_t                     mtmd_input_chunk_get_n_tokens(const mtmd_input_chunk * chunk);
const char *               mtmd_input_chunk_get_id(const mtmd_input_chunk * chunk);
llama_pos                  mtmd_input_chunk_get_n_pos(const mtmd_input_chunk * chunk);
mtmd_input_chunk *         mtmd_input_chunk_copy(const mtmd_input_chunk * chunk);
void                       mtmd_input_chunk_free(mtmd_input_chunk * chunk);
int32_t                    mtmd_input_chunk_save(const mtmd_input_chunk * chunk, char * out_buf, size_t out_len, size_t * expected_out_len);

struct mtmd_decoder_pos {
    uint32_t t;
    uint32_t x;
    uint32_t y;
    uint32_t z;
};

struct mtmd_decoder_pos mtmd_image_tokens_get_decoder_pos(const mtmd_image_tokens * image_tokens, llama_pos pos_0, size_t i);

int32_t mtmd_tokenize_from_parts(const mtmd_context * ctx, mtmd_input_chunks * output, const mtmd_input_part * const * parts, size_t n_parts, bool add_special);
int32_t mtmd_encode_chunk(mtmd_context * ctx, const mtmd_input_chunk * chunk);
float * mtmd_get_output_embd(mtmd_context * ctx);

mtmd_batch * mtmd_batch_init(mtmd_context * ctx);
void         mtmd_batch_free(mtmd_batch * batch);
int32_t      mtmd_batch_add_chunk(mtmd_batch * batch, const mtmd_input_chunk * chunk);
int32_t      mtmd_batch_encode(mtmd_batch * batch);
float *      mtmd_batch_get_output_embd(mtmd_batch * batch, const mtmd_input_chunk * chunk);

void mtmd_log_set(ggml_log_callback log_callback, void * user_data);

struct mtmd_caps {
    bool inp_vision;
    bool inp_audio;
    ...;
};

struct mtmd_caps mtmd_get_cap_from_file(const char * mmproj_fname);
//end
