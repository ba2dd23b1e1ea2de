// The frame of products of tiles, see tiles.h: blocks for the second cache, threads.
#include <unistd.h>
#include "ops/cpu/tiles.h"

enum {
    b_bytes_least = 1 << 19,  // of B laid out by a thread, when the second cache is not known
    a_chunk = 16,             // tiles of k of a panel of A laid out by one item
    rows_least = 256,         // rows of a block, below which laying out B shows
    items_a_thread = 3,       // blocks a thread, so that a late one does not hold up the others
    small_work = 1 << 21      // operations below which a second thread does not pay
};

struct tiles_job {
    const struct mm_tiles *p;
    char *a;
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
            p->lay_a(p, j->a + i * mm_tile_pair, j->a_panel, 0, j->a_panels, i, 1);
        } else {
            const int64_t panel = i / j->a_chunks, kt = i % j->a_chunks * a_chunk;
            p->lay_a(p, j->a + panel * j->a_panel + kt * mm_tile_pair, j->a_panel, panel * mm_panel,
                     1, kt, least(a_chunk, p->k_tiles - kt));
        }
    }
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
        p->lay_b(p, room, b_panel, first * mm_panel, panels, kt, n_k);
        struct mm_tiles_part part = {.b = room,
                                     .a_panel = j->a_panel,
                                     .b_panel = b_panel,
                                     .col = first * mm_panel,
                                     .cols = least(panels * mm_panel, p->n - first * mm_panel),
                                     .kt = kt,
                                     .n_k = n_k,
                                     .add = p->accumulate || kt > 0,
                                     .room = room + j->b_room};
        for (int64_t row = row0; row < row1; row += p->row_block) {
            part.row = row;
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

void mm_tiles_product(struct mm_backend *be, const struct mm_tiles *p) {
    if (p->m == 0 || p->n == 0) return;
    const int threads = mm_pool_size(be->pool);
    struct tiles_job j = {.p = p, .a_panel = p->k_tiles * mm_tile_pair};
    j.a_panels = cut(p->m, mm_panel);
    j.a_chunks = cut(p->k_tiles, a_chunk);
    const bool small = p->m * p->n * p->k_tiles < small_work / mm_tile_row;
    choose_blocks(&j, small ? 1 : threads);
    j.a = mm_cpu_scratch(be, mm_scratch_c, (size_t)(j.a_panels * j.a_panel));
    j.rooms = mm_cpu_scratch(be, mm_scratch_d, (size_t)threads * (size_t)j.room);
    if (be->error.code) return;
    const int64_t items = p->a_by_k ? p->k_tiles : j.a_panels * j.a_chunks;
    mm_parallel_for(be->pool, items, small ? items : p->a_by_k ? 1 : 2, lay_a_items, &j);
    const int64_t n_blocks = cut(j.b_panels, j.group) * j.row_blocks;
    mm_parallel_for(be->pool, n_blocks, small ? n_blocks : 1, blocks, &j);
}
