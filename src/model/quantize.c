// Writing a model with its big matrices rounded to q8 or q4: rows are read from the mapping a slice
// at a time, rounded on all threads, written, and forgotten.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/mmap.h"
#include "io/file.h"
#include "model/model.h"

enum { slice_weights = 1 << 20 };  // rounded at a time

// One tensor of the new file: the same rows as they are now, and what they are to be.
struct item {
    const struct mm_param *p;  // of the new list: the first of its stack
    struct mm_view from;       // (rows, K)
    bool borrowed;             // `from` lies in the mapping
    char name[128];
};

struct quantizing {
    const struct mm_model *m;
    const struct mm_quantize *how;
    struct item *items;
    int n;
    struct mm_st_tensor *tensors;  // (n), the same order
    int64_t longest;               // K of the longest row
    // a slice in the making
    const struct item *now;
    struct mm_feedback feedback;
    int64_t first_row, block;
    unsigned char *rows;
    float *w, *left_over;      // (rows, K), (rows, 128)
    double *errors, *squares;  // (rows)
    float *back;               // a row that came back, a thread
    struct mm_progress progress;
    int64_t done;
    struct mm_quantize_report *report;
};

static int64_t slice_rows(int64_t k) {
    return slice_weights / k + 1;
}

static void widen_rows(void *arg, int64_t begin, int64_t end, int thread) {
    const struct quantizing *q = arg;
    const struct mm_view from = q->now->from;
    const int64_t k = mm_view_cols(from), bytes = mm_quant_row_bytes(q->how->dtype, k);
    (void)thread;
    for (int64_t r = begin; r < end; r++) {
        mm_to_f32(q->w + r * k, mm_view_at(from, q->first_row + r, 0), from.dtype, k);
        memset(q->rows + r * bytes, 0, (size_t)bytes);
        q->squares[r] = 0.0;
    }
}

// One block of columns; `squares` becomes NaN where a weight cannot be rounded.
static void round_block(void *arg, int64_t begin, int64_t end, int thread) {
    struct quantizing *q = arg;
    const enum mm_dtype t = q->how->dtype;
    const int64_t k = mm_view_cols(q->now->from), c = q->block * mm_quant_block;
    const struct mm_feedback *f = &q->feedback;
    (void)thread;
    for (int64_t r = begin; r < end; r++) {
        float *e = q->left_over + r * mm_quant_block;
        if (!mm_quantize_block(q->rows + r * mm_quant_row_bytes(t, k), t, k, q->block,
                               q->w + r * k + c, f->importance ? f->importance + c : NULL,
                               f->u ? f->u + c * k + c : NULL, k, e)) {
            q->squares[r] = NAN;
        }
        for (int i = 0; f->u && i < mm_quant_block; i++)
            e[i] = -e[i];
    }
}

// What a block of columns leaves over, to the columns behind it: w -= e U.
static void pass_on(struct quantizing *q, int64_t n) {
    const int64_t k = mm_view_cols(q->now->from), c = q->block * mm_quant_block;
    const int64_t behind = c + mm_quant_block;
    if (behind >= k) return;
    const struct mm_view u = mm_view2((float *)(uintptr_t)q->feedback.u, mm_dtype_f32, k, k);
    const struct mm_view w = mm_view2(q->w, mm_dtype_f32, n, k);
    mm_linear_bwd_x(q->m->be, mm_view_cut(w, behind, k - behind),
                    mm_view2(q->left_over, mm_dtype_f32, n, mm_quant_block),
                    mm_view_cut(mm_view_rows(u, c, mm_quant_block), behind, k - behind), true);
}

static void compare_rows(void *arg, int64_t begin, int64_t end, int thread) {
    struct quantizing *q = arg;
    const struct mm_view from = q->now->from;
    const enum mm_dtype t = q->how->dtype;
    const int64_t k = mm_view_cols(from);
    float *back = q->back + thread * q->longest;
    for (int64_t r = begin; r < end; r++) {
        float *w = q->w + r * k;
        mm_to_f32(w, mm_view_at(from, q->first_row + r, 0), from.dtype, k);
        mm_dequantize_row(back, t, q->rows + r * mm_quant_row_bytes(t, k), k);
        double error = 0.0, square = q->squares[r];
        for (int64_t i = 0; i < k; i++) {
            const double d = (double)w[i] - (double)back[i];
            error += d * d;
            square += (double)w[i] * (double)w[i];
        }
        q->errors[r] = error;
        q->squares[r] = square;
    }
}

