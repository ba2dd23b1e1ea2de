// Pillow's resize of 8-bit pictures, to the bit. One dimension after the other, each output pixel
//   out = clip8((sum_t in[first + t] k_t + 2^21) >> 22),  k_t = round(2^22 w_t / sum w)
//   w_t = filter((first + t + 1/2 - center) / s),  center = (i + 1/2) in/out,  s = max(1, in/out)
// over the pixels within the filter's support (bicubic 2, bilinear 1) times s, so that shrinking
// averages. Along x first, rounded to 8 bits, then along y; a dimension that stays is skipped.
// (Pillow 13 takes the cheaper dimension first, which rounds differently; up to 12 it is x.)
#include <stdlib.h>
#include <string.h>
#include "io/image.h"
#include "io/image_resize_rows.h"

// The order of these operations is Pillow's: another one rounds differently now and then.
static double bicubic(double x) {
    const double a = -0.5;
    x = x < 0.0 ? -x : x;
    if (x < 1.0) {
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    }
    if (x < 2.0) {
        return (((x - 5) * x + 8) * x - 4) * a;
    }
    return 0.0;
}

static double bilinear(double x) {
    x = x < 0.0 ? -x : x;
    return x < 1.0 ? 1.0 - x : 0.0;
}

static void taps_free(struct mm_taps *t) {
    free(t->first);
    free(t->k);
    free(t->split);
    *t = (struct mm_taps){0};
}

// The range of input pixels for every output pixel; returns the number of coefficients.
static int64_t set_ranges(struct mm_taps *t, int32_t n_in, double scale, double support) {
    int64_t n = 0;
    for (int32_t i = 0; i < t->n_out; i++) {
        const double center = (i + 0.5) * scale;
        const int32_t lo = (int32_t)(center - support + 0.5);
        const int32_t hi = (int32_t)(center + support + 0.5);
        t->first[i] = lo < 0 ? 0 : lo;
        t->count[i] = (hi > n_in ? n_in : hi) - t->first[i];
        t->max_count = t->count[i] > t->max_count ? t->count[i] : t->max_count;
        t->offset[i] = (int32_t)n;
        n += t->count[i];
    }
    return n;
}

static void set_coefficients(struct mm_taps *t, double *w, double scale, double s,
                             enum mm_filter filter) {
    const double inverse = 1.0 / s;
    for (int32_t i = 0; i < t->n_out; i++) {
        const double center = (i + 0.5) * scale;
        double sum = 0.0;
        for (int32_t x = 0; x < t->count[i]; x++) {
            const double at = (x + t->first[i] - center + 0.5) * inverse;
            w[x] = filter == mm_filter_bicubic ? bicubic(at) : bilinear(at);
            sum += w[x];
        }
        for (int32_t x = 0; x < t->count[i]; x++) {
            const double v = (sum != 0.0 ? w[x] / sum : w[x]) * (1 << mm_resize_bits);
            t->k[t->offset[i] + x] = (int32_t)(v < 0 ? v - 0.5 : v + 0.5);
        }
    }
}

// False when memory runs out; t is to be freed in either case.
static bool taps_init(struct mm_taps *t, int32_t n_in, int32_t n_out, enum mm_filter filter) {
    const double scale = (double)n_in / n_out;
    const double s = scale < 1.0 ? 1.0 : scale;
    const double support = (filter == mm_filter_bicubic ? 2.0 : 1.0) * s;
    t->n_out = n_out;
    t->first = malloc((size_t)n_out * 3 * sizeof *t->first);
    if (!t->first) {
        return false;
    }
    t->count = t->first + n_out;
    t->offset = t->count + n_out;
    const int64_t n = set_ranges(t, n_in, scale, support);  // at most 4 n_in + 5 n_out
    t->k = malloc((size_t)n * sizeof *t->k);
    double *w = malloc((size_t)t->max_count * sizeof *w);
    const bool ok = t->k && w;
    if (ok) {
        set_coefficients(t, w, scale, s, filter);
    }
    free(w);
    return ok;
}

// The pass along x, a row at a time, skipped when the width stays.
struct pass_x {
    const struct mm_resize_rows *rows;
    const struct mm_image *src;
    struct mm_taps taps;
    bool skip;
    uint8_t *last;  // a copy of a row at the end of src, which is not read over its end
};

static bool pass_x_init(struct pass_x *p, const struct mm_resize_rows *rows,
                        const struct mm_image *src, int32_t width, enum mm_filter filter) {
    *p = (struct pass_x){.rows = rows, .src = src, .skip = width == src->width};
    if (p->skip) {
        return true;
    }
    p->last = calloc((size_t)src->width * 3 + mm_resize_over_read, 1);
    return p->last && taps_init(&p->taps, src->width, width, filter) &&
           (!rows->prepare_x || rows->prepare_x(&p->taps));
}

