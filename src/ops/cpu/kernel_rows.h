// Body of mixer_<isa>.c: the row operations of the mixer: convolution, norms, softplus. Plain loops
// that vectorise; the sums over a row are written out with vectors. At the end, the table.

// ---- convolution ----

enum { strip = 256 };  // channels whose pre-activations stay in the first cache

MM_VINLINE void conv_pre(float *restrict z, const float *const *x, int64_t c0,
                         const float *restrict w, int64_t ldw, const float *restrict bias,
                         int64_t width, int64_t n) {
    if (width == 2) {  // the paper's: one pass
        const float *restrict x0 = x[0] + c0, *restrict x1 = x[1] + c0;
        for (int64_t c = 0; c < n; c++) {
            z[c] = bias[c] + w[c] * x0[c] + w[ldw + c] * x1[c];
        }
        return;
    }
    for (int64_t c = 0; c < n; c++) {
        z[c] = bias[c];
    }
    for (int64_t j = 0; j < width; j++) {
        const float *restrict xj = x[j] + c0, *restrict wj = w + j * ldw;
        for (int64_t c = 0; c < n; c++) {
            z[c] += wj[c] * xj[c];
        }
    }
}

static void conv_fwd(float *restrict y, const float *const *x, const float *restrict w, int64_t ldw,
                     const float *restrict bias, int64_t width, int64_t n) {
    _Alignas(64) float z[strip];
    for (int64_t c0 = 0; c0 < n; c0 += strip) {
        const int64_t m = n - c0 < strip ? n - c0 : strip;
        conv_pre(z, x, c0, w + c0, ldw, bias + c0, width, m);
        silus(y + c0, z, m);
    }
}

static void conv_bwd(float *restrict dz, float *restrict dw, float *restrict db,
                     const float *restrict dy, const float *const *x, const float *restrict w,
                     int64_t ldw, const float *restrict bias, int64_t width, int64_t n) {
    _Alignas(64) float z[strip], s[strip];
    conv_pre(z, x, 0, w, ldw, bias, width, n);
    sigmoids(s, z, n);
    for (int64_t c = 0; c < n; c++) {
        dz[c] = dy[c] * mm_v_silu_slope(z[c], s[c]);
    }
    if (!dw) return;
    for (int64_t c = 0; c < n; c++) {
        db[c] += dz[c];
    }
    for (int64_t j = 0; j < width; j++) {
        const float *restrict xj = x[j];
        float *restrict dwj = dw + j * n;
        for (int64_t c = 0; c < n; c++) {
            dwj[c] += dz[c] * xj[c];
        }
    }
}

static void conv_dx(float *restrict dx, const float *const *dz, const float *restrict w,
                    int64_t ldw, int64_t width, int64_t n) {
    const float *restrict first = dz[0];
    for (int64_t c = 0; c < n; c++) {
        dx[c] = w[c] * first[c];
    }
    for (int64_t j = 1; j < width; j++) {
        const float *restrict d = dz[j], *restrict wj = w + j * ldw;
        for (int64_t c = 0; c < n; c++) {
            dx[c] += wj[c] * d[c];
        }
    }
}

// ---- norms ----

MM_VINLINE float row_sum(const float *x, int64_t n) {
    vec sum = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        sum += vec_load(x + i);
    }
    float s = vec_sum(sum);
    for (; i < n; i++) {
        s += x[i];
    }
    return s;
}

static void head_norm_fwd(float *y, float *stats, const float *x, const float *restrict w,
                          const float *restrict bias, float eps, int64_t n_heads, int64_t dim) {
    for (int64_t h = 0; h < n_heads; h++, x += dim, y += dim) {
        const float mean = row_sum(x, dim) / (float)dim;
        vec sum = {0};
        int64_t i = 0;
        for (; i + LANES <= dim; i += LANES) {
            const vec c = vec_load(x + i) - mean;
            sum += c * c;
        }
        float var = vec_sum(sum);
        for (; i < dim; i++) {
            var += (x[i] - mean) * (x[i] - mean);
        }
        const float r = 1.0f / sqrtf(var / (float)dim + eps);
#pragma GCC ivdep
        for (int64_t p = 0; p < dim; p++) {  // y may be x
            y[p] = (x[p] - mean) * r * w[p] + bias[p];
        }
        if (stats) stats[2 * h] = mean, stats[2 * h + 1] = r;
    }
}

static void head_norm_bwd(float *dx, float *restrict dw, float *restrict dbias, const float *dy,
                          const float *restrict x, const float *restrict w,
                          const float *restrict stats, int64_t n_heads, int64_t dim) {
    for (int64_t h = 0; h < n_heads; h++, x += dim, dx += dim, dy += dim) {
        const float mean = stats[2 * h], r = stats[2 * h + 1];
        vec sum1 = {0}, sum2 = {0};
        int64_t i = 0;
        for (; i + LANES <= dim; i += LANES) {
            const vec d = vec_load(dy + i) * vec_load(w + i);
            sum1 += d;
            sum2 += d * ((vec_load(x + i) - mean) * r);
        }
        float m1 = vec_sum(sum1), m2 = vec_sum(sum2);
        for (; i < dim; i++) {
            const float d = dy[i] * w[i];
            m1 += d;
            m2 += d * ((x[i] - mean) * r);
        }
        m1 /= (float)dim, m2 /= (float)dim;
        if (dw) {
            for (int64_t p = 0; p < dim; p++) {
                dw[p] += dy[p] * ((x[p] - mean) * r);
                dbias[p] += dy[p];
            }
        }
#pragma GCC ivdep
        for (int64_t p = 0; p < dim; p++) {  // dx may be dy
            dx[p] = r * (dy[p] * w[p] - m1 - (x[p] - mean) * r * m2);
        }
    }
}

