#include "cli/probe_input.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

static enum mm_code read_ids(struct mm_probe_input *in, const struct mm_st *st,
                             struct mm_error *err) {
    const struct mm_st_tensor *t = mm_st_find(st, "input_ids");
    if (t == NULL)
        return mm_fail(err, mm_code_input, "%s: tensor 'input_ids' is missing", in->path);
    if (t->dtype != mm_dtype_i64 || t->n_axes != 2 || t->shape[0] < 1 || t->shape[1] < 1 ||
        t->shape[0] * t->shape[1] > 1 << 24) {
        return mm_fail(err, mm_code_input,
                       "%s: 'input_ids' must be I64 of shape (B, T), at most 2^24 ids", in->path);
    }
    in->B = t->shape[0];
    in->T = t->shape[1];
    in->ids = mm_xmalloc((size_t)(in->B * in->T) * sizeof *in->ids);
    in->start = mm_xmalloc((size_t)(in->B + 1) * sizeof *in->start);
    for (int64_t s = 0; s <= in->B; s++)
        in->start[s] = (int32_t)(s * in->T);
    for (int64_t i = 0; i < in->B * in->T; i++) {
        int64_t id;
        memcpy(&id, (const char *)t->data + (size_t)i * sizeof id, sizeof id);
        if (id < 0 || id > INT32_MAX) {
            return mm_fail(err, mm_code_input, "%s: token id %lld at index %lld of 'input_ids'",
                           in->path, (long long)id, (long long)i);
        }
        in->ids[i] = (int32_t)id;
    }
    return mm_code_ok;
}

// `labels` I64 (B, T), -100 where nothing is to be learned: position t predicts labels[t + 1].
static enum mm_code read_labels(struct mm_probe_input *in, const struct mm_st *st,
                                const struct mm_config *c, struct mm_error *err) {
    const struct mm_st_tensor *t = mm_st_find(st, "labels");
    if (t == NULL) return mm_code_ok;
    if (t->dtype != mm_dtype_i64 || t->n_axes != 2 || t->shape[0] != in->B ||
        t->shape[1] != in->T) {
        return mm_fail(err, mm_code_input, "%s: 'labels' must be I64 of the shape of 'input_ids'",
                       in->path);
    }
    in->targets = mm_xmalloc((size_t)(in->B * in->T) * sizeof *in->targets);
    for (int64_t i = 0; i < in->B * in->T; i++) {
        in->targets[i] = -100;
        if (i % in->T == in->T - 1) continue;
        int64_t id;
        memcpy(&id, (const char *)t->data + (size_t)(i + 1) * sizeof id, sizeof id);
        if (id >= c->V || (id < 0 && id != -100)) {
            return mm_fail(err, mm_code_input,
                           "%s: label %lld at index %lld; wanted 0..%lld or -100", in->path,
                           (long long)id, (long long)(i + 1), (long long)c->V - 1);
        }
        in->targets[i] = (int32_t)id;
    }
    return mm_code_ok;
}

static enum mm_code read_pixels(struct mm_probe_input *in, const struct mm_st *st,
                                const struct mm_config *c, struct mm_error *err) {
    const struct mm_st_tensor *t = mm_st_find(st, "pixel_values");
    if (t == NULL) return mm_code_ok;
    const int64_t S = c->image_size;
    if (t->dtype != mm_dtype_f32 || t->n_axes != 4 || t->shape[1] != 3 || t->shape[2] != S ||
        t->shape[3] != S) {
        return mm_fail(err, mm_code_input,
                       "%s: 'pixel_values' must be F32 of shape (tiles, 3, %lld, %lld)", in->path,
                       (long long)S, (long long)S);
    }
    in->n_tiles = t->shape[0];
    in->pixels = mm_xmalloc(t->bytes + 1);
    memcpy(in->pixels, t->data, t->bytes);
    return mm_code_ok;
}

enum mm_code mm_probe_input_read(struct mm_probe_input *in, const char *path,
                                 const struct mm_config *config, struct mm_error *err) {
    *in = (struct mm_probe_input){.path = path};
    struct mm_st *st;
    MM_TRY(mm_st_open(&st, path, err));
    enum mm_code code = read_ids(in, st, err);
    if (!code) code = read_labels(in, st, config, err);
    if (!code) code = read_pixels(in, st, config, err);
    mm_st_close(st);
    if (code) return code;
    // all sequences must be of one length in both stacks, for outputs of shape (B, T, D)
    int64_t first = 0;
    for (int64_t s = 0; s < in->B; s++) {
        int64_t images = 0;
        for (int64_t t = 0; t < in->T; t++) {
            images += in->ids[s * in->T + t] == config->img_context_id;
        }
        if (s == 0) first = images;
        if (config->shuffle_post && images != first) {
            return mm_fail(err, mm_code_input,
                           "%s: sequence %lld has %lld image tokens, the first has %lld; with "
                           "pixel_shuffle_loc 'post' they must be equal here",
                           path, (long long)s, (long long)images, (long long)first);
        }
    }
    in->T_embed = in->T + (config->shuffle_post ? 3 * first : 0);
    return mm_code_ok;
}

void mm_probe_input_deinit(struct mm_probe_input *in) {
    free(in->ids);
    free(in->targets);
    free(in->pixels);
    free(in->start);
    *in = (struct mm_probe_input){0};
}

enum mm_code mm_probe_batch_make(struct mm_probe_batch *b, struct mm_model *m,
                                 const struct mm_probe_input *in, size_t bytes,
                                 struct mm_error *err) {
    *b = (struct mm_probe_batch){.be = m->be, .bytes = bytes};
    MM_TRY(m->be->alloc(m->be, bytes, &b->block, err));
    mm_arena_init_over(&b->device, b->block, bytes);
    const size_t host = mm_layout_host_bytes(m, in->B * in->T, in->B, in->n_tiles);
    enum mm_code code = mm_arena_init(&b->host, host, err);
    if (!code) {
        code = mm_layout_make(&b->layout, m, &b->host, &b->device, in->ids, in->start, in->B,
                              in->n_tiles, 0, 0, in->path, err);
    }
    if (!code) {
        const int64_t S = m->config.image_size;
        const size_t n = (size_t)(in->n_tiles * 3 * S * S) * sizeof(float);
        b->pixels = mm_view4(mm_arena_take(&b->device, n), mm_dtype_f32, in->n_tiles, 3, S, S);
        if (n > 0) m->be->upload(m->be, b->pixels.data, in->pixels, n);
    }
    if (code) mm_probe_batch_deinit(b);
    return code;
}

void mm_probe_batch_deinit(struct mm_probe_batch *b) {
    if (b->block) b->be->release(b->be, b->block, b->bytes);
    mm_arena_deinit(&b->host);
    *b = (struct mm_probe_batch){0};
}
