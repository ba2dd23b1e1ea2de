// AMX: the multiplication of tiles, see tiles.h.
//
// Both multiplications live from what a tile load of the streaming kind does not do: it leaves the
// first cache alone. So what is loaded the plain way stays there, and the rest comes from the
// second cache at its full width. A plain load of everything reaches three quarters of the peak.
#include "ops/cpu/amx.h"
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "ops/cpu/tiles_quant.h"

#define TILES \
    __attribute__((target("amx-tile,amx-bf16,amx-int8,avx512f,avx512bw,avx512dq,avx512vl")))
#define TILES_INLINE static inline TILES __attribute__((always_inline))

bool mm_amx_available(void) {
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    const unsigned bf16 = 1u << 22, tile = 1u << 24, int8 = 1u << 25;
    if (!(d & bf16) || !(d & tile) || !(d & int8)) return false;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) return false;
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    const unsigned tile_state = 3u << 17;  // XCR0: the kernel saves the tiles
    if ((low & tile_state) != tile_state) return false;
    enum { arch_req_xcomp_perm = 0x1023, xfeature_tiledata = 18 };
    return syscall(SYS_arch_prctl, arch_req_xcomp_perm, xfeature_tiledata) == 0;
}

// In memory before the program starts: the compiler takes _tile_loadconfig to read 8 bytes, and may
// not have stored the rest.
static const struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} config = {.palette = 1,
            .bytes = {64, 64, 64, 64, 64, 64, 64, 64},
            .rows = {16, 16, 16, 16, 16, 16, 16, 16}};

TILES void mm_amx_begin(void) {
    _tile_loadconfig(&config);
}

TILES void mm_amx_end(void) {
    _mm_sfence();  // stores past the caches, before other threads are told
    _tile_release();
}

// The part of a block of rows of 32 that exists, from C.
static void get_block(float *block, const float *c, int64_t ldc, int64_t rows, int64_t cols) {
    for (int64_t r = 0; r < rows; r++)
        memcpy(block + r * mm_panel, c + r * ldc, (size_t)cols * sizeof *c);
}

// And to it; past the caches when `past` (lines of C are whole then).
TILES static void put_block(float *c, const float *block, int64_t ldc, int64_t rows, int64_t cols,
                            bool past) {
    for (int64_t r = 0; r < rows; r++) {
        float *to = c + r * ldc;
        const float *from = block + r * mm_panel;
        if (cols < mm_panel) {
            memcpy(to, from, (size_t)cols * sizeof *c);
        } else if (past) {
            _mm512_stream_ps(to, _mm512_load_ps(from));
            _mm512_stream_ps(to + mm_tile_side, _mm512_load_ps(from + mm_tile_side));
        } else {
            _mm512_storeu_ps(to, _mm512_load_ps(from));
            _mm512_storeu_ps(to + mm_tile_side, _mm512_load_ps(from + mm_tile_side));
        }
    }
}

// ---- bf16 ----

enum {
    // Tiles of k of A that stay in the first cache while the panels of B pass by: 32 KiB.
    kept = 16,
    // Measured on Granite Rapids: the first tile store after some 1,500 cycles without one takes
    // 700 to 1,000 cycles, whatever it stores and wherever the line is. One every so many tiles of
    // k that nobody reads keeps the store of a finished block short (docs/PERFORMANCE.md).
    awake = 8
};

// What to ask for while a block is summed: the lines of C that are wanted next (this block's when
// it is only written, the next one's when that is read first), and the next panel of A.
struct ahead {
    const char *a;
    int64_t lines;  // of A, for each tile of k
    const float *c;
};

#define STEP(load_a)                                       \
    load_a(4, a, mm_tile_row);                             \
    _tile_stream_loadd(6, b, mm_tile_row);                 \
    _tile_stream_loadd(7, b + mm_tile_bytes, mm_tile_row); \
    _tile_dpbf16ps(0, 4, 6);                               \
    load_a(5, a + mm_tile_bytes, mm_tile_row);             \
    _tile_dpbf16ps(1, 4, 7);                               \
    _tile_dpbf16ps(2, 5, 6);                               \
    _tile_dpbf16ps(3, 5, 7);                               \
    a += mm_tile_pair, b += mm_tile_pair