// Heads in strips of up to `strip` elements, with the silu of the gate.
static void gated_norm_fwd(float *restrict o, float *restrict rinv, const float *restrict y,
                           const float *restrict g, const float *restrict w, float eps,
                           int64_t n_heads, int64_t dim) {
    _Alignas(64) float s[strip];
    for (int64_t h = 0; h < n_heads; h++, o += dim, y += dim, g += dim) {
        const float r = w ? 1.0f / sqrtf(dot(y, y, dim) / (float)dim + eps) : 1.0f;
        for (int64_t p0 = 0; p0 < dim; p0 += strip) {
            const int64_t end = dim - p0 < strip ? dim : p0 + strip;
            silus(s, g + p0, end - p0);
            if (!w) {
                for (int64_t p = p0; p < end; p++)
                    o[p] = y[p] * s[p - p0];
                continue;
            }
            for (int64_t p = p0; p < end; p++)
                o[p] = y[p] * r * w[p] * s[p - p0];
        }
        if (w && rinv) rinv[h] = r;
    }
}

// With n = y r: do = d_o w silu(g); dy = r (do - n mean(do n)). dy may be d_o.
// First what needs no sum over the head, elements [p0, end): dw, dg, and do in dy.
MM_VINLINE void gated_parts(float *dy, float *restrict dg, float *restrict dw, const float *d_o,
                            const float *restrict y, const float *restrict g,
                            const float *restrict w, const float *restrict s, float r, int64_t p0,
                            int64_t end, const bool with_w, const bool with_dw) {
#pragma GCC ivdep
    for (int64_t p = p0; p < end; p++) {
        const float silu = g[p] * s[p - p0], n = y[p] * r, d0 = d_o[p];
        const float d = with_w ? d0 * w[p] : d0;
        if (with_dw) dw[p] += d0 * n * silu;
        dg[p] = d * n * mm_v_silu_slope(g[p], s[p - p0]);
        dy[p] = d * silu;
    }
}

static void gated_norm_bwd(float *dy, float *restrict dg, float *restrict dw, const float *d_o,
                           const float *restrict y, const float *restrict g,
                           const float *restrict w, const float *restrict rinv, int64_t n_heads,
                           int64_t dim) {
    _Alignas(64) float s[strip];
    for (int64_t h = 0; h < n_heads; h++, dy += dim, dg += dim, d_o += dim, y += dim, g += dim) {
        const float r = w ? rinv[h] : 1.0f;
        for (int64_t p0 = 0; p0 < dim; p0 += strip) {
            const int64_t end = dim - p0 < strip ? dim : p0 + strip;
            sigmoids(s, g + p0, end - p0);
            if (!w) {
                gated_parts(dy, dg, NULL, d_o, y, g, w, s, r, p0, end, false, false);
            } else if (dw) {
                gated_parts(dy, dg, dw, d_o, y, g, w, s, r, p0, end, true, true);
            } else {
                gated_parts(dy, dg, NULL, d_o, y, g, w, s, r, p0, end, true, false);
            }
        }
        if (!w) continue;
        const float mean = dot(dy, y, dim) * r / (float)dim;
        for (int64_t p = 0; p < dim; p++) {
            dy[p] = r * (dy[p] - y[p] * r * mean);
        }
    }
}

// ---- softplus ----

static void softplus_fwd(float *restrict y, const float *restrict x, const float *restrict bias,
                         int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        y[i] = mm_v_softplus(x[i] + bias[i]);
    }
}

static void softplus_bwd(float *restrict dx, float *restrict dbias, const float *restrict dy,
                         const float *restrict x, const float *restrict bias, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        dx[i] = dy[i] * mm_v_sigmoid(x[i] + bias[i]);
    }
    for (int64_t i = 0; dbias && i < n; i++) {
        dbias[i] += dx[i];
    }
}

// `product` is the set's gemm, conv and norm its conv_fwd and gated_norm_fwd; the others are fields
// of the table.
#define MM_MIXER_KERNELS(product, chunk, attend_, room_, chunks_, conv, norm)                   \
    {                                                                                           \
        .lanes = LANES, .long_chunk = (chunk), .attend = (attend_), .attend_room = (room_),     \
        .chunks = (chunks_), .gemm = product, .transpose = transpose, .pack = pack,             \
        .decay = decay, .mask = mask, .mask_bwd = mask_bwd, .dot = dot, .scan = scan,           \
        .step = step, .conv_fwd = conv, .conv_bwd = conv_bwd, .conv_dx = conv_dx,               \
        .head_norm_fwd = head_norm_fwd, .head_norm_bwd = head_norm_bwd, .gated_norm_fwd = norm, \
        .gated_norm_bwd = gated_norm_bwd, .softplus_fwd = softplus_fwd,                         \
        .softplus_bwd = softplus_bwd                                                            \
    }
