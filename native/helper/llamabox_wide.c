// Everything here gives what libllama's own samplers give, to the last bit of the numbers that decide: the same seed
// draws the same token. libllama sorts many candidates, and takes their exponentials, though they cannot matter. They
// are skipped here where that can be shown.

#include "llamabox_wide.h"

#include <stdlib.h>
#include <string.h>

#include "llamabox_dist.h"
#include "llamabox_scan.h"

bool wide_room_make(struct wide_room * room, int32_t n_vocab) {
    free(room->chosen);
    free(room->logits);
    free(room->sums);
    free(room->maxima);
    free(room->order);
    room->chosen = malloc(((size_t) n_vocab + 1) * sizeof(*room->chosen));
    room->logits = malloc((size_t) n_vocab * sizeof(*room->logits));
    room->sums   = malloc((size_t) n_blocks_of(n_vocab) * sizeof(*room->sums));
    room->maxima = malloc((size_t) n_blocks_of(n_vocab) * sizeof(*room->maxima));
    room->order  = malloc((size_t) n_vocab * sizeof(*room->order));
    return room->chosen && room->logits && room->sums && room->maxima && room->order;
}

// ---- a draw from all -------------------------------------------------------------------------------------------

// 2^k for k from -126 to 127.
static inline float power_of_two(int32_t k) {
    const int32_t bits = (k + 127) * (1 << 23);
    float         value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

// The sum of exp(logit - max) over a block, to DRAW_ERROR. Written so that the compiler may do it in vectors.
static float mass(const float * logits, float max) {
    float shares[BLOCK];
    for (int32_t i = 0; i < BLOCK; i++) {
        // exp(x) = 2^k * exp(r), |r| <= ln(2) / 2; r by its Taylor series, ln(2) in two parts for its last bits.
        float x              = logits[i] - max;
        x                    = x < -87.0f ? -87.0f : x;
        const int32_t k      = (int32_t) (x * 1.44269504f - 0.5f);
        const float   r      = x - (float) k * 0.693359375f + (float) k * 2.12194440e-4f;
        float         series = 1.0f / 720;
        series               = series * r + 1.0f / 120;
        series               = series * r + 1.0f / 24;
        series               = series * r + 1.0f / 6;
        series               = series * r + 0.5f;
        series               = series * r + 1.0f;
        series               = series * r + 1.0f;
        shares[i]            = series * power_of_two(k);
    }
    for (int32_t half = BLOCK / 2; half > 0; half /= 2) {
        for (int32_t i = 0; i < half; i++) {
            shares[i] += shares[i + half];
        }
    }
    return shares[0];
}

// Relative error of mass(): 2e-7 of the series, 3e-7 of its arithmetic, 4e-7 of the sum of a block.
#define DRAW_ERROR 1.2e-6

// The index of the logit that libllama's "dist" draws with this random number: with libllama's sums, in its order.
static int32_t drawn_exactly(const float * logits, int32_t n, float max, double uniform) {
    double sum = 0.0;
    for (int32_t i = 0; i < n; i++) {
        sum += expf(logits[i] - max);
    }
    const double target = sum * uniform;
    double       so_far = 0.0;
    for (int32_t i = 0; i < n; i++) {
        so_far += expf(logits[i] - max);
        if (so_far >= target) {
            return i;
        }
    }
    return n - 1;
}

// As drawn_exactly, from sums of blocks that are not exact. They decide wherever the target lies well inside a logit's
// share; elsewhere drawn_exactly does.
static int32_t drawn(const float * logits, int32_t n, float max, double uniform, double * sums) {
    const int32_t n_blocks = (n + BLOCK - 1) / BLOCK;
    double        total    = 0.0;
    for (int32_t b = 0; b < n_blocks; b++) {
        float         rest[BLOCK];
        const float * block = logits + b * BLOCK;
        if (n - b * BLOCK < BLOCK) {
            for (int32_t i = 0; i < BLOCK; i++) {
                rest[i] = b * BLOCK + i < n ? block[i] : -INFINITY;
            }
            block = rest;
        }
        total += sums[b] = mass(block, max);
    }
    const double margin = 2 * DRAW_ERROR * total;
    const double target = total * uniform;
    double       so_far = 0.0;
    int32_t      b      = 0;
    while (b < n_blocks && so_far + sums[b] < target) {
        so_far += sums[b++];
    }
    for (int32_t i = b * BLOCK; i < n && i < (b + 1) * BLOCK; i++) {
        const double before = so_far;
        so_far += expf(logits[i] - max);
        if (so_far >= target) {
            const bool is_clear = before + margin < target && target + margin < so_far;
            return is_clear ? i : drawn_exactly(logits, n, max, uniform);
        }
    }
    return drawn_exactly(logits, n, max, uniform);
}

// ---- min_p -----------------------------------------------------------------------------------------------------

// Write the candidates that min_p leaves to `chosen`, in the row's order, and return their number. 0 where it leaves
// too few, so that libllama would sort.
static size_t min_p(const struct lb_wide * wide, const float * logits, const llama_token_data * ids, int32_t n,
                    float max, llama_token_data * chosen) {
    const float lowest = max + logf(wide->p);
    const float floor  = nextafterf(lowest, -INFINITY);
    size_t      size   = 0;
    for (int32_t start = 0; start < n; start += BLOCK) {
        const int32_t n_here = n - start < BLOCK ? n - start : BLOCK;
        if (n_here == BLOCK && n_above(logits + start, floor) == 0) {
            continue;
        }
        for (int32_t i = start; i < start + n_here; i++) {
            if (logits[i] >= lowest) {
                chosen[size++] = (llama_token_data) { ids ? ids[i].id : i, logits[i], 0.0f };
            }
        }
    }
    return size >= wide->min_keep ? size : 0;
}

// ---- top_p -----------------------------------------------------------------------------------------------------

// The sum of expf(logit - max), rounded to a float after each addition as in libllama. A term below half of the last
// bit of the sum does not change it, so its exponential is not taken.
static float float_sum(const float * logits, int32_t n, float max) {
    float sum = 0.0f;
    for (int32_t start = 0; start < n; start += BLOCK) {
        const int32_t n_here = n - start < BLOCK ? n - start : BLOCK;
        const float   floor  = sum >= FLT_MIN ? max + ((float) ilogbf(sum) - 24.0f) * 0.693147f - 0.01f : -INFINITY;
        float         counting[BLOCK];
        int32_t       n_counting = 0;
        for (int32_t i = start; i < start + n_here; i++) { // no branch: the processor could not predict it
            counting[n_counting] = logits[i] - max;
            n_counting += logits[i] > floor;
        }
        for (int32_t i = 0; i < n_counting; i++) {
            sum += expf(counting[i]);
        }
    }
    return sum;
}

// A row that top_p is applied to, and where the candidates go.
struct top {
    const struct lb_wide *   wide;
    const float *            logits;
    const llama_token_data * ids; // NULL: a logit's index is its id
    int32_t                  n;
    float                    max;
    float                    sum;
    llama_token_data *       chosen;
    float *                  maxima;
};

// libllama sorts the highest logits in buckets of equal width. The outermost buckets take all logits beyond them.
enum { N_BUCKETS = 128, FIRST_TRY = 256 };
#define BUCKET_SCALE 6.4f
#define BUCKET_OFFSET 64.0f

static int32_t bucket_of(float logit) {
    const int32_t bucket = (int32_t) (BUCKET_SCALE * logit + BUCKET_OFFSET);
    return bucket < 0 ? 0 : bucket < N_BUCKETS ? bucket : N_BUCKETS - 1;
}

// All logits from `lowest` on that are in `bucket` or above, in their order, with their probabilities.
static int32_t gather(const struct top * top, float lowest, int32_t bucket) {
    const float floor = nextafterf(lowest, -INFINITY);
    int32_t     size  = 0;
    for (int32_t start = 0; start < top->n; start += BLOCK) {
        const int32_t n_here = top->n - start < BLOCK ? top->n - start : BLOCK;
        if (n_here == BLOCK && floor > -INFINITY && n_above(top->logits + start, floor) == 0) {
            continue;
        }
        for (int32_t i = start; i < start + n_here; i++) {
            const float logit = top->logits[i];
            if (logit >= lowest && bucket_of(logit) >= bucket) {
                top->chosen[size++] =
                    (llama_token_data) { top->ids ? top->ids[i].id : i, logit, expf(logit - top->max) / top->sum };
            }
        }
    }
    return size;
}

// Gather a whole bucket and those above it.
static int32_t gather_buckets(const struct top * top, int32_t bucket) {
    // Lower than the bucket's edge, so that rounding leaves no logit of the bucket out.
    const float lowest = ((float) bucket - BUCKET_OFFSET) / BUCKET_SCALE - 0.01f;
    return gather(top, bucket > 0 ? lowest : -INFINITY, bucket);
}

// Sort the highest k with libllama's own sampler top_k, which also puts equal ones into its order.
static void sort_highest(llama_token_data * chosen, int32_t size, int32_t k) {
    llama_token_data_array array = { chosen, (size_t) size, -1, false };
    struct llama_sampler * top_k = llama_sampler_init_top_k(k);
    llama_sampler_apply(top_k, &array);
    llama_sampler_free(top_k);
}

// Sort all as libllama sorts candidates outside its lowest bucket: a further candidate is put there.
static void sort_all(const struct top * top, int32_t size) {
    if (size < top->n) {
        top->chosen[size] = (llama_token_data) { 0, -1000.0f, 0.0f };
    }
    const int32_t k = size < top->n ? size + 1 : size;
    sort_highest(top->chosen, k, k);
}

// How many of the first n, which are sorted, reach the probability p; 0 where all of them do not.
static int32_t n_reaching(const struct top * top, int32_t n) {
    float so_far = 0.0f;
    for (int32_t i = 0; i < n; i++) {
        so_far += top->chosen[i].p;
        if (so_far >= top->wide->p && (size_t) i + 1 >= top->wide->min_keep) {
            return i + 1;
        }
    }
    return 0;
}

static double probability(const struct top * top, int32_t size) {
    double sum = 0.0;
    for (int32_t i = 0; i < size; i++) {
        sum += top->chosen[i].p;
    }
    return sum;
}

// Write the candidates that top_p leaves to top->chosen, the likeliest first, equal ones in libllama's order. Returns
// their number. libllama sorts the highest FIRST_TRY or, where they do not reach p, all. It sorts bucket by bucket, so
// the buckets below those that reach p need not be there.
static int32_t keep_in_libllamas_order(const struct top * top) {
    heap_of_highest(top->logits, top->n, FIRST_TRY, top->chosen, top->maxima);
    int32_t bucket = bucket_of(top->chosen[0].logit);
    int32_t size   = gather_buckets(top, bucket);
    sort_highest(top->chosen, size, FIRST_TRY);
    int32_t n_left = n_reaching(top, FIRST_TRY);
    for (int32_t step = 1; n_left == 0 && bucket > 0; step *= 2) {
        bucket = bucket > step ? bucket - step : 0;
        size   = gather_buckets(top, bucket);
        if (probability(top, size) >= top->wide->p) {
            sort_all(top, size);
            n_left = n_reaching(top, size);
        }
    }
    if (n_left == 0) {
        size = gather_buckets(top, 0);
        sort_all(top, size);
        n_left = n_reaching(top, size);
    }
    return n_left ? n_left : top->n;
}

// Drop the candidates, all at least `lowest`, that are not needed to reach p. Returns how many stay; 0 where all of
// them do not reach it.
static int32_t drop_surplus(const struct top * top, int32_t size, float lowest) {
    enum { N_PARTS = 256 };
    const float scale          = (float) (N_PARTS - 1) / (top->max - lowest);
    double      parts[N_PARTS] = { 0 };
    for (int32_t i = 0; i < size; i++) {
        parts[(int32_t) ((top->chosen[i].logit - lowest) * scale)] += top->chosen[i].p;
    }
    int32_t needed = N_PARTS;
    double  so_far = 0.0;
    while (needed > 0 && so_far < top->wide->p) {
        so_far += parts[--needed];
    }
    int32_t n_left = 0;
    for (int32_t i = 0; so_far >= top->wide->p && i < size; i++) {
        if ((int32_t) ((top->chosen[i].logit - lowest) * scale) >= needed) {
            top->chosen[n_left++] = top->chosen[i];
        }
    }
    return n_left;
}

// As keep_in_libllamas_order, with equal ones in any order; 0 where all would have to be sorted. `n_sorted` is how many
// candidates of top->chosen are sorted.
static int32_t keep_in_any_order(const struct top * top, int32_t * n_sorted) {
    heap_of_highest(top->logits, top->n, FIRST_TRY, top->chosen, top->maxima);
    float   lowest = top->chosen[0].logit;
    int32_t size   = lowest > -INFINITY ? gather(top, lowest, 0) : 0;
    int32_t n_left = 0;
    if (size > 0) {
        sort_all(top, size);
        n_left = n_reaching(top, size);
    }
    for (float step = 0.5f; n_left == 0 && 0 < size && size < top->n && step < 1000.0f; step *= 2) {
        lowest -= step;
        const int32_t n_gathered = gather(top, lowest, 0);
        size                     = drop_surplus(top, n_gathered, lowest);
        if (size > 0) {
            sort_all(top, size);
            n_left = n_reaching(top, size);
            break;
        }
        size = n_gathered;
    }
    *n_sorted = size;
    return n_left;
}

// The token with the same logit that stands in libllama's order where `token` stands in `order`.
static llama_token equal_in_libllamas_order(const struct top * top, const llama_token * order, llama_token token) {
    const float logit   = top->logits[token];
    int32_t     n_equal = 0, rank = 0;
    for (int32_t i = 0; i < top->n; i++) {
        n_equal += top->logits[i] == logit;
    }
    if (n_equal == 1) {
        return token;
    }
    for (int32_t i = 0; order[i] != token; i++) {
        rank += top->logits[order[i]] == logit;
    }
    const int32_t size = keep_in_libllamas_order(top);
    for (int32_t i = 0; i < size; i++) {
        if (top->chosen[i].logit == logit && rank-- == 0) {
            return top->chosen[i].id;
        }
    }
    return token; // not reached: either order keeps as many equal logits
}

// Let the chain choose a token, from its top_p on.
static llama_token top_p(struct llama_sampler * chain, const struct top * top, llama_token * order) {
    int32_t    n_sorted  = 0;
    int32_t    size      = keep_in_any_order(top, &n_sorted);
    const bool has_order = !has_equals(top->chosen, (size_t) (size < n_sorted ? size + 1 : size));
    const bool is_whole  = top->ids == NULL || top->ids[top->n - 1].id == top->n - 1;
    if (size == 0 || (!has_order && !(top->wide->is_fair && is_whole))) {
        size                         = keep_in_libllamas_order(top);
        llama_token_data_array array = { top->chosen, (size_t) size, -1, true };
        return token_of_rest(chain, top->wide->n_done, &array);
    }
    for (int32_t i = 0; !has_order && i < size; i++) {
        order[i] = top->chosen[i].id;
    }
    llama_token_data_array array = { top->chosen, (size_t) size, -1, true };
    const llama_token      token = token_of_rest(chain, top->wide->n_done, &array);
    return has_order || token < 0 ? token : equal_in_libllamas_order(top, order, token);
}

// ---- the chain -------------------------------------------------------------------------------------------------

enum { SMALL = 1024 }; // up to this number of candidates libllama sorts all at once

llama_token token_of_rest(struct llama_sampler * chain, int32_t from, llama_token_data_array * array) {
    for (int32_t i = from; i < llama_sampler_chain_n(chain); i++) {
        llama_sampler_apply(llama_sampler_chain_get(chain, i), array);
    }
    const bool is_selected = array->selected >= 0 && (size_t) array->selected < array->size;
    return is_selected ? array->data[array->selected].id : -1;
}

llama_token wide_token(struct llama_sampler * chain, const struct lb_wide * wide, const float * logits,
                       const llama_token_data * ids, int32_t n, const struct wide_room * room) {
    if (wide->temp != 1.0f || ids != NULL) {
        for (int32_t i = 0; i < n; i++) {
            room->logits[i] = (ids ? ids[i].logit : logits[i]) / wide->temp;
        }
        logits = room->logits;
    }
    const int32_t best = highest(logits, n, room->maxima);
    if (best < 0) {
        return -1;
    }
    const float max = logits[best];
    if (n <= SMALL || !(fabsf(max) < 1e6f)) { // no token is possible, or rounding loses the differences
        return -2;
    }
    if (wide->kind == LB_WIDE_DRAW) {
        struct llama_sampler * dist = llama_sampler_chain_get(chain, wide->n_done - 1);
        const int32_t          at   = drawn(logits, n, max, dist_uniform(dist), room->sums);
        return ids ? ids[at].id : at;
    }
    if (wide->kind == LB_WIDE_TOP_P) {
        const struct top top = { wide, logits, ids, n, max, float_sum(logits, n, max), room->chosen, room->maxima };
        return top_p(chain, &top, room->order);
    }
    const size_t size = min_p(wide, logits, ids, n, max, room->chosen);
    if (size == 0) {
        return -2;
    }
    llama_token_data_array array = { room->chosen, size, -1, false };
    return token_of_rest(chain, wide->n_done, &array);
}
