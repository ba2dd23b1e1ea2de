// Products of bf16 weights (step_many_tile.cuh), and the host's side of those of codes as well.
#include "ops/cuda/step_many_bf16.cuh"

template <int COLS>
static __global__ void __launch_bounds__(mm_many_product_threads, 1)
    many_product(const __grid_constant__ struct mm_many_task t) {
#if MM_HOPPER
    MM_DYNAMIC_SHARED(memory);
    mm_many_run_bf16<COLS>(t, memory);
#endif
}

// ---- the host's side ----

int64_t mm_many_row_bytes(struct mm_view w) {
    return mm_dtype_quantized(w.dtype) ? mm_quant_row_bytes(w.dtype, mm_view_cols(w)) : w.ld * 2;
}
int64_t mm_many_code_bytes(struct mm_view w) {
    return mm_dtype_quantized(w.dtype) ? mm_quant_code_bytes(w.dtype, mm_view_cols(w))
                                       : mm_view_cols(w) * 2;
}

int mm_many_hopper_parts(struct mm_backend *be, struct mm_view w, int64_t padded) {
    const bool quantized = mm_dtype_quantized(w.dtype);
    const int64_t bytes = mm_many_code_bytes(w);
    if ((!quantized && w.dtype != mm_dtype_bf16) || padded > mm_many_hopper_rows ||
        mm_view_cols(w) % (quantized ? mm_quant_block : 8) ||
        (quantized && bytes % mm_many_step_bytes) || mm_many_row_bytes(w) % 16 ||
        (uintptr_t)w.data % 16 || !mm_hopper_here(be))
        return 0;
    const int sms = mm_cuda_of(be)->sms;
    const int64_t tiles = mm_many_hopper_tiles(w),
                  steps = (bytes + mm_many_step_bytes - 1) / mm_many_step_bytes;
    int64_t parts = sms / tiles;
    // codes take longer than they are on their way: fewer steps are enough
    const int64_t least = quantized ? 2 : 4;
    if (parts > steps / least) parts = steps / least;
    return parts < 1 ? 1 : parts > mm_many_most_parts ? mm_many_most_parts : (int)parts;
}

int mm_many_hopper_tiles(struct mm_view w) {
    return (int)((w.shape[0] + mm_many_tile - 1) / mm_many_tile);
}

bool mm_many_hopper_meets(struct mm_backend *be, struct mm_view w, int64_t padded) {
    const int parts = mm_many_hopper_parts(be, w, padded);
    return parts && w.shape[0] % 4 == 0 && parts * mm_many_hopper_tiles(w) <= mm_cuda_of(be)->sms;
}

// Rows for a group: 64, or fewer where that gives more blocks something to do. Their sums are the
// same in any case.
static int half_of(struct mm_backend *be, const struct mm_many_product *p, int parts) {
    if (p->w3.data || p->after.x) return mm_many_half_rows;
    const int64_t rows = p->w.shape[0], sms = mm_cuda_of(be)->sms;
    const auto blocks = [&](int half) { return (rows + 2 * half - 1) / (2 * half) * parts; };
    return blocks(32) <= sms ? 32 : blocks(48) <= sms ? 48 : mm_many_half_rows;
}

// Of `box` rows at a time, 128 bytes of each.
static bool map_of(struct mm_backend *be, CUtensorMap *map, const void *p, int64_t rows,
                   int64_t bytes, int64_t row_bytes, int box) {
    struct mm_view v = mm_view3((void *)p, mm_dtype_bf16, rows, 1, bytes / 2);
    v.ld = row_bytes / 2;
    return mm_tile_map_of(map, v, box) ||
           mm_cuda_ok(be, cudaErrorInvalidValue, "describing a matrix to the copy engine");
}

template <int COLS>
static void launch(struct mm_backend *be, const struct mm_many_task &t) {
    const size_t bytes = sizeof(struct mm_many_bf16<COLS>);
    if (!mm_cuda_ok(be,
                    cudaFuncSetAttribute(many_product<COLS>,
                                         cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes),
                    "asking for shared memory for products"))
        return;
    mm_many_launch(be, true, "a product of many sequences", many_product<COLS>,
                   dim3((unsigned)t.blocks), dim3(mm_many_product_threads), bytes, t);
}

