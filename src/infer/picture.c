// Owns: pictures that wait for their tokens to be read.
#include "infer/picture.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "io/file.h"

// How many tiles mm_tiles_make will cut, from the size alone.
static int32_t count_tiles(const struct mm_image_info *info, const struct mm_tile_rule *rule) {
    int32_t cols, rows;
    mm_tiles_grid(info->width, info->height, rule->size, rule->min_tiles, rule->max_tiles, &cols,
                  &rows);
    const int32_t n = cols * rows;
    return n + (rule->thumbnail && n > 1);
}

enum mm_code mm_queued_picture_init(struct mm_queued_picture *q, const struct mm_picture *p,
                                    const struct mm_tile_rule *rule, struct mm_error *err) {
    assert((p->path != NULL) + (p->bytes != NULL) + (p->tiles != NULL) == 1);
    *q = (struct mm_queued_picture){0};
    const char *name = p->name ? p->name : p->path ? p->path : "picture";
    if (p->tiles) {
        if (p->tiles->size != rule->size || p->tiles->n < 1) {
            return mm_fail(err, mm_code_input,
                           "%s: %d tiles of %d pixels, this model wants tiles of %d", name,
                           (int)p->tiles->n, (int)p->tiles->size, (int)rule->size);
        }
        q->n_tiles = p->tiles->n;
        q->name = mm_xstrdup(name);
        return mm_code_ok;
    }
    if (p->path) {
        MM_TRY(mm_file_read(&q->bytes, p->path, mm_image_max_file_bytes, err));
    } else {
        mm_buf_add(&q->bytes, p->bytes, p->n_bytes);
    }
    struct mm_image_info info;
    const enum mm_code code = mm_image_peek(&info, q->bytes.data, q->bytes.len, name, err);
    if (code) {
        mm_buf_free(&q->bytes);
        return code;
    }
    q->n_tiles = count_tiles(&info, rule);
    q->name = mm_xstrdup(name);
    return mm_code_ok;
}

void mm_queued_picture_take(struct mm_queued_picture *q, const struct mm_picture *p) {
    if (p->tiles == NULL) return;
    q->tiles = *p->tiles;
    *p->tiles = (struct mm_tiles){0};
}

void mm_queued_picture_copy(struct mm_queued_picture *to, const struct mm_queued_picture *from) {
    *to = *from;
    to->name = mm_xstrdup(from->name);
    to->bytes = (struct mm_buf){NULL, 0, 0};
    if (from->bytes.len > 0) mm_buf_add(&to->bytes, from->bytes.data, from->bytes.len);
    if (from->tiles.rgb) {
        const size_t n =
            (size_t)from->tiles.n * (size_t)from->tiles.size * (size_t)from->tiles.size * 3;
        to->tiles.rgb = memcpy(mm_xmalloc(n), from->tiles.rgb, n);
    }
}

void mm_queued_picture_deinit(struct mm_queued_picture *q) {
    free(q->name);
    mm_buf_free(&q->bytes);
    mm_tiles_free(&q->tiles);
    *q = (struct mm_queued_picture){0};
}

static enum mm_code cut(struct mm_queued_picture *q, const struct mm_tile_rule *rule,
                        struct mm_error *err) {
    struct mm_image im;
    MM_TRY(mm_image_decode(&im, q->bytes.data, q->bytes.len, q->name, err));
    const enum mm_code code = mm_tiles_make(&q->tiles, &im, rule->size, rule->min_tiles,
                                            rule->max_tiles, rule->thumbnail, err);
    mm_image_free(&im);
    mm_buf_free(&q->bytes);
    if (code) return code;
    if (q->tiles.n != q->n_tiles) {
        return mm_fail(err, mm_code_input,
                       "%s: its header promised %d tiles, its pixels make %d; the file is damaged",
                       q->name, (int)q->n_tiles, (int)q->tiles.n);
    }
    return mm_code_ok;
}

enum mm_code mm_queued_picture_read(struct mm_queued_picture *q, const struct mm_tile_rule *rule,
                                    int32_t n, float *pixels, struct mm_error *err) {
    if (q->tiles.rgb == NULL) MM_TRY(cut(q, rule, err));
    assert(q->n_read + n <= q->tiles.n);
    const size_t bytes = (size_t)rule->size * (size_t)rule->size * 3;
    mm_tiles_normalize(pixels, q->tiles.rgb + (size_t)q->n_read * bytes, n, rule->size);
    q->n_read += n;
    if (q->n_read == q->tiles.n) mm_tiles_free(&q->tiles);
    return mm_code_ok;
}
