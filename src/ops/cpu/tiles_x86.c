// The frame of products of tiles, see tiles.h: blocks for the second cache, threads.
#include <unistd.h>
#include "ops/cpu/kernels.h"
#include "ops/cpu/tiles.h"

enum {
    b_bytes_least = 1 << 19,  // of B laid out by a thread, when the second cache is not known
    a_chunk = 16,             // tiles of k of a panel of A laid out by one item
    rows_least = 256,         // rows of a block, below which laying out B shows
    past_elements = 4 << 20,  // of C, from which on it is not worth a place in the caches: 16 MiB
    items_a_thread = 3,       // blocks a thread, so that a late one does not hold up the others
    small_work = 1 << 21      // operations below which a second thread does not pay
};

struct tiles_job {
    const struct mm_tiles *p;
    const char *a;
    char *lay;        // where A is laid out
    int64_t a_panel;  // bytes
    int64_t a_panels, a_chunks;
    char *rooms;  // (threads, room)
    int64_t room, b_room;
    int64_t b_panels, group;  // panels of B, and how many of them a block has
    int64_t rows, row_blocks;
};

static int64_t cut(int64_t n, int64_t by) {
    return (n + by - 1) / by;
}

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static void lay_a_items(void *arg, int64_t begin, int64_t end, int thread) {
    const struct tiles_job *j = arg;
    const struct mm_tiles *p = j->p;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        if (p->a_by_k) {
            p->lay_a(p, j->lay + i * mm_tile_pair, j->a_panel, 0, j->a_panels, i, 1);
        } else {
            const int64_t panel = i / j->a_chunks, kt = i % j->a_chunks * a_chunk;
            p->lay_a(p, j->lay + panel * j->a_panel + kt * mm_tile_pair, j->a_panel,
                     panel * mm_panel, 1, kt, least(a_chunk, p->k_tiles - kt));
        }
    }
}

// Whether C goes past the caches: when it is large, and its lines are whole.
static bool past(const struct mm_tiles *p) {
    return p->m * p->n >= past_elements && p->ldc % 16 == 0 && (uintptr_t)p->c % 64 == 0;
}

// A block of C: a group of panels of B, and a range of rows.
static void block(const struct tiles_job *j, int64_t index, char *room) {
    const struct mm_tiles *p = j->p;
    const int64_t first = index / j->row_blocks * j->group;
    const int64_t panels = least(j->group, j->b_panels - first);
    const int64_t row0 = index % j->row_blocks * j->rows, row1 = least(row0 + j->rows, p->m);
    for (int64_t kt = 0; kt < p->k_tiles; kt += p->pass) {
        const int64_t n_k = least(p->pass, p->k_tiles - kt);
        const int64_t b_panel = n_k * mm_tile_pair + p->b_tail;
        const bool add = p->accumulate || kt > 0, last = kt + n_k == p->k_tiles;
        p->lay_b(p, room, b_panel, first * mm_panel, panels, kt, n_k);
        struct mm_tiles_part part = {.b = room,
                                     .a_panel = j->a_panel,
                                     .b_panel = b_panel,
                                     .col = first * mm_panel,
                                     .cols = least(panels * mm_panel, p->n - first * mm_panel),
                                     .ldc = p->ldc,
                                     .kt = kt,
                                     .n_k = n_k,
                                     .add = add,
                                     .past = past(p) && !add && last,
                                     .room = room + j->b_room};
        for (int64_t row = row0; row < row1; row += p->row_block) {
            part.row = row;
            part.c = p->c + row * p->ldc + part.col;
            part.rows = least(p->row_block, row1 - row);
            part.a = j->a + row / mm_panel * j->a_panel + kt * mm_tile_pair;
            p->multiply(p, &part);
        }
    }
}

static void blocks(void *arg, int64_t begin, int64_t end, int thread) {
    const struct tiles_job *j = arg;
    if (j->p->begin) j->p->begin();
    for (int64_t i = begin; i < end; i++)
        block(j, i, j->rooms + (size_t)thread * (size_t)j->room);
    if (j->p->end) j->p->end();
}

