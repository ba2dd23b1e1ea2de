// The error of formats for weights, of the two that are (base/quant.h) and of others that could
// have been: what docs/QUANTIZATION.md chooses by.
//     build/bench/bench_quant [MODEL.safetensors]...
// A line: format, bits a weight (rows of 2048), root mean square error over that of the weights,
// for normal numbers, for numbers with a heavy tail (Student's t, 5 degrees of freedom), and for
// every 61st row of each file's matrices.
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/quant.h"
#include "base/rng.h"
#include "io/safetensors.h"

enum { longest = 1 << 16, n_rows = 24, row_length = 2048 };

enum kind {
    kind_real,     // mm_quantize_row
    kind_habit,    // f16 scale a group, the largest weight on code -8: ggml's q4_0
    kind_search,   // the same, the scale searched
    kind_factors,  // f16 scale a block, a factor a group, searched
    kind_eight,    // f16 scale a block, 8 bits, the largest weight on 127
};
static const struct format {
    const char *name;
    enum kind kind;
    int block, group, factors, sign;  // factors: largest; sign: factors have one
    enum mm_dtype dtype;
    double bits;
} formats[] = {
    {"q4, as quantize writes it", kind_real, 128, 32, 15, 0, mm_dtype_q4, 4.25},
    {"f16 a 32, largest on -8 (q4_0)", kind_habit, 32, 32, 1, 0, 0, 4.5},
    {"f16 a 32, searched", kind_search, 32, 32, 1, 0, 0, 4.5},
    {"f16 a 64, searched", kind_search, 64, 64, 1, 0, 0, 4.25},
    {"f16 a 128, searched", kind_search, 128, 128, 1, 0, 0, 4.125},
    {"f16 a 128, 1..15 a 64", kind_factors, 128, 64, 15, 0, 0, 4.1875},
    {"f16 a 256, 1..15 a 32", kind_factors, 256, 32, 15, 0, 0, 4.1875},
    {"f16 a 128, 1..15 a 32", kind_factors, 128, 32, 15, 0, 0, 4.25},
    {"f16 a 128, +-1..8 a 32", kind_factors, 128, 32, 8, 1, 0, 4.25},
    {"f16 a 64, 1..15 a 32", kind_factors, 64, 32, 15, 0, 0, 4.375},
    {"f16 a 256, 1..15 a 16", kind_factors, 256, 16, 15, 0, 0, 4.3125},
    {"f16 a 128, 1..15 a 16", kind_factors, 128, 16, 15, 0, 0, 4.375},
    {"q8, as quantize writes it", kind_real, 128, 0, 0, 0, mm_dtype_q8, 8.125},
    {"8 bits, f16 a 32 (q8_0)", kind_eight, 32, 0, 0, 0, 0, 8.5},
    {"8 bits, f16 a 64", kind_eight, 64, 0, 0, 0, 0, 8.25},
    {"8 bits, f16 a 128", kind_eight, 128, 0, 0, 0, 0, 8.125},
    {"8 bits, f16 a 256", kind_eight, 256, 0, 0, 0, 0, 8.0625},
};
enum { n_formats = sizeof formats / sizeof *formats };

static double squared[n_formats], whole;

static float f16(float x) {
    return mm_f16_to_f32(mm_f32_to_f16(x));
}

static float extreme(const float *w, int n) {
    float most = 0.0f;
    for (int i = 0; i < n; i++) {
        if (fabsf(w[i]) > fabsf(most)) most = w[i];
    }
    return most;
}

static double error_with(const float *w, int n, float scale, int low, int high) {
    double sum = 0.0;
    const float inverse = scale != 0.0f ? 1.0f / scale : 0.0f;
    for (int i = 0; i < n; i++) {
        const float c = fmaxf((float)low, fminf((float)high, rintf(w[i] * inverse)));
        const double d = (double)(w[i] - scale * c);
        sum += d * d;
    }
    return sum;
}

static double searched(const float *w, int n) {
    const float most = fabsf(extreme(w, n));
    double best = INFINITY;
    for (int i = 0; i < 80; i++) {
        const float scale = f16(most / (i % 2 ? 8.0f : -8.0f) * (0.6f + 0.02f * (float)(i / 2)));
        best = fmin(best, error_with(w, n, scale, -8, 7));
    }
    return best;
}