static void round_slice(struct quantizing *q, int64_t n) {
    struct mm_pool *pool = q->m->be->pool;
    mm_parallel_for(pool, n, 1, widen_rows, q);
    for (q->block = 0; q->block < mm_quant_blocks(mm_view_cols(q->now->from)); q->block++) {
        mm_parallel_for(pool, n, 1, round_block, q);
        if (q->feedback.u) pass_on(q, n);
    }
    mm_parallel_for(pool, n, 1, compare_rows, q);
}

// What the n rows of the slice came to, added up in their order.
static enum mm_code count_rows(struct quantizing *q, int64_t n, struct mm_error *err) {
    for (int64_t r = 0; r < n; r++) {
        if (isnan(q->squares[r])) {
            return mm_fail(err, mm_code_input,
                           "%s: row %lld of '%s' holds a weight that is not finite or beyond %d; "
                           "it cannot be rounded to %s",
                           q->m->path, (long long)(q->first_row + r), q->now->name,
                           (int)mm_quant_largest, mm_dtype_name(q->how->dtype));
        }
        q->report->squared_error += q->errors[r];
        q->report->squared_weights += q->squares[r];
    }
    return mm_code_ok;
}

static bool is_rounded(const struct mm_st_tensor *t) {
    return t->dtype == mm_dtype_u8;
}

// As it was, a slice at a time so that its pages can be let go.
static enum mm_code write_kept(const struct item *item, size_t bytes, struct mm_st_sink *to,
                               struct mm_error *err) {
    enum { slice = 4 << 20 };
    for (size_t at = 0; at < bytes; at += slice) {
        const char *from = (const char *)item->from.data + at;
        const size_t n = bytes - at < slice ? bytes - at : slice;
        MM_TRY(mm_st_put(to, from, n, err));
        if (item->borrowed) mm_map_forget(from, n);
    }
    return mm_code_ok;
}

static enum mm_code write_item(void *arg, int i, struct mm_st_sink *to, struct mm_error *err) {
    struct quantizing *q = arg;
    const struct item *item = &q->items[i];
    if (!is_rounded(&q->tensors[i])) return write_kept(item, q->tensors[i].bytes, to, err);
    const int64_t rows = item->from.shape[0], k = mm_view_cols(item->from), step = slice_rows(k);
    const size_t row_bytes = (size_t)mm_quant_row_bytes(q->how->dtype, k);
    q->now = item;
    q->feedback = (struct mm_feedback){0};
    if (q->how->feedback) MM_TRY(q->how->feedback(q->how->arg, item->p, &q->feedback, err));
    for (int64_t r = 0; r < rows; r += step) {
        if (mm_interrupted()) return mm_fail(err, mm_code_interrupted, "interrupted");
        const int64_t n = rows - r < step ? rows - r : step;
        q->first_row = r;
        round_slice(q, n);
        MM_TRY(mm_backend_sync(q->m->be, err));
        MM_TRY(count_rows(q, n, err));
        MM_TRY(mm_st_put(to, q->rows, (size_t)n * row_bytes, err));
        if (item->borrowed) {
            mm_map_forget(mm_view_at(item->from, r, 0),
                          mm_view_bytes(mm_view_rows(item->from, r, n)));
        }
        q->done += n * k;
        mm_progress_update(&q->progress, q->done, NULL);
    }
    return mm_code_ok;
}

// The tensors of the new list, quantized ones first (their bytes are multiples of 64, so that each
// begins at one), then by width of their elements.
static void list_items(struct quantizing *q, const struct mm_model *to) {
    static const enum mm_dtype order[] = {mm_dtype_u8, mm_dtype_f32, mm_dtype_bf16, mm_dtype_f16};
    for (int pass = 0; pass < 4; pass++) {
        int step;
        for (int i = 0; i < to->n_params; i += step) {
            const struct mm_param *p = &to->params[i];
            struct mm_view w = p->w;
            for (step = 1; i + step < to->n_params && p->stack != mm_stack_none &&
                           p[step].stack == p->stack && p[step].block == p->block;
                 step++) {
                w.shape[0] += p[step].shape[0];
            }
            const struct mm_param *source = &q->m->params[mm_model_find(q->m, p->name)];
            const bool quantized = mm_dtype_quantized(w.dtype);
            struct item *item = &q->items[q->n];
            struct mm_st_tensor *t = &q->tensors[q->n];
            *item = (struct item){.p = p, .from = source->w, .borrowed = source->borrowed};
            item->from.shape[0] = w.shape[0];
            *t = (struct mm_st_tensor){.name = item->name, .n_axes = p->n_axes};
            t->dtype = quantized ? mm_dtype_u8 : source->w.dtype;
            if (t->dtype != order[pass]) continue;
            if (!mm_param_released_name(p, item->name)) {
                snprintf(item->name, sizeof item->name, "%s", p->name);
            }
            memcpy(t->shape, p->shape, sizeof p->shape);
            if (quantized || p->stack != mm_stack_none) t->shape[0] = w.shape[0];
            if (quantized) t->shape[1] = mm_quant_row_bytes(w.dtype, mm_view_cols(w));
            t->bytes = quantized ? mm_view_bytes(w) : mm_view_bytes(item->from);
            q->n++;
        }
    }
}

