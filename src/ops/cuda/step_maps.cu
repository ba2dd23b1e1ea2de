// A slot of a queue (step_queue.cuh) is 16 rows of a matrix, in two groups of eight. The two are
// beside each other in a matrix, eight rows apart; of w1 and w3 one is in either, as far apart as
// these are. So either is a dimension of a map, and a slot can be one box of the copy engine. Slots
// of 2048 bytes are two of them all the same, which come faster:
//   of a matrix    64 bytes, row of a group, which 64 bytes, group of rows
//   of w1 with w3  64 bytes, row,            which 64 bytes, which of the two
// Maps of scales have no third dimension, and boxes of 32 bytes.
#include "ops/cuda/step_maps.cuh"

#include "ops/cuda/attention_hopper.cuh"

#include <stdlib.h>

static_assert(mm_step_maps == 2 * mm_step_output, "each matrix has two");

size_t mm_step_maps_bytes(int n_layers) {
    return (size_t)(n_layers + 1) * mm_step_maps * sizeof(CUtensorMap);
}

// How the two groups of a box lie in a matrix.
struct groups {
    int64_t rows, apart;  // rows of a group; bytes from one to the next
    int64_t n, of_box;    // how many there are, and in a box
};

static bool describe(CUtensorMap to[2], const struct mm_step_shape *m, int weights, const char *w,
                     struct groups g) {
    const bool codes = m->type != mm_dtype_bf16;
    const cuuint64_t pitch = (cuuint64_t)m->pitch, rows = (cuuint64_t)g.rows, n = (cuuint64_t)g.n;
    const cuuint64_t bytes = (cuuint64_t)(codes ? m->code_bytes : m->k * 2);
    if (bytes % 64 || pitch % 16) return false;
    const cuuint64_t dims[] = {64, rows, bytes / 64, n};
    const cuuint64_t strides[] = {pitch, 64, (cuuint64_t)g.apart};
    const bool small = weights == mm_dtype_q4;
    const cuuint32_t box[] = {64, 8, small ? 1u : 2u, small ? (cuuint32_t)g.of_box : 1};
    if (!mm_boxes_of(&to[0], w, 4, dims, strides, box)) return false;
    to[1] = to[0];
    if (!codes) return true;
    const cuuint64_t dims_scales[] = {pitch - bytes, rows, n};
    const cuuint64_t strides_scales[] = {pitch, (cuuint64_t)g.apart};
    const cuuint32_t box_scales[] = {32, 8, (cuuint32_t)g.of_box};
    return mm_boxes_of(&to[1], w + bytes, 3, dims_scales, strides_scales, box_scales);
}

// The last rows, where they are no group, would be of no box.
static struct groups groups_of(const struct mm_step_shape *m) {
    return {8, (int64_t)8 * m->pitch, m->rows / 8, 2};
}

// A matrix of a block, w1 and w3 as one. Of segments the last rows are none (dt).
static bool describe_one(CUtensorMap to[2], const struct mm_step_shape *m, int weights,
                         const struct mm_step_layer *y, int which) {
    const char *w = y->w[which];
    if (which == mm_step_ffn) return describe(to, m, weights, w, {m->rows, y->w3 - w, 2, 2});
    if (m->n_seg ? m->seg_rows % mm_step_tile : m->rows % 8) return false;
    return describe(to, m, weights, w, groups_of(m));
}

// The output may have any number of rows; its last tile is made of boxes of one group then.
static bool describe_output(CUtensorMap *to, const struct mm_step_shape *m, int weights,
                            const char *w) {
    return m->rows >= 8 && describe(to, m, weights, w, groups_of(m)) &&
           describe(to + mm_step_map_last, m, weights, w, {m->rows, m->pitch, 1, 1});
}

// ---- slots of groups (mm_step_args_linear): four pieces in one box ----
//   shared columns   64 bytes, row, which part of the columns, nothing, which 64 bytes of the part
//   tiles            64 bytes, row, nothing, nothing, which 64 bytes
//   w1 with w3       64 bytes, row of a tile, which of the two, tile, which 64 bytes
// Maps of scales have no 64 bytes.