// The best factor of one group.
static double group_error(const struct format *f, const float *w, int n, float scale) {
    double best = INFINITY;
    for (int u = 1; u <= f->factors; u++) {
        best = fmin(best, error_with(w, n, scale * (float)u, -8, 7));
        if (f->sign) best = fmin(best, error_with(w, n, -scale * (float)u, -8, 7));
    }
    return best;
}

static double with_factors(const struct format *f, const float *w, int n) {
    const float most = fabsf(extreme(w, n));
    double best = INFINITY;
    for (int i = 0; i < 48; i++) {
        const float size = most / (8.0f * (float)f->factors) * (0.7f + 0.025f * (float)(i / 2));
        double sum = 0.0;
        for (int g = 0; g < n && sum < best; g += f->group) {
            const int m = n - g < f->group ? n - g : f->group;
            sum += group_error(f, w + g, m, f16(i % 2 ? size : -size));
        }
        best = fmin(best, sum);
    }
    return best;
}

static double block_error(const struct format *f, const float *w, int n) {
    switch (f->kind) {
        case kind_habit:
            return error_with(w, n, f16(extreme(w, n) / -8.0f), -8, 7);
        case kind_search:
            return searched(w, n);
        case kind_factors:
            return with_factors(f, w, n);
        default:
            return error_with(w, n, f16(extreme(w, n) / 127.0f), -127, 127);
    }
}

static double row_error(const struct format *f, const float *w, int n) {
    static _Alignas(64) char row[2 * longest];
    static float back[longest];
    double sum = 0.0;
    if (f->kind != kind_real) {
        for (int at = 0; at < n; at += f->block)
            sum += block_error(f, w + at, n - at < f->block ? n - at : f->block);
        return sum;
    }
    mm_quantize_row(row, f->dtype, w, NULL, n);
    mm_dequantize_row(back, f->dtype, row, n);
    for (int i = 0; i < n; i++)
        sum += (double)(w[i] - back[i]) * (double)(w[i] - back[i]);
    return sum;
}

static void add_row(const float *w, int n) {
    for (int i = 0; i < n; i++)
        whole += (double)w[i] * (double)w[i];
    for (int f = 0; f < n_formats; f++)
        squared[f] += row_error(&formats[f], w, n);
}

static void print(const char *title) {
    printf("\n%s\n", title);
    for (int f = 0; f < n_formats; f++) {
        printf("  %-32s %7.4f bits   %.5f\n", formats[f].name, formats[f].bits,
               sqrt(squared[f] / whole));
        squared[f] = 0.0;
    }
    whole = 0.0;
}

static void add_file(const char *path) {
    static float w[longest];
    struct mm_st *st;
    struct mm_error err;
    if (mm_st_open(&st, path, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return;
    }
    for (int i = 0; i < mm_st_count(st); i++) {
        const struct mm_st_tensor *t = mm_st_at(st, i);
        const bool weights = t->dtype == mm_dtype_f32 || t->dtype == mm_dtype_bf16;
        if (!weights || t->n_axes != 2 || t->shape[1] > longest || strstr(t->name, "embed")) {
            continue;
        }
        const int64_t k = t->shape[1];
        for (int64_t r = 0; r < t->shape[0]; r += 61) {
            mm_to_f32(w, (const char *)t->data + (size_t)(r * k) * mm_dtype_bytes(t->dtype),
                      t->dtype, k);
            add_row(w, (int)k);
        }
    }
    mm_st_close(st);
    print(path);
}

int main(int argc, char **argv) {
    static float w[row_length];
    struct mm_rng rng = mm_rng_make(1, 1);
    for (int tail = 0; tail < 2; tail++) {
        for (int r = 0; r < n_rows; r++) {
            for (int i = 0; i < row_length; i++) {
                double square = 0.0;
                for (int k = 0; tail && k < 5; k++)
                    square += pow(mm_rng_normal(&rng), 2.0) / 5.0;
                w[i] = (float)(mm_rng_normal(&rng) / (tail ? sqrt(square) : 1.0));
            }
            add_row(w, row_length);
        }
        print(tail ? "Student's t, 5 degrees of freedom" : "normal");
    }
    for (int i = 1; i < argc; i++)
        add_file(argv[i]);
    return 0;
}
