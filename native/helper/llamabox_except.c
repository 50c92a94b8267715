// A sampler around another one, which leaves the logit of one token as it is.
#include <stdlib.h>

#include "llamabox_helper.h"

struct except {
    struct llama_sampler * inner;
    llama_token            token;
};

static const char * except_name(const struct llama_sampler * sampler) {
    return llama_sampler_name(((const struct except *) sampler->ctx)->inner);
}

static void except_accept(struct llama_sampler * sampler, llama_token token) {
    llama_sampler_accept(((struct except *) sampler->ctx)->inner, token);
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

static void except_apply(struct llama_sampler * sampler, llama_token_data_array * candidates) {
    const struct except * except = sampler->ctx;
    size_t                at     = index_of(candidates, except->token);
    if (at == candidates->size) { // an earlier sampler dropped it
        llama_sampler_apply(except->inner, candidates);
        return;
    }
    const float logit = candidates->data[at].logit;
    llama_sampler_apply(except->inner, candidates);
    at = index_of(candidates, except->token);
    if (at < candidates->size) {
        candidates->data[at].logit = logit;
    }
}

static void except_reset(struct llama_sampler * sampler) {
    llama_sampler_reset(((struct except *) sampler->ctx)->inner);
}

static struct llama_sampler * except_clone(const struct llama_sampler * sampler) {
    const struct except * except = sampler->ctx;
    return lb_sampler_init_except(llama_sampler_clone(except->inner), except->token);
}

static void except_free(struct llama_sampler * sampler) {
    struct except * except = sampler->ctx;
    llama_sampler_free(except->inner);
    free(except);
}

#ifdef LB_LLAMA_SAMPLER_COPY

static void except_copy_state(const struct llama_sampler * from, struct llama_sampler * to) {
    llama_sampler_copy(((const struct except *) from->ctx)->inner, ((struct except *) to->ctx)->inner);
}

#endif

static struct llama_sampler_i except_interface = {
    .name   = except_name,
    .accept = except_accept,
    .apply  = except_apply,
    .reset  = except_reset,
    .clone  = except_clone,
    .free   = except_free,
#ifdef LB_LLAMA_SAMPLER_COPY
    .copy_state = except_copy_state,
#endif
};

struct llama_sampler * lb_sampler_init_except(struct llama_sampler * inner, llama_token token) {
    struct except * except = inner ? malloc(sizeof(*except)) : NULL;
    if (except == NULL) {
        llama_sampler_free(inner);
        return NULL;
    }
    *except = (struct except) { inner, token };
    return llama_sampler_init(&except_interface, except);
}
