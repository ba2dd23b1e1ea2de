// Gradients of whole models, every parameter of them, against finite differences: small random
// models of every shape a config can ask for, on packed sequences of different lengths with
// several pictures of several tiles. Also: recomputation gives the same bits, fast paths the same
// gradients, a packed batch those of its sequences.
#include <stdio.h>

#include "model/model_test.h"
#include "tiny_model.h"

struct variant {
    const char *name;
    struct tiny tiny;
    bool text_only;
};

static const struct variant variants[] = {
    {"attention, shuffle after", {.post = true}, false},
    {"attention, shuffle before", {.post = false}, false},
    {"text only, shuffle after", {.post = true}, true},
    {"linear rope, normalized", {.post = true, .normalize = true, .rope = "linear"}, false},
    {"dynamic rope", {.rope = "dynamic"}, false},
    {"special tokens", {.post = true, .n_special = 3}, false},
    {"mamba2", {.post = true, .student = true}, false},
    {"hybrid, shuffle before", {.student = true, .keep = "0,2", .normalize = true}, false},
    {"hybrid, dynamic rope",
     {.post = true, .student = true, .keep = "1", .rope = "dynamic"},
     false},
    {"mamba2 with D and norms",
     {.student = true,
      .options = "\"use_D\": true, "
                 "\"use_qknorm\": true, "},
     false},
    {"mamba2 without A",
     {.student = true, .options = "\"use_A\": false, \"use_D\": true, "},
     false},
    {"mamba2 with a wide convolution", {.student = true, .options = "\"d_conv\": 4, "}, false},
    {"mamba2 with all of it",
     {.post = true,
      .student = true,
      .keep = "2",
      .normalize = true,
      .n_special = 1,
      .options = "\"use_A\": false, \"use_D\": true, \"use_qknorm\": true, \"d_conv\": 3, "},
     false},
};
enum { n_variants = sizeof variants / sizeof *variants };

static bool want_all(const struct mm_param *p, const void *arg) {
    (void)arg;
    return p->used;
}

static double loss_of(struct mm_objective *o, const struct batch *b, struct mm_grads *none) {
    return run_objective(o, b, none).loss;
}

// d loss / d h at w + h * direction, by four points around it.
static double derivative(struct mm_objective *o, const struct batch *b, struct mm_grads *none,
                         struct mm_view w, const float *direction, double h) {
    const int64_t n = mm_view_count(w);
    float *x = w.data, *old = mm_xmalloc((size_t)n * sizeof *old);
    memcpy(old, x, (size_t)n * sizeof *old);
    static const double at[4] = {-2, -1, 1, 2}, weight[4] = {1, -8, 8, -1};
    double sum = 0.0;
    for (int k = 0; k < 4; k++) {
        for (int64_t i = 0; i < n; i++)
            x[i] = (float)((double)old[i] + at[k] * h * (double)direction[i]);
        sum += weight[k] * loss_of(o, b, none);
    }
    memcpy(x, old, (size_t)n * sizeof *old);
    free(old);
    return sum / (12.0 * h);
}

// Where neither curvature nor the rounding of the loss is seen depends on the tensor, so steps are
// tried until one agrees; a wrong gradient agrees with none.
static const double steps[] = {2e-3, 1e-3, 5e-4, 4e-3, 8e-3, 2.5e-4, 1.6e-2, 1.2e-4, 6e-5, 3.2e-2};

// Every gradient in g against differences along a random direction.
static void check(const char *what, struct mm_objective *o, const struct batch *b,
                  const struct mm_grads *g) {
    struct mm_model *m = o->student;
    struct mm_grads none = {mm_xcalloc((size_t)m->n_params, sizeof *none.of)};
    struct mm_rng r = mm_rng_make(3, 4);
    for (int i = 0; i < m->n_params; i++) {
        const struct mm_param *p = &m->params[i];
        if (!g->of[i].data) continue;
        const int64_t n = mm_view_count(p->w);
        const float *d = g->of[i].data;
        float *direction = mm_xmalloc((size_t)n * sizeof *direction);
        double length = 0.0, slope = 0.0, off = INFINITY, near = 0.0;
        for (int64_t j = 0; j < n; j++) {
            direction[j] = (float)mm_rng_normal(&r);
            length += (double)d[j] * (double)d[j];
            slope += (double)d[j] * (double)direction[j];
        }
        length = sqrt(length);
        if (!(length > 0.0)) fail_msg("%s: '%s' has no gradient", what, p->name);
        for (size_t k = 0; k < sizeof steps / sizeof *steps && !(off <= tol_model_difference);
             k++) {
            const double want = derivative(o, b, &none, p->w, direction, steps[k]);
            if (!(fabs(slope - want) / length < off)) continue;
            off = fabs(slope - want) / length;
            near = want;
        }
        if (!(off <= tol_model_difference)) {
            fail_msg("%s: '%s': the gradient gives %g, differences %g (length %g)", what, p->name,
                     slope, near, length);
        }
        free(direction);
    }
    free(none.of);
}