// Counts, and takes the memory that is needed: that of the largest slice.
static void prepare(struct quantizing *q) {
    struct mm_quantize_report *r = q->report;
    size_t most = 0;
    int64_t rows = 0, weights = 0;
    for (int i = 0; i < q->n; i++) {
        const struct mm_view from = q->items[i].from;
        const int64_t k = mm_view_cols(from);
        r->source_bytes += mm_view_bytes(from);
        if (!is_rounded(&q->tensors[i])) {
            r->n_kept++;
            r->kept_bytes += q->tensors[i].bytes;
            continue;
        }
        r->n_quantized++;
        r->quantized_bytes += q->tensors[i].bytes;
        r->n_weights += mm_view_count(from);
        const int64_t n = from.shape[0] < slice_rows(k) ? from.shape[0] : slice_rows(k);
        const size_t bytes = (size_t)(n * mm_quant_row_bytes(q->how->dtype, k));
        if (bytes > most) most = bytes;
        if (n > rows) rows = n;
        if (n * k > weights) weights = n * k;
        if (k > q->longest) q->longest = k;
    }
    const size_t threads = (size_t)mm_pool_size(q->m->be->pool);
    q->rows = mm_xmalloc(most);
    q->w = mm_xmalloc((size_t)weights * sizeof *q->w);
    q->left_over = mm_xmalloc((size_t)(rows * mm_quant_block) * sizeof *q->left_over);
    q->back = mm_xmalloc(threads * (size_t)q->longest * sizeof *q->back);
    q->errors = mm_xmalloc((size_t)rows * sizeof *q->errors);
    q->squares = mm_xmalloc((size_t)rows * sizeof *q->squares);
}

static enum mm_code write_folder(struct quantizing *q, const struct mm_config *config,
                                 const char *folder, const char *assets_from,
                                 struct mm_error *err) {
    const struct mm_st_source source = {write_item, q, true};
    MM_TRY(mm_folder_make(folder, err));
    mm_progress_begin(&q->progress, "quantize", "weight", q->report->n_weights, 0);
    const enum mm_code code =
        mm_st_write_folder(folder, q->tensors, q->n, &source, (size_t)5 << 30, err);
    mm_progress_end(&q->progress);
    if (code) return code;
    char *path = mm_path_join(folder, "config.json");
    const enum mm_code written = mm_config_write(config, path, err);
    free(path);
    if (written || !assets_from || !mm_path_is_folder(assets_from)) return written;
    return mm_model_copy_assets(assets_from, folder, config, err);
}

enum mm_code mm_model_quantize(const struct mm_model *m, const char *folder,
                               const struct mm_quantize *how, const char *assets_from,
                               struct mm_quantize_report *report, struct mm_error *err) {
    *report = (struct mm_quantize_report){0};
    MM_TRY(mm_model_refuse_quantized(m, "rounding them again would only add to the error", err));
    if (!m->be->host_memory) {
        return mm_fail(err, mm_code_unsupported,
                       "weights are quantized on the CPU; give --backend cpu");
    }
    struct mm_model to;
    struct mm_config config = {0};
    MM_TRY(mm_config_copy(&config, &m->config, err));
    mm_config_set_quant(&config, how->dtype);
    mm_model_init(&to, &config, m->be, m->dtype);
    struct quantizing q = {.m = m, .how = how, .report = report};
    q.items = mm_xcalloc((size_t)to.n_params + 1, sizeof *q.items);
    q.tensors = mm_xcalloc((size_t)to.n_params + 1, sizeof *q.tensors);
    list_items(&q, &to);
    prepare(&q);
    const enum mm_code code = write_folder(&q, &config, folder, assets_from, err);
    free(q.items);
    free(q.tensors);
    free(q.rows);
    free(q.w);
    free(q.left_over);
    free(q.back);
    free(q.errors);
    free(q.squares);
    mm_model_deinit(&to);
    mm_config_deinit(&config);
    return code;
}
