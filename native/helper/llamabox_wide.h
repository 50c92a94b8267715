// Chains that choose among the whole vocabulary, worked out without sorting it. Within the module only.
#pragma once

#include "llamabox_helper.h"

// What the steps of a row are worked out in. `chosen` has room for one candidate more than the row has.
struct wide_room {
    llama_token_data * chosen;
    float *            logits;
    double *           sums;   // one for each BLOCK logits
    float *            maxima; // the same
    llama_token *      order;
};

// Make the room for rows of n_vocab logits, in place of what it holds. False where there is no memory.
bool wide_room_make(struct wide_room * room, int32_t n_vocab);

// Take the steps up to wide->n_done from `n` logits, whose ids are those of `ids`, or their indices where it is NULL,
// and let the rest of the chain choose. Returns the token, -1 where there is none, or -2 where these steps are not for
// such a row. Then only room->logits has changed.
llama_token wide_token(struct llama_sampler * chain, const struct lb_wide * wide, const float * logits,
                       const llama_token_data * ids, int32_t n, const struct wide_room * room);

// Apply the samplers of a chain, from one on, to the candidates. Returns the token, -1 where none is left.
llama_token token_of_rest(struct llama_sampler * chain, int32_t from, llama_token_data_array * array);