static void pass_x_deinit(struct pass_x *p) {
    free(p->last);
    taps_free(&p->taps);
}

static void pass_x_row(struct pass_x *p, uint8_t *dst, int32_t y) {
    const size_t row_bytes = (size_t)p->src->width * 3;
    const uint8_t *s = p->src->rgb + (size_t)y * row_bytes;
    if (p->skip) {
        memcpy(dst, s, row_bytes);
        return;
    }
    if ((size_t)(p->src->height - 1 - y) * row_bytes < mm_resize_over_read) {
        memcpy(p->last, s, row_bytes);
        s = p->last;
    }
    p->rows->along_x(dst, s, &p->taps);
}

// The pass along y. Rows come from the pass along x when they are needed and stay in a window of a
// few more rows than one output row is made of, so that a large picture is shrunk in the cache.
static enum mm_code pass_y(struct mm_image *dst, struct pass_x *x, enum mm_filter filter,
                           struct mm_error *err) {
    struct mm_taps t = {0};
    const size_t row_bytes = (size_t)dst->width * 3;
    uint8_t *window = NULL;  // (n_window, width, 3): source rows from begin to end - 1
    int32_t n_window = 0, begin = 0, end = 0;
    enum mm_code code = mm_code_ok;
    if (taps_init(&t, x->src->height, dst->height, filter)) {
        n_window = t.max_count * 2 < 32 ? 32 : t.max_count * 2;
        n_window = n_window > x->src->height ? x->src->height : n_window;
        if ((int64_t)n_window * dst->width <= 4 * (int64_t)mm_image_max_pixels) {
            window = malloc((size_t)n_window * row_bytes);
        }
    }
    if (!window) {
        code = mm_fail(err, mm_code_memory,
                       "no memory to resize a picture of %d x %d pixels to %d x %d", x->src->width,
                       x->src->height, dst->width, dst->height);
    }
    for (int32_t i = 0; window && i < dst->height; i++) {
        const int32_t wanted = t.first[i] + t.count[i];  // rows overlap: first never passes end
        if (wanted - begin > n_window) {  // make room: keep what this and later rows need
            const int32_t keep = end > t.first[i] ? end - t.first[i] : 0;
            memmove(window, window + (size_t)(end - keep - begin) * row_bytes,
                    (size_t)keep * row_bytes);
            begin = end - keep;
        }
        for (; end < wanted; end++) {
            pass_x_row(x, window + (size_t)(end - begin) * row_bytes, end);
        }
        x->rows->along_y(dst->rgb + (size_t)i * row_bytes,
                         window + (size_t)(t.first[i] - begin) * row_bytes, row_bytes, row_bytes,
                         t.k + t.offset[i], t.count[i]);
    }
    free(window);
    taps_free(&t);
    return code;
}

// Both passes into dst->rgb, which has been allocated.
static enum mm_code resize_into(struct mm_image *dst, const struct mm_image *src,
                                enum mm_filter filter, struct mm_error *err) {
    const struct mm_resize_rows *rows = mm_resize_rows_fast();
    rows = rows ? rows : &mm_resize_rows_plain;
    struct pass_x x;
    enum mm_code code = mm_code_ok;
    if (!pass_x_init(&x, rows, src, dst->width, filter)) {
        code = mm_fail(err, mm_code_memory, "no memory to resize a picture %d pixels wide to %d",
                       src->width, dst->width);
    } else if (dst->height != src->height) {
        code = pass_y(dst, &x, filter, err);
    } else {
        for (int32_t y = 0; y < dst->height; y++) {
            pass_x_row(&x, dst->rgb + (size_t)y * (size_t)dst->width * 3, y);
        }
    }
    pass_x_deinit(&x);
    return code;
}

enum mm_code mm_image_resize(struct mm_image *dst, const struct mm_image *src, int32_t width,
                             int32_t height, enum mm_filter filter, struct mm_error *err) {
    *dst = (struct mm_image){0};
    if (width < 1 || height < 1 || width > mm_image_max_side || height > mm_image_max_side ||
        (int64_t)width * height > mm_image_max_pixels) {
        return mm_fail(err, mm_code_input,
                       "a picture cannot be resized to %d x %d: each side must be 1 to %d, and at "
                       "most %d pixels in all",
                       width, height, mm_image_max_side, mm_image_max_pixels);
    }
    struct mm_image made = {.width = width, .height = height};
    made.rgb = malloc((size_t)width * (size_t)height * 3);
    if (!made.rgb) {
        return mm_fail(err, mm_code_memory, "no memory for a picture of %d x %d pixels", width,
                       height);
    }
    const enum mm_code code = resize_into(&made, src, filter, err);
    if (code != mm_code_ok) {
        mm_image_free(&made);
        return code;
    }
    *dst = made;
    return mm_code_ok;
}
