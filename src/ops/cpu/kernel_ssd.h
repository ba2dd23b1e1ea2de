// Body of mixer_<isa>.c: small matrix products and the elementwise parts of the state-space
// recurrence. The including file sets LANES and the rest.

typedef float vec __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

MM_VINLINE vec vec_load(const float *p) {
    return *(const vec *)p;
}
MM_VINLINE void vec_store(float *p, vec v) {
    *(vec *)p = v;
}
// The lanes are added pairwise, i with i + half, so that the order is the same wherever it is used.
MM_VINLINE float vec_sum(vec v) {
    typedef float four __attribute__((vector_size(16)));
    four part[LANES / 4];
    memcpy(part, &v, sizeof part);
#pragma GCC unroll 2
    for (int half = LANES / 8; half > 0; half /= 2) {
#pragma GCC unroll 2
        for (int i = 0; i < half; i++)
            part[i] += part[i + half];
    }
    return (part[0][0] + part[0][2]) + (part[0][1] + part[0][3]);
}

// ---- products ----

enum { max_rows = 6 };  // of a tile of C; ROW_VECS vectors wide

// rows x (vecs * LANES) of C over k in [k0, k1). Both counts are constants where it is inlined.
MM_VINLINE void tile(const struct mm_gemm *g, int64_t i, int64_t j, int64_t k0, int64_t k1,
                     const int rows, const int vecs) {
    vec acc[max_rows][ROW_VECS];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 8
        for (int v = 0; v < vecs; v++) {
            acc[r][v] = (vec){0};
        }
    }
    const float *a = g->a + i * g->a_row + k0 * g->a_col;
    const float *b = g->b + k0 * g->ldb + j;
    for (int64_t k = k0; k < k1; k++, a += g->a_col, b += g->ldb) {
        vec row[ROW_VECS];
#pragma GCC unroll 8
        for (int v = 0; v < vecs; v++) {
            row[v] = vec_load(b + v * LANES);
        }
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            const float x = a[r * g->a_row];
#pragma GCC unroll 8
            for (int v = 0; v < vecs; v++) {
                acc[r][v] += row[v] * x;
            }
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
        float *c = g->c + (i + r) * g->ldc + j;
#pragma GCC unroll 8
        for (int v = 0; v < vecs; v++) {
            if (g->alpha != 0.0f) acc[r][v] += vec_load(c + v * LANES) * g->alpha;
            vec_store(c + v * LANES, acc[r][v]);
        }
    }
}

// A tile with a constant for every case the edges can ask for.
#define TILE_ROWS(vecs)                     \
    switch (rows) {                         \
        case 6:                             \
            tile(g, i, j, k0, k1, 6, vecs); \
            break;                          \
        case 5:                             \
            tile(g, i, j, k0, k1, 5, vecs); \
            break;                          \
        case 4:                             \
            tile(g, i, j, k0, k1, 4, vecs); \
            break;                          \
        case 3:                             \
            tile(g, i, j, k0, k1, 3, vecs); \
            break;                          \
        case 2:                             \
            tile(g, i, j, k0, k1, 2, vecs); \
            break;                          \
        default:                            \
            tile(g, i, j, k0, k1, 1, vecs); \
            break;                          \
    }

static void tile_any(const struct mm_gemm *g, int64_t i, int64_t j, int64_t k0, int64_t k1,
                     int64_t rows, int64_t vecs) {
    switch (vecs) {
#if ROW_VECS == 4
        case 4:
            TILE_ROWS(4) break;
        case 3:
            TILE_ROWS(3) break;
#endif
        case 2:
            TILE_ROWS(2) break;
        default:
            TILE_ROWS(1) break;
    }
}

static void gemm(const struct mm_gemm *g) {
    for (int64_t j = 0; j < g->n; j += ROW_VECS * LANES) {
        const int64_t left = (g->n - j) / LANES;
        for (int64_t i = 0; i < g->m; i += max_rows) {
            const int64_t rows = g->m - i < max_rows ? g->m - i : max_rows;
            int64_t k0 = 0, k1 = g->k, vecs = left < ROW_VECS ? left : ROW_VECS;
            if (g->part == mm_part_lower) {
                const int64_t wanted = (i + rows - j + LANES - 1) / LANES;
                if (wanted <= 0) continue;
                vecs = wanted < vecs ? wanted : vecs;
            }
            if (g->part == mm_part_a_lower) k1 = i + rows < k1 ? i + rows : k1;
            if (g->part == mm_part_a_upper) k0 = i;
            tile_any(g, i, j, k0, k1, rows, vecs);
        }
    }
}