TILES static void bf16_block(const char *a, const char *b, int64_t n_k, float *c, int64_t ldc,
                             bool add, struct ahead *ahead) {
    const int64_t row = ldc * (int64_t)sizeof *c;
    float *below = c + mm_tile_side * ldc;
    if (add) {
        _tile_loadd(0, c, row);
        _tile_loadd(1, c + mm_tile_side, row);
        _tile_loadd(2, below, row);
        _tile_loadd(3, below + mm_tile_side, row);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    const int64_t first = n_k < kept ? n_k : kept, some = (mm_panel + n_k - 1) / n_k;
    _Alignas(64) char unread[mm_tile_bytes];
    for (int64_t k = 0; k < n_k; k++) {
        for (int64_t r = k * some; ahead->c && r < (k + 1) * some && r < mm_panel; r++) {
            __builtin_prefetch(ahead->c + r * ldc, 1);
            __builtin_prefetch(ahead->c + r * ldc + mm_tile_side, 1);
        }
        for (int64_t i = 0; i < ahead->lines; i++, ahead->a += 64)
            _mm_prefetch(ahead->a, _MM_HINT_T1);
        if (k < first) {
            STEP(_tile_loadd);
        } else {
            STEP(_tile_stream_loadd);
        }
        if (k % awake == awake - 1) _tile_stored(5, unread, mm_tile_row);
    }
    _tile_stored(0, c, row);
    _tile_stored(1, c + mm_tile_side, row);
    _tile_stored(2, below, row);
    _tile_stored(3, below + mm_tile_side, row);
}

void mm_amx_bf16_multiply(const struct mm_tiles *p, const struct mm_tiles_part *part) {
    const int64_t panels = (part->cols + mm_panel - 1) / mm_panel;
    for (int64_t r = 0; r < part->rows; r += mm_panel) {
        const char *a = part->a + r / mm_panel * part->a_panel, *b = part->b;
        const int64_t rows = part->rows - r < mm_panel ? part->rows - r : mm_panel;
        const bool more = part->row + r + mm_panel < p->m;
        struct ahead ahead = {a + part->a_panel, more ? (mm_panel + panels - 1) / panels : 0, NULL};
        if (ahead.lines > 8) ahead.lines = 8;
        for (int64_t col = 0; col < part->cols; col += mm_panel, b += part->b_panel) {
            const int64_t cols = part->cols - col < mm_panel ? part->cols - col : mm_panel;
            float *c = part->c + r * part->ldc + col;
            if (rows == mm_panel && cols == mm_panel && !part->past) {
                const bool last = col + mm_panel >= part->cols;
                const bool ends = last && r + mm_panel >= part->rows;
                ahead.c = !part->add ? c
                          : ends     ? NULL
                          : last     ? c - col + mm_panel * part->ldc
                                     : c + mm_panel;
                bf16_block(a, b, part->n_k, c, part->ldc, part->add, &ahead);
                continue;
            }
            _Alignas(64) float edge[mm_panel * mm_panel];
            ahead.c = NULL;
            if (part->add) get_block(edge, c, part->ldc, rows, cols);
            bf16_block(a, b, part->n_k, edge, mm_panel, part->add, &ahead);
            put_block(c, edge, part->ldc, rows, cols, part->past);
        }
    }
}

// ---- int8 ----
//
// The sum of a block of 128 k leaves its tile after two multiplications, and storing a tile takes
// the time of one: at most two thirds of the peak are to be had. The four tiles of B of a block
// stay in registers while A passes by; what a block left behind is scaled while the next one is
// summed.

enum { block_tiles = 2 };

TILES_INLINE void scale_tile(float *sum, const int32_t *from, const float *r, __m512 s0,
                             __m512 s1) {
#pragma GCC unroll 16
    for (int t = 0; t < mm_tile_side; t++) {
        const __m512 rt = _mm512_set1_ps(r[t]);
        const __m512 a = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_load_si512(from + t * 16)), s0);
        const __m512 b =
            _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_load_si512(from + 256 + t * 16)), s1);
        float *to = sum + t * mm_panel;
        _mm512_store_ps(to, _mm512_fmadd_ps(a, rt, _mm512_load_ps(to)));
        _mm512_store_ps(to + 16, _mm512_fmadd_ps(b, rt, _mm512_load_ps(to + 16)));
    }
}

