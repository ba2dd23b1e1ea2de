// bf16 products on AMX. A tile is 1 KiB: of A, 16 rows of 32 k; of B, 16 pairs of k by 16 columns.
// Both operands are first laid out as such tiles, which is also where f32 is rounded, so that
// neither oneDNN packs again nor a separate conversion is needed: 1.1 to 2.6 times as fast as its
// product of sizes given at run time, measured at T 1200, D 256, F 768. Then blocks of 32 x 32 of C
// are summed in four tiles.
#include "ops/cpu/amx.h"
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PACKS __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")))
#define TILES __attribute__((target("amx-tile,amx-bf16,avx512f")))

enum {
    tile_k = 32,     // k of a tile
    tile_side = 16,  // rows of A or columns of B of a tile
    tile_elements = 512,
    k_block = 16,           // tiles along k summed at a time: 32 KiB of B stay in the first cache
    cache_side = 128,       // rows and columns of C whose operands stay in the second cache
    packed_b_max = 8 << 20  // elements of B laid out at a time
};

bool mm_amx_available(void) {
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    const unsigned bf16 = 1u << 22, tile = 1u << 24;
    if (!(d & bf16) || !(d & tile)) return false;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) return false;
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    const unsigned tile_state = 3u << 17;  // XCR0: the kernel saves the tiles
    if ((low & tile_state) != tile_state) return false;
    enum { arch_req_xcomp_perm = 0x1023, xfeature_tiledata = 18 };
    return syscall(SYS_arch_prctl, arch_req_xcomp_perm, xfeature_tiledata) == 0;
}

// ---- laying out tiles ----

PACKS static inline __mmask16 first16(int64_t n) {
    return (__mmask16)(n >= 16 ? 0xffffu : n <= 0 ? 0u : (1u << n) - 1u);
}

// 16 rows of 32 k each from a matrix whose rows hold k: n_rows and n_k of them are there.
PACKS static inline void load_rows(__m512i out[16], const struct mm_side *s, int64_t row, int64_t k,
                                   int64_t n_rows, int64_t n_k) {
    const __mmask16 lo = first16(n_k), hi = first16(n_k - 16);
    for (int r = 0; r < 16; r++) {
        if (r >= n_rows) {
            out[r] = _mm512_setzero_si512();
        } else if (s->dtype == mm_dtype_f32) {
            const float *p = (const float *)s->data + (row + r) * s->ld + k;
            out[r] = (__m512i)_mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps(hi, p + 16),
                                                  _mm512_maskz_loadu_ps(lo, p));
        } else {
            const uint16_t *p = (const uint16_t *)s->data + (row + r) * s->ld + k;
            out[r] = _mm512_maskz_loadu_epi16((__mmask32)lo | (__mmask32)hi << 16, p);
        }
    }
}

// 16 pairs of k by 16 columns from a matrix whose rows are k.
PACKS static inline void load_pairs(__m512i out[16], const struct mm_side *s, int64_t k,
                                    int64_t col, int64_t n_k, int64_t n_cols) {
    const __mmask16 some = first16(n_cols);
    const __m512i zip = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24,
                                         8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    for (int pair = 0; pair < 16; pair++) {
        const __mmask16 first = 2 * pair < n_k ? some : 0;
        const __mmask16 second = 2 * pair + 1 < n_k ? some : 0;
        const int64_t at = (k + 2 * pair) * s->ld + col;
        if (s->dtype == mm_dtype_f32) {
            const float *p = (const float *)s->data + at;
            const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(
                _mm512_maskz_loadu_ps(second, p + s->ld), _mm512_maskz_loadu_ps(first, p));
            out[pair] = _mm512_permutexvar_epi16(zip, both);
        } else {
            const uint16_t *p = (const uint16_t *)s->data + at;
            const __m512i even = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(first, p));
            const __m512i odd = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(second, p + s->ld));
            out[pair] = _mm512_or_si512(even, _mm512_slli_epi32(odd, 16));
        }
    }
}

// 16 x 16 pairs.
PACKS static inline void transpose(__m512i r[16]) {
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int j = 0; j < 4; j++) {  // lanes of 128 bits: 0 and 2, then 1 and 3
        const __m512i a = _mm512_shuffle_i32x4(r[j], r[4 + j], 0x88);
        const __m512i b = _mm512_shuffle_i32x4(r[8 + j], r[12 + j], 0x88);
        const __m512i c = _mm512_shuffle_i32x4(r[j], r[4 + j], 0xdd);
        const __m512i d = _mm512_shuffle_i32x4(r[8 + j], r[12 + j], 0xdd);
        t[j] = _mm512_shuffle_i32x4(a, b, 0x88);
        t[8 + j] = _mm512_shuffle_i32x4(a, b, 0xdd);
        t[4 + j] = _mm512_shuffle_i32x4(c, d, 0x88);
        t[12 + j] = _mm512_shuffle_i32x4(c, d, 0xdd);
    }
    for (int i = 0; i < 16; i++)
        r[i] = t[i];
}

