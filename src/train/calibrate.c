#include "train/calibrate.h"

#include <stdlib.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/memory.h"
#include "io/tokenizer.h"
#include "model/feedback.h"
#include "ops/dry.h"
#include "train/feed.h"

// Places where linear layers read: before the mixer's projections, before wo, before w1 and w3,
// before w2. The output head has only the first.
enum place { place_mixer, place_wo, place_ffn, place_w2, place_count };

struct mm_layer_inputs {
    struct mm_view h[place_count];   // (K, K) sums of x^T x; U once it was asked for
    float *importance[place_count];  // (K) diagonal of h, relative to its mean; made with U
};

static int64_t width(const struct mm_model *m, int64_t block, enum place at) {
    const struct mm_stack_config *s = mm_config_stack(&m->config, block);
    if (block == m->n_blocks && at != place_mixer) return 0;
    return at == place_wo ? s->H * s->P : at == place_w2 ? s->F : s->D;
}

static size_t block_bytes(const struct mm_model *m, int64_t block) {
    size_t bytes = 0;
    for (int i = 0; i < place_count; i++) {
        const size_t k = (size_t)width(m, block, (enum place)i);
        bytes += k * k * sizeof(float);
    }
    return bytes;
}

void mm_calibration_drop(struct mm_calibration *c) {
    struct mm_backend *be = c->model ? c->model->be : NULL;
    for (int64_t b = c->begin; b < c->end; b++) {
        struct mm_layer_inputs *s = &c->blocks[b - c->begin];
        for (int i = 0; i < place_count; i++) {
            if (s->h[i].data) be->release(be, s->h[i].data, mm_view_bytes(s->h[i]));
            free(s->importance[i]);
        }
    }
    free(c->blocks);
    c->blocks = NULL;
    c->begin = c->end = 0;
}

// ---- gathering ----------------------------------------------------------------------------------

static void add_rows(struct mm_calibration *c, int64_t block, enum place at, struct mm_view x) {
    const struct mm_view h = c->blocks[block - c->begin].h[at];
    x = mm_view_flat(x);
    mm_linear_bwd_w(c->model->be, h, MM_NONE, x, x, mm_dtype_bf16);
}

static void gather_block(void *arg, int64_t block, const struct mm_stream *st,
                         const struct mm_block_acts *acts, struct mm_view y,
                         struct mm_arena *arena) {
    struct mm_calibration *c = arg;
    (void)st, (void)y, (void)arena;
    if (mm_backend_is_dry(c->model->be) || block < c->begin || block >= c->end) return;
    add_rows(c, block, place_mixer, acts->mix.u);
    add_rows(c, block, place_wo, acts->mix.o);
    add_rows(c, block, place_ffn, acts->h);
    add_rows(c, block, place_w2, acts->s);
}

static void gather_sample(void *arg, const struct mm_feed_sample *in, struct mm_arena *arena) {
    struct mm_calibration *c = arg;
    struct mm_model *m = c->model;
    struct mm_forward f = {0};
    const struct mm_tap tap = {gather_block, c, true};
    mm_model_fwd(m, &in->layout, in->pixels, NULL, &f, false, false, &tap, arena);
    if (mm_backend_is_dry(m->be)) return;
    if (c->end > m->n_blocks) add_rows(c, m->n_blocks, place_mixer, f.hidden);
    c->tokens += in->layout.llm.T;
}

static enum mm_code gather(struct mm_calibration *c, struct mm_feed *feed, struct mm_error *err) {
    struct mm_progress p;
    char what[64];
    snprintf(what, sizeof what, "inputs of blocks %lld-%lld", (long long)c->begin,
             (long long)c->end - 1);
    mm_progress_begin(&p, what, "sample", feed->n_samples, 0);
    enum mm_code code = mm_code_ok;
    c->tokens = 0;
    while (!code && feed->taken < feed->n_samples) {
        if (mm_interrupted()) {
            code = mm_fail(err, mm_code_interrupted, "interrupted");
            break;
        }
        code = mm_feed_step(feed, gather_sample, c, err);
        mm_progress_update(&p, feed->taken, NULL);
    }
    mm_progress_end(&p);
    c->taken = feed->taken;
    c->skipped = mm_data_tell(feed->data).skipped;
    return code;
}

