// What Python must not do itself: callbacks that ggml's threads call, and the per-token loop over logits.
// build_native.py also feeds this file to cffi, without its preprocessor lines: declarations only.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "llama.h"
#include "llamabox_log.h"

// Bumped whenever a name or meaning below changes. llamabox/bindings/ffi.py refuses a module with another number.
enum { LB_INTERFACE = 13 };

// Path of the shared library that libllama's symbols came from, or NULL. Static storage.
const char * lb_library_path(void);

// Have ggml's CPU backend use the kernels that are compiled into it (native/added). A library may be built without
// them, and a processor may lack the instructions that they need. Not thread-safe: call it after the backends are
// loaded and before any model is. Further calls change nothing. Returns the name of the instructions, or NULL where
// there are no kernels.
const char * lb_use_kernels(void);

// The name that lb_use_kernels() returned; NULL before it was called.
const char * lb_kernels(void);

// Whether the kernels have flash attention for heads with `size` keys, or values, of this type.
bool lb_attends(enum ggml_type type, int64_t size);

// Set whether weights that are packed from now on are locked in memory.
void lb_lock_packed(bool on);

// Bytes of the cells of all contexts made so far that took no memory then. They take it as they are used.
size_t lb_untouched(void);

// Take whole pages of a file's map out of memory until somebody reads them again.
void lb_forget_pages(void * address, size_t n_bytes);

// ---- log -------------------------------------------------------------------------------------------------------

// Send the logs of ggml, libllama and libmtmd to llamabox_log.h. Not thread-safe: before any model is loaded.
void lb_log_install(void);

// The callback itself, declared so that tests can call it.
void lb_log_callback(enum ggml_log_level level, const char * text, void * user_data);

// ---- progress of decodes and loads -----------------------------------------------------------------------------

// A ggml_abort_callback, which ggml calls for each node of a graph that a CPU computes. It counts, and aborts nothing.
bool lb_count_node(void * data);

// How many nodes were counted. While the number changes, some decode makes progress. Any thread.
int64_t lb_n_nodes(void);

struct lb_load_state {
    int32_t progress_ppm; // millionths
    int32_t cancel;       // non-zero stops the load
};

// A llama_progress_callback; user_data is a struct lb_load_state.
bool lb_load_progress(float progress, void * user_data);

// ---- sampling --------------------------------------------------------------------------------------------------

// How a chain that chooses among the whole vocabulary begins. In the order of the chain:
//   n_head samplers that change logits, but neither drop candidates nor move them
//   temp, where the logits are divided by it; 1: there is no such sampler
//   the sampler `kind`, with its p and min_keep
// Then follow other samplers, from index n_done on. Behind LB_WIDE_DRAW, which is an lb_sampler_init_dist(), there is
// none. is_fair: the samplers that follow look at logits and places only, never at which token it is.
enum { LB_WIDE_TOP_P = 1, LB_WIDE_MIN_P = 2, LB_WIDE_DRAW = 3 };

struct lb_wide {
    int32_t kind;
    int32_t n_head;
    int32_t n_done;
    float   temp;
    float   p;
    size_t  min_keep;
    bool    is_fair;
};

