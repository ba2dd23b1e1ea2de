// What shell tests do with safetensors files.
//   list FILE                    a line a tensor: name, dtype, shape
//   get FILE NAME                its values (F32), a line each
//   near FILE WANTED TOLERANCE   every F32 tensor of WANTED is in FILE, of that shape, and off by
//   at
//                                most TOLERANCE of its largest value; says what is not, and exits 1
//   rename FILE OUT PREFIX       the tensors whose names open with PREFIX, without it
//   cast FILE OUT DTYPE          the same tensors in another float type
//   same A B                     the same names, types, shapes and bits (metadata aside)
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "io/safetensors.h"

static struct mm_error err;

static int fail(void) {
    fprintf(stderr, "%s\n", err.text);
    return 2;
}

static int64_t count(const struct mm_st_tensor *t) {
    return (int64_t)(t->bytes / mm_dtype_bytes(t->dtype));
}

static float *values(const struct mm_st_tensor *t) {
    float *v = mm_xmalloc((size_t)count(t) * sizeof *v + 1);
    void *aligned = mm_xmalloc(t->bytes + 1);
    memcpy(aligned, t->data, t->bytes);
    mm_to_f32(v, aligned, t->dtype, count(t));
    free(aligned);
    return v;
}

static bool same_shape(const struct mm_st_tensor *a, const struct mm_st_tensor *b) {
    return a->n_axes == b->n_axes &&
           memcmp(a->shape, b->shape, (size_t)a->n_axes * sizeof *a->shape) == 0;
}

static int list(const struct mm_st *st) {
    for (int i = 0; i < mm_st_count(st); i++) {
        const struct mm_st_tensor *t = mm_st_at(st, i);
        printf("%s %s", t->name, mm_dtype_st_name(t->dtype));
        for (int k = 0; k < t->n_axes; k++)
            printf(" %lld", (long long)t->shape[k]);
        putchar('\n');
    }
    return 0;
}

static int get(const struct mm_st *st, const char *name) {
    const struct mm_st_tensor *t = mm_st_find(st, name);
    if (!t || t->dtype != mm_dtype_f32) return 1;
    float *v = values(t);
    for (int64_t i = 0; i < count(t); i++)
        printf("%.9g\n", (double)v[i]);
    free(v);
    return 0;
}

static double off_by(const struct mm_st_tensor *a, const struct mm_st_tensor *want) {
    float *x = values(a), *y = values(want);
    double worst = 0.0, top = 0.0;
    for (int64_t i = 0; i < count(a); i++) {
        const double d = fabs((double)x[i] - (double)y[i]);
        if (!(d <= worst)) worst = isnan(d) ? INFINITY : d;
        top = fmax(top, fabs((double)y[i]));
    }
    free(x);
    free(y);
    return worst == 0.0 ? 0.0 : worst / top;
}

static int near(const struct mm_st *st, const struct mm_st *want, double tolerance) {
    int bad = 0;
    for (int i = 0; i < mm_st_count(want); i++) {
        const struct mm_st_tensor *w = mm_st_at(want, i), *t = mm_st_find(st, w->name);
        if (w->dtype != mm_dtype_f32) continue;
        if (!t || t->dtype != mm_dtype_f32 || !same_shape(t, w)) {
            printf("'%s' is missing or of another shape\n", w->name);
            bad++;
        } else if (!(off_by(t, w) <= tolerance)) {
            printf("'%s' is off by %g of its largest value\n", w->name, off_by(t, w));
            bad++;
        }
    }
    return bad || mm_st_count(want) == 0;
}

static int same(const struct mm_st *a, const struct mm_st *b) {
    if (mm_st_count(a) != mm_st_count(b)) {
        printf("%d tensors and %d\n", mm_st_count(a), mm_st_count(b));
        return 1;
    }
    for (int i = 0; i < mm_st_count(a); i++) {
        const struct mm_st_tensor *x = mm_st_at(a, i), *y = mm_st_at(b, i);
        if (strcmp(x->name, y->name) != 0 || x->dtype != y->dtype || !same_shape(x, y) ||
            memcmp(x->data, y->data, x->bytes) != 0) {
            printf("'%s' and '%s' differ\n", x->name, y->name);
            return 1;
        }
    }
    return 0;
}

static int rewrite(const struct mm_st *st, const char *out, const char *prefix, int dtype) {
    struct mm_st_tensor *t = mm_xcalloc((size_t)mm_st_count(st) + 1, sizeof *t);
    int n = 0;
    for (int i = 0; i < mm_st_count(st); i++) {
        t[n] = *mm_st_at(st, i);
        if (strncmp(t[n].name, prefix, strlen(prefix)) != 0) continue;
        t[n].name += strlen(prefix);
        if (dtype >= 0) {
            float *v = values(&t[n]);
            const int64_t elements = count(&t[n]);
            t[n].dtype = (enum mm_dtype)dtype;
            t[n].bytes = (size_t)elements * mm_dtype_bytes(t[n].dtype);
            void *data = mm_xmalloc(t[n].bytes + 1);
            if (dtype == mm_dtype_f32) {
                memcpy(data, v, t[n].bytes);
            } else {
                mm_from_f32(data, t[n].dtype, v, elements);
            }
            t[n].data = data;
            free(v);
        }
        n++;
    }
    const enum mm_code code = mm_st_write(out, t, n, NULL, 0, &err);
    for (int i = 0; dtype >= 0 && i < n; i++)
        free((void *)(uintptr_t)t[i].data);
    free(t);
    return code ? fail() : 0;
}

int main(int argc, char **argv) {
    const char *verb = argc > 2 ? argv[1] : "";
    struct mm_st *a = NULL, *b = NULL;
    int status = 2;
    if (argc < 3 || mm_st_open(&a, argv[2], &err)) return fail();
    const bool two = !strcmp(verb, "near") || !strcmp(verb, "same");
    if (two && (argc < 4 || mm_st_open(&b, argv[3], &err))) {
        status = fail();
    } else if (!strcmp(verb, "list")) {
        status = list(a);
    } else if (!strcmp(verb, "same")) {
        status = same(a, b);
    } else if (!strcmp(verb, "get") && argc == 4) {
        status = get(a, argv[3]);
    } else if (!strcmp(verb, "near") && argc == 5) {
        status = near(a, b, atof(argv[4]));
    } else if (!strcmp(verb, "rename") && argc == 5) {
        status = rewrite(a, argv[3], argv[4], -1);
    } else if (!strcmp(verb, "cast") && argc == 5) {
        status = rewrite(a, argv[3], "", mm_dtype_parse(argv[4]));
    }
    mm_st_close(a);
    mm_st_close(b);
    return status;
}
