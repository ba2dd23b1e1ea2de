#include "bench/round.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

enum { slice_weights = 1 << 22 };  // of rows that pass through the host at a time

struct round_job {
    const char *from;  // rows as they are
    char *to;          // rows as they are to be
    enum mm_dtype was, is;
    int64_t k;
    float *room;  // (threads, k)
    atomic_bool failed;
};

static void round_rows(void *arg, int64_t begin, int64_t end, int thread) {
    struct round_job *j = arg;
    float *w = j->room + thread * j->k;
    for (int64_t r = begin; r < end; r++) {
        mm_to_f32(w, j->from + (size_t)(r * j->k) * mm_dtype_bytes(j->was), j->was, j->k);
        if (!mm_quantize_row(j->to + r * mm_quant_row_bytes(j->is, j->k), j->is, w, NULL, j->k)) {
            atomic_store(&j->failed, true);
        }
    }
}

// By way of the host, a slice of rows at a time, wherever the two matrices lie.
static bool round_matrix(struct mm_backend *be, struct mm_view to, struct mm_view from) {
    const int64_t k = mm_view_cols(from), n = from.shape[0], step = slice_weights / k + 1;
    const size_t was = (size_t)k * mm_dtype_bytes(from.dtype);
    const size_t is = (size_t)mm_quant_row_bytes(to.dtype, k);
    char *in = mm_xmalloc((size_t)step * was), *out = mm_xmalloc((size_t)step * is);
    struct round_job j = {.from = in, .to = out, .was = from.dtype, .is = to.dtype, .k = k};
    j.room = mm_xmalloc((size_t)mm_pool_size(be->pool) * (size_t)k * sizeof(float));
    for (int64_t r = 0; r < n && !atomic_load(&j.failed); r += step) {
        const int64_t rows = n - r < step ? n - r : step;
        be->download(be, in, mm_view_at(from, r, 0), (size_t)rows * was);
        mm_parallel_for(be->pool, rows, 1, round_rows, &j);
        be->upload(be, mm_view_at(to, r, 0), out, (size_t)rows * is);
    }
    free(j.room);
    free(in);
    free(out);
    return !atomic_load(&j.failed);
}

enum mm_code mm_bench_round_model(struct mm_model *to, const struct mm_model *from,
                                  enum mm_dtype quant, struct mm_error *err) {
    struct mm_config config = {0};
    MM_TRY(mm_config_copy(&config, &from->config, err));
    mm_config_set_quant(&config, quant);
    mm_model_init(to, &config, from->be, from->dtype);
    mm_config_deinit(&config);
    snprintf(to->path, sizeof to->path, "%s", from->path);
    enum mm_code code = mm_model_alloc(to, err);
    for (int i = 0; i < to->n_params && !code; i++) {
        const struct mm_view w = to->params[i].w;
        const struct mm_view old = from->params[mm_model_find(from, to->params[i].name)].w;
        if (!mm_dtype_quantized(w.dtype)) {
            mm_copy(to->be, w, old);
        } else if (!round_matrix(to->be, w, old)) {
            code = mm_fail(err, mm_code_input,
                           "%s: '%s' holds a weight that cannot be rounded to %s (not finite, or "
                           "beyond %d)",
                           from->path, to->params[i].name, mm_dtype_name(quant),
                           (int)mm_quant_largest);
        }
    }
    if (!code) code = mm_backend_sync(to->be, err);
    if (code) mm_model_deinit(to);
    return code;
}
