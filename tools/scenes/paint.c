// Rasterising by 4 x 4 samples a pixel: turning, shrinking and shapes go one road, without
// filters to tune. A picture of 112 pixels takes well under a millisecond.
#include "scenes/paint.h"

#include <math.h>

enum { sub = 4 };  // samples a side of a pixel

static void blend(uint8_t *px, const uint8_t rgb[3], int alpha) {  // alpha 0..255
    for (int c = 0; c < 3; c++) {
        px[c] = (uint8_t)((rgb[c] * alpha + px[c] * (255 - alpha) + 127) / 255);
    }
}

static void paint_marks(struct mm_canvas *c, const struct mm_ground *g) {
    struct mm_rng rng = mm_rng_make(g->mark_seed, mm_rng_stream("scenes/marks"));
    for (int m = 0; m < g->marks; m++) {
        double x = mm_rng_uniform(&rng, 0, c->width), y = mm_rng_uniform(&rng, 0, c->height);
        const double a = mm_rng_uniform(&rng, 0, 6.2831853), length = c->width * 0.12;
        const uint8_t shade = mm_rng_below(&rng, 2) ? 255 : 0;
        const uint8_t rgb[3] = {shade, shade, shade};
        const double steps = mm_rng_uniform(&rng, 0.3, 1.0) * length;
        for (int i = 0; i < (int)steps; i++, x += cos(a), y += sin(a)) {
            const int ix = (int)floor(x), iy = (int)floor(y);
            if (ix < 0 || iy < 0 || ix >= c->width || iy >= c->height) break;
            blend(c->rgb + 3 * (iy * c->width + ix), rgb, 70);
        }
    }
}

void mm_paint_ground(struct mm_canvas *c, const struct mm_ground *g) {
    const double dx = cos(g->angle), dy = sin(g->angle);
    const double span = fabs(dx) * c->width + fabs(dy) * c->height;
    for (int y = 0; y < c->height; y++) {
        for (int x = 0; x < c->width; x++) {
            const double along = (x - c->width * 0.5) * dx + (y - c->height * 0.5) * dy;
            const int t = (int)lrint(256.0 * (along / span + 0.5));
            uint8_t *px = c->rgb + 3 * (y * c->width + x);
            for (int k = 0; k < 3; k++) {
                px[k] = (uint8_t)((g->from[k] * (256 - t) + g->to[k] * t + 128) >> 8);
            }
        }
    }
    paint_marks(c, g);
}

// Pixels that a turned square of the given half side can touch, cut to the canvas.
struct span {
    int x0, y0, x1, y1;
};
static struct span reach(const struct mm_canvas *c, double x, double y, double half) {
    const double r = half * 1.4143 + 1.0;
    struct span s = {(int)floor(x - r), (int)floor(y - r), (int)ceil(x + r), (int)ceil(y + r)};
    if (s.x0 < 0) s.x0 = 0;
    if (s.y0 < 0) s.y0 = 0;
    if (s.x1 > c->width) s.x1 = c->width;
    if (s.y1 > c->height) s.y1 = c->height;
    return s;
}

void mm_paint_sprite(struct mm_canvas *c, const struct mm_sprite *s, double x, double y,
                     double size, double angle) {
    const int32_t longer = s->width > s->height ? s->width : s->height;
    const double k = longer / size;  // source pixels a canvas pixel
    const double cs = cos(angle) * k, sn = sin(angle) * k;
    const struct span span = reach(c, x, y, 0.5 * size);
    // Source coordinates in 1/65536 of a pixel: steps are exact, and the same everywhere.
    const int64_t step_c = llrint(cs * 65536 / sub), step_s = llrint(sn * 65536 / sub);
    const int64_t max_x = (int64_t)s->width << 16, max_y = (int64_t)s->height << 16;
    for (int py = span.y0; py < span.y1; py++) {
        for (int px = span.x0; px < span.x1; px++) {
            const double u = px + 0.5 / sub - x, v = py + 0.5 / sub - y;  // the first sample
            const int64_t left = llrint((u * cs + v * sn + s->width * 0.5) * 65536);
            const int64_t top = llrint((v * cs - u * sn + s->height * 0.5) * 65536);
            unsigned sum[4] = {0};
            for (int i = 0; i < sub * sub; i++) {
                const int64_t sx = left + step_c * (i % sub) + step_s * (i / sub);
                const int64_t sy = top + step_c * (i / sub) - step_s * (i % sub);
                if (sx < 0 || sy < 0 || sx >= max_x || sy >= max_y) continue;
                const uint8_t *p = s->rgba + 4 * ((sy >> 16) * s->width + (sx >> 16));
                sum[0] += p[0], sum[1] += p[1], sum[2] += p[2], sum[3] += p[3];
            }
            if (sum[3] == 0) continue;
            uint8_t *out = c->rgb + 3 * (py * c->width + px);
            const unsigned whole = 255 * sub * sub;
            for (int j = 0; j < 3; j++) {
                const unsigned mix = sum[j] * 255 + out[j] * (whole - sum[3]) + whole / 2;
                out[j] = (uint8_t)(mix / whole > 255 ? 255 : mix / whole);
            }
        }
    }
}

