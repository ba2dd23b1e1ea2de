// Body of kernels_<isa>.c. Loops that vectorise as they stand; sums over a row are written with
// vectors, so that their order is fixed by LANES alone. LANES is set by the including file.

typedef float vec __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef double dvec __attribute__((vector_size(LANES * 4), aligned(8), may_alias));

MM_VINLINE vec load(const float *p) {
    return *(const vec *)p;
}

// The lanes are added pairwise, i with i + half.
MM_VINLINE float sum_lanes(vec v) {
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

static float dot(const float *a, const float *b, int64_t n) {
    vec s0 = {0}, s1 = {0};
    int64_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        s0 += load(a + i) * load(b + i);
        s1 += load(a + i + LANES) * load(b + i + LANES);
    }
    float sum = sum_lanes(s0 + s1);
    for (; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

static void axpy(float *restrict y, float a, const float *restrict x, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        y[i] += a * x[i];
}

static float largest(const float *x, int64_t n) {
    typedef int32_t mask __attribute__((vector_size(LANES * 4), may_alias));
    float top = x[0];
    int64_t i = 0;
    if (n >= LANES) {
        vec t = load(x);
        for (i = LANES; i + LANES <= n; i += LANES) {
            const vec v = load(x + i);
            const mask larger = v > t;
            t = (vec)((larger & (mask)v) | (~larger & (mask)t));
        }
        float lane[LANES];
        memcpy(lane, &t, sizeof lane);
        for (int k = 0; k < LANES; k++)
            top = lane[k] > top ? lane[k] : top;
    }
    for (; i < n; i++)
        top = x[i] > top ? x[i] : top;
    return top;
}

// ---- pointwise; outputs may be inputs, element by element ----

static void add(float *y, const float *a, const float *b, int64_t n) {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; i++)
        y[i] = a[i] + b[i];
}

static void scale(float *y, const float *x, float s, int64_t n) {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; i++)
        y[i] = x[i] * s;
}

enum { sigmoid_strip = 512 };  // that stays in the first cache

static void swiglu_fwd(float *y, const float *a, const float *b, int64_t n) {
    _Alignas(64) float s[sigmoid_strip];
    for (int64_t i0 = 0; i0 < n; i0 += sigmoid_strip, y += sigmoid_strip) {
        const int64_t m = n - i0 < sigmoid_strip ? n - i0 : sigmoid_strip;
        const float *ai = a + i0, *bi = b + i0;
        silus(s, ai, m);
#pragma GCC ivdep
        for (int64_t i = 0; i < m; i++)
            y[i] = s[i] * bi[i];
    }
}

static void swiglu_bwd(float *da, float *db, const float *dy, const float *a, const float *b,
                       int64_t n) {
    _Alignas(64) float s[sigmoid_strip];
    for (int64_t i0 = 0; i0 < n; i0 += sigmoid_strip) {
        const int64_t m = n - i0 < sigmoid_strip ? n - i0 : sigmoid_strip;
        const float *ai = a + i0, *bi = b + i0, *di = dy + i0;
        float *to_a = da + i0, *to_b = db + i0;
        sigmoids(s, ai, m);
#pragma GCC ivdep
        for (int64_t i = 0; i < m; i++) {
            const float g = ai[i], u = bi[i], d = di[i];
            to_a[i] = d * u * mm_v_silu_slope(g, s[i]);
            to_b[i] = d * g * s[i];
        }
    }
}

// The normal distribution function and its density. erf by Abramowitz & Stegun 7.1.26: within
// 1.5e-7, to which f32 adds as much again.
MM_VINLINE float normal_cdf(float x, float *density) {
    const float z = (x < 0.0f ? -x : x) * 0.70710678f;
    const float t = 1.0f / (1.0f + 0.3275911f * z);
    const float e = mm_v_exp(-z * z);
    float p = 1.061405429f;
    p = p * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    const float tail = 0.5f * p * t * e;
    *density = 0.39894228f * e;
    return x < 0.0f ? tail : 1.0f - tail;
}