// One tile of rows (of A) or columns (of B) from `at` on; `is_b` decides how pairs must lie.
PACKS static void pack_tile(uint16_t *to, const struct mm_side *s, int64_t at, int64_t n_at,
                            int64_t k, int64_t n_k, bool is_b) {
    __m512i r[16];
    if (s->by_k) {
        load_pairs(r, s, k, at, n_k, n_at);
    } else {
        load_rows(r, s, at, k, n_at, n_k);
    }
    if (s->by_k != is_b) transpose(r);
    for (int i = 0; i < 16; i++)
        _mm512_store_si512(to + i * tile_k, r[i]);
}

struct pack_job {
    struct mm_side side;
    uint16_t *to;      // (tiles, k tiles, 512)
    int64_t first, n;  // rows of A or columns of B
    int64_t k, tiles, k_tiles;
    bool is_b;
};

// Memory is walked along its rows: where they are k, an item is a tile of k of every panel, else
// a panel.
static void pack_items(void *arg, int64_t begin, int64_t end, int thread) {
    const struct pack_job *j = arg;
    const int64_t inner = j->side.by_k ? j->tiles : j->k_tiles;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        for (int64_t o = 0; o < inner; o++) {
            const int64_t tile = j->side.by_k ? o : i, kt = j->side.by_k ? i : o;
            const int64_t at = tile * tile_side, k = kt * tile_k;
            pack_tile(j->to + (tile * j->k_tiles + kt) * tile_elements, &j->side, j->first + at,
                      j->n - at, k, j->k - k, j->is_b);
        }
    }
}

static void pack(struct mm_backend *be, const struct pack_job *j) {
    struct pack_job copy = *j;
    const int64_t items = j->side.by_k ? j->k_tiles : j->tiles;
    const bool small = j->tiles * j->k_tiles < 64;
    mm_parallel_for(be->pool, items, small ? items : 1, pack_items, &copy);
}

// ---- multiplying tiles ----

struct mul_job {
    const uint16_t *a, *b;
    float *c;
    int64_t ldc, m, n, k_tiles;
    bool accumulate, by_rows;
};

// The part of a 32 x 32 block that exists, from or to memory.
static void move_edge(float *block, float *c, int64_t ldc, int64_t rows, int64_t cols, bool in) {
    for (int64_t r = 0; r < rows; r++) {
        float *b = block + r * 32, *m = c + r * ldc;
        memcpy(in ? b : m, in ? m : b, (size_t)cols * sizeof *b);
    }
}