// Corners of the straight shapes inside the unit square -1..1, y down.
struct polygon {
    int n;
    double at[12][2];
};
static const struct polygon polygons[mm_shape_count] = {
    [mm_shape_square] = {4, {{-.85, -.85}, {.85, -.85}, {.85, .85}, {-.85, .85}}},
    [mm_shape_triangle] = {3, {{0, -.92}, {.98, .8}, {-.98, .8}}},
    [mm_shape_star] = {10,
                       {{0, -1},
                        {.26, -.32},
                        {.97, -.28},
                        {.42, .17},
                        {.6, .87},
                        {0, .48},
                        {-.6, .87},
                        {-.42, .17},
                        {-.97, -.28},
                        {-.26, -.32}}},
    [mm_shape_cross] = {12,
                        {{-.32, -.95},
                         {.32, -.95},
                         {.32, -.32},
                         {.95, -.32},
                         {.95, .32},
                         {.32, .32},
                         {.32, .95},
                         {-.32, .95},
                         {-.32, .32},
                         {-.95, .32},
                         {-.95, -.32},
                         {-.32, -.32}}},
    [mm_shape_diamond] = {4, {{0, -1}, {.72, 0}, {0, 1}, {-.72, 0}}},
};

static bool in_polygon(const struct polygon *p, double u, double v) {
    bool in = false;
    for (int i = 0, j = p->n - 1; i < p->n; j = i++) {
        const double *a = p->at[i], *b = p->at[j];
        if ((a[1] > v) != (b[1] > v) && u < (b[0] - a[0]) * (v - a[1]) / (b[1] - a[1]) + a[0]) {
            in = !in;
        }
    }
    return in;
}

static bool in_shape(enum mm_shape shape, double u, double v) {
    const double r2 = u * u + v * v;
    if (shape == mm_shape_circle) return r2 < 0.92 * 0.92;
    if (shape == mm_shape_ring) return r2 < 0.95 * 0.95 && r2 > 0.52 * 0.52;
    if (shape == mm_shape_heart) {
        const double x = u * 1.22, y = 0.18 - v * 1.2, q = x * x + y * y - 1;
        return q * q * q - x * x * y * y * y < 0;
    }
    return in_polygon(&polygons[shape], u, v);
}

// How many of the eight points at distance r around (u, v) lie in the shape.
static int around(enum mm_shape shape, double u, double v, double r) {
    static const double at[8][2] = {{1, 0},  {.7, .7},   {0, 1},  {-.7, .7},
                                    {-1, 0}, {-.7, -.7}, {0, -1}, {.7, -.7}};
    int n = 0;
    for (int k = 0; k < 8; k++) {
        n += in_shape(shape, u + r * at[k][0], v + r * at[k][1]);
    }
    return n;
}

void mm_paint_shape(struct mm_canvas *c, enum mm_shape shape, int colour, double x, double y,
                    double size, double angle) {
    const uint8_t *fill = mm_colour_rgb[colour];
    uint8_t rim[3];
    for (int k = 0; k < 3; k++) {
        rim[k] = (uint8_t)(colour == mm_colour_black ? 110 : fill[k] * 11 / 20);
    }
    const double half = 0.5 * size, cs = cos(angle) / half, sn = sin(angle) / half;
    const double thin = 1.4 / half, pixel = 0.75 / half;  // in units of the shape
    const struct span span = reach(c, x, y, half);
    for (int py = span.y0; py < span.y1; py++) {
        for (int px = span.x0; px < span.x1; px++) {
            const double mx = px + 0.5 - x, my = py + 0.5 - y;
            const double mu = mx * cs + my * sn, mv = my * cs - mx * sn;
            uint8_t *out = c->rgb + 3 * (py * c->width + px);
            // Most pixels are far from the edge and need no samples.
            const bool in = in_shape(shape, mu, mv);
            if (!in && around(shape, mu, mv, pixel) == 0) continue;
            if (in && around(shape, mu, mv, thin + pixel) == 8) {
                blend(out, fill, 255);
                continue;
            }
            int n_fill = 0, n_rim = 0;
            for (int i = 0; i < sub * sub; i++) {
                const double dx = px + (i % sub + 0.5) / sub - x;
                const double dy = py + (i / sub + 0.5) / sub - y;
                const double u = dx * cs + dy * sn, v = dy * cs - dx * sn;
                if (!in_shape(shape, u, v)) continue;
                const bool deep = around(shape, u, v, thin) == 8;
                n_fill += deep;
                n_rim += !deep;
            }
            const int rest = sub * sub - n_fill - n_rim;
            for (int k = 0; k < 3; k++) {
                out[k] =
                    (uint8_t)((fill[k] * n_fill + rim[k] * n_rim + out[k] * rest + sub * sub / 2) /
                              (sub * sub));
            }
        }
    }
}

void mm_paint_box(struct mm_canvas *c, int x, int y, int w, int h, const uint8_t rgb[3]) {
    for (int py = y < 0 ? 0 : y; py < y + h && py < c->height; py++) {
        for (int px = x < 0 ? 0 : x; px < x + w && px < c->width; px++) {
            blend(c->rgb + 3 * (py * c->width + px), rgb, 255);
        }
    }
}
