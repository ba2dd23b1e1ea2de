// Random numbers by counter (Philox 4x32-10, Salmon et al. 2011): the i-th number of a stream is
// a function of (seed, stream, i), so it does not matter which thread draws it, or when.
#ifndef MM_BASE_RNG_H
#define MM_BASE_RNG_H

#include <stdint.h>

struct mm_rng {
    uint64_t seed, stream, counter;  // all there is to save and restore
};

// The generator itself: four words out of a 128-bit counter and a 64-bit key. The stream above is
// counter = (i / 4, stream), key = seed, word i % 4.
void mm_philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

struct mm_rng mm_rng_make(uint64_t seed, uint64_t stream);
uint32_t mm_rng_u32_at(uint64_t seed, uint64_t stream, uint64_t i);

uint32_t mm_rng_u32(struct mm_rng *r);  // next, advances the counter by one
uint64_t mm_rng_u64(struct mm_rng *r);
float mm_rng_f32(struct mm_rng *r);  // [0, 1), 24 bits
double mm_rng_uniform(struct mm_rng *r, double lo, double hi);
double mm_rng_normal(struct mm_rng *r);               // Box-Muller, two counters a number
uint32_t mm_rng_below(struct mm_rng *r, uint32_t n);  // [0, n) without bias; n >= 1
void mm_rng_shuffle(struct mm_rng *r, int64_t *items, int64_t n);  // Fisher-Yates

// A stream number from a name, for example mm_rng_stream("carve/language_model.model.layers.3").
uint64_t mm_rng_stream(const char *name);

#endif
