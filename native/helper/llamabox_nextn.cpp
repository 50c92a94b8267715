// The functions of llama.cpp's multi-token prediction (src/llama-ext.h), which libllama exports with C++ names only:
// the compiler makes those names here, from declarations. They are weak: where a libllama lacks one, or has it with
// other arguments, lb_nextn_heads() says that there are no heads, and nothing else here is called.

extern "C" {
#include "llamabox_helper.h"
}

#ifdef __APPLE__
#define LB_OPTIONAL __attribute__((weak_import))
#else
#define LB_OPTIONAL __attribute__((weak))
#endif

LB_OPTIONAL void llama_set_embeddings_nextn(struct llama_context * ctx, bool value, bool masked);
LB_OPTIONAL void llama_set_nextn_layer_offset(struct llama_context * ctx, int32_t offset);
LB_OPTIONAL float * llama_get_embeddings_nextn(struct llama_context * ctx);
LB_OPTIONAL float * llama_get_embeddings_nextn_ith(struct llama_context * ctx, int32_t i);

extern "C" {

#ifdef LB_LLAMA_MTP // llama.h knows contexts for the heads

int32_t lb_nextn_heads(const struct llama_model * model) {
    const bool is_whole = llama_set_embeddings_nextn != nullptr && llama_set_nextn_layer_offset != nullptr
        && llama_get_embeddings_nextn != nullptr && llama_get_embeddings_nextn_ith != nullptr;
    return is_whole ? llama_model_n_layer_nextn(model) : 0;
}

void lb_nextn_load(struct llama_model_params * params) {
    params->load_mtp = true;
}

void lb_nextn_context(struct llama_context_params * params, struct llama_context * target) {
    params->ctx_type = LLAMA_CONTEXT_TYPE_MTP;
    params->ctx_other = target;
}

#else

int32_t lb_nextn_heads(const struct llama_model * model) {
    (void) model;
    return 0;
}

void lb_nextn_load(struct llama_model_params * params) {
    (void) params;
}

void lb_nextn_context(struct llama_context_params * params, struct llama_context * target) {
    (void) params;
    (void) target;
}

#endif

void lb_nextn_keep(struct llama_context * ctx, bool on, bool only_outputs) {
    llama_set_embeddings_nextn(ctx, on, only_outputs);
}

void lb_nextn_use_head(struct llama_context * ctx, int32_t head) {
    llama_set_nextn_layer_offset(ctx, head);
}

const float * lb_nextn_rows(struct llama_context * ctx) {
    return llama_get_embeddings_nextn(ctx);
}

const float * lb_nextn_row(struct llama_context * ctx, int32_t i) {
    return llama_get_embeddings_nextn_ith(ctx, i);
}
}