// Half of the second cache.
static int64_t b_bytes(void) {
    const int64_t half = sysconf(_SC_LEVEL2_CACHE_SIZE) / 2;
    return half > b_bytes_least ? half : b_bytes_least;
}

// Blocks as wide as the second cache takes, but enough of them for all threads: first narrower, as
// long as A is not read too often for it, then shorter.
static void choose_blocks(struct tiles_job *j, int threads) {
    const struct mm_tiles *p = j->p;
    const int64_t b_panel = least(p->pass, p->k_tiles) * mm_tile_pair + p->b_tail;
    const int64_t wanted = threads > 1 ? (int64_t)threads * items_a_thread : 1;
    int64_t fit = b_bytes() / b_panel;
    fit = fit < 1 ? 1 : fit;
    j->b_panels = cut(p->n, mm_panel);
    j->group = least(fit, cut(j->b_panels, wanted));
    if (j->group < 4) j->group = least(least(4, fit), j->b_panels);
    const int64_t groups = cut(j->b_panels, j->group);
    j->group = cut(j->b_panels, groups);
    const int64_t most = cut(p->m, rows_least), split = least(most, cut(wanted, groups));
    j->rows = cut(cut(p->m, split), p->row_block) * p->row_block;
    j->row_blocks = cut(p->m, j->rows);
    j->b_room = (int64_t)mm_cpu_piece((size_t)(j->group * b_panel));
    j->room = j->b_room + (int64_t)mm_cpu_piece((size_t)p->room_bytes);
}

// Lays out A in scratch c, unless it is.
static bool lay_a(struct mm_backend *be, struct tiles_job *j, bool small) {
    const struct mm_tiles *p = j->p;
    j->a_panel = p->k_tiles * mm_tile_pair;
    j->a_panels = cut(p->m, mm_panel);
    j->a_chunks = cut(p->k_tiles, a_chunk);
    j->a = p->laid;
    if (j->a) return true;
    j->a = j->lay = mm_cpu_scratch(be, mm_scratch_c, (size_t)(j->a_panels * j->a_panel));
    if (!j->a) return false;
    const int64_t items = p->a_by_k ? p->k_tiles : j->a_panels * j->a_chunks;
    mm_parallel_for(be->pool, items, small ? items : p->a_by_k ? 1 : 2, lay_a_items, j);
    return true;
}

void mm_tiles_product(struct mm_backend *be, const struct mm_tiles *p) {
    if (p->m == 0 || p->n == 0) return;
    const int threads = mm_pool_size(be->pool);
    struct tiles_job j = {.p = p};
    const bool small = p->m * p->n * p->k_tiles < small_work / mm_tile_row;
    choose_blocks(&j, small ? 1 : threads);
    j.rooms = mm_cpu_scratch(be, mm_scratch_d, (size_t)threads * (size_t)j.room);
    if (!j.rooms || !lay_a(be, &j, small)) return;
    const int64_t n_blocks = cut(j.b_panels, j.group) * j.row_blocks;
    mm_parallel_for(be->pool, n_blocks, small ? n_blocks : 1, blocks, &j);
}

// ---- two products whose results meet ----

enum { ffn_panels = 4, ffn_cols = ffn_panels * mm_panel };  // columns of gate and up at a time

struct ffn_job {
    struct tiles_job a;  // gate's: what both share
    const struct mm_tiles *gate, *up, *down;
    char *out;  // down's A
    int64_t out_panel;
    int64_t b_panel, room_of_c;
    void (*swiglu)(float *y, const float *a, const float *b, int64_t n);
};

