// The stream of batches: samples in order, bad ones left out and named, good ones packed.
#include "train/data.h"

#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "train/loader.h"

enum { max_warnings = 1000 };  // a million lines of warnings help nobody

struct mm_data {
    struct mm_sample_env env;
    struct mm_data_index index;
    struct mm_loader *loader;
    struct mm_data_cursor cursor;  // of the last batch
    bool running;                  // the loader stands at the cursor
    bool whole_epoch;              // the current epoch was seen from its beginning
    int64_t n_good;                // samples of it that could be used
    int64_t n_warnings;

    struct mm_batch batch;
    int32_t *start, *tiles_of_seq;  // (micro_batch + 1), (micro_batch)
    int32_t *ids, *targets;
    uint8_t *tiles;
    int64_t tokens_cap, tiles_cap;
};

int64_t mm_data_max_tokens(const struct mm_data_options *o) {
    return o->micro_batch * o->max_length;
}

static int64_t sample_max_tiles(const struct mm_data_options *o) {
    return o->max_length / o->tokens_per_tile;
}

int64_t mm_data_max_tiles(const struct mm_data_options *o) {
    return o->micro_batch * sample_max_tiles(o);
}

static size_t tile_bytes(const struct mm_data_options *o) {
    return (size_t)o->image_size * (size_t)o->image_size * 3;
}

size_t mm_data_max_bytes(const struct mm_data *data) {
    const struct mm_data_options *o = &data->env.options;
    // Lists that grow by doubling may hold twice what they need.
    const size_t sample = (size_t)sample_max_tiles(o) * tile_bytes(o) +
                          2 * (size_t)o->max_length * (sizeof(int32_t) + 1);
    const size_t batch = (size_t)mm_data_max_tiles(o) * tile_bytes(o) +
                         (size_t)mm_data_max_tokens(o) * 2 * sizeof(int32_t);
    return data->index.bytes + mm_loader_fixed_bytes(data->loader) +
           (size_t)mm_loader_slots(o) * sample + batch;
}

enum mm_code mm_data_open(struct mm_data **data, const char *meta_path,
                          const struct mm_tokenizer *tokenizer, const char *tokenizer_folder,
                          const struct mm_data_options *options, struct mm_error *err) {
    *data = NULL;
    struct mm_data *d = mm_xcalloc(1, sizeof *d);
    enum mm_code code = mm_sample_env_init(&d->env, tokenizer, tokenizer_folder, options, err);
    if (code == mm_code_ok) code = mm_data_index_open(&d->index, meta_path, options, err);
    if (code == mm_code_ok) code = mm_loader_new(&d->loader, &d->env, &d->index, err);
    if (code != mm_code_ok) {
        mm_data_close(d);
        return code;
    }
    d->start = mm_xcalloc((size_t)options->micro_batch + 1, sizeof *d->start);
    d->tiles_of_seq = mm_xcalloc((size_t)options->micro_batch, sizeof *d->tiles_of_seq);
    *data = d;
    return mm_code_ok;
}

void mm_data_close(struct mm_data *d) {
    if (!d) return;
    mm_loader_free(d->loader);
    mm_data_index_close(&d->index);
    mm_sample_env_deinit(&d->env);
    free(d->start);
    free(d->tiles_of_seq);
    free(d->ids);
    free(d->targets);
    free(d->tiles);
    free(d);
}

int64_t mm_data_samples(const struct mm_data *d) {
    return d->index.n_samples;
}

void mm_data_hash(const struct mm_data *d, uint8_t hash[16]) {
    memcpy(hash, d->index.hash, 16);
}

struct mm_data_cursor mm_data_tell(const struct mm_data *d) {
    return d->cursor;
}

enum mm_code mm_data_seek(struct mm_data *d, const struct mm_data_cursor *cursor,
                          struct mm_error *err) {
    if (cursor->epoch < 0 || cursor->index < 0 || cursor->index >= d->index.n_samples ||
        cursor->skipped < 0) {
        return mm_fail(err, mm_code_input,
                       "%s: cannot go to sample %lld of epoch %lld, an epoch has %lld samples",
                       d->index.meta_path, (long long)cursor->index, (long long)cursor->epoch,
                       (long long)d->index.n_samples);
    }
    d->cursor = *cursor;
    d->running = false;
    return mm_code_ok;
}

// ---- one batch ----

static void *grown(void *old, int64_t n, size_t item) {
    return realloc(old, (size_t)n * item);
}