static bool describe_group(CUtensorMap to[2], const struct mm_step_shape *m, int weights, int which,
                           const struct mm_step_layer *y, const char *w) {
    const bool codes = m->type != mm_dtype_bf16, hidden = which == mm_step_ffn;
    const bool across = which <= mm_step_gate;
    const cuuint64_t pitch = (cuuint64_t)m->pitch, rows = (cuuint64_t)m->rows;
    const cuuint64_t bytes = (cuuint64_t)(codes ? m->code_bytes : m->k * 2);
    const cuuint32_t units = weights == mm_dtype_q4 ? 1 : 2;  // of a slot
    if (bytes % 64 || pitch % 16) return false;
    const cuuint64_t part = across ? (cuuint64_t)m->per_part / 2 * units : bytes / 64;
    cuuint64_t dims[] = {64, rows, bytes / 64 / part, 1, part};
    cuuint64_t strides[] = {pitch, part * 64, pitch, 64};
    cuuint32_t box[] = {64, mm_step_tile, mm_step_group, 1, units};
    if (!across) box[1] = mm_step_group * mm_step_tile, box[2] = 1;
    if (hidden) {
        dims[1] = 8, dims[2] = 2, dims[3] = rows / 8;
        strides[1] = (cuuint64_t)(y->w3 - w), strides[2] = 8 * pitch;
        box[1] = 8, box[2] = 2, box[3] = mm_step_group;
    }
    if (!mm_boxes_of(&to[0], w, 5, dims, strides, box)) return false;
    to[1] = to[0];
    if (!codes) return true;
    const cuuint64_t dims_scales[] = {pitch - bytes, dims[1], hidden ? 2u : 1u, dims[3]};
    const cuuint64_t strides_scales[] = {pitch, hidden ? strides[1] : pitch, strides[2]};
    const cuuint32_t box_scales[] = {32, box[1], hidden ? 2u : 1u, box[3]};
    return mm_boxes_of(&to[1], w + bytes, 4, dims_scales, strides_scales, box_scales);
}

// Whether a warp of a group takes slots [begin, begin + n) as it does (step_slot_groups.cuh): two
// and two; of codes one, or four and four and one, whose scales a slot of them has all: it has
// those of 16 blocks, from a multiple of 8 on. `before`: where the first of the group begins.
static bool taken(const struct mm_step_shape *m, int weights, int before, int begin, int n) {
    if (m->type == mm_dtype_bf16) return (begin | n) % 2 == 0;
    if (m->type != weights || before % 8 + begin - before + n > 16) return false;
    const bool fours =
        n % 4 < 2 && begin % 4 == 0 && (weights == mm_dtype_q8 || m->blocks % 4 == 0);
    return n == 1 || fours;
}

// ... of a last projection, of all slots from `begin` on that it has.
static bool taken_last(const struct mm_step_shape *m, int weights, int begin) {
    const int left = m->slots - begin;
    return left <= 0 || taken(m, weights, begin, begin, left < m->per_part ? left : m->per_part);
}

// Whether the four warps of a group have as many slots each in every product.
static bool groups_fit(const struct mm_step_args *a, int weights,
                       const struct mm_step_model *model) {
    const struct mm_step_shape *out = &model->output;
    if (a->output && !taken(out, weights, 0, 0, out->slots)) return false;
    for (int k = 0; k < model->n_kinds; k++) {
        const struct mm_step_kind *t = &model->kinds[k];
        const struct mm_step_shape *ffn = &t->shape[mm_step_ffn];
        if (t->attention || t->F % 8) return false;
        for (int which = mm_step_in; which <= mm_step_gate; which++) {
            // two warps have halves of a part, and four are beside each other
            const struct mm_step_shape *m = &t->shape[which];
            const int half = m->per_part / 2;
            if (m->seg_rows % mm_step_tile || m->split_log == 0 || m->per_part % 4 ||
                m->slots != m->per_part << m->split_log || !taken(m, weights, 0, 3 * half, half))
                return false;
        }
        if (ffn->slots % 4 || !taken(ffn, weights, ffn->slots / 2, ffn->slots / 2, ffn->slots / 2))
            return false;
        for (int head = 0; head < t->H; head++)
            if (!taken_last(&t->shape[mm_step_wo], weights,
                            head * t->P / mm_step_block * t->shape[mm_step_wo].spb))
                return false;
        for (int c = 0; c < a->crews; c++)
            if (!taken_last(&t->shape[mm_step_w2], weights, c * t->shape[mm_step_w2].per_part))
                return false;
    }
    return true;
}