// One panel of columns: `tiles` tiles of rows.
TILES static void int8_panel(const struct mm_tiles_part *part, const char *b, const float *r,
                             int64_t ldr, float *sum, int32_t *exact, int64_t tiles) {
    const int64_t blocks = part->n_k / block_tiles;
    const float *s = (const float *)(b + part->n_k * mm_tile_pair);
    __m512 s0 = _mm512_setzero_ps(), s1 = s0;
    for (int64_t i = 0; i <= blocks; i++) {
        if (i == blocks) {
            for (int64_t t = 0; t < tiles; t++)
                scale_tile(sum + t * 512, exact + t * 512, r + (i - 1) * ldr + t * 16, s0, s1);
            return;
        }
        const char *bi = b + i * block_tiles * mm_tile_pair;
        _tile_loadd(2, bi, mm_tile_row);
        _tile_loadd(3, bi + mm_tile_pair, mm_tile_row);
        _tile_loadd(4, bi + mm_tile_bytes, mm_tile_row);
        _tile_loadd(5, bi + mm_tile_pair + mm_tile_bytes, mm_tile_row);
        for (int64_t t = 0; t < tiles; t++) {
            const char *a = part->a + t / 2 * part->a_panel + i * block_tiles * mm_tile_pair +
                            t % 2 * mm_tile_bytes;
            _tile_stream_loadd(6, a, mm_tile_row);
            _tile_stream_loadd(7, a + mm_tile_pair, mm_tile_row);
            _tile_zero(0);
            _tile_zero(1);
            _tile_dpbssd(0, 6, 2);
            _tile_dpbssd(1, 6, 4);
            if (i) scale_tile(sum + t * 512, exact + t * 512, r + (i - 1) * ldr + t * 16, s0, s1);
            _tile_dpbssd(0, 7, 3);
            _tile_dpbssd(1, 7, 5);
            _tile_stored(0, exact + t * 512, mm_tile_row);
            _tile_stored(1, exact + t * 512 + 256, mm_tile_row);
        }
        s0 = _mm512_load_ps(s + i * mm_panel);
        s1 = _mm512_load_ps(s + i * mm_panel + 16);
    }
}

void mm_amx_int8_multiply(const struct mm_tiles *p, const struct mm_tiles_part *part) {
    const struct mm_tiles_quant *q = p->with;
    // Not a whole number of pages apart: the processor takes the low 12 bits of an address for it.
    float *sum = (float *)part->room;
    int32_t *exact = (int32_t *)(part->room + mm_amx_int8_rows * mm_panel * 4 + 3072);
    const float *r = q->r + part->kt / block_tiles * q->ldr + part->row;
    const int64_t tiles = (part->rows + mm_tile_side - 1) / mm_tile_side;
    for (int64_t col = 0; col < part->cols; col += mm_panel) {
        const int64_t cols = part->cols - col < mm_panel ? part->cols - col : mm_panel;
        float *c = part->c + col;
        if (part->add) {
            get_block(sum, c, part->ldc, part->rows, cols);
        } else {
            memset(sum, 0, (size_t)(tiles * mm_tile_side * mm_panel) * sizeof *sum);
        }
        int8_panel(part, part->b + col / mm_panel * part->b_panel, r, q->ldr, sum, exact, tiles);
        put_block(c, sum, part->ldc, part->rows, cols, part->past);
    }
}