// Room for `tokens` and `tiles` in all: twice what there was, at most the largest batch.
static enum mm_code batch_reserve(struct mm_data *d, int64_t tokens, int64_t tiles,
                                  struct mm_error *err) {
    const struct mm_data_options *o = &d->env.options;
    bool ok = true;
    if (tokens > d->tokens_cap) {
        const int64_t most = mm_data_max_tokens(o), twice = 2 * d->tokens_cap;
        const int64_t cap = twice < tokens ? tokens : twice < most ? twice : most;
        int32_t *ids = grown(d->ids, cap, sizeof *ids);
        if (ids) d->ids = ids;
        int32_t *targets = grown(d->targets, cap, sizeof *targets);
        if (targets) d->targets = targets;
        ok = ids && targets;
        if (ok) d->tokens_cap = cap;
    }
    if (ok && tiles > d->tiles_cap) {
        const int64_t most = mm_data_max_tiles(o), twice = 2 * d->tiles_cap;
        const int64_t cap = twice < tiles ? tiles : twice < most ? twice : most;
        uint8_t *bytes = grown(d->tiles, cap, tile_bytes(o));
        ok = bytes != NULL;
        if (ok) {
            d->tiles = bytes;
            d->tiles_cap = cap;
        }
    }
    if (ok) return mm_code_ok;
    return mm_fail(err, mm_code_memory, "data: no memory for a batch of %lld tokens, %lld tiles",
                   (long long)tokens, (long long)tiles);
}

static enum mm_code batch_add(struct mm_data *d, const struct mm_sample *s, struct mm_error *err) {
    struct mm_batch *b = &d->batch;
    const size_t tile = tile_bytes(&d->env.options);
    const int64_t n = s->ids.n;
    MM_TRY(batch_reserve(d, b->n_tokens + n, b->n_tiles + s->n_tiles, err));
    memcpy(d->ids + b->n_tokens, s->ids.data, (size_t)n * sizeof *d->ids);
    int32_t *targets = d->targets + b->n_tokens;
    for (int64_t t = 0; t < n; t++) {
        const bool learn = t + 1 < n && s->learn.data[t + 1];
        targets[t] = learn ? s->ids.data[t + 1] : -100;
        b->n_targets += learn;
    }
    if (s->n_tiles > 0) {
        memcpy(d->tiles + (size_t)b->n_tiles * tile, s->tiles, (size_t)s->n_tiles * tile);
    }
    d->tiles_of_seq[b->n_seqs] = s->n_tiles;
    b->n_tokens += n;
    b->n_tiles += s->n_tiles;
    d->start[++b->n_seqs] = (int32_t)b->n_tokens;
    return mm_code_ok;
}

// Names a sample that cannot be used: once, however often it comes up again.
static void complain(struct mm_data *d, const struct mm_loaded *loaded) {
    int64_t line;
    struct mm_data_set *set = mm_data_index_find(&d->index, loaded->sample_number, &line);
    const uint8_t bit = (uint8_t)(1u << (line % 8));
    if (set->warned[line / 8] & bit || d->n_warnings > max_warnings) return;
    set->warned[line / 8] |= bit;
    if (d->n_warnings++ == max_warnings) {
        mm_warn("more than %d samples could not be used; further ones are only counted",
                max_warnings);
        return;
    }
    mm_warn("%s line %lld is skipped: %s", set->path, (long long)mm_data_set_line_number(set, line),
            loaded->error.text);
}

// Takes one place of the stream into the batch, or leaves it out. *at is the place behind it.
static enum mm_code take_one(struct mm_data *d, struct mm_data_cursor *at, struct mm_error *err) {
    const struct mm_loaded *loaded;
    MM_TRY(mm_loader_take(d->loader, &loaded, err));
    if (loaded->code == mm_code_memory) {
        if (err) *err = loaded->error;
        return loaded->code;
    }
    if (loaded->index == 0) {
        d->whole_epoch = true;
        d->n_good = 0;
    }
    if (loaded->code == mm_code_ok) {
        MM_TRY(batch_add(d, &loaded->sample, err));
        d->n_good++;
    } else {
        complain(d, loaded);
        at->skipped++;
    }
    at->epoch = loaded->epoch;
    at->index = loaded->index + 1;
    if (at->index < d->index.n_samples) return mm_code_ok;
    at->epoch++;
    at->index = 0;
    if (d->whole_epoch && d->n_good == 0) {
        return mm_fail(err, mm_code_input,
                       "%s: none of its %lld samples can be used; the reason for the last: %.700s",
                       d->index.meta_path, (long long)d->index.n_samples, loaded->error.text);
    }
    return mm_code_ok;
}

enum mm_code mm_data_next(struct mm_data *d, const struct mm_batch **batch, struct mm_error *err) {
    *batch = NULL;
    if (!d->running) {
        MM_TRY(mm_loader_start(d->loader, d->cursor.epoch, d->cursor.index, err));
        d->running = true;
        d->whole_epoch = false;
        d->n_good = 0;
    }
    struct mm_data_cursor at = d->cursor;
    d->batch = (struct mm_batch){0};
    d->start[0] = 0;
    while (d->batch.n_seqs < d->env.options.micro_batch) {
        const enum mm_code code = take_one(d, &at, err);
        if (code != mm_code_ok) {
            d->running = false;  // samples were taken that no batch holds: go back to the cursor
            return code;
        }
    }
    d->cursor = at;
    d->batch.start = d->start;
    d->batch.ids = d->ids;
    d->batch.targets = d->targets;
    d->batch.tiles_of_seq = d->tiles_of_seq;
    d->batch.tiles = d->tiles;
    d->batch.cursor = at;
    *batch = &d->batch;
    return mm_code_ok;
}