static void gelu_fwd(float *y, const float *x, int64_t n) {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; i++) {
        float density;
        y[i] = x[i] * normal_cdf(x[i], &density);
    }
}

static void gelu_bwd(float *dx, const float *dy, const float *x, int64_t n) {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; i++) {
        float density;
        const float cdf = normal_cdf(x[i], &density);
        dx[i] = dy[i] * (cdf + x[i] * density);
    }
}

static void adamw(float *restrict w, float *restrict m, float *restrict v, const float *restrict g,
                  const struct mm_adamw *h, int64_t n) {
    const float b1 = h->b1, b2 = h->b2, c1 = 1.0f - b1, c2 = 1.0f - b2;
    const float step = h->lr / h->bias1, root = 1.0f / h->bias2, eps = h->eps;
    const float keep = 1.0f - h->lr * h->decay, grad_scale = h->grad_scale;
    for (int64_t i = 0; i < n; i++) {
        const float gs = g[i] * grad_scale;
        const float mi = b1 * m[i] + c1 * gs;
        const float vi = b2 * v[i] + c2 * gs * gs;
        m[i] = mi;
        v[i] = vi;
        w[i] = w[i] * keep - step * mi / (sqrtf(vi * root) + eps);
    }
}

// ---- norms ----

static float rmsnorm_fwd(float *y, const float *x, const float *w, float eps, int64_t n) {
    const float r = 1.0f / sqrtf(dot(x, x, n) / (float)n + eps);
#pragma GCC ivdep
    for (int64_t i = 0; i < n; i++)
        y[i] = x[i] * r * w[i];
    return r;
}

static void rmsnorm_bwd(float *dx, float *restrict dw, const float *dy, const float *restrict x,
                        const float *restrict w, float rinv, int64_t n) {
    vec s = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        s += load(dy + i) * load(w + i) * load(x + i);
    float sum = sum_lanes(s);
    for (; i < n; i++)
        sum += dy[i] * w[i] * x[i];
    for (int64_t k = 0; dw && k < n; k++)
        dw[k] += dy[k] * (x[k] * rinv);
    const float mean = sum * rinv / (float)n;
#pragma GCC ivdep
    for (int64_t k = 0; k < n; k++)
        dx[k] = rinv * (dy[k] * w[k] - x[k] * rinv * mean);
}

static float l2norm_fwd(float *y, const float *x, int64_t n) {
    const float ss = dot(x, x, n), r = ss > 0.0f ? 1.0f / sqrtf(ss) : 0.0f;
    scale(y, x, r, n);
    return r;
}

static void l2norm_bwd(float *dx, const float *dy, const float *y, float rinv, int64_t n) {
    const float d = dot(dy, y, n);
#pragma GCC ivdep
    for (int64_t i = 0; i < n; i++)
        dx[i] = (dy[i] - y[i] * d) * rinv;
}

// ---- losses ----

static double sum_squares(const float *x, int64_t n) {
    enum { half = LANES / 2 };
    typedef float hvec __attribute__((vector_size(half * 4), aligned(4), may_alias));
    dvec s0 = {0}, s1 = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const dvec a = __builtin_convertvector(*(const hvec *)(x + i), dvec);
        const dvec b = __builtin_convertvector(*(const hvec *)(x + i + half), dvec);
        s0 += a * a;
        s1 += b * b;
    }
    s0 += s1;
    double sum = 0.0;
    for (int k = 0; k < half; k++)
        sum += s0[k];
    for (; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return sum;
}

