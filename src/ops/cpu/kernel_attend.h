// Body of kernels_<isa>.c, after kernel_math.h: attention of a few queries to a long cache, whose
// rows are read once for all heads that share them. A cache is larger than any that is near the
// processor, and its rows lie far apart: they are asked for some rows ahead.

enum { rows_ahead = 16, together = 4, wide = LANES == 16 ? 8 : 4 };

MM_VINLINE void ask(const float *row, int64_t n) {
    for (int64_t i = 0; i < n; i += 16)
        __builtin_prefetch(row + i, 0, 2);
}

// n_q and n_k products, both constants where it is inlined; n_k rows of keys from k on.
MM_VINLINE void some_scores(float *s, int64_t lds, const float *q, const float *k, int64_t ldk,
                            int64_t dim, const int n_q, const int n_k) {
    vec sum[2][together];
    for (int h = 0; h < n_q; h++) {
        for (int j = 0; j < n_k; j++)
            sum[h][j] = (vec){0};
    }
    int64_t i = 0;
    for (; i + LANES <= dim; i += LANES) {
#pragma GCC unroll 8
        for (int j = 0; j < n_k; j++) {
            const vec key = load(k + j * ldk + i);
#pragma GCC unroll 2
            for (int h = 0; h < n_q; h++)
                sum[h][j] += key * load(q + h * dim + i);
        }
    }
    for (int h = 0; h < n_q; h++) {
        for (int j = 0; j < n_k; j++) {
            float total = sum_lanes(sum[h][j]);
            for (int64_t r = i; r < dim; r++)
                total += k[j * ldk + r] * q[h * dim + r];
            s[h * lds + j] = total;
        }
    }
}

static void scores(float *s, int64_t lds, const float *q, int64_t heads, const float *k,
                   int64_t ldk, int64_t n, int64_t dim) {
    int64_t j = 0;
    for (; j + together <= n; j += together) {
        for (int64_t a = 0; a < together; a++)
            ask(k + (j + a + rows_ahead) * ldk, dim);
        int64_t h = 0;
        for (; h + 2 <= heads; h += 2)
            some_scores(s + h * lds + j, lds, q + h * dim, k + j * ldk, ldk, dim, 2, together);
        if (h < heads)
            some_scores(s + h * lds + j, lds, q + h * dim, k + j * ldk, ldk, dim, 1, together);
    }
    for (; j < n; j++) {
        for (int64_t h = 0; h < heads; h++)
            some_scores(s + h * lds + j, lds, q + h * dim, k + j * ldk, ldk, dim, 1, 1);
    }
}

// n_y rows of y, `vecs` vectors of each: constants where it is inlined.
MM_VINLINE void some_sums(float *y, int64_t ldy, const float *s, int64_t lds, const float *v,
                          int64_t ldv, int64_t n, bool first, const int n_y, const int vecs) {
    vec sum[2][wide];
#pragma GCC unroll 2
    for (int h = 0; h < n_y; h++) {
#pragma GCC unroll 8
        for (int i = 0; i < vecs; i++)
            sum[h][i] = load(y + h * ldy + i * LANES);
    }
    for (int64_t j = 0; j < n; j++, v += ldv) {
        if (first) ask(v + rows_ahead * ldv, vecs * LANES);
#pragma GCC unroll 8
        for (int i = 0; i < vecs; i++) {
            const vec value = load(v + i * LANES);
#pragma GCC unroll 2
            for (int h = 0; h < n_y; h++)
                sum[h][i] += value * s[h * lds + j];
        }
    }
#pragma GCC unroll 2
    for (int h = 0; h < n_y; h++) {
#pragma GCC unroll 8
        for (int i = 0; i < vecs; i++)
            memcpy(y + h * ldy + i * LANES, &sum[h][i], sizeof sum[h][i]);
    }
}

static void weigh(float *y, int64_t ldy, const float *s, int64_t lds, int64_t heads, const float *v,
                  int64_t ldv, int64_t n, int64_t dim) {
    int64_t i = 0, step;
    for (; i + LANES <= dim; i += step) {
        const bool whole = i + wide * LANES <= dim;
        step = whole ? wide * LANES : LANES;
        for (int64_t h = 0; h < heads; h += 2) {
            float *to = y + h * ldy + i;
            const float *by = s + h * lds;
            const bool pair = h + 2 <= heads;
            if (whole && pair) {
                some_sums(to, ldy, by, lds, v + i, ldv, n, h == 0, 2, wide);
            } else if (whole) {
                some_sums(to, ldy, by, lds, v + i, ldv, n, h == 0, 1, wide);
            } else if (pair) {
                some_sums(to, ldy, by, lds, v + i, ldv, n, h == 0, 2, 1);
            } else {
                some_sums(to, ldy, by, lds, v + i, ldv, n, h == 0, 1, 1);
            }
        }
    }
    for (int64_t h = 0; i < dim && h < heads; h++) {
        for (int64_t j = 0; j < n; j++) {
            for (int64_t r = i; r < dim; r++)
                y[h * ldy + r] += s[h * lds + j] * v[j * ldv + r];
        }
    }
}
