// libllama's sampler "dry", to the last bit of a logit. That one looks each sequence breaker up in the whole vocabulary
// when it is made, a tenth of a second for each, and a clone copies what it found; here samplers share it.
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "llamabox_helper.h"

enum { MAX_BREAKER = 40, MAX_TAIL = 20 }; // bytes and tokens that libllama looks at

struct lb_texts {
    int32_t   n_tokens;
    int32_t * start; // of token i in data; start[n_tokens] is the end
    char *    data;
};

struct tail {
    int32_t     length;
    llama_token tokens[MAX_TAIL];
};

// A token that a breaker may begin with, and what must follow it: an entry of the list that first[token] begins.
struct entry {
    int32_t tail;
    int32_t next; // -1: none
};

struct lb_breakers {
    atomic_int     n_owners;
    int32_t        n_tokens;
    int32_t *      first; // by token; -1: no breaker begins with it
    struct entry * entries;
    int32_t        n_entries;
    struct tail *  tails;
    int32_t        n_tails;
};

void lb_texts_free(struct lb_texts * texts) {
    if (texts != NULL) {
        free(texts->start);
        free(texts->data);
        free(texts);
    }
}

struct lb_texts * lb_texts_make(const struct llama_vocab * vocab) {
    struct lb_texts * texts = calloc(1, sizeof(*texts));
    if (texts == NULL) {
        return NULL;
    }
    texts->n_tokens = llama_vocab_n_tokens(vocab);
    texts->start    = calloc((size_t) texts->n_tokens + 1, sizeof(int32_t));
    size_t room     = 4096;
    texts->data     = malloc(room);
    const bool good = texts->start != NULL && texts->data != NULL;
    for (llama_token token = 0; good && token < texts->n_tokens; token++) {
        const int32_t at = texts->start[token];
        int32_t       n  = llama_detokenize(vocab, &token, 1, texts->data + at, (int32_t) room - at, false, true);
        if (n < 0) {
            room        = 2 * ((size_t) at + (size_t) -n) + 4096;
            char * data = realloc(texts->data, room);
            if (data == NULL) {
                break;
            }
            texts->data = data;
            n           = llama_detokenize(vocab, &token, 1, data + at, (int32_t) room - at, false, true);
        }
        texts->start[token + 1] = at + (n > 0 ? n : 0);
        if (token + 1 == texts->n_tokens) {
            return texts;
        }
    }
    lb_texts_free(texts);
    return NULL;
}

void lb_breakers_free(struct lb_breakers * breakers) {
    if (breakers != NULL && atomic_fetch_sub(&breakers->n_owners, 1) == 1) {
        free(breakers->first);
        free(breakers->entries);
        free(breakers->tails);
        free(breakers);
    }
}

// Note that `tail` may follow `token`, unless that is known. False where there is no memory.
static bool note(struct lb_breakers * breakers, llama_token token, int32_t tail) {
    const struct tail * wanted = &breakers->tails[tail];
    for (int32_t at = breakers->first[token]; at >= 0; at = breakers->entries[at].next) {
        const struct tail * known = &breakers->tails[breakers->entries[at].tail];
        if (known->length == wanted->length
            && memcmp(known->tokens, wanted->tokens, sizeof(llama_token) * (size_t) wanted->length) == 0) {
            return true;
        }
    }
    const int32_t n = breakers->n_entries;
    if ((n & (n - 1)) == 0) { // full: its room is a power of two
        struct entry * grown = realloc(breakers->entries, sizeof(*grown) * (n ? 2 * (size_t) n : 1));
        if (grown == NULL) {
            return false;
        }
        breakers->entries = grown;
    }
    breakers->entries[n]   = (struct entry) { tail, breakers->first[token] };
    breakers->first[token] = breakers->n_entries++;
    return true;
}

// The index of a new tail: the n bytes of a breaker's rest, as tokens.
static int32_t tail_of(struct lb_breakers * breakers, const struct llama_vocab * vocab, const char * text, int32_t n) {
    struct tail * tail = &breakers->tails[breakers->n_tails];
    llama_token   tokens[2 * MAX_BREAKER + 2];
    const int32_t n_found = n ? llama_tokenize(vocab, text, n, tokens, 2 * MAX_BREAKER + 2, false, false) : 0;
    tail->length          = n_found < 0 ? 0 : n_found < MAX_TAIL ? n_found : MAX_TAIL;
    memcpy(tail->tokens, tokens, sizeof(llama_token) * (size_t) tail->length);
    return breakers->n_tails++;
}

static bool contains(const char * text, int32_t n_text, const char * word, int32_t n_word) {
    for (int32_t at = 0; at + n_word <= n_text; at++) {
        if (text[at] == word[0] && memcmp(text + at, word, (size_t) n_word) == 0) {
            return true;
        }
    }
    return false;
}