static double mse(float *dy, const float *y, const float *t, float slope, int64_t n) {
    enum { piece = 256 };  // f32 sums no longer than this
    double sum = 0.0;
    for (int64_t i0 = 0; i0 < n; i0 += piece) {
        const int64_t end = n - i0 < piece ? n : i0 + piece;
        vec s = {0};
        int64_t i = i0;
        for (; i + LANES <= end; i += LANES) {
            const vec d = load(y + i) - load(t + i);
            s += d * d;
        }
        float rest = sum_lanes(s);
        for (; i < end; i++)
            rest += (y[i] - t[i]) * (y[i] - t[i]);
        sum += (double)rest;
    }
    if (dy) {
#pragma GCC ivdep
        for (int64_t i = 0; i < n; i++)
            dy[i] = slope * (y[i] - t[i]);
    }
    return sum;
}

// Sum of a row no longer than about a thousand, as a double.
static double sum_piece(const float *x, int64_t n) {
    vec s = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        s += load(x + i);
    float sum = sum_lanes(s);
    for (; i < n; i++)
        sum += x[i];
    return (double)sum;
}

// sum exp(x - top)
static double sum_exp(const float *x, float top, int64_t n) {
    enum { piece = 512 };
    double sum = 0.0;
    for (int64_t i0 = 0; i0 < n; i0 += piece) {
        const int64_t m = n - i0 < piece ? n - i0 : piece;
        const float *restrict xi = x + i0;
        float term[piece];
        for (int64_t i = 0; i < m; i++)
            term[i] = mm_v_exp(xi[i] - top);
        sum += sum_piece(term, m);
    }
    return sum;
}

// KL = sum p (log p - log q) = sum p (t - s) + logsumexp(s) - logsumexp(t), where both rows are
// first moved so that their largest value is 0.
static double kl(float *d, const float *s, const float *t, float weight, int64_t n) {
    enum { piece = 512 };
    const float top_s = largest(s, n), top_t = largest(t, n);
    const double sum_s = sum_exp(s, top_s, n), sum_t = sum_exp(t, top_t, n);
    const float inv_s = (float)(1.0 / sum_s), inv_t = (float)(1.0 / sum_t);
    double sum = 0.0;
    for (int64_t i0 = 0; i0 < n; i0 += piece) {
        const int64_t m = n - i0 < piece ? n - i0 : piece;
        float term[piece], unused[piece];
        const float *si = s + i0, *ti = t + i0;
        float *di = d ? d + i0 : unused;
#pragma GCC ivdep
        for (int64_t i = 0; i < m; i++) {
            const float ta = ti[i] - top_t, sa = si[i] - top_s;
            const float p = mm_v_exp(ta) * inv_t, q = mm_v_exp(sa) * inv_s;
            di[i] = weight * (q - p);
            term[i] = p * (ta - sa);
        }
        sum += sum_piece(term, m);
    }
    return sum + log(sum_s) - log(sum_t);
}

static double cross_entropy(float *d, const float *x, int64_t target, float weight, int64_t n) {
    const float top = largest(x, n), right = x[target];
    const double sum = sum_exp(x, top, n);
    const float factor = (float)((double)weight / sum);
    if (d) {
#pragma GCC ivdep
        for (int64_t i = 0; i < n; i++)
            d[i] = mm_v_exp(x[i] - top) * factor;
        d[target] -= weight;
    }
    return log(sum) + (double)top - (double)right;
}

// ---- rotation ----

// The angle is reduced by multiples of pi/2 in double; then the polynomials of Cephes on
// [-pi/4, pi/4], within 2 ulp. Adding 1.5 * 2^52 rounds to an integer, found in the low bits.
static void angles(float *restrict cosines, float *restrict sines, double where,
                   const double *restrict freq, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        const double a = where * freq[i], shifted = a * 0.63661977236758134 + 6755399441055744.0;
        const double turns = shifted - 6755399441055744.0;
        const float r = (float)((a - turns * 1.5707963267948966) - turns * 6.123233995736766e-17);
        int64_t bits;
        memcpy(&bits, &shifted, sizeof bits);
        const int32_t quarter = (int32_t)(bits & 3);
        const float z = r * r;
        const float s =
            r + r * z * (-1.6666654611e-1f + z * (8.3321608736e-3f - z * 1.9515295891e-4f));
        const float c =
            1.0f - 0.5f * z +
            z * z *
                (4.166664568298827e-2f + z * (-1.388731625493765e-3f + z * 2.443315711809948e-5f));
        const float sq = quarter & 1 ? c : s, cq = quarter & 1 ? s : c;
        sines[i] = quarter & 2 ? -sq : sq;
        cosines[i] = (quarter + 1) & 2 ? -cq : cq;
    }
}

