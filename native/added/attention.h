// Attention of query rows to the cells of a KV cache, for GGML_OP_FLASH_ATTN_EXT: a vector of cells at a time, one
// pass, with the softmax's maximum and sum carried along (Milakov and Gimelshein, arXiv:1805.02867). The cells are read
// as float16; everything else is float32. A row's result is one sum over the cells that the row sees, in their order.
// It does not depend on the rows beside it, on masked cells, or on where in the cache the row's own cells lie.
#pragma once

#include "ggml-cpu-impl.h"
#include "lanes.h"
#include "pieces.h"
#include "vec.h"

#ifdef LB_LANES

namespace llamabox {

static constexpr int CELLS    = LB_LANES;
static constexpr int MAX_ROWS = 16;  // rows of a unit of work
static constexpr int MAX_HEAD = 256; // elements of a head, in K and in V

static inline Floats exp_of(Floats x) {
#if LB_LANES == 8 && defined(__AVX512F__) && defined(__AVX512DQ__) // AVX-512 without VNNI: ggml's exp has 16 lanes
    return _mm512_castps512_ps256(ggml_v_expf(_mm512_zextps256_ps512(x)));
#else
    return ggml_v_expf(x);
#endif
}

// One operation's tensors and numbers. Head h of the queries reads head h / n_shared of the cells.
struct Attend {
    const ggml_tensor *q, *k, *v, *mask, *sinks;
    ggml_tensor *      out;
    float              scale, max_bias, softcap;
    int64_t            n_tokens, n_heads, n_streams, n_cells, n_shared;
    int                k_size, v_size;

    explicit Attend(ggml_tensor * op) :
        q(op->src[0]), k(op->src[1]), v(op->src[2]), mask(op->src[3]), sinks(op->src[4]), out(op), scale(number(op, 0)),
        max_bias(number(op, 1)), softcap(number(op, 2)), n_tokens(q->ne[1]), n_heads(q->ne[2]), n_streams(q->ne[3]),
        n_cells(k->ne[1]), n_shared(q->ne[2] / k->ne[2]), k_size((int) k->ne[0]), v_size((int) v->ne[0]) {}

    // Whether this attention reads keys or values of such a type and head size.
    static bool takes(ggml_type type, int64_t size) {
        return type == GGML_TYPE_F16 && size % LB_LANES == 0 && size <= MAX_HEAD;
    }

    static bool supports(const ggml_tensor * op) {
        const ggml_tensor *q = op->src[0], *k = op->src[1], *v = op->src[2], *mask = op->src[3];
        return q->type == GGML_TYPE_F32 && q->nb[0] == 4 && takes(k->type, k->ne[0]) && takes(v->type, v->ne[0])
               && k->nb[0] == 2 && v->nb[0] == 2 && k->ne[2] == v->ne[2] && k->ne[3] == v->ne[3]
               && q->ne[3] % k->ne[3] == 0 && q->ne[2] % k->ne[2] == 0 && ggml_is_contiguous(op)
               && (!mask || mask->type == GGML_TYPE_F16);
    }

    // ALiBi as in ggml: heads up to the greatest power of two get powers of one base, the others odd powers of another.
    float slope(int64_t head) const {
        if (max_bias <= 0.0f) {
            return 1.0f;
        }
        const int64_t base = (int64_t) 1 << (int) std::floor(std::log2((double) n_heads));
        return head < base ? std::pow(2.0f, -max_bias / (float) base * (float) (head + 1))
                           : std::pow(2.0f, -max_bias / 2.0f / (float) base * (float) (2 * (head - base) + 1));
    }

    const char * cells(const ggml_tensor * of, int64_t stream, int64_t head) const {
        return (const char *) of->data + head / n_shared * of->nb[2] + stream / (n_streams / of->ne[3]) * of->nb[3];
    }

    const ggml_fp16_t * mask_row(int64_t stream, int64_t head, int64_t token) const {
        return !mask ? nullptr
                     : (const ggml_fp16_t *) ((const char *) mask->data + token * mask->nb[1]
                                              + head % mask->ne[2] * mask->nb[2] + stream % mask->ne[3] * mask->nb[3]);
    }

  private:
    static float number(const ggml_tensor * op, int i) {
        float value;
        memcpy(&value, (const float *) op->op_params + i, sizeof(value));
        return value;
    }
};

// A unit of work: query rows that read the same cells. They are `count` heads from `head` on of a few tokens.
class Unit {
  public:
    Unit(const Attend & a, int64_t stream, int64_t head, int64_t count, int64_t token, int64_t n_tokens) :
        a(a), stream(stream), head(head), count(count), token(token), n_rows((int) (count * n_tokens)) {}