// ---- all of a model ----

// What a block does not have gets a map as well, so that all may be asked for alike.
static bool describe_all(CUtensorMap *maps, const struct mm_step_args *a, int weights,
                         const struct mm_step_model *model, const struct mm_step_layer *layers,
                         bool groups) {
    for (int i = 0; i < a->n_layers * mm_step_output; i++) {
        const struct mm_step_layer *y = &layers[i / mm_step_output];
        const int has = i % mm_step_output;
        const int which = has == mm_step_gate && !y->w[has] ? (int)mm_step_in : has;
        const struct mm_step_shape *m = &model->kinds[y->kind].shape[which];
        if (!(groups ? describe_group(maps + 2 * i, m, weights, which, y, y->w[which])
                     : describe_one(maps + 2 * i, m, weights, y, which)))
            return false;
    }
    CUtensorMap *output = maps + a->n_layers * mm_step_maps;
    for (int i = 0; i < mm_step_maps; i++)
        output[i] = maps[0];
    const struct mm_step_shape *m = &model->output;
    return !a->output ||
           (groups ? describe_group(output, m, weights, mm_step_output, NULL, a->output)
                   : describe_output(output, m, weights, a->output));
}

// What other maps were in this memory is forgotten, on every multiprocessor.
static __global__ void acquire(const CUtensorMap *maps, int n) {
#if MM_HOPPER && defined(__CUDA_ARCH__)
    for (int i = (int)threadIdx.x; i < n; i += (int)blockDim.x)
        asm volatile("fence.proxy.tensormap::generic.acquire.sys [%0], 128;" ::"l"(maps + i)
                     : "memory");
#endif
}

static bool send(struct mm_backend *be, char *room, const CUtensorMap *maps, int n_layers) {
    // a copy from pageable memory has read it when it returns
    if (!mm_cuda_ok(be,
                    cudaMemcpyAsync(room, maps, mm_step_maps_bytes(n_layers), cudaMemcpyDefault,
                                    mm_cuda_of(be)->stream),
                    "copying maps of a model"))
        return false;
    // as many blocks as all of the card has room for
    MM_LAUNCH(be, acquire, 2 * (unsigned)mm_cuda_of(be)->sms, 1024, 0, (const CUtensorMap *)room,
              (n_layers + 1) * mm_step_maps);
    return !be->error.code;
}

bool mm_step_maps_make(struct mm_backend *be, struct mm_step_args *a, char *room, int weights,
                       const struct mm_step_model *model, const struct mm_step_layer *layers) {
    a->maps = a->group_maps = NULL;
    if (a->n_layers == 0 || !mm_hopper_here(be)) return !be->error.code;
    CUtensorMap *maps =
        (CUtensorMap *)aligned_alloc(alignof(CUtensorMap), mm_step_maps_bytes(a->n_layers));
    if (!maps) return true;
    bool described = describe_all(maps, a, weights, model, layers, false);
    bool ok = !described || send(be, room, maps, a->n_layers);
    if (described && ok) a->maps = (const CUtensorMap *)room;
    if (described && ok && groups_fit(a, weights, model)) {
        room += mm_step_maps_bytes(a->n_layers);
        described = describe_all(maps, a, weights, model, layers, true);
        ok = !described || send(be, room, maps, a->n_layers);
        if (described && ok) a->group_maps = (const CUtensorMap *)room;
    }
    free(maps);
    return ok;
}
