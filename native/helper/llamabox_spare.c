// A sampler around another one, which spares one token from it.
#include <stdlib.h>

#include "llamabox_helper.h"

struct spare {
    struct llama_sampler * inner;
    llama_token            token;
};

static const char * spare_name(const struct llama_sampler * sampler) {
    return llama_sampler_name(((const struct spare *) sampler->ctx)->inner);
}

static void spare_accept(struct llama_sampler * sampler, llama_token token) {
    llama_sampler_accept(((struct spare *) sampler->ctx)->inner, token);
}

// Where the token is among the candidates, or their number. A fresh row has every token at its own index.
static size_t index_of(const llama_token_data_array * candidates, llama_token token) {
    if ((size_t) token < candidates->size && candidates->data[token].id == token) {
        return (size_t) token;
    }
    size_t at = 0;
    while (at < candidates->size && candidates->data[at].id != token) {
        at++;
    }
    return at;
}

static void spare_apply(struct llama_sampler * sampler, llama_token_data_array * candidates) {
    const struct spare * spare = sampler->ctx;
    size_t               at    = index_of(candidates, spare->token);
    if (at == candidates->size) { // an earlier sampler dropped it
        llama_sampler_apply(spare->inner, candidates);
        return;
    }
    const float logit = candidates->data[at].logit;
    llama_sampler_apply(spare->inner, candidates);
    at = index_of(candidates, spare->token);
    if (at < candidates->size) {
        candidates->data[at].logit = logit;
    }
}

static void spare_reset(struct llama_sampler * sampler) { llama_sampler_reset(((struct spare *) sampler->ctx)->inner); }

static struct llama_sampler * spare_clone(const struct llama_sampler * sampler) {
    const struct spare * spare = sampler->ctx;
    return lb_sampler_init_spare(llama_sampler_clone(spare->inner), spare->token);
}

static void spare_free(struct llama_sampler * sampler) {
    struct spare * spare = sampler->ctx;
    llama_sampler_free(spare->inner);
    free(spare);
}

static void spare_copy_state(const struct llama_sampler * from, struct llama_sampler * to) {
    llama_sampler_copy(((const struct spare *) from->ctx)->inner, ((struct spare *) to->ctx)->inner);
}

static struct llama_sampler_i spare_interface = {
    .name       = spare_name,
    .accept     = spare_accept,
    .apply      = spare_apply,
    .reset      = spare_reset,
    .clone      = spare_clone,
    .free       = spare_free,
    .copy_state = spare_copy_state,
};

struct llama_sampler * lb_sampler_init_spare(struct llama_sampler * inner, llama_token token) {
    struct spare * spare = inner ? malloc(sizeof(*spare)) : NULL;
    if (spare == NULL) {
        llama_sampler_free(inner);
        return NULL;
    }
    *spare = (struct spare) { inner, token };
    return llama_sampler_init(&spare_interface, spare);
}
