// Softmax attention on bf16 operands of sizes that fast paths take, against the CPU's reference on
// the same numbers (MMAMBA_TEST_BACKEND=cuda). Outputs are poisoned, rows strided.
#include "halves_help.h"

struct shape {
    int64_t h, g, p;
};
static const struct shape shapes[] = {{4, 2, 128}, {2, 2, 64}, {6, 2, 32}, {2, 1, 96}, {1, 1, 24}};

static struct out halves(struct world *w, int64_t rows, int64_t n, int64_t p, double scale) {
    struct out o = {
        {make(w, mm_dtype_bf16, rows, n * p, 8), make(w, mm_dtype_f32, rows, n * p, 0)}};
    if (scale > 0.0) {
        randomize(w, o.v[1], scale, true);
        copy_view(o.v[0], o.v[1]);
    }
    return in_heads(o, n);
}

static void compare(struct shape s, const int32_t *start, int64_t n, double scale) {
    struct world w;
    world_open(&w, mm_isa_best(), 1);
    w.be[0]->activations = mm_dtype_bf16;
    const struct mm_segs segs = segs_from(start, n);
    const int64_t rows = start[n];
    const struct out q = halves(&w, rows, s.h, s.p, scale), k = halves(&w, rows, s.g, s.p, scale);
    const struct out v = halves(&w, rows, s.g, s.p, 1.0), dy = halves(&w, rows, s.h, s.p, 1.0);
    const struct out y = halves(&w, rows, s.h, s.p, 0.0), lse = poisoned(&w, rows, s.h, 3);
    const struct out bare = halves(&w, rows, s.h, s.p, 0.0);
    const struct out dq = halves(&w, rows, s.h, s.p, 0.0), dk = halves(&w, rows, s.g, s.p, 0.0);
    const struct out dv = halves(&w, rows, s.g, s.p, 0.0);
    for (int b = 0; b < 2; b++) {
        mm_attention_fwd(w.be[b], y.v[b], lse.v[b], q.v[b], k.v[b], v.v[b], segs);
        mm_attention_fwd(w.be[b], bare.v[b], MM_NONE, q.v[b], k.v[b], v.v[b], segs);
    }
    expect_close("attention_fwd", y, tol_halves_mixer);
    expect_close("attention_fwd without lse", bare, tol_halves_mixer);
    expect_close("attention_fwd lse", lse, tol_sum);
    for (int b = 0; b < 2; b++) {
        mm_attention_bwd(w.be[b], dq.v[b], dk.v[b], dv.v[b], dy.v[b], y.v[b], lse.v[b], q.v[b],
                         k.v[b], v.v[b], segs);
    }
    expect_close("attention_bwd dv", dv, tol_halves_mixer);
    if (rows > n) {  // one key each: dq and dk are zero but for rounding
        expect_close("attention_bwd dq", dq, tol_halves_mixer);
        expect_close("attention_bwd dk", dk, tol_halves_mixer);
    }
    world_close(&w);
}

static void lengths(void **state) {
    (void)state;
    static const int32_t n[] = {1, 63, 65, 128, 200, 513};
    if (!testing_cuda()) skip();
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        for (size_t i = 0; i < sizeof n / sizeof *n; i++) {
            const int32_t start[] = {0, n[i]};
            if (s > 1 && n[i] == 513) continue;  // the reference is slow
            compare(shapes[s], start, 1, i % 2 ? 1.0 : 2.0);
        }
    }
}

static void sequences(void **state) {
    (void)state;
    static const int32_t start[] = {0, 1, 64, 64, 200, 265, 400};
    if (!testing_cuda()) skip();
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        compare(shapes[s], start, 6, 1.0);
}

static void pieces(void **state) {
    (void)state;
    static const int64_t sizes[][2] = {{0, 1},  {300, 1},   {299, 2},  {17, 33},
                                       {0, 64}, {130, 200}, {513, 129}};
    if (!testing_cuda()) skip();
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            const int64_t past = sizes[i][0], n = sizes[i][1];
            struct world w;
            world_open(&w, mm_isa_best(), 1);
            w.be[0]->activations = mm_dtype_bf16;
            const struct out q = halves(&w, n, shapes[s].h, shapes[s].p, 1.0);
            const struct out k = halves(&w, past + n, shapes[s].g, shapes[s].p, 1.0);
            const struct out v = halves(&w, past + n, shapes[s].g, shapes[s].p, 1.0);
            const struct out y = halves(&w, n, shapes[s].h, shapes[s].p, 0.0);
            for (int b = 0; b < 2; b++)
                mm_attention_step(w.be[b], y.v[b], q.v[b], k.v[b], v.v[b], past);
            expect_close("attention_step", y, tol_halves_mixer);
            world_close(&w);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(lengths), cmocka_unit_test(sequences),
                                       cmocka_unit_test(pieces)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
