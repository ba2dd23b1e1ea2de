// Philox 4x32-10: J. Salmon, M. Moraes, R. Dror, D. Shaw, "Parallel random numbers: as easy as
// 1, 2, 3", SC 2011.
#include "base/rng.h"

#include <assert.h>
#include <math.h>

void mm_philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        const uint64_t p0 = (uint64_t)0xd2511f53u * c0;
        const uint64_t p1 = (uint64_t)0xcd9e8d57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9e3779b9u;  // Weyl sequences: the golden ratio, and sqrt(3) - 1
        k1 += 0xbb67ae85u;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

struct mm_rng mm_rng_make(uint64_t seed, uint64_t stream) {
    return (struct mm_rng){.seed = seed, .stream = stream, .counter = 0};
}

uint32_t mm_rng_u32_at(uint64_t seed, uint64_t stream, uint64_t i) {
    const uint64_t block = i >> 2;
    const uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32), (uint32_t)stream,
                                 (uint32_t)(stream >> 32)};
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t out[4];
    mm_philox4x32(counter, key, out);
    return out[i & 3u];
}

uint32_t mm_rng_u32(struct mm_rng *r) {
    return mm_rng_u32_at(r->seed, r->stream, r->counter++);
}

uint64_t mm_rng_u64(struct mm_rng *r) {
    const uint64_t lo = mm_rng_u32(r);
    const uint64_t hi = mm_rng_u32(r);
    return hi << 32 | lo;
}

float mm_rng_f32(struct mm_rng *r) {
    return (float)(mm_rng_u32(r) >> 8) * 0x1p-24f;
}

double mm_rng_uniform(struct mm_rng *r, double lo, double hi) {
    const double u = (double)(mm_rng_u64(r) >> 11) * 0x1p-53;
    return lo + (hi - lo) * u;
}

double mm_rng_normal(struct mm_rng *r) {
    const double u = ((double)mm_rng_u32(r) + 1.0) * 0x1p-32;  // (0, 1]: the logarithm exists
    const double v = (double)mm_rng_u32(r) * 0x1p-32;
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586476925 * v);
}

// Lemire's multiply-and-reject: the product's high word is the number, and the few low words that
// would make some numbers one draw likelier than others are drawn again.
uint32_t mm_rng_below(struct mm_rng *r, uint32_t n) {
    assert(n >= 1);
    const uint32_t threshold = (0u - n) % n;
    uint64_t product;
    do {
        product = (uint64_t)mm_rng_u32(r) * n;
    } while ((uint32_t)product < threshold);
    return (uint32_t)(product >> 32);
}

void mm_rng_shuffle(struct mm_rng *r, int64_t *items, int64_t n) {
    assert(n <= UINT32_MAX);
    for (int64_t i = n - 1; i > 0; i--) {
        const int64_t j = mm_rng_below(r, (uint32_t)i + 1);
        const int64_t t = items[i];
        items[i] = items[j];
        items[j] = t;
    }
}

uint64_t mm_rng_stream(const char *name) {
    uint64_t h = 0xcbf29ce484222325u;  // FNV-1a
    for (const char *c = name; *c; c++) {
        h = (h ^ (unsigned char)*c) * 0x100000001b3u;
    }
    // FNV leaves the last characters in few bits; finish as MurmurHash3 does.
    h = (h ^ h >> 33) * 0xff51afd7ed558ccdu;
    h = (h ^ h >> 33) * 0xc4ceb9fe1a85ec53u;
    return h ^ h >> 33;
}