static struct batch batch_of(const struct variant *v, const struct mm_config *c,
                             struct tiny_batch *memory) {
    return tiny_batch_make(memory, c, v->text_only);
}

static void supervised(void **state) {
    (void)state;
    struct mm_backend *be = open_isa(mm_isa_plain, 1);
    for (int i = 0; i < n_variants; i++) {
        const struct variant *v = &variants[i];
        struct mm_model m;
        tiny_model(&m, be, &v->tiny, 11);
        struct tiny_batch memory;
        const struct batch b = batch_of(v, &m.config, &memory);
        struct mm_grad_memory g;
        OK(mm_grad_memory_init(&g, &m, want_all, NULL, &err));
        struct mm_objective o = {.kind = mm_objective_kind_supervised, .student = &m, .scale = 1.0};
        run_objective(&o, &b, &g.grads);
        if (v->text_only) {  // what pictures pass through has no part in this
            for (int r = mm_role_patch_w; r <= mm_role_shuffle2_b; r++) {
                if (m.global[r] >= 0) g.grads.of[m.global[r]] = MM_NONE;
            }
        }
        check(v->name, &o, &b, &g.grads);
        mm_grad_memory_deinit(&g);
        mm_model_deinit(&m);
    }
    mm_backend_close(be);
}

// The layerwise loss and the KL divergence, all reductions, with a teacher beside.
static void distilled(void **state) {
    (void)state;
    struct mm_backend *be = open_isa(mm_isa_plain, 1);
    for (int i = 0; i < 6; i++) {
        const struct tiny tiny = {
            .post = i % 2,
            .n_special = 2,
            .options = i == 1 || i == 4 ? "\"use_D\": true, \"use_qknorm\": true, " : NULL};
        struct mm_model teacher, student;
        tiny_model(&teacher, be, &tiny, 5);
        bool keep[mm_max_blocks] = {false};
        keep[1] = i >= 3;  // a hybrid only end to end
        OK(mm_model_carve(&student, &teacher, keep, mm_init_inherit, 6, &err));
        for (int k = 0; k < student.n_params; k++) {  // nothing shared: everything is moved here
            if (student.params[k].borrowed) OK(mm_model_own(&student, k, &err));
        }
        tiny_shake(&student, 7);
        struct tiny_batch memory;
        const struct batch b = tiny_batch_make(&memory, &student.config, false);
        struct mm_objective o = {
            .kind = i < 3 ? mm_objective_kind_layerwise : mm_objective_kind_kl,
            .teacher = &teacher,
            .student = &student,
            .reduction = (enum mm_kl_reduction)(i % 3),
            .scale = 1.0,
        };
        struct mm_grad_memory g;
        OK(mm_grad_memory_init(&g, &student, want_all, NULL, &err));
        const struct mm_objective_result r = run_objective(&o, &b, &g.grads);
        assert_true(r.loss > 0.0);
        for (int k = 0; i < 3 && k < student.n_params; k++) {  // only what is inside the mixers
            if (student.params[k].stages == 0) {
                const float *d = g.grads.of[k].data;
                for (int64_t j = 0; d && j < mm_view_count(g.grads.of[k]); j++)
                    assert_true(d[j] == 0.0f);
                g.grads.of[k] = MM_NONE;
            }
        }
        char what[64];
        snprintf(what, sizeof what, "%s %d",
                 i < 3 ? "layerwise" : mm_kl_reduction_name(o.reduction), i);
        check(what, &o, &b, &g.grads);
        mm_grad_memory_deinit(&g);
        mm_model_deinit(&student);
        mm_model_deinit(&teacher);
    }
    mm_backend_close(be);
}

static void gradients(struct mm_backend *be, const struct variant *v, bool recompute, double scale,
                      struct mm_model *m, struct mm_grad_memory *g) {
    tiny_model(m, be, &v->tiny, 11);
    struct tiny_batch memory;
    const struct batch b = batch_of(v, &m->config, &memory);
    OK(mm_grad_memory_init(g, m, want_all, NULL, &err));
    struct mm_objective o = {
        .kind = mm_objective_kind_supervised, .student = m, .recompute = recompute, .scale = scale};
    run_objective(&o, &b, &g->grads);
}

