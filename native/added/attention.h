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
static constexpr int MAX_ROWS = 32;  // rows of a unit of work
static constexpr int MAX_HEAD = 256; // elements of a head, in K and in V
static constexpr int TOGETHER = LB_LANES / 4; // rows that share a loaded value: their sums fit the registers

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
                if (lead[row] == row) {
                    look(row);
                }
            }
            for (int row = 0, end; row < n_rows; row = end) {
                end         = alike(row);
                const int n = std::min(seen_by(row).n, CELLS);
                if (n > 0) {
                    if (n_rows == 1) {
                        point(seen_by(row).cells, n);
                        add_cells<true>(row, end, n);
                    } else {
                        read(seen_by(row).cells, n);
                        add_cells<false>(row, end, n);
                    }
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

    // Rows lie close together: at a fixed distance as of the largest head they would share few lines of the cache.
    alignas(64) float all_queries[MAX_ROWS * MAX_HEAD]; // times the scale
    alignas(64) float all_sums[MAX_ROWS * MAX_HEAD];    // of values times weights
    alignas(64) float all_keys[CELLS * MAX_HEAD];
    alignas(64) float all_values[CELLS * MAX_HEAD];
    alignas(64) float weights[MAX_ROWS][CELLS]; // of the cells that are held; at first their scores
    const uint8_t *key_at[CELLS], *value_at[CELLS];
    float          greatest[MAX_ROWS];
    float kept[MAX_ROWS]; // the part of sums that a greater score leaves
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
            if (n == 0) {
                return;
            }
            memmove(cells, cells + count, (size_t) n * sizeof(*cells));
            memmove(bias, bias + count, (size_t) n * sizeof(*bias));
        }
    };

    Seen    seen[MAX_ROWS]; // of rows that lead
    int     lead[MAX_ROWS]; // the row whose cells this row sees
    int32_t held[CELLS]; // the cells whose keys and values are loaded
    int     n_held = 0;

    float *       query(int row) { return all_queries + row * a.k_size; }
    const float * query(int row) const { return all_queries + row * a.k_size; }
    float *       sum(int row) { return all_sums + row * a.v_size; }
    float *       key(int cell) { return all_keys + cell * a.k_size; }
    float *       value(int cell) { return all_values + cell * a.v_size; }

    int64_t head_of(int row) const { return head + row % count; }
    int64_t token_of(int row) const { return token + row / count; }

    const Seen & seen_by(int row) const { return seen[lead[row]]; }

    void begin(int row) {
        const char * from =
            (const char *) a.q->data + token_of(row) * a.q->nb[1] + head_of(row) * a.q->nb[2] + stream * a.q->nb[3];
        const Floats scale = floats(a.softcap != 0.0f ? a.scale / a.softcap : a.scale);
        for (int i = 0; i < a.k_size; i += LB_LANES) {
            store(query(row) + i, times(load_floats((const float *) from + i), scale));
        }
        memset(sum(row), 0, (size_t) a.v_size * sizeof(float));
        greatest[row] = -INFINITY;
        total[row]    = 0.0f;
        slopes[row]   = a.slope(head_of(row));
        seen[row].n   = 0;
        seen[row].at  = 0;
        // Heads of a token see the same cells with the same bias, unless the mask or its slopes are theirs alone.
        lead[row] = !a.mask || (a.mask->ne[2] == 1 && a.max_bias <= 0.0f) ? row / (int) count * (int) count : row;
    }

    // Look for cells until `next` has CELLS that the row sees, or all that are left.
    void look(int row) {
        Seen &              next = seen[row];
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
            widen(key(i), k + (size_t) cells[i] * a.k->nb[1], a.k_size);
            widen(value(i), v + (size_t) cells[i] * a.v->nb[1], a.v_size);
        }
        for (int i = n; i < CELLS; i++) {
            memset(key(i), 0, (size_t) a.k_size * sizeof(float));
        }
        memcpy(held, cells, (size_t) n * sizeof(*cells));
        n_held = n;
    }

    // For a row that is alone: where keys and values of n cells are.
    void point(const int32_t * cells, int n) {
        for (int i = 0; i < CELLS; i++) {
            const size_t cell = (size_t) cells[i < n ? i : 0];
            key_at[i]         = (const uint8_t *) a.cells(a.k, stream, head) + cell * a.k->nb[1];
            value_at[i]       = (const uint8_t *) a.cells(a.v, stream, head) + cell * a.v->nb[1];
        }
    }

    // Elements of a cell from the i-th on: of a row alone they are not loaded before.
    template <bool alone> Floats key_part(int cell, int i) const {
        return alone ? halves(key_at[cell] + 2 * i) : load_floats(all_keys + cell * a.k_size + i);
    }

    template <bool alone> Floats value_part(int cell, int i) const {
        return alone ? halves(value_at[cell] + 2 * i) : load_floats(all_values + cell * a.v_size + i);
    }

    // Load elements of a cell. Each load of the inner loop is an instruction of its own, which goes from cell to cell
    // in equal steps: those a processor foresees. With one load for all elements it waited for memory at every cell.
    static inline __attribute__((always_inline)) void widen(float * to, const char * from, int size) {
        static constexpr int SOME = 64;
        int                  first = 0;
        for (; first + SOME <= size; first += SOME) {
#pragma GCC unroll 8
            for (int i = first; i < first + SOME; i += LB_LANES) {
                store(to + i, halves((const uint8_t *) from + i * 2));
            }
        }
        for (; first < size; first += LB_LANES) {
            store(to + first, halves((const uint8_t *) from + first * 2));
        }
    }

    // The scores of n cells; −inf in the other lanes.
    template <bool alone> Floats scores(int row, Floats bias, int n) const {
        Floats z[CELLS];
#pragma GCC unroll 16
        for (int cell = 0; cell < CELLS; cell++) {
            z[cell] = floats(0.0f);
        }
        for (int i = 0; i < a.k_size; i += LB_LANES) {
            const Floats q = load_floats(query(row) + i);
#pragma GCC unroll 16
            for (int cell = 0; cell < CELLS; cell++) {
                z[cell] = times_plus(q, key_part<alone>(cell, i), z[cell]);
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

    // The first row behind `row` whose next cells are not the same.
    int alike(int row) const {
        const Seen & first = seen_by(row);
        const int    n     = std::min(first.n, CELLS);
        int          end   = row + 1;
        while (end < n_rows && (lead[end] != end || sees_as(seen[end], first, n))) {
            end++;
        }
        return end;
    }

    static bool sees_as(const Seen & one, const Seen & other, int n) {
        return std::min(one.n, CELLS) == n && memcmp(one.cells, other.cells, (size_t) n * sizeof(*one.cells)) == 0;
    }

    // Let rows `first` to before `last` see n cells. Each step is done for all of them: by itself a
    // row would wait for its own scores, and again for their weights.
    template <bool alone> void add_cells(int first, int last, int n) {
        for (int row = first; row < last; row++) {
            store(weights[row], scores<alone>(row, load_floats(seen_by(row).bias), n));
        }
        for (int row = first; row < last; row++) {
            if (lead[row] == row) {
                seen[row].drop(n);
            }
        }
        for (int row = first; row < last; row++) {
            weigh(row);
        }
        int row = first;
        for (; row + TOGETHER <= last; row += TOGETHER) {
            add_values<TOGETHER, alone>(row, n);
        }
        for (; row < last; row++) {
            add_values<1, alone>(row, n);
        }
    }

    // Make weights of a row's scores, as far as the greatest is known.
    void weigh(int row) {
        const Floats score = load_floats(weights[row]);
        const float  most  = std::max(greatest[row], highest_of(score));
        const Floats p     = exp_of(minus(score, floats(most)));
        kept[row]          = most == greatest[row] ? 1.0f : std::exp(greatest[row] - most); // exp(−inf) at first: 0
        greatest[row]      = most;
        total[row]         = std::fma(total[row], kept[row], sum_of(p));
        store(weights[row], p);
    }

    // Add the values of n cells to `count` rows.
    template <int count, bool alone> void add_values(int row, int n) {
        int i = 0;
        for (; i + 4 * LB_LANES <= a.v_size; i += 4 * LB_LANES) {
            add_columns<count, 4, alone>(row, n, i);
        }
        for (; i + 2 * LB_LANES <= a.v_size; i += 2 * LB_LANES) {
            add_columns<count, 2, alone>(row, n, i);
        }
        for (; i < a.v_size; i += LB_LANES) {
            add_columns<count, 1, alone>(row, n, i);
        }
    }

    // The same for `some` vectors of columns.
    template <int count, int some, bool alone>
    inline __attribute__((always_inline)) void add_columns(int row, int n, int first) {
        Floats totals[count][some];
#pragma GCC unroll 4
        for (int r = 0; r < count; r++) {
#pragma GCC unroll 4
            for (int i = 0; i < some; i++) {
                totals[r][i] = times(load_floats(sum(row + r) + first + i * LB_LANES), floats(kept[row + r]));
            }
        }
        for (int cell = 0; cell < n; cell++) {
#pragma GCC unroll 4
            for (int i = 0; i < some; i++) {
                const Floats of_cell = value_part<alone>(cell, first + i * LB_LANES);
#pragma GCC unroll 4
                for (int r = 0; r < count; r++) {
                    totals[r][i] = times_plus(floats(weights[row + r][cell]), of_cell, totals[r][i]);
                }
            }
        }
#pragma GCC unroll 4
        for (int r = 0; r < count; r++) {
#pragma GCC unroll 4
            for (int i = 0; i < some; i++) {
                store(sum(row + r) + first + i * LB_LANES, totals[r][i]);
            }
        }
    }

    void finish(int row) {
        float rest = 1.0f;
        if (a.sinks) { // one more score, which belongs to no cell
            const float sink = ((const float *) a.sinks->data)[head_of(row)];
            const float most = std::max(greatest[row], sink);
            rest             = std::exp(greatest[row] - most);
            total[row]       = total[row] * rest + std::exp(sink - most);
        }
        const Floats factor = floats(total[row] == 0.0f ? 0.0f : rest / total[row]);
        float *      to =
            (float *) a.out->data + ((stream * a.n_tokens + token_of(row)) * a.n_heads + head_of(row)) * a.v_size;
        for (int i = 0; i < a.v_size; i += LB_LANES) {
            store(to + i, times(load_floats(sum(row) + i), factor));
        }
    }
};

// This thread's share of the operation. Units are handed out one by one, as the last rows of a prompt see most cells.
static void attend(const ggml_compute_params * params, ggml_tensor * op) {
    const Attend  a(op);
    const int64_t n_rows    = a.n_streams * a.n_heads * a.n_tokens;
    const int64_t most      = n_rows < 4 * MAX_ROWS * params->nth ? MAX_ROWS / 2 : MAX_ROWS; // of a unit
    const int64_t together  = std::min<int64_t>(a.n_shared, most);
    const int64_t few       = a.n_streams * a.n_heads / together; // units, if all heads that share a cell shared a unit
    const int64_t count     = a.n_tokens == 1 && few < 4 * params->nth ? 1 : together;
    const int64_t n_groups  = (a.n_shared + count - 1) / count; // groups of heads that share their cells
    const int64_t n_at_once = most / count;
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