// All tokens that hold the breaker, or end with its beginning: what follows then is its rest.
static bool add(struct lb_breakers * breakers, const struct llama_vocab * vocab, const struct lb_texts * texts,
                const char * word, int32_t n_word) {
    int32_t tails[MAX_BREAKER + 1]; // by the number of bytes that the head has; -1: not yet made
    memset(tails, -1, sizeof(tails));
    for (llama_token token = 0; token < texts->n_tokens; token++) {
        const char *  text   = texts->data + texts->start[token];
        const int32_t n_text = texts->start[token + 1] - texts->start[token];
        const bool    is_in  = contains(text, n_text, word, n_word);
        for (int32_t n = is_in ? n_word : n_text < n_word ? n_text : n_word - 1; n > 0; n = is_in ? 0 : n - 1) {
            if (!is_in && memcmp(text + n_text - n, word, (size_t) n) != 0) {
                continue;
            }
            if (tails[n] < 0) {
                tails[n] = tail_of(breakers, vocab, word + n, n_word - n);
            }
            if (!note(breakers, token, tails[n])) {
                return false;
            }
        }
    }
    return true;
}

struct lb_breakers * lb_breakers_make(const struct llama_vocab * vocab, const struct lb_texts * texts,
                                      const char ** words, int32_t n_words) {
    struct lb_breakers * breakers = calloc(1, sizeof(*breakers));
    if (breakers == NULL) {
        return NULL;
    }
    atomic_init(&breakers->n_owners, 1);
    breakers->n_tokens = texts->n_tokens;
    breakers->first    = malloc(sizeof(int32_t) * (size_t) texts->n_tokens);
    breakers->tails    = malloc(sizeof(struct tail) * ((size_t) n_words * MAX_BREAKER + 1));
    bool good          = breakers->first != NULL && breakers->tails != NULL;
    if (good) {
        memset(breakers->first, -1, sizeof(int32_t) * (size_t) texts->n_tokens);
    }
    for (int32_t i = 0; good && i < n_words; i++) {
        const size_t n = strlen(words[i]);
        good           = n == 0 || add(breakers, vocab, texts, words[i], n < MAX_BREAKER ? (int32_t) n : MAX_BREAKER);
    }
    if (!good) {
        lb_breakers_free(breakers);
        return NULL;
    }
    return breakers;
}

struct dry {
    float                multiplier;
    float                base;
    int32_t              allowed_length;
    int32_t              last_n;
    struct lb_breakers * breakers;
    llama_token *        history; // a ring of last_n
    int32_t              n_history;
    int32_t              at;      // where the next one goes
    int32_t *            repeats; // scratch: last_n counts; NULL before the first use
    int32_t *            longest; // by token: the longest repetition that it would go on with; all 0 between two uses
};

static const char * dry_name(const struct llama_sampler * sampler) {
    (void) sampler;
    return "dry";
}

static void dry_accept(struct llama_sampler * sampler, llama_token token) {
    struct dry * dry      = sampler->ctx;
    dry->history[dry->at] = token;
    dry->at               = dry->at + 1 == dry->last_n ? 0 : dry->at + 1;
    dry->n_history += dry->n_history < dry->last_n;
}

// The token i places before the last one.
static llama_token back(const struct dry * dry, int32_t i) {
    const int32_t at = dry->at - 1 - i;
    return dry->history[at < 0 ? at + dry->last_n : at];
}

static int32_t at_most(int32_t n, int32_t limit) { return n < limit ? n : limit; }

// How far back a repetition may reach: to the last breaker, or over the whole history.
static int32_t limit_of(const struct dry * dry) {
    const struct lb_breakers * breakers = dry->breakers;
    for (int32_t i = 0; i < dry->n_history; i++) {
        int32_t longest = -1;
        for (int32_t at = breakers->first[back(dry, i)]; at >= 0; at = breakers->entries[at].next) {
            const struct tail * tail = &breakers->tails[breakers->entries[at].tail];
            int32_t             n    = 0;
            while (n < tail->length && n < i && tail->tokens[n] == back(dry, i - n - 1)) {
                n++;
            }
            if (n == tail->length && n > longest) {
                longest = n;
            }
        }
        if (longest >= 0) {
            return i - longest;
        }
    }
    return dry->n_history;
}

// repeats[n - 1 - k]: how many tokens up to the one k places before the last equal as many at the end (Z-algorithm).
static void count_repeats(struct dry * dry, int32_t limit) {
    const int32_t n_history = dry->n_history, last = n_history - 1;
    int32_t *     repeats = dry->repeats;
    memset(repeats, 0, sizeof(int32_t) * (size_t) n_history);
    int32_t left = 0, right = 0;
    for (int32_t k = 1; k < n_history; k++) {
        if (k <= right && repeats[last - (k - left)] < right - k + 1) {
            repeats[last - k] = at_most(repeats[last - (k - left)], limit);
            continue;
        }
        const bool inside = k <= right;
        int32_t    end    = inside ? right + 1 : k;
        while (end < n_history && back(dry, end) == back(dry, end - k)) {
            end++;
        }
        repeats[last - k] = at_most(end - k, limit);
        if (inside || end > k) {
            left  = k;
            right = end - 1;
        }
    }
}

