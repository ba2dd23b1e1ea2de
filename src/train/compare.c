#include "train/compare.h"

#include <stdlib.h>

#include "base/buf.h"
#include "base/log.h"
#include "ops/dry.h"
#include "ops/take.h"
#include "train/feed.h"

struct comparing {
    struct mm_model *is, *other;
    double kl[2], same[2];  // sums: answers, all
    int64_t n[2];
    float *host;  // (slice rows, V) twice, then losses
};

// Rows of logits that are held at a time.
static int64_t slice_rows(const struct mm_model *m) {
    const int64_t rows = ((int64_t)4 << 20) / m->config.V;
    return rows < 16 ? 16 : rows > 1024 ? 1024 : rows;
}

static int64_t likeliest(const float *logits, int64_t n) {
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++) {
        if (logits[i] > logits[best]) best = i;
    }
    return best;
}

static void count(struct comparing *c, int64_t rows, int64_t V, const int32_t *targets,
                  struct mm_view a, struct mm_view b, struct mm_view losses) {
    struct mm_backend *be = c->is->be;
    float *la = c->host, *lb = la + rows * V, *loss = lb + rows * V;
    be->download(be, la, a.data, (size_t)(rows * V) * sizeof *la);
    be->download(be, lb, b.data, (size_t)(rows * V) * sizeof *lb);
    be->download(be, loss, losses.data, (size_t)rows * sizeof *loss);
    for (int64_t t = 0; t < rows; t++) {
        const bool same = likeliest(la + t * V, V) == likeliest(lb + t * V, V);
        for (int i = targets[t] >= 0 ? 0 : 1; i < 2; i++) {
            c->n[i]++;
            c->kl[i] += (double)loss[t];
            c->same[i] += same;
        }
    }
}

static void compare_sample(void *arg, const struct mm_feed_sample *s, struct mm_arena *arena) {
    struct comparing *c = arg;
    struct mm_backend *be = c->is->be;
    const int64_t T = s->layout.llm.T, V = c->is->config.V, most = slice_rows(c->is);
    struct mm_forward fa = {0}, fb = {0};
    mm_model_fwd(c->is, &s->layout, s->pixels, NULL, &fa, false, false, NULL, arena);
    mm_model_fwd(c->other, &s->layout, s->pixels, NULL, &fb, false, false, NULL, arena);
    const int64_t R = T < most ? T : most;
    struct mm_view a = mm_take2(arena, R, V), b = mm_take2(arena, R, V);
    struct mm_view losses = mm_take1(arena, R), ones = mm_take1(arena, R);
    mm_fill(be, ones, 1.0f);
    for (int64_t t = 0; t < T; t += R) {
        const int64_t n = T - t < R ? T - t : R;
        const struct mm_view at = mm_view_rows(a, 0, n), bt = mm_view_rows(b, 0, n);
        mm_linear_fwd(be, at, mm_view_rows(fa.hidden, t, n), mm_model_w(c->is, mm_role_output),
                      MM_NONE);
        mm_linear_fwd(be, bt, mm_view_rows(fb.hidden, t, n), mm_model_w(c->other, mm_role_output),
                      MM_NONE);
        mm_kl(be, mm_view_rows(losses, 0, n), MM_NONE, bt, at, mm_view_rows(ones, 0, n));
        if (!mm_backend_is_dry(be)) count(c, n, V, s->targets + t, at, bt, losses);
    }
}

static struct mm_divergence divergence(const struct comparing *c, int i) {
    const double n = c->n[i] ? (double)c->n[i] : 1.0;
    return (struct mm_divergence){c->n[i], c->kl[i] / n, c->same[i] / n};
}

enum mm_code mm_compare(struct mm_comparison *out, struct mm_model *is, struct mm_model *other,
                        const char *folder, const char *meta, int64_t samples, uint64_t seed,
                        struct mm_error *err) {
    struct comparing c = {.is = is, .other = other};
    struct mm_model *const others[] = {other, NULL};
    struct mm_feed feed;
    MM_TRY(mm_feed_open(&feed, is, others, folder, meta, samples, seed, compare_sample, &c, err));
    c.host = mm_xmalloc((size_t)(slice_rows(is) * (2 * is->config.V + 1)) * sizeof *c.host);
    struct mm_progress p;
    mm_progress_begin(&p, "compare", "sample", feed.n_samples, 0);
    enum mm_code code = mm_code_ok;
    while (!code && feed.taken < feed.n_samples) {
        if (mm_interrupted()) {
            code = mm_fail(err, mm_code_interrupted, "interrupted after %lld samples",
                           (long long)feed.taken);
            break;
        }
        code = mm_feed_step(&feed, compare_sample, &c, err);
        mm_progress_update(&p, feed.taken, NULL);
    }
    mm_progress_end(&p);
    *out = (struct mm_comparison){feed.taken, mm_data_tell(feed.data).skipped, divergence(&c, 0),
                                  divergence(&c, 1)};
    free(c.host);
    mm_feed_close(&feed);
    return code;
}