    void compute() {
        for (int row = 0; row < n_rows; row++) {
            begin(row);
        }
        for (bool more = true; more;) {
            more = false;
            for (int row = 0; row < n_rows; row++) {
                Seen & next = seen[row];
                look(row, next);
                if (const int n = std::min(next.n, CELLS)) {
                    read(next.cells, n);
                    add_values(row, scores(row, load_floats(next.bias), n), n);
                    next.drop(n);
                    more = true;
                }
            }
        }
        for (int row = 0; row < n_rows; row++) {
            finish(row);
        }
    }

  private:
    const Attend & a;
    const int64_t  stream, head, count, token;
    const int      n_rows;

    alignas(64) float queries[MAX_ROWS][MAX_HEAD]; // times the scale
    alignas(64) float sums[MAX_ROWS][MAX_HEAD];    // of values times weights
    alignas(64) float keys[CELLS][MAX_HEAD];
    alignas(64) float values[CELLS][MAX_HEAD];
    float greatest[MAX_ROWS];
    float total[MAX_ROWS]; // of weights
    float slopes[MAX_ROWS];

    // The next cells that a row sees, and the bias that the mask adds to their scores.
    struct Seen {
        int32_t cells[2 * CELLS];
        float   bias[2 * CELLS];
        int     n;
        int64_t at; // the first cell that was not looked at yet

        void drop(int count) {
            n -= count;
            memmove(cells, cells + count, (size_t) n * sizeof(*cells));
            memmove(bias, bias + count, (size_t) n * sizeof(*bias));
        }
    };

    Seen    seen[MAX_ROWS];
    int32_t held[CELLS]; // the cells whose keys and values are loaded
    int     n_held = 0;

    int64_t head_of(int row) const { return head + row % count; }
    int64_t token_of(int row) const { return token + row / count; }

    void begin(int row) {
        const char * from =
            (const char *) a.q->data + token_of(row) * a.q->nb[1] + head_of(row) * a.q->nb[2] + stream * a.q->nb[3];
        const Floats scale = floats(a.softcap != 0.0f ? a.scale / a.softcap : a.scale);
        for (int i = 0; i < a.k_size; i += LB_LANES) {
            store(queries[row] + i, times(load_floats((const float *) from + i), scale));
        }
        memset(sums[row], 0, (size_t) a.v_size * sizeof(float));
        greatest[row] = -INFINITY;
        total[row]    = 0.0f;
        slopes[row]   = a.slope(head_of(row));
        seen[row].n   = 0;
        seen[row].at  = 0;
    }

    // Look for cells until `next` has CELLS that the row sees, or all that are left.
    void look(int row, Seen & next) const {
        const ggml_fp16_t * mask = a.mask_row(stream, head_of(row), token_of(row));
        for (; next.n < CELLS && next.at < a.n_cells; next.at += CELLS) {
            const int n    = (int) std::min<int64_t>(CELLS, a.n_cells - next.at);
            Floats    bias = floats(0.0f);
            uint32_t  sees = first_few(n);
            if (mask) {
                bias = times(masked(mask + next.at, n), floats(slopes[row]));
                sees &= finite(bias);
            }
            pick(next.cells + next.n, next.bias + next.n, sees, (int32_t) next.at, bias);
            next.n += __builtin_popcount(sees);
        }
    }

    static uint32_t first_few(int n) { return (1u << n) - 1; }

    // Load n values of a mask. Nothing is read behind the mask's end.
    static Floats masked(const ggml_fp16_t * mask, int n) {
        if (n == CELLS) {
            return halves((const uint8_t *) mask);
        }
        ggml_fp16_t rest[CELLS] = {};
        memcpy(rest, mask, (size_t) n * sizeof(*mask));
        return halves((const uint8_t *) rest);
    }

    // Load n cells into keys and values, unless they are there: the rows of a unit see mostly the same cells.
    void read(const int32_t * cells, int n) {
        if (n == n_held && memcmp(held, cells, (size_t) n * sizeof(*cells)) == 0) {
            return;
        }
        const char * k = a.cells(a.k, stream, head);
        const char * v = a.cells(a.v, stream, head);
        for (int i = 0; i < n; i++) {
            widen(keys[i], k + (size_t) cells[i] * a.k->nb[1], a.k_size);
            widen(values[i], v + (size_t) cells[i] * a.v->nb[1], a.v_size);
        }
        for (int i = n; i < CELLS; i++) {
            memset(keys[i], 0, (size_t) a.k_size * sizeof(float));
        }
        memcpy(held, cells, (size_t) n * sizeof(*cells));
        n_held = n;
    }

