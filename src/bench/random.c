#include "bench/random.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/rng.h"

// The i-th 64 random bits of a stream: the finalizer of SplitMix64 (Steele, Lea, Flood 2014) over a
// counter. base/rng's Philox is better than random weights need to be, and takes five times as
// long.
static inline uint64_t bits_at(uint64_t stream, uint64_t i) {
    uint64_t x = stream + (i + 1) * 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

struct fill_job {
    struct mm_view w;  // its shape and type
    char *to;          // of row `first`
    int64_t first;
    uint64_t stream;
    float size;  // values are uniform in +-size
};

static void fill_floats(const struct fill_job *j, char *row, int64_t r) {
    const int64_t n = mm_view_cols(j->w);
    const uint64_t at = (uint64_t)r * (uint64_t)((n + 3) / 4);
    const float unit = j->size / 32768.0f;
    for (int64_t i = 0; i < n; i += 4) {
        const uint64_t bits = bits_at(j->stream, at + (uint64_t)(i / 4));
        float x[4];
        for (int k = 0; k < 4; k++)
            x[k] = (float)(int16_t)(uint16_t)(bits >> (16 * k)) * unit;
        const size_t m = (size_t)(n - i < 4 ? n - i : 4);
        if (j->w.dtype == mm_dtype_bf16) {
            uint16_t h[4];
            for (int k = 0; k < 4; k++)
                h[k] = mm_f32_to_bf16(x[k]);
            memcpy(row + 2 * i, h, m * sizeof *h);
        } else if (j->w.dtype == mm_dtype_f32) {
            memcpy(row + 4 * i, x, m * sizeof *x);
        } else {
            mm_from_f32(row + (size_t)i * mm_dtype_bytes(j->w.dtype), j->w.dtype, x, (int64_t)m);
        }
    }
}

// Codes as they are, scales so that the largest weight is `size`; see base/quant.h.
static void fill_codes(const struct fill_job *j, uint8_t *row, int64_t r) {
    const int64_t k = mm_view_cols(j->w), blocks = mm_quant_blocks(k);
    const int64_t bytes = mm_quant_code_bytes(j->w.dtype, k);
    const bool q4 = j->w.dtype == mm_dtype_q4;
    const uint64_t at = (uint64_t)r * (uint64_t)(bytes / 8 + blocks);
    memset(row, 0, (size_t)mm_quant_row_bytes(j->w.dtype, k));
    for (int64_t i = 0; i < bytes / 8; i++) {
        const uint64_t bits = bits_at(j->stream, at + (uint64_t)i);
        memcpy(row + 8 * i, &bits, 8);
    }
    for (int64_t i = 0; i < blocks * mm_quant_block; i++) {
        if (q4) {  // past the end: code 0, stored as 8
            uint8_t *byte = row + i / mm_quant_block * 64 + i % 64;
            if (i >= k && i % mm_quant_block < 64) *byte = (uint8_t)((*byte & 0xf0) | 8);
            if (i >= k && i % mm_quant_block >= 64) *byte = (uint8_t)((*byte & 0x0f) | 0x80);
        } else if (i >= k || row[i] == 0x80) {  // -128 is no code
            row[i] = i >= k ? 0 : 0x81;
        }
    }
    uint16_t *scales = (uint16_t *)(row + bytes);
    for (int64_t b = 0; b < blocks; b++) {
        scales[b] = mm_f32_to_f16(j->size / (q4 ? 8.0f * 15.0f : 127.0f));
        if (!q4) continue;
        // factors of 8 to 15
        const uint64_t bits = bits_at(j->stream, at + (uint64_t)(bytes / 8 + b));
        scales[blocks + b] = (uint16_t)(bits | 0x8888u);
    }
}

static int64_t row_bytes(struct mm_view w) {
    return (int64_t)mm_view_bytes(w) / w.shape[0];
}

static void fill_rows(void *arg, int64_t begin, int64_t end, int thread) {
    const struct fill_job *j = arg;
    const int64_t bytes = row_bytes(j->w);
    (void)thread;
    for (int64_t r = begin; r < end; r++) {
        char *row = j->to + r * bytes;
        if (mm_dtype_quantized(j->w.dtype)) {
            fill_codes(j, (uint8_t *)row, j->first + r);
        } else {
            fill_floats(j, row, j->first + r);
        }
    }
}

// Straight into place where the host can write there, else a slice at a time.
static void fill_matrix(struct mm_model *m, struct mm_view w, uint64_t stream, float size) {
    enum { slice = 64 << 20 };
    struct fill_job j = {.w = w, .to = w.data, .stream = stream, .size = size};
    if (m->be->host_memory) {
        mm_parallel_for(m->be->pool, w.shape[0], 1, fill_rows, &j);
        return;
    }
    const int64_t bytes = row_bytes(w);
    int64_t step = slice / bytes;
    step = step < 1 ? 1 : step > w.shape[0] ? w.shape[0] : step;
    j.to = mm_xmalloc((size_t)(step * bytes));
    for (; j.first < w.shape[0]; j.first += step) {
        const int64_t n = w.shape[0] - j.first < step ? w.shape[0] - j.first : step;
        mm_parallel_for(m->be->pool, n, 1, fill_rows, &j);
        m->be->upload(m->be, mm_view_at(w, j.first, 0), j.to, (size_t)(n * bytes));
    }
    free(j.to);
}

// Vectors, a few thousand numbers in all: what a freshly carved student has.
static void fill_vector(struct mm_model *m, const struct mm_param *p, uint64_t seed) {
    const int64_t n = mm_view_count(p->w);
    float *x = mm_xmalloc((size_t)n * sizeof *x);
    struct mm_rng r = mm_rng_make(seed, mm_rng_stream(p->name));
    for (int64_t i = 0; i < n; i++) {
        switch (p->role) {
            case mm_role_dt_bias: {
                const double dt = exp(mm_rng_uniform(&r, log(0.001), log(0.1)));
                x[i] = (float)(dt + log(-expm1(-dt)));  // inverse softplus
                break;
            }
            case mm_role_patch_b:
            case mm_role_shuffle0_b:
            case mm_role_shuffle2_b:
            case mm_role_conv_b:
            case mm_role_q_norm_b:
            case mm_role_k_norm_b:
                x[i] = 0.0f;
                break;
            default:  // norms, A_log, D
                x[i] = 1.0f;
                break;
        }
    }
    mm_param_put(m, p->w, x);
    free(x);
}

static float size_of(const struct mm_model *m, const struct mm_param *p) {
    switch (p->role) {
        case mm_role_text:
        case mm_role_tok:
        case mm_role_special:
        case mm_role_position:
        case mm_role_class:
            return 0.02f * sqrtf(3.0f);  // a deviation of 0.02
        case mm_role_wo:
        case mm_role_w2:
            return 1.0f / sqrtf(2.0f * (float)m->n_blocks * (float)mm_view_cols(p->w));
        default:
            return 1.0f / sqrtf((float)mm_view_cols(p->w));
    }
}

enum mm_code mm_bench_random_model(struct mm_model *m, const struct mm_config *config,
                                   struct mm_backend *be, enum mm_dtype dtype, uint64_t seed,
                                   struct mm_error *err) {
    mm_model_init(m, config, be, dtype);
    snprintf(m->path, sizeof m->path, "random weights");
    enum mm_code code = mm_model_alloc_used(m, err);
    for (int i = 0; i < m->n_params && !code; i++) {
        const struct mm_param *p = &m->params[i];
        if (p->w.data == NULL) continue;
        if (p->n_axes == 1) {
            fill_vector(m, p, seed);
        } else {
            fill_matrix(m, p->w, bits_at(seed, mm_rng_stream(p->name)), size_of(m, p));
        }
    }
    if (!code) code = mm_backend_sync(be, err);
    if (code) mm_model_deinit(m);
    return code;
}
