#include "train/feed.h"

#include <stdlib.h>

#include "base/buf.h"
#include "base/memory.h"
#include "io/image.h"
#include "ops/dry.h"

enum { longest = 8192 };  // tokens of a sample; longer ones are passed over with a warning

static struct mm_data_options options_for(const struct mm_config *c, uint64_t seed) {
    return (struct mm_data_options){
        .image_size = (int32_t)c->image_size,
        .tokens_per_tile = (int32_t)mm_config_tile_tokens(c),
        .min_tiles = (int32_t)c->min_tiles,
        .max_tiles = (int32_t)c->max_tiles,
        .dynamic_tiling = c->dynamic_tiles,
        .thumbnail = c->thumbnail,
        .max_length = longest,
        .micro_batch = 1,
        .n_workers = 0,
        .seed = seed,
    };
}

static struct mm_view take_pixels(struct mm_arena *arena, int64_t n_tiles, int64_t S) {
    return mm_view4(mm_arena_take(arena, (size_t)(n_tiles * 3 * S * S) * sizeof(float)),
                    mm_dtype_f32, n_tiles, 3, S, S);
}

// What fn takes on the longest sample there may be.
static size_t plan(struct mm_feed *f, struct mm_model *const *others, int64_t n_tiles,
                   mm_feed_fn *fn, void *arg) {
    struct mm_backend *be = f->model->be, dry;
    struct mm_arena arena;
    struct mm_feed_sample s = {0};
    mm_backend_dry(&dry, be);
    mm_arena_init_dry(&arena);
    f->model->be = &dry;
    for (int i = 0; others && others[i]; i++)
        others[i]->be = &dry;
    mm_layout_plan(&s.layout, f->model, &arena, longest, 1, n_tiles);
    s.pixels = take_pixels(&arena, n_tiles, f->model->config.image_size);
    fn(arg, &s, &arena);
    f->model->be = be;
    for (int i = 0; others && others[i]; i++)
        others[i]->be = be;
    return arena.peak;
}

static enum mm_code open_feed(struct mm_feed *f, struct mm_model *const *others, const char *folder,
                              int64_t samples, uint64_t seed, mm_feed_fn *fn, void *arg,
                              struct mm_error *err) {
    struct mm_model *m = f->model;
    const struct mm_data_options o = options_for(&m->config, seed);
    MM_TRY(mm_tokenizer_open(&f->tokenizer, folder, err));
    MM_TRY(mm_data_open(&f->data, f->meta, f->tokenizer, folder, &o, err));
    const int64_t all = mm_data_samples(f->data);
    f->n_samples = samples < all ? samples : all;
    const int64_t tiles = mm_data_max_tiles(&o), S = m->config.image_size;
    f->block_bytes = plan(f, others, tiles, fn, arg);
    const int64_t room = m->be->available(m->be);
    if (f->block_bytes > (size_t)room) {
        return mm_fail(err, mm_code_memory,
                       "%s: a sample of %d tokens needs up to %.2f GiB and %.2f GiB are free",
                       f->meta, longest, (double)f->block_bytes / 1073741824.0,
                       (double)room / 1073741824.0);
    }
    f->pixels = mm_xmalloc((size_t)(tiles * 3 * S * S) * sizeof(float) + 1);
    MM_TRY(m->be->alloc(m->be, f->block_bytes, &f->block, err));
    mm_arena_init_over(&f->device, f->block, f->block_bytes);
    return mm_arena_init(&f->host, mm_layout_host_bytes(m, longest, 1, tiles), err);
}

enum mm_code mm_feed_open(struct mm_feed *f, struct mm_model *model, struct mm_model *const *others,
                          const char *folder, const char *meta, int64_t samples, uint64_t seed,
                          mm_feed_fn *fn, void *arg, struct mm_error *err) {
    *f = (struct mm_feed){.model = model, .meta = meta};
    const enum mm_code code = open_feed(f, others, folder, samples, seed, fn, arg, err);
    if (code) mm_feed_close(f);
    return code;
}

enum mm_code mm_feed_step(struct mm_feed *f, mm_feed_fn *fn, void *arg, struct mm_error *err) {
    struct mm_model *m = f->model;
    const int64_t S = m->config.image_size;
    const struct mm_batch *b;
    MM_TRY(mm_data_next(f->data, &b, err));
    mm_arena_release(&f->device, 0);
    mm_arena_release(&f->host, 0);
    struct mm_feed_sample s = {.targets = b->targets};
    MM_TRY(mm_layout_make(&s.layout, m, &f->host, &f->device, b->ids, b->start, b->n_seqs,
                          b->n_tiles, 0, 0, f->meta, err));
    mm_tiles_normalize(f->pixels, b->tiles, b->n_tiles, S);
    s.pixels = take_pixels(&f->device, b->n_tiles, S);
    if (b->n_tiles > 0) {
        m->be->upload(m->be, s.pixels.data, f->pixels,
                      (size_t)mm_view_count(s.pixels) * sizeof(float));
    }
    fn(arg, &s, &f->device);
    f->taken++;
    return mm_backend_sync(m->be, err);
}

void mm_feed_close(struct mm_feed *f) {
    mm_arena_deinit(&f->host);
    if (f->block) f->model->be->release(f->model->be, f->block, f->block_bytes);
    free(f->pixels);
    mm_data_close(f->data);
    if (f->tokenizer) mm_tokenizer_close(f->tokenizer);
    *f = (struct mm_feed){0};
}