// On every path: the reference's gradients; recomputed activations give the same bits; a scale is
// a factor and no more; gradients add.
static void paths(void **state) {
    (void)state;
    struct mm_backend *plain = open_isa(mm_isa_plain, 1);
    for (int isa = best_under_test(); isa >= 0; isa--) {
        struct mm_backend *be = open_isa((enum mm_isa)isa, 2);
        for (int i = 0; i < n_variants; i++) {
            const struct variant *v = &variants[i];
            struct mm_model want, m, again;
            struct mm_grad_memory gw, g, ga;
            gradients(plain, v, false, 1.0, &want, &gw);
            gradients(be, v, false, 1.0, &m, &g);
            gradients(be, v, true, 1.0, &again, &ga);
            for (int k = 0; k < m.n_params; k++) {
                const int64_t n = mm_view_count(m.params[k].w);
                if (!g.grads.of[k].data) continue;
                char what[256];
                snprintf(what, sizeof what, "%s on %s: %s", v->name, mm_isa_name((enum mm_isa)isa),
                         m.params[k].name);
                expect_near(what, g.grads.of[k].data, gw.grads.of[k].data, n, tol_golden_grad);
                if (memcmp(g.grads.of[k].data, ga.grads.of[k].data, (size_t)n * sizeof(float))) {
                    fail_msg("%s: other bits when recomputed", what);
                }
            }
            mm_grad_memory_deinit(&ga);
            mm_model_deinit(&again);
            gradients(be, v, true, 0.25, &again, &ga);
            for (int k = 0; k < m.n_params; k++) {
                const float *x = g.grads.of[k].data, *y = ga.grads.of[k].data;
                for (int64_t j = 0; x && j < mm_view_count(m.params[k].w); j++)
                    assert_true(x[j] == 4.0f * y[j] || fabsf(x[j] - 4.0f * y[j]) < 1e-6f);
            }
            mm_grad_memory_deinit(&g);
            mm_grad_memory_deinit(&ga);
            mm_grad_memory_deinit(&gw);
            mm_model_deinit(&m);
            mm_model_deinit(&again);
            mm_model_deinit(&want);
        }
        mm_backend_close(be);
    }
    mm_backend_close(plain);
}

// A packed batch gives what its sequences give one by one: no row sees another sequence.
static void packing(void **state) {
    (void)state;
    struct mm_backend *be = open_isa(mm_isa_best(), 2);
    for (int i = 0; i < n_variants; i++) {
        const struct variant *v = &variants[i];
        struct mm_model m, one;
        struct mm_grad_memory packed, single;
        gradients(be, v, false, 1.0, &m, &packed);
        tiny_model(&one, be, &v->tiny, 11);
        OK(mm_grad_memory_init(&single, &one, want_all, NULL, &err));
        struct tiny_batch memory;
        const struct batch b = batch_of(v, &m.config, &memory);
        int64_t total = 0;
        for (int32_t t = 0; t < b.start[b.n_seqs]; t++)
            total += b.targets[t] >= 0;
        const int64_t S = m.config.image_size;
        int64_t tile = 0;
        for (int64_t s = 0; s < b.n_seqs; s++) {
            const int32_t n = b.start[s + 1] - b.start[s], start[2] = {0, n};
            int64_t targets = 0;
            for (int32_t t = b.start[s]; t < b.start[s + 1]; t++)
                targets += b.targets[t] >= 0;
            const struct batch alone = {.n_seqs = 1,
                                        .n_tiles = memory.tiles_of[s],
                                        .ids = b.ids + b.start[s],
                                        .start = start,
                                        .targets = b.targets + b.start[s],
                                        .pixels = b.pixels + tile * 3 * S * S};
            tile += memory.tiles_of[s];
            struct mm_objective o = {.kind = mm_objective_kind_supervised,
                                     .student = &one,
                                     .scale = (double)targets / (double)total};
            if (targets > 0) run_objective(&o, &alone, &single.grads);
        }
        for (int k = 0; k < m.n_params; k++) {
            if (!packed.grads.of[k].data) continue;
            expect_near(m.params[k].name, single.grads.of[k].data, packed.grads.of[k].data,
                        mm_view_count(m.params[k].w), tol_pieces);
        }
        mm_grad_memory_deinit(&packed);
        mm_grad_memory_deinit(&single);
        mm_model_deinit(&m);
        mm_model_deinit(&one);
    }
    mm_backend_close(be);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(supervised),
        cmocka_unit_test(distilled),
        cmocka_unit_test(paths),
        cmocka_unit_test(packing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