// What the blocks of a product have to know; half: 0, or rows for a group. false: be's error.
static bool task_of(struct mm_backend *be, const struct mm_many_product *p, int parts, int half,
                    struct mm_many_task *t, struct mm_many_rows_of *rows) {
    const bool quantized = mm_dtype_quantized(p->w.dtype);
    const int64_t code_bytes = mm_many_code_bytes(p->w), row_bytes = mm_many_row_bytes(p->w);
    const int64_t x_bytes = mm_view_cols(p->w) * (quantized ? 1 : 2);
    t->out = p->out, t->out_ld = p->out_ld, t->part = p->part;
    t->gated = p->gated, t->gated_sums = p->gated_sums, t->gated_met = p->gated_met;
    t->rows = (int)p->w.shape[0], t->both = p->w3.data != NULL;
    t->steps = (int)((code_bytes + mm_many_step_bytes - 1) / mm_many_step_bytes);
    t->ahead = p->ahead;
    t->before = p->before, t->after = p->after;
    t->givers = (int)mm_cuda_givers(mm_cuda_of(be));
    t->n = (int)p->n, t->parts = t->both ? 1 : parts;
    t->half = half ? half : half_of(be, p, parts);
    const int a_tile = t->both ? t->half : 2 * t->half, sms = mm_cuda_of(be)->sms;
    t->tiles = (t->rows + a_tile - 1) / a_tile;
    t->block = 0, t->blocks = t->tiles * t->parts < sms ? t->tiles * t->parts : sms;
    t->wide = (uintptr_t)p->out % 16 == 0 && p->out_ld % 4 == 0 && p->part % 4 == 0;
    *rows = {(const char *)p->w.data, (const char *)p->w3.data, row_bytes, code_bytes, p->x.scales,
             p->x.scales_ld};
    const void *x = quantized ? (const void *)p->x.codes : (const void *)p->x.u;
    return map_of(be, &t->w, p->w.data, t->rows, code_bytes, row_bytes, t->half) &&
           (!t->both || map_of(be, &t->w3, p->w3.data, t->rows, code_bytes, row_bytes, t->half)) &&
           map_of(be, &t->x, x, p->padded, x_bytes, x_bytes,
                  quantized ? mm_many_codes_box(p->padded) : 64);
}

void mm_many_hopper(struct mm_backend *be, const struct mm_many_product *p, int parts) {
    struct mm_many_task t = {};
    struct mm_many_rows_of rows;
    if (!task_of(be, p, parts, 0, &t, &rows)) return;
    if (mm_dtype_quantized(p->w.dtype)) {
        mm_many_product_of_codes(be, t, rows, p->w.dtype == mm_dtype_q4, p->padded);
    } else if (p->padded > 64) {
        launch<128>(be, t);
    } else {
        launch<64>(be, t);
    }
}

// Blocks for all multiprocessors: two parts of k of the codes at most, as many of the others as
// there is room for then.
bool mm_many_hopper_split(struct mm_backend *be, struct mm_view codes, struct mm_view halves,
                          int64_t padded, int parts[2]) {
    const int most[2] = {mm_many_hopper_parts(be, codes, padded),
                         mm_many_hopper_parts(be, halves, padded)};
    const int sms = mm_cuda_of(be)->sms,
              tiles[2] = {mm_many_hopper_tiles(codes), mm_many_hopper_tiles(halves)};
    if (codes.dtype != mm_dtype_q8 || mm_dtype_quantized(halves.dtype) || !most[0] || !most[1])
        return false;
    parts[0] = most[0] < 2 || 2 * tiles[0] + tiles[1] > sms ? 1 : 2;
    parts[1] = (sms - parts[0] * tiles[0]) / tiles[1];
    if (parts[1] > most[1]) parts[1] = most[1];
    return parts[1] > 0;
}

void mm_many_hopper_two(struct mm_backend *be, const struct mm_many_product *codes,
                        const struct mm_many_product *halves, const int parts[2]) {
    struct mm_many_task t = {}, u = {};
    struct mm_many_rows_of rows, none;
    if (!task_of(be, codes, parts[0], mm_many_half_rows, &t, &rows) ||
        !task_of(be, halves, parts[1], mm_many_half_rows, &u, &none))
        return;
    u.block = t.blocks;
    mm_many_products_of_q8(be, t, rows, u, codes->padded);
}