static bool breaks_alone(const struct lb_breakers * breakers, llama_token token) {
    for (int32_t at = breakers->first[token]; at >= 0; at = breakers->entries[at].next) {
        if (breakers->tails[breakers->entries[at].tail].length == 0) {
            return true;
        }
    }
    return false;
}

static bool has_scratch(struct dry * dry) {
    if (dry->repeats == NULL) {
        dry->repeats = malloc(sizeof(int32_t) * (size_t) dry->last_n);
    }
    if (dry->longest == NULL) {
        dry->longest = calloc((size_t) dry->breakers->n_tokens, sizeof(int32_t));
    }
    return dry->repeats != NULL && dry->longest != NULL;
}

static void dry_apply(struct llama_sampler * sampler, llama_token_data_array * candidates) {
    struct dry * dry = sampler->ctx;
    if (dry->n_history <= dry->allowed_length || !has_scratch(dry)) {
        return;
    }
    const int32_t limit = limit_of(dry);
    if (limit < dry->allowed_length) {
        return;
    }
    count_repeats(dry, limit);
    // Kept one higher, so that 0 is none: a length of 0 counts where allowed_length is 0.
    const int32_t last = dry->n_history - 1;
    for (int32_t i = 0; i < last; i++) {
        if (dry->repeats[i] >= dry->allowed_length) {
            int32_t * longest = &dry->longest[back(dry, last - 1 - i)];
            *longest          = *longest > dry->repeats[i] ? *longest : dry->repeats[i] + 1;
        }
    }
    const int32_t max_exponent = dry->base > 1.000001f ? (int32_t) (88.7228391f / logf(dry->base)) : 0;
    for (size_t i = 0; i < candidates->size; i++) {
        const llama_token token = candidates->data[i].id;
        if (dry->longest[token] > 0 && !breaks_alone(dry->breakers, token)) {
            int32_t exponent    = dry->longest[token] - 1 - dry->allowed_length;
            exponent            = max_exponent > 0 ? at_most(exponent, max_exponent) : exponent;
            const float penalty = (float) (dry->multiplier * pow((double) dry->base, exponent));
            candidates->data[i].logit -= penalty;
        }
    }
    for (int32_t i = 0; i < last; i++) {
        dry->longest[back(dry, last - 1 - i)] = 0;
    }
    candidates->sorted = false;
}

static void dry_reset(struct llama_sampler * sampler) {
    struct dry * dry = sampler->ctx;
    dry->n_history = dry->at = 0;
}

static void dry_free(struct llama_sampler * sampler) {
    struct dry * dry = sampler->ctx;
    lb_breakers_free(dry->breakers);
    free(dry->history);
    free(dry->repeats);
    free(dry->longest);
    free(dry);
}

static struct llama_sampler * dry_clone(const struct llama_sampler * sampler) {
    const struct dry *     dry = sampler->ctx;
    struct llama_sampler * clone =
        lb_sampler_init_dry(dry->breakers, dry->multiplier, dry->base, dry->allowed_length, dry->last_n);
    if (clone != NULL) {
        struct dry * copy = clone->ctx;
        memcpy(copy->history, dry->history, sizeof(llama_token) * (size_t) dry->n_history);
        copy->n_history = dry->n_history;
        copy->at        = dry->at;
    }
    return clone;
}

#ifdef LB_LLAMA_SAMPLER_COPY

static void dry_copy_state(const struct llama_sampler * from, struct llama_sampler * to) {
    const struct dry * source = from->ctx;
    struct dry *       target = to->ctx;
    memcpy(target->history, source->history, sizeof(llama_token) * (size_t) source->n_history);
    target->n_history = source->n_history;
    target->at        = source->at;
}

#endif

static struct llama_sampler_i dry_interface = {
    .name   = dry_name,
    .accept = dry_accept,
    .apply  = dry_apply,
    .reset  = dry_reset,
    .clone  = dry_clone,
    .free   = dry_free,
#ifdef LB_LLAMA_SAMPLER_COPY
    .copy_state = dry_copy_state,
#endif
};

struct llama_sampler * lb_sampler_init_dry(struct lb_breakers * breakers, float multiplier, float base,
                                           int32_t allowed_length, int32_t last_n) {
    if (multiplier == 0.0f || base < 1.0f || last_n <= 0) { // as libllama has it, it is off then
#ifdef LB_LLAMA_DRY_TAKES_CONTEXT
        return llama_sampler_init_dry(NULL, 0, 0.0f, base, allowed_length, 0, NULL, 0);
#else
        return llama_sampler_init_dry(NULL, 0.0f, base, allowed_length, 0, NULL, 0);
#endif
    }
    struct dry *  dry     = calloc(1, sizeof(*dry));
    llama_token * history = malloc(sizeof(llama_token) * (size_t) last_n);
    if (dry == NULL || history == NULL) {
        free(dry);
        free(history);
        return NULL;
    }
    atomic_fetch_add(&breakers->n_owners, 1);
    *dry = (struct dry) { multiplier, base, allowed_length, last_n, breakers, history, 0, 0, NULL, NULL };
    return llama_sampler_init(&dry_interface, dry);
}