TILES static void mul_block(const uint16_t *a, const uint16_t *b, int64_t panel, int64_t n_k,
                            float *c, int64_t ldc, bool add) {
    const int64_t stride = 64, row = ldc * (int64_t)sizeof *c;
    float *below = c + tile_side * ldc;
    if (add) {
        _tile_loadd(0, c, row);
        _tile_loadd(1, c + tile_side, row);
        _tile_loadd(2, below, row);
        _tile_loadd(3, below + tile_side, row);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (int64_t k = 0; k < n_k; k++, a += tile_elements, b += tile_elements) {
        _tile_loadd(4, a, stride);
        _tile_loadd(6, b, stride);
        _tile_loadd(7, b + panel, stride);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(5, a + panel, stride);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, c, row);
    _tile_stored(1, c + tile_side, row);
    _tile_stored(2, below, row);
    _tile_stored(3, below + tile_side, row);
}

static void mul_at(const struct mul_job *j, int64_t r, int64_t col, int64_t k0) {
    const int64_t panel = j->k_tiles * tile_elements, left = j->k_tiles - k0;
    const int64_t n_k = left < k_block ? left : k_block;
    const uint16_t *a = j->a + r / tile_side * panel + k0 * tile_elements;
    const uint16_t *b = j->b + col / tile_side * panel + k0 * tile_elements;
    const int64_t rows = j->m - r < 32 ? j->m - r : 32, cols = j->n - col < 32 ? j->n - col : 32;
    const bool add = j->accumulate || k0 > 0;
    float *c = j->c + r * j->ldc + col;
    if (rows == 32 && cols == 32) {
        mul_block(a, b, panel, n_k, c, j->ldc, add);
        return;
    }
    _Alignas(64) float edge[32 * 32] = {0};
    if (add) move_edge(edge, c, j->ldc, rows, cols, true);
    mul_block(a, b, panel, n_k, edge, 32, add);
    move_edge(edge, c, j->ldc, rows, cols, false);
}

// A part of C of which the tiles of A and B of one k block, and C itself, fit in the second cache.
static void mul_cached(const struct mul_job *j, int64_t r0, int64_t r1, int64_t c0, int64_t c1) {
    for (int64_t k0 = 0; k0 < j->k_tiles; k0 += k_block) {
        for (int64_t col = c0; col < c1; col += 32) {
            for (int64_t r = r0; r < r1; r += 32) {
                // The rows of the next block lie too far apart for the processor to guess.
                const int64_t next = r + 32 < r1 ? r + 32 : r0,
                              ahead = r + 32 < r1 ? col : col + 32;
                for (int64_t i = 0; ahead < c1 && i < 32 && next + i < r1; i++) {
                    __builtin_prefetch(j->c + (next + i) * j->ldc + ahead, 1);
                    __builtin_prefetch(j->c + (next + i) * j->ldc + ahead + 16, 1);
                }
                mul_at(j, r, col, k0);
            }
        }
    }
}

TILES static void mul_range(void *arg, int64_t begin, int64_t end, int thread) {
    const struct mul_job *j = arg;
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } config = {.palette = 1};
    (void)thread;
    for (int i = 0; i < 8; i++)
        config.bytes[i] = 64, config.rows[i] = 16;
    _tile_loadconfig(&config);
    const int64_t r0 = j->by_rows ? begin * 32 : 0, c0 = j->by_rows ? 0 : begin * 32;
    const int64_t r1 = j->by_rows && end * 32 < j->m ? end * 32 : j->m;
    const int64_t c1 = !j->by_rows && end * 32 < j->n ? end * 32 : j->n;
    for (int64_t r = r0; r < r1; r += cache_side) {
        for (int64_t col = c0; col < c1; col += cache_side) {
            const int64_t re = r1 - r < cache_side ? r1 : r + cache_side;
            const int64_t ce = c1 - col < cache_side ? c1 : col + cache_side;
            mul_cached(j, r, re, col, ce);
        }
    }
    _tile_release();
}

void mm_amx_product(struct mm_backend *be, float *c, int64_t ldc, int64_t m, int64_t n, int64_t k,
                    struct mm_side a, struct mm_side b, bool accumulate) {
    if (m == 0 || n == 0) return;
    struct pack_job pa = {.side = a, .n = m, .k = k, .k_tiles = (k + tile_k - 1) / tile_k};
    struct pack_job pb = {.side = b, .k = k, .k_tiles = pa.k_tiles, .is_b = true};
    const int64_t panel = pa.k_tiles * tile_elements, whole = (n + 31) / 32 * 32;
    int64_t step = packed_b_max / (panel / tile_side) / 32 * 32;
    step = step < 32 ? 32 : step < whole ? step : whole;
    pa.tiles = (m + 31) / 32 * 2;
    pa.to = mm_cpu_scratch(be, mm_scratch_c, (size_t)(pa.tiles * panel) * sizeof *pa.to);
    pb.to = mm_cpu_scratch(be, mm_scratch_d, (size_t)(step / 16 * panel) * sizeof *pb.to);
    if (be->error.code) return;
    pack(be, &pa);
    const bool small = m * n * k < 1 << 21;
    for (int64_t first = 0; first < n; first += step) {
        pb.first = first;
        pb.n = n - first < step ? n - first : step;
        pb.tiles = (pb.n + 31) / 32 * 2;
        pack(be, &pb);
        struct mul_job j = {.a = pa.to,
                            .b = pb.to,
                            .c = c + first,
                            .ldc = ldc,
                            .m = m,
                            .n = pb.n,
                            .k_tiles = pa.k_tiles,
                            .accumulate = accumulate,
                            .by_rows = m >= pb.n};
        const int64_t blocks = ((j.by_rows ? m : pb.n) + 31) / 32;
        // Pieces of cache_side where there are enough of them.
        const int64_t grain = small ? blocks : blocks < 16 ? 1 : cache_side / 32;
        mm_parallel_for(be->pool, blocks, grain, mul_range, &j);
    }
}
