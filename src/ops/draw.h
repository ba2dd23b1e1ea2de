// The choice of the next token from its logits, as an operation (draw_tokens). In this order, as
// the published generate() has it: repetition penalty, banned tokens, temperature, top-k, top-p,
// min-p, draw.
//
// A token's weight is exp((l - l_max) / temperature) as a whole number of 2^-40, made by single f32
// operations that every machine rounds alike; sums of whole numbers depend on no order. So the same
// logits, settings and random bits give the same token on a CPU and on a GPU, to the bit. A token
// that is 2^40 times less likely than the likeliest never comes.
#ifndef MM_OPS_DRAW_H
#define MM_OPS_DRAW_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

// How the next token of one sequence is chosen.
struct mm_draw {
    double temperature;  // 0: the largest logit; of the settings below only the penalty is used
    int64_t top_k;       // the k likeliest, of those alike the lower ids; 0: off
    double top_p;        // of these the fewest whose weights are this part of all; 1: off
    double min_p;        // of these, those that have this part of the largest weight; 0: off
    double penalty;      // positive logits of tokens seen are divided, others multiplied; 1: off
    uint64_t bits;       // 64 random ones
    int32_t banned[2];   // ids that never come; others than 0 .. V - 1: none
    bool last;           // the sequence stops after it, whatever is drawn
};

// Ids after which a sequence stops.
enum { mm_draw_stops_most = 16 };
struct mm_draw_stops {
    int32_t ids[mm_draw_stops_most];
    int n;
};

// Whether a sequence stops after it drew `id`. An id of -1 stops it, too.
static inline bool mm_draw_ends(const struct mm_draw *d, const struct mm_draw_stops *stops,
                                int32_t id) {
    bool ends = id < 0 || d->last;
    for (int i = 0; stops && i < stops->n; i++)
        ends = ends || stops->ids[i] == id;
    return ends;
}

#ifdef __CUDA_ARCH__
#define MM_DRAW_FN __device__ static inline
#define MM_DRAW_MUL(a, b) __fmul_rn(a, b)
#define MM_DRAW_ADD(a, b) __fadd_rn(a, b)
#elif defined(__CUDACC__)
#define MM_DRAW_FN __device__ static inline
#define MM_DRAW_MUL(a, b) ((a) * (b))
#define MM_DRAW_ADD(a, b) ((a) + (b))
#else
// Files that include this must not contract a * b + c (the CPU's fast operations do).
#define MM_DRAW_FN static inline
#define MM_DRAW_MUL(a, b) ((a) * (b))
#define MM_DRAW_ADD(a, b) ((a) + (b))
#endif

// 1 / temperature as weights use it; finite, so that the likeliest token's weight is 1.
static inline float mm_draw_inverse(const struct mm_draw *d) {
    const double inverse = 1.0 / d->temperature;
    return inverse < 1e30 ? (float)inverse : 1e30f;
}

// A token's logit after the penalty.
MM_DRAW_FN float mm_draw_penalized(float l, double penalty) {
    return (float)((double)l > 0.0 ? (double)l / penalty : (double)l * penalty);
}

// 2^40 exp(below / temperature) of below = l - l_max <= 0, rounded down; 0 for NaN. The exponential
// is 2^n e^r with |r| at most ln 2 / 2, e^r a polynomial as Cephes has it.
MM_DRAW_FN uint64_t mm_draw_weight(float below, float inverse) {
    const float x = MM_DRAW_MUL(below, inverse);
    if (!(x > -28.0f)) return 0;
    const int32_t n = (int32_t)MM_DRAW_ADD(MM_DRAW_MUL(x, 1.44269504f), -0.5f);
    float r = MM_DRAW_ADD(x, MM_DRAW_MUL((float)n, -0.693359375f));
    r = MM_DRAW_ADD(r, MM_DRAW_MUL((float)n, 2.12194440e-4f));
    float p = 1.9875691500e-4f;
    p = MM_DRAW_ADD(MM_DRAW_MUL(p, r), 1.3981999507e-3f);
    p = MM_DRAW_ADD(MM_DRAW_MUL(p, r), 8.3334519073e-3f);
    p = MM_DRAW_ADD(MM_DRAW_MUL(p, r), 4.1665795894e-2f);
    p = MM_DRAW_ADD(MM_DRAW_MUL(p, r), 1.6666665459e-1f);
    p = MM_DRAW_ADD(MM_DRAW_MUL(p, r), 5.0000001201e-1f);
    p = MM_DRAW_ADD(MM_DRAW_MUL(MM_DRAW_MUL(p, r), r), r);
    p = MM_DRAW_ADD(p, 1.0f);
    const uint32_t power = (uint32_t)(127 + 40 + n) << 23;  // 2^(40 + n), n >= -40
    float scale;
    memcpy(&scale, &power, sizeof scale);
    return (uint64_t)MM_DRAW_MUL(p, scale);
}

enum { mm_draw_one_bits = 40 };  // the likeliest token's weight is 2^40

// The least weight that min_p keeps.
static inline uint64_t mm_draw_least(const struct mm_draw *d) {
    const double least = d->min_p * (double)((uint64_t)1 << mm_draw_one_bits);
    const uint64_t down = (uint64_t)least;
    return (double)down < least ? down + 1 : down;
}

// What the weights that top_p keeps sum to at least, of a total.
MM_DRAW_FN uint64_t mm_draw_part(double top_p, uint64_t total) {
    const double part = top_p * (double)total;
    const uint64_t down = (uint64_t)part, up = (double)down < part ? down + 1 : down;
    return up < 1 ? 1 : up < total ? up : total;
}

// The high half of bits * total: evenly spread over 0 .. total - 1.
MM_DRAW_FN uint64_t mm_draw_spot(uint64_t bits, uint64_t total) {
#ifdef __CUDACC__
    return __umul64hi(bits, total);
#else
    const uint64_t a = bits >> 32, b = bits & 0xffffffffu, c = total >> 32, d = total & 0xffffffffu;
    const uint64_t low = b * d, mid = a * d + (low >> 32), other = b * c + (mid & 0xffffffffu);
    return a * c + (mid >> 32) + (other >> 32);
#endif
}

#ifndef __CUDACC__
// Memory of one draw from V logits, made by the caller.
struct mm_draw_room {
    float *l;        // (V) logits after penalty and bans
    uint64_t *w;     // (V) weights
    int32_t *order;  // (V) candidates, a heap
};
// The token; -1: no logit is finite, or one is infinite. seen: a bit for each token, in words of
// 32; NULL: none was.
int32_t mm_draw_row(const struct mm_draw *d, const float *logits, int64_t V, const uint32_t *seen,
                    const struct mm_draw_room *room);
#endif

#endif