    static void widen(float * to, const char * from, int size) {
        for (int i = 0; i < size; i += LB_LANES) {
            store(to + i, halves((const uint8_t *) from + i * 2));
        }
    }

    // The scores of the n cells that are held; −inf in the other lanes.
    Floats scores(int row, Floats bias, int n) const {
        Floats z[CELLS];
        for (int cell = 0; cell < CELLS; cell++) {
            z[cell] = floats(0.0f);
        }
        for (int i = 0; i < a.k_size; i += LB_LANES) {
            const Floats query = load_floats(queries[row] + i);
            for (int cell = 0; cell < CELLS; cell++) {
                z[cell] = times_plus(query, load_floats(keys[cell] + i), z[cell]);
            }
        }
        Floats score = sums_of(z);
        if (a.softcap != 0.0f) { // cap · tanh(score), as 1 − 2 / (exp(2 score) + 1)
            const Floats e = exp_of(plus(score, score));
            const Floats t = minus(floats(1.0f), over(floats(2.0f), plus(e, floats(1.0f))));
            score          = times(t, floats(a.softcap));
        }
        return where(first_few(n), plus(score, bias));
    }

    void add_values(int row, Floats score, int n) {
        const float  most = std::max(greatest[row], highest_of(score));
        const float  kept = most == greatest[row] ? 1.0f : std::exp(greatest[row] - most); // exp(−inf) at first: 0
        const Floats p    = exp_of(minus(score, floats(most)));
        greatest[row]     = most;
        total[row]        = total[row] * kept + sum_of(p);
        alignas(64) float weights[CELLS];
        store(weights, p);
        for (int i = 0; i < a.v_size; i += LB_LANES) {
            Floats sum = times(load_floats(sums[row] + i), floats(kept));
            for (int cell = 0; cell < n; cell++) {
                sum = times_plus(floats(weights[cell]), load_floats(values[cell] + i), sum);
            }
            store(sums[row] + i, sum);
        }
    }

    void finish(int row) {
        float kept = 1.0f;
        if (a.sinks) { // one more score, which belongs to no cell
            const float sink = ((const float *) a.sinks->data)[head_of(row)];
            const float most = std::max(greatest[row], sink);
            kept             = std::exp(greatest[row] - most);
            total[row]       = total[row] * kept + std::exp(sink - most);
        }
        const Floats factor = floats(total[row] == 0.0f ? 0.0f : kept / total[row]);
        float *      to =
            (float *) a.out->data + ((stream * a.n_tokens + token_of(row)) * a.n_heads + head_of(row)) * a.v_size;
        for (int i = 0; i < a.v_size; i += LB_LANES) {
            store(to + i, times(load_floats(sums[row] + i), factor));
        }
    }
};

// This thread's share of the operation. Units are handed out one by one, as the last rows of a prompt see most cells.
static void attend(const ggml_compute_params * params, ggml_tensor * op) {
    const Attend  a(op);
    const int64_t together  = std::min<int64_t>(a.n_shared, MAX_ROWS);
    const int64_t few       = a.n_streams * a.n_heads / together; // units, if all heads that share a cell shared a unit
    const int64_t count     = a.n_tokens == 1 && few < 4 * params->nth ? 1 : together;
    const int64_t n_groups  = (a.n_shared + count - 1) / count; // groups of heads that share their cells
    const int64_t n_at_once = MAX_ROWS / count;
    const int64_t n_parts   = (a.n_tokens + n_at_once - 1) / n_at_once;
    const int64_t n_units   = a.n_streams * a.k->ne[2] * n_groups * n_parts;
    begin_pieces(params);
    for (int64_t i = params->ith; i < n_units; i = next_piece(params)) {
        const int64_t token  = i % n_parts * n_at_once;
        const int64_t group  = i / n_parts % n_groups * count;
        const int64_t shared = i / n_parts / n_groups % a.k->ne[2];
        const int64_t stream = i / n_parts / n_groups / a.k->ne[2];
        const int64_t heads  = std::min(count, a.n_shared - group);
        Unit(a, stream, shared * a.n_shared + group, heads, token, std::min(n_at_once, a.n_tokens - token)).compute();
    }
}

} // namespace llamabox

#endif