// Takes memory for blocks from `first` on, as many as half of what is free holds.
static enum mm_code take_blocks(struct mm_calibration *c, int64_t first, struct mm_error *err) {
    struct mm_model *m = c->model;
    const size_t room = (size_t)mm_memory_available();
    size_t bytes = block_bytes(m, first);
    if (bytes > room) {
        return mm_fail(err, mm_code_memory,
                       "--calibrate needs %.2f GiB for the inputs of one block and %.2f GiB are "
                       "free; without it none is needed",
                       (double)bytes / 1073741824.0, (double)room / 1073741824.0);
    }
    c->begin = first;
    c->end = first + 1;
    while (c->end <= m->n_blocks && bytes + block_bytes(m, c->end) <= room / 2)
        bytes += block_bytes(m, c->end++);
    c->blocks = mm_xcalloc((size_t)(c->end - c->begin), sizeof *c->blocks);
    for (int64_t b = c->begin; b < c->end; b++) {
        for (int i = 0; i < place_count; i++) {
            const int64_t k = width(m, b, (enum place)i);
            void *data;
            if (k == 0) continue;
            MM_TRY(m->be->alloc(m->be, (size_t)(k * k) * sizeof(float), &data, err));
            c->blocks[b - c->begin].h[i] = mm_view2(data, mm_dtype_f32, k, k);
        }
    }
    return mm_code_ok;
}

static enum mm_code load_blocks(struct mm_calibration *c, int64_t first, struct mm_error *err) {
    struct mm_feed feed;
    mm_calibration_drop(c);
    MM_TRY(mm_feed_open(&feed, c->model, NULL, c->folder, c->meta, c->samples, c->seed,
                        gather_sample, c, err));
    enum mm_code code = take_blocks(c, first, err);
    if (!code) code = gather(c, &feed, err);
    mm_feed_close(&feed);
    return code;
}

// ---- giving -------------------------------------------------------------------------------------

// Where a parameter reads its inputs; false when nothing is gathered there.
static bool place_of(const struct mm_model *m, const struct mm_param *p, int64_t *block,
                     enum place *at) {
    *block = p->role == mm_role_output ? m->n_blocks : p->block;
    switch (p->role) {
        case mm_role_output:
        case mm_role_wqkv:
        case mm_role_v_proj:
            *at = place_mixer;
            return true;
        case mm_role_wo:
            *at = place_wo;
            return true;
        case mm_role_w1:
        case mm_role_w3:
            *at = place_ffn;
            return true;
        case mm_role_w2:
            *at = place_w2;
            return true;
        default:
            return false;
    }
}

static enum mm_code make_factor(struct mm_calibration *c, struct mm_layer_inputs *s, enum place at,
                                const char *name, struct mm_error *err) {
    const struct mm_view h = s->h[at];
    const int64_t k = h.shape[0];
    double mean = 0.0;
    s->importance[at] = mm_xmalloc((size_t)k * sizeof(float));
    for (int64_t i = 0; i < k; i++)
        mean += (double)*(const float *)mm_view_at(h, i, i) / (double)k;
    // with a floor: an input that was always zero here may not be so elsewhere
    for (int64_t i = 0; i < k; i++) {
        s->importance[at][i] = (float)((double)*(const float *)mm_view_at(h, i, i) / mean + 1e-3);
    }
    if (mm_feedback_factor(c->model->be, h, 0.01)) return mm_backend_sync(c->model->be, err);
    return mm_fail(err, mm_code_input,
                   "%s: on these samples the inputs of '%s' are no numbers to calibrate with",
                   c->meta, name);
}

void mm_calibration_init(struct mm_calibration *c, struct mm_model *m, const char *folder,
                         const char *meta, int64_t samples, uint64_t seed) {
    *c = (struct mm_calibration){
        .model = m, .folder = folder, .meta = meta, .samples = samples, .seed = seed};
}

enum mm_code mm_calibration_feedback(void *calibration, const struct mm_param *p,
                                     struct mm_feedback *f, struct mm_error *err) {
    struct mm_calibration *c = calibration;
    int64_t block;
    enum place at;
    *f = (struct mm_feedback){0};
    if (!place_of(c->model, p, &block, &at)) return mm_code_ok;
    if (block < c->begin || block >= c->end) MM_TRY(load_blocks(c, block, err));
    struct mm_layer_inputs *s = &c->blocks[block - c->begin];
    if (!s->importance[at]) MM_TRY(make_factor(c, s, at, p->name, err));
    *f = (struct mm_feedback){s->h[at].data, s->importance[at]};
    return mm_code_ok;
}
