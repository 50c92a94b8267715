// libllama's sampler "dist", to the last bit of the token it draws, with random numbers that can be taken before the
// candidates are laid out.
#include "llamabox_dist.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MT_SIZE = 624, MT_SHIFT = 397 };

struct dist {
    uint32_t seed;
    uint32_t state[MT_SIZE]; // of std::mt19937
    int32_t  at;
};

static void dist_seed(struct dist * dist) {
    dist->state[0] = dist->seed;
    for (uint32_t i = 1; i < MT_SIZE; i++) {
        const uint32_t last = dist->state[i - 1];
        dist->state[i]      = 1812433253u * (last ^ last >> 30) + i;
    }
    dist->at = MT_SIZE;
}

static uint32_t dist_next(struct dist * dist) {
    uint32_t * state = dist->state;
    if (dist->at == MT_SIZE) {
        for (int32_t i = 0; i < MT_SIZE; i++) {
            const uint32_t bits = (state[i] & 0x80000000u) | (state[(i + 1) % MT_SIZE] & 0x7fffffffu);
            state[i]            = state[(i + MT_SHIFT) % MT_SIZE] ^ bits >> 1 ^ (bits & 1 ? 0x9908b0dfu : 0);
        }
        dist->at = 0;
    }
    uint32_t word = state[dist->at++];
    word ^= word >> 11;
    word ^= word << 7 & 0x9d2c5680u;
    word ^= word << 15 & 0xefc60000u;
    return word ^ word >> 18;
}

// As std::uniform_real_distribution<double>(0, 1) takes it from two words, the lower one first.
double dist_uniform(struct llama_sampler * dist) {
    const double low  = (double) dist_next(dist->ctx);
    const double high = (double) dist_next(dist->ctx);
    const double sum  = (low + high * 4294967296.0) / 18446744073709551616.0;
    return sum < 1.0 ? sum : nextafter(1.0, 0.0);
}

static const char * dist_name(const struct llama_sampler * sampler) {
    (void) sampler;
    return "dist";
}

static void dist_apply(struct llama_sampler * sampler, llama_token_data_array * candidates) {
    llama_token_data * data = candidates->data;
    if (candidates->size == 0) {
        candidates->selected = -1;
        return;
    }
    float max = data[0].logit;
    for (size_t i = 1; !candidates->sorted && i < candidates->size; i++) {
        max = data[i].logit > max ? data[i].logit : max;
    }
    double sum = 0.0;
    for (size_t i = 0; i < candidates->size; i++) {
        data[i].p = expf(data[i].logit - max);
        sum += data[i].p;
    }
    const double target  = sum * dist_uniform(sampler);
    double       so_far  = 0.0;
    candidates->selected = (int64_t) candidates->size - 1;
    for (size_t i = 0; i < candidates->size; i++) {
        so_far += data[i].p;
        if (so_far >= target) {
            candidates->selected = (int64_t) i;
            return;
        }
    }
}

static void dist_reset(struct llama_sampler * sampler) { dist_seed(sampler->ctx); }

static struct llama_sampler * dist_clone(const struct llama_sampler * sampler) {
    struct llama_sampler * clone = lb_sampler_init_dist(0);
    if (clone != NULL) {
        memcpy(clone->ctx, sampler->ctx, sizeof(struct dist));
    }
    return clone;
}

static void dist_free(struct llama_sampler * sampler) { free(sampler->ctx); }

#ifdef LB_LLAMA_SAMPLER_COPY

static void dist_copy_state(const struct llama_sampler * from, struct llama_sampler * to) {
    memcpy(to->ctx, from->ctx, sizeof(struct dist));
}

#endif

static struct llama_sampler_i dist_interface = {
    .name  = dist_name,
    .apply = dist_apply,
    .reset = dist_reset,
    .clone = dist_clone,
    .free  = dist_free,
#ifdef LB_LLAMA_SAMPLER_COPY
    .copy_state = dist_copy_state,
#endif
};

struct llama_sampler * lb_sampler_init_dist(uint32_t seed) {
    struct dist * dist = malloc(sizeof(*dist));
    if (dist == NULL) {
        return NULL;
    }
    dist->seed = seed;
    dist_seed(dist);
    return llama_sampler_init(&dist_interface, dist);
}