// ---- moving ----

// LANES x LANES elements: log2(LANES) rounds, each interleaving row i with row i + LANES/2.
MM_VINLINE void transpose_block(float *dst, int64_t ld, const float *src, int64_t ld_src) {
    vec x[LANES], y[LANES];
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++) {
        x[i] = vec_load(src + i * ld_src);
    }
#pragma GCC unroll 4
    for (int round = 1; round < LANES; round *= 2) {
#pragma GCC unroll 8
        for (int i = 0; i < LANES / 2; i++) {
            y[2 * i] = __builtin_shufflevector(x[i], x[i + LANES / 2], ZIP_LOW);
            y[2 * i + 1] = __builtin_shufflevector(x[i], x[i + LANES / 2], ZIP_HIGH);
        }
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++) {
            x[i] = y[i];
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++) {
        vec_store(dst + i * ld, x[i]);
    }
}

static void transpose(float *dst, int64_t ld, const float *src, int64_t ld_src, int64_t rows,
                      int64_t cols) {
    for (int64_t c = 0; c < cols; c += LANES) {
        for (int64_t r = 0; r < ld; r += LANES) {
            const int64_t nr = rows - r < LANES ? rows - r : LANES;
            const int64_t nc = cols - c < LANES ? cols - c : LANES;
            if (nr == LANES && nc == LANES) {
                transpose_block(dst + c * ld + r, ld, src + r * ld_src + c, ld_src);
                continue;
            }
            _Alignas(64) float in[LANES * LANES], out[LANES * LANES];
            memset(in, 0, sizeof in);
            for (int64_t i = 0; i < nr; i++) {
                memcpy(in + i * LANES, src + (r + i) * ld_src + c, (size_t)nc * sizeof *in);
            }
            transpose_block(out, LANES, in, LANES);
            for (int64_t i = 0; i < nc; i++) {
                memcpy(dst + (c + i) * ld + r, out + i * LANES, sizeof(vec));
            }
        }
    }
}

static void pack(float *restrict dst, int64_t ld, const float *restrict src, int64_t ld_src,
                 const float *restrict scale, int64_t rows, int64_t cols) {
    for (int64_t r = 0; r < rows; r++, dst += ld, src += ld_src) {
        const float s = scale ? scale[r] : 1.0f;
        for (int64_t c = 0; c < cols; c++) {
            dst[c] = s * src[c];
        }
        for (int64_t c = cols; c < ld; c++) {
            dst[c] = 0.0f;
        }
    }
}

static float dot(const float *a, const float *b, int64_t n) {
    vec sum = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        sum += vec_load(a + i) * vec_load(b + i);
    }
    float s = vec_sum(sum);
    for (; i < n; i++) {
        s += a[i] * b[i];
    }
    return s;
}

// ---- decays ----

static void decay(struct mm_decay *d) {
    const int64_t padded = (d->n + LANES - 1) / LANES * LANES;
    for (int64_t i = d->n; i < padded; i++) {
        d->hi[i] = d->hi[d->n - 1], d->lo[i] = d->lo[d->n - 1], d->dt[i] = 0.0f;
    }
    const float hi = d->hi[d->n - 1], lo = d->lo[d->n - 1];
    for (int64_t i = 0; i < padded; i++) {
        d->in[i] = mm_v_decay(d->hi[i] + d->lo[i]);
        d->left[i] = mm_v_decay((hi - d->hi[i]) + (lo - d->lo[i]));
        d->out[i] = d->dt[i] * d->left[i];
    }
    d->total = d->in[d->n - 1];
}

// Rows of a kernel's buffer are aligned; told so, the compiler peels nothing off the loops.
#define ALIGNED(p) __builtin_assume_aligned(p, LANES * 4)