// Columns [col, col + cols) of silu(gate) * up of a range of rows, laid out as tiles of k of
// `down`.
static void ffn_block(const struct ffn_job *j, int64_t index, char *room) {
    const struct mm_tiles *g = j->gate, *d = j->down;
    const int64_t first = index / j->a.row_blocks * ffn_panels, col = first * mm_panel;
    const int64_t panels = least(ffn_panels, j->a.b_panels - first);
    const int64_t cols = least(ffn_cols, g->n - col), kt = col / d->tile_k;
    const int64_t row0 = index % j->a.row_blocks * j->a.rows, row1 = least(row0 + j->a.rows, g->m);
    char *b[2] = {room, room + ffn_panels * j->b_panel};
    float *c[2];
    for (int i = 0; i < 2; i++) {
        const struct mm_tiles *p = i ? j->up : g;
        c[i] = (float *)(void *)(room + j->a.b_room + i * j->room_of_c);
        p->lay_b(p, b[i], j->b_panel, col, panels, 0, p->k_tiles);
    }
    for (int64_t row = row0; row < row1; row += g->row_block) {
        const int64_t rows = least(g->row_block, row1 - row);
        for (int i = 0; i < 2; i++) {
            const struct mm_tiles *p = i ? j->up : g;
            p->multiply(p, &(struct mm_tiles_part){
                               .a = j->a.a + row / mm_panel * j->a.a_panel,
                               .b = b[i],
                               .a_panel = j->a.a_panel,
                               .b_panel = j->b_panel,
                               .row = row,
                               .rows = rows,
                               .col = col,
                               .cols = cols,
                               .c = c[i],
                               .ldc = ffn_cols,
                               .n_k = p->k_tiles,
                               .room = room + j->a.b_room + 2 * j->room_of_c,
                           });
        }
        for (int64_t r = 0; r < rows; r++)
            j->swiglu(c[0] + r * ffn_cols, c[0] + r * ffn_cols, c[1] + r * ffn_cols, cols);
        for (int64_t r = 0; r < rows; r += mm_panel)
            d->lay_a_from(d, j->out + (row + r) / mm_panel * j->out_panel + kt * mm_tile_pair,
                          c[0] + r * ffn_cols, ffn_cols, row + r, kt, cols);
    }
}

static void ffn_blocks(void *arg, int64_t begin, int64_t end, int thread) {
    const struct ffn_job *j = arg;
    if (j->gate->begin) j->gate->begin();
    for (int64_t i = begin; i < end; i++)
        ffn_block(j, i, j->a.rooms + (size_t)thread * (size_t)j->a.room);
    if (j->gate->end) j->gate->end();
}

void mm_tiles_ffn(struct mm_backend *be, const struct mm_tiles *gate, const struct mm_tiles *up,
                  const struct mm_tiles *down) {
    if (gate->m == 0) return;
    const int threads = mm_pool_size(be->pool);
    struct ffn_job j = {.a = {.p = gate},
                        .gate = gate,
                        .up = up,
                        .down = down,
                        .out_panel = down->k_tiles * mm_tile_pair,
                        .swiglu = mm_kernels_of(be)->swiglu_fwd};
    struct tiles_job *a = &j.a;
    a->b_panels = cut(gate->n, mm_panel);
    const int64_t groups = cut(a->b_panels, ffn_panels), row_block = gate->row_block;
    const int64_t split = least(cut(gate->m, rows_least), cut(threads * items_a_thread, groups));
    a->rows = cut(cut(gate->m, split), row_block) * row_block;
    a->row_blocks = cut(gate->m, a->rows);
    // B comes whole here, so its tails are as long as all of k needs
    j.b_panel = gate->k_tiles * mm_tile_pair + gate->b_tail * cut(gate->k_tiles, gate->pass);
    j.room_of_c = row_block * ffn_cols * (int64_t)sizeof(float);
    a->b_room = (int64_t)mm_cpu_piece((size_t)(2 * ffn_panels * j.b_panel));
    a->room = a->b_room + 2 * j.room_of_c + (int64_t)mm_cpu_piece((size_t)gate->room_bytes);
    a->rooms = mm_cpu_scratch(be, mm_scratch_d, (size_t)threads * (size_t)a->room);
    j.out = mm_cpu_scratch(be, mm_scratch_e, (size_t)(cut(gate->m, mm_panel) * j.out_panel));
    if (!a->rooms || !j.out || !lay_a(be, a, false)) return;
    mm_parallel_for(be->pool, groups * a->row_blocks, 1, ffn_blocks, &j);
    struct mm_tiles last = *down;
    last.laid = j.out;
    mm_tiles_product(be, &last);
}