static void turn(float *y, const float *x, const float *restrict cosines,
                 const float *restrict sines, float sign, int64_t half) {
    float *y2 = y + half;
    const float *x2 = x + half;
#pragma GCC ivdep
    for (int64_t i = 0; i < half; i++) {
        const float a = x[i], b = x2[i], c = cosines[i], s = sign * sines[i];
        y[i] = a * c - b * s;
        y2[i] = b * c + a * s;
    }
}

// ---- attention ----

static float soften(float *s, int64_t n, int64_t padded, float by, float *top, float *sum) {
    const float high = by * largest(s, n), before = *top;
    const float now = high > before ? high : before;
    const float factor = mm_v_exp(before - now);
    for (int64_t j = 0; j < n; j++)
        s[j] = mm_v_exp(by * s[j] - now);
    for (int64_t j = n; j < padded; j++)
        s[j] = 0.0f;
    vec total = {0};
    for (int64_t j = 0; j < padded; j += LANES)
        total += load(s + j);
    *top = now;
    *sum = *sum * factor + sum_lanes(total);
    return factor;
}

static void soften_bwd(float *restrict s, float *restrict d, int64_t n, int64_t padded, float by,
                       float lse, float delta) {
    for (int64_t j = 0; j < n; j++) {
        const float p = mm_v_exp(by * s[j] - lse);
        s[j] = p;
        d[j] = p * (d[j] - delta) * by;
    }
    for (int64_t j = n; j < padded; j++)
        s[j] = d[j] = 0.0f;
}

// ---- a convolution's one token ----

static void conv_silu(float *restrict y, const float *const *x, const float *restrict w,
                      const float *restrict bias, int64_t width, int64_t n) {
    if (width == 2) {  // the paper's
        const float *restrict x0 = x[0], *restrict x1 = x[1];
        for (int64_t c = 0; c < n; c++)
            y[c] = mm_v_silu(bias[c] + w[2 * c] * x0[c] + w[2 * c + 1] * x1[c]);
        return;
    }
    for (int64_t c = 0; c < n; c++)
        y[c] = bias[c];
    for (int64_t j = 0; j < width; j++) {
        const float *restrict xj = x[j];
        for (int64_t c = 0; c < n; c++)
            y[c] += w[c * width + j] * xj[c];
    }
    for (int64_t c = 0; c < n; c++)
        y[c] = mm_v_silu(y[c]);
}

#define MM_KERNELS                                                                              \
    {                                                                                           \
        .add = add, .scale = scale, .swiglu_fwd = swiglu_fwd, .swiglu_bwd = swiglu_bwd,         \
        .gelu_fwd = gelu_fwd, .gelu_bwd = gelu_bwd, .adamw = adamw, .rmsnorm_fwd = rmsnorm_fwd, \
        .l2norm_fwd = l2norm_fwd, .rmsnorm_bwd = rmsnorm_bwd, .l2norm_bwd = l2norm_bwd,         \
        .sum_squares = sum_squares, .mse = mse, .kl = kl, .cross_entropy = cross_entropy,       \
        .angles = angles, .turn = turn, .conv_silu = conv_silu, .soften = soften,               \
        .soften_bwd = soften_bwd, .scores = scores, .weigh = weigh, .dot = dot, .axpy = axpy    \
    }