// Sample rows of the last decode by n_chains chains. Chain i has rows that follow one another in the batch. It accepts
// the token of its first row, goes on to the next one only if that is the token that was expected, and so on.
//   first[i]      index of its first row in the batch, as llama_get_logits_ith takes it
//   n_rows[i]     how many rows it has, at least one
//   chains[i]     sampler chain; NULL only where n_best[i] is 1, then nothing is accepted
//   n_best[i]     the chain need only see this many of the highest logits; 1: the highest (the lowest id of equals) is
//                 taken without applying the chain; 0: it must see all. Where a mask lets few tokens come it sees all
//                 of these.
//   wide[i]       how the chain begins, where n_best[i] is 0; NULL: in some other way. The token is the same with it.
// These have an entry for each row, those of chain 0 first:
//   masks[r]      bit t & 31 of word t >> 5 says whether token t may come, for all tokens; NULL: all may. masks may be
//                 NULL itself: there are none.
//   expected[r]   the token that must come for the chain's next row to be sampled; not read for a chain's last row.
//                 expected may be NULL where all chains have one row.
//   out[r]        token id, or -1: the row holds a NaN or +infinity (where the mask looks, if there is one), or mask or
//                 chain left nothing to choose,
//                 -2: the batch asked for no logits at this index. Nothing is accepted then, and the chain stops.
// n_out[i] becomes the number of rows that were sampled: out has nothing for those behind them.
// Returns the number of chains that ended without a token.
int32_t lb_sample_rows(struct llama_context * ctx, int32_t n_chains, const int32_t * first, const int32_t * n_rows,
                       struct llama_sampler ** chains, const int32_t * n_best, const struct lb_wide ** wide,
                       const uint32_t ** masks, const llama_token * expected, llama_token * out, int32_t * n_out);

// libllama's sampler "dist", drawing what that draws, for chains that begin with LB_WIDE_DRAW. Any seed is one: none
// stands for a random one.
struct llama_sampler * lb_sampler_init_dist(uint32_t seed);

// The sampler `inner` for all tokens except one, whose logit stays as it is. Takes ownership of `inner`.
struct llama_sampler * lb_sampler_init_except(struct llama_sampler * inner, llama_token token);

// What each token of a vocabulary says by itself, special ones too. Takes a tenth of a second. NULL: no memory.
struct lb_texts;
struct lb_texts * lb_texts_make(const struct llama_vocab * vocab);
void              lb_texts_free(struct lb_texts * texts);

// The sequence breakers of the sampler "dry", as tokens. They are made once and shared by samplers, which may outlive
// their maker. NULL: no memory. lb_breakers_free() gives up the maker's share.
struct lb_breakers;
struct lb_breakers * lb_breakers_make(const struct llama_vocab * vocab, const struct lb_texts * texts,
                                      const char ** words, int32_t n_words);
void                 lb_breakers_free(struct lb_breakers * breakers);

// libllama's sampler "dry" with breakers that are known. It may be cloned on any thread while nobody changes it.
struct llama_sampler * lb_sampler_init_dry(struct lb_breakers * breakers, float multiplier, float base,
                                           int32_t allowed_length, int32_t last_n);

// The two highest logits of a row, in order. False when the row has no logits or holds a NaN.
bool lb_top_two(struct llama_context * ctx, int32_t batch_idx, llama_token * ids, float * logits);

// ---- multi-token prediction ------------------------------------------------------------------------------------

// How many heads a model's file has that predict tokens behind the next one. 0 as well where libllama lacks what it
// takes to use them; the functions behind lb_nextn_context() must not be called then.
int32_t lb_nextn_heads(const struct llama_model * model);

// Have a model loaded with its heads, which are left out otherwise.
void lb_nextn_load(struct llama_model_params * params);

// Make it the parameters of a context that computes the heads of the model of `target`.
void lb_nextn_context(struct llama_context_params * params, struct llama_context * target);

// Whether decodes keep the hidden rows that heads take: of all rows of a batch, or only of those with outputs.
void lb_nextn_keep(struct llama_context * ctx, bool on, bool only_outputs);

// Which head the next decodes of a context for heads compute; 0 to begin with.
void lb_nextn_use_head(struct llama_context * ctx, int32_t head);

// The hidden rows of all rows of the last batch, in order, n_embd_out floats each. Valid until the next decode.
const float * lb_nextn_rows(struct llama_context * ctx);

// That of one row, by its index in the batch, where only rows with outputs have one. NULL: it has none.
const float * lb_nextn_row(struct llama_context * ctx, int32_t i);

// ---- rpc -------------------------------------------------------------------------------------------------------

// FNV-1a of 64 bits, by which ggml's RPC server names the files of its tensor cache. `hash` is what the bytes before
// gave; 0xcbf29ce484222325 to begin with.
uint64_t lb_fnv(const uint8_t * data, size_t size, uint64_t hash);