// Columns are compared as data: with the loop's counter, gcc splits the loop at the diagonal and
// leaves the first part without vectors.
struct columns {
    _Alignas(64) int32_t at[mm_ssd_chunk_max];
};
MM_VINLINE void columns_init(struct columns *c) {
    for (int32_t j = 0; j < mm_ssd_chunk_max; j++) {
        c->at[j] = j;
    }
}

static void mask(float *restrict a, int64_t ld, const struct mm_decay *restrict d) {
    struct columns column;
    columns_init(&column);
    for (int64_t i = 0; i < d->n; i++) {
        const int64_t whole = (i + LANES) / LANES * LANES;  // up to the diagonal
        const float hi = d->hi[i], lo = d->lo[i];
        const int32_t last = (int32_t)i;
        float *restrict ai = ALIGNED(a + i * ld);
#pragma GCC ivdep
        for (int64_t j = 0; j < whole; j++) {
            const float x = ai[j] * (mm_v_decay((hi - d->hi[j]) + (lo - d->lo[j])) * d->dt[j]);
            ai[j] = column.at[j] <= last ? x : 0.0f;
        }
        memset(ai + whole, 0, (size_t)(ld - whole) * sizeof *ai);
    }
}

static void mask_bwd(float *restrict a, float *restrict b, int64_t ld,
                     const struct mm_decay *restrict d, struct mm_decay_sums *restrict sums) {
    _Alignas(64) float row[mm_ssd_chunk_max];
    struct columns column;
    columns_init(&column);
    memset(sums->col, 0, sizeof sums->col);
    for (int64_t i = 0; i < d->n; i++) {
        const int64_t whole = (i + LANES) / LANES * LANES;
        const float hi = d->hi[i], lo = d->lo[i];
        const int32_t last = (int32_t)i;
        float *restrict ai = ALIGNED(a + i * ld), *restrict bi = ALIGNED(b + i * ld);
        sums->diag[i] = ai[i] * bi[i];  // exp(L_i - L_i) = 1
#pragma GCC ivdep
        for (int64_t j = 0; j < whole; j++) {
            const float e = mm_v_decay((hi - d->hi[j]) + (lo - d->lo[j])), e_dt = e * d->dt[j];
            const float x = ai[j], y = bi[j];
            const float u = column.at[j] < last ? x * y * e : 0.0f;
            sums->col[j] += u;
            row[j] = u * d->dt[j];
            ai[j] = column.at[j] <= last ? x * e_dt : 0.0f;
            bi[j] = column.at[j] <= last ? y * e_dt : 0.0f;
        }
        vec sum = {0};
        for (int64_t j = 0; j < whole; j += LANES) {
            sum += vec_load(row + j);
        }
        sums->row[i] = vec_sum(sum);
        memset(ai + whole, 0, (size_t)(ld - whole) * sizeof *ai);
        memset(bi + whole, 0, (size_t)(ld - whole) * sizeof *bi);
    }
}

// As the last lines of tile(), vector by vector: the compiler makes the same multiply-add of it at
// every level of optimization, so that the bits agree. n is a multiple of LANES.
static void scan(float *restrict carry, float *restrict kept, float alpha, int64_t n) {
    for (int64_t i = 0; i < n; i += LANES) {
        const vec before = vec_load(carry + i);
        vec after = vec_load(kept + i);
        if (alpha != 0.0f) after += before * alpha;
        vec_store(carry + i, after);
        vec_store(kept + i, before);
    }
}

// ---- one token ----

static void step(float *restrict y, float *restrict state, const float *restrict v,
                 const float *restrict k, const float *restrict q, float a, float dt, float d,
                 int64_t n_rows, int64_t n_cols) {
    for (int64_t i = 0; i < n_rows; i++, state += n_cols) {
        const float x = dt * v[i];
        vec sum = {0};
        int64_t j = 0;
        for (; j + LANES <= n_cols; j += LANES) {
            const vec s = vec_load(state + j) * a + vec_load(k + j) * x;
            vec_store(state + j, s);
            sum += s * vec_load(q + j);
        }
        float total = vec_sum(sum);
        for (; j < n_cols; j++) {
            state[j] = a * state[j] + x * k[j];
            total += state[j] * q[j];
        }
        y[i] = total + d * v[i];
    }
}
