#include "train/calibrate.h"

#include <stdlib.h>

#include "base/buf.h"
#include "base/log.h"
#include "io/tokenizer.h"
#include "ops/dry.h"
#include "train/feed.h"

// Places where linear layers read: before the mixer's projections, before wo, before w1 and w3,
// before w2. The output head has only the first.
enum place { place_mixer, place_wo, place_ffn, place_w2, place_count };

struct mm_input_squares {
    int64_t k[place_count];
    double *sum[place_count];
    float *mean[place_count];
};

struct calibrating {
    struct mm_model *m;
    struct mm_calibration *c;
    float *host;  // slice_floats, or one row
    int64_t tokens;
};

enum { slice_floats = 1 << 20 };

static void add_rows(struct calibrating *w, struct mm_input_squares *s, enum place at,
                     struct mm_view x) {
    struct mm_backend *be = w->m->be;
    const int64_t k = mm_view_cols(x), rows = x.shape[0];
    const int64_t step = k > slice_floats ? 1 : slice_floats / k;
    for (int64_t r = 0; r < rows; r += step) {
        const int64_t n = rows - r < step ? rows - r : step;
        be->download(be, w->host, mm_view_at(x, r, 0), (size_t)(n * k) * sizeof *w->host);
        for (int64_t t = 0; t < n; t++) {
            for (int64_t i = 0; i < k; i++) {
                const double v = (double)w->host[t * k + i];
                s->sum[at][i] += v * v;
            }
        }
    }
}

static void gather_block(void *arg, int64_t block, const struct mm_stream *st,
                         const struct mm_block_acts *acts, struct mm_view y,
                         struct mm_arena *arena) {
    struct calibrating *w = arg;
    struct mm_input_squares *s = &w->c->blocks[block];
    (void)st, (void)y, (void)arena;
    if (mm_backend_is_dry(w->m->be)) return;
    add_rows(w, s, place_mixer, acts->mix.u);
    add_rows(w, s, place_wo, acts->mix.o);
    add_rows(w, s, place_ffn, acts->h);
    add_rows(w, s, place_w2, acts->s);
}

static void gather_sample(void *arg, const struct mm_feed_sample *in, struct mm_arena *arena) {
    struct calibrating *w = arg;
    struct mm_forward f = {0};
    const struct mm_tap tap = {gather_block, w};
    mm_model_fwd(w->m, &in->layout, in->pixels, NULL, &f, false, false, &tap, arena);
    if (mm_backend_is_dry(w->m->be)) return;
    add_rows(w, &w->c->blocks[w->m->n_blocks], place_mixer, f.hidden);
    w->tokens += in->layout.llm.T;
}

static int64_t begin(struct mm_calibration *c, const struct mm_model *m) {
    int64_t longest = slice_floats;
    c->n_blocks = m->n_blocks;
    c->blocks = mm_xcalloc((size_t)m->n_blocks + 1, sizeof *c->blocks);
    for (int64_t b = 0; b <= m->n_blocks; b++) {
        struct mm_input_squares *s = &c->blocks[b];
        const struct mm_stack_config *stack = mm_config_stack(&m->config, b);
        s->k[place_mixer] = s->k[place_ffn] = stack->D;
        s->k[place_wo] = stack->H * stack->P;
        s->k[place_w2] = stack->F;
        for (int i = 0; i < place_count; i++) {
            if (s->k[i] > longest) longest = s->k[i];
            s->sum[i] = mm_xcalloc((size_t)s->k[i], sizeof *s->sum[i]);
            s->mean[i] = mm_xcalloc((size_t)s->k[i], sizeof *s->mean[i]);
        }
    }
    return longest;
}

// Means, with a floor: what met nothing here may meet something elsewhere.
static void finish(struct mm_calibration *c) {
    for (int64_t b = 0; b <= c->n_blocks; b++) {
        struct mm_input_squares *s = &c->blocks[b];
        for (int i = 0; i < place_count; i++) {
            double all = 0.0;
            for (int64_t j = 0; j < s->k[i]; j++)
                all += s->sum[i][j];
            const double mean = all / (double)s->k[i];
            for (int64_t j = 0; j < s->k[i]; j++) {
                s->mean[i][j] = mean > 0 ? (float)(s->sum[i][j] / mean + 1e-3) : 1.0f;
            }
        }
    }
}

enum mm_code mm_calibrate(struct mm_calibration *c, struct mm_model *m, const char *folder,
                          const char *meta, int64_t samples, uint64_t seed, struct mm_error *err) {
    *c = (struct mm_calibration){0};
    struct calibrating w = {.m = m, .c = c};
    struct mm_feed feed;
    MM_TRY(mm_feed_open(&feed, m, NULL, folder, meta, samples, seed, gather_sample, &w, err));
    w.host = mm_xmalloc((size_t)begin(c, m) * sizeof *w.host);
    struct mm_progress p;
    mm_progress_begin(&p, "calibrate", "sample", feed.n_samples, 0);
    enum mm_code code = mm_code_ok;
    while (!code && feed.taken < feed.n_samples) {
        if (mm_interrupted()) {
            code = mm_fail(err, mm_code_interrupted, "interrupted");
            break;
        }
        code = mm_feed_step(&feed, gather_sample, &w, err);
        mm_progress_update(&p, feed.taken, NULL);
    }
    mm_progress_end(&p);
    finish(c);
    c->samples = feed.taken;
    c->skipped = mm_data_tell(feed.data).skipped;
    c->tokens = w.tokens;
    free(w.host);
    mm_feed_close(&feed);
    if (code) mm_calibration_deinit(c);
    return code;
}

void mm_calibration_deinit(struct mm_calibration *c) {
    for (int64_t b = 0; c->blocks && b <= c->n_blocks; b++) {
        for (int i = 0; i < place_count; i++) {
            free(c->blocks[b].sum[i]);
            free(c->blocks[b].mean[i]);
        }
    }
    free(c->blocks);
    *c = (struct mm_calibration){0};
}

const float *mm_calibration_of(void *calibration, const struct mm_param *p) {
    const struct mm_calibration *c = calibration;
    if (p->role == mm_role_output) return c->blocks[c->n_blocks].mean[place_mixer];
    if (p->block < 0) return NULL;
    const struct mm_input_squares *s = &c->blocks[p->block];
    switch (p->role) {
        case mm_role_wqkv:
        case mm_role_v_proj:
            return s->mean[place_mixer];
        case mm_role_wo:
            return s->mean[place_wo];
        case mm_role_w1:
        case mm_role_w3:
            return s->mean[place_ffn];
        case mm_role_w2:
            return s->mean[place_w2];
        default:
            return NULL;
    }
}
