// Every tensor of tests/golden/<case>/expected.safetensors through the library, on the reference
// and on each instruction set of this machine: logits and every block's output of teacher and
// student, whole and in pieces, and the three stages' losses and gradients.
#include <stdio.h>

#include "infer/piece.h"
#include "model/model_test.h"

enum { n_cases = 3, max_layers = 16 };
static const struct golden_case {
    const char *name, *keep;  // which blocks of the student are attention
    bool ill_conditioned;     // see tolerance.h
} cases[n_cases] = {
    {"post_gqa", "none", false}, {"pre_hybrid", "0,4", true}, {"text_long", "none", false}};

struct golden {
    const struct golden_case *c;
    struct mm_st *st;
    int32_t *ids, start[2];
    float *pixels;
    struct batch batch;
    bool *seen;  // tensors of the file that something was held against
};

static char *golden_path(const struct golden_case *c, const char *name) {
    return mm_xasprintf("tests/golden/%s/%s", c->name, name);
}

static const struct mm_st_tensor *expected(struct golden *g, const char *name) {
    for (int i = 0; i < mm_st_count(g->st); i++) {
        if (strcmp(mm_st_at(g->st, i)->name, name) == 0) {
            g->seen[i] = true;
            return mm_st_at(g->st, i);
        }
    }
    fail_msg("%s: no tensor '%s'", mm_st_path(g->st), name);
    return NULL;
}

static void golden_open(struct golden *g, const struct golden_case *c) {
    *g = (struct golden){.c = c};
    char *path = golden_path(c, "expected.safetensors");
    OK(mm_st_open(&g->st, path, &err));
    free(path);
    g->seen = mm_xcalloc((size_t)mm_st_count(g->st), sizeof *g->seen);
    const struct mm_st_tensor *ids = expected(g, "input_ids");
    const int64_t T = ids->shape[1];
    g->ids = mm_xmalloc((size_t)T * sizeof *g->ids);
    for (int64_t t = 0; t < T; t++) {
        int64_t id;
        memcpy(&id, (const char *)ids->data + (size_t)t * sizeof id, sizeof id);
        g->ids[t] = (int32_t)id;
    }
    g->start[1] = (int32_t)T;
    if (mm_st_find(g->st, "pixel_values")) {
        const struct mm_st_tensor *px = expected(g, "pixel_values");
        g->pixels = mm_xmalloc(px->bytes);
        memcpy(g->pixels, px->data, px->bytes);
        g->batch.n_tiles = px->shape[0];
    }
    g->batch.n_seqs = 1;
    g->batch.ids = g->ids;
    g->batch.start = g->start;
    g->batch.pixels = g->pixels;
}

static void golden_close(struct golden *g) {
    mm_st_close(g->st);
    free(g->ids);
    free(g->pixels);
    free(g->seen);
}

static void hold(struct golden *g, const char *what, const float *is, int64_t n, double tolerance) {
    const struct mm_st_tensor *t = expected(g, what);
    assert_int_equal(t->bytes, (size_t)n * sizeof(float));
    float *want = mm_xmalloc(t->bytes);
    memcpy(want, t->data, t->bytes);
    char name[320];
    snprintf(name, sizeof name, "%s: %s", g->c->name, what);
    expect_near(name, is, want, n, tolerance);
    free(want);
}

// ---- forward ------------------------------------------------------------------------------------

struct outputs {
    struct mm_model *m;
    float *logits, *layer[max_layers];
    int64_t n[max_layers], at[max_layers];  // floats there will be, floats written so far
};

static void outputs_init(struct outputs *o, struct mm_model *m, const struct golden *g) {
    *o = (struct outputs){.m = m};
    const int64_t T = g->start[1], D = m->config.llm.D;
    const int64_t tile_rows = g->batch.n_tiles * mm_config_tile_tokens(&m->config);
    assert_in_range(m->n_blocks, 1, max_layers);
    for (int64_t i = 0; i < m->n_blocks; i++) {
        const bool longer = m->config.shuffle_post && i < m->config.embed.n_blocks;
        o->n[i] = (T + (longer ? 3 * tile_rows : 0)) * D;
        o->layer[i] = mm_xmalloc((size_t)o->n[i] * sizeof(float));
    }
    o->logits = mm_xmalloc((size_t)(T * m->config.V) * sizeof(float));
}

static void outputs_deinit(struct outputs *o) {
    for (int64_t i = 0; i < o->m->n_blocks; i++)
        free(o->layer[i]);
    free(o->logits);
}

static void keep_layer(void *arg, int64_t block, const struct mm_stream *st,
                       const struct mm_block_acts *acts, struct mm_view y, struct mm_arena *arena) {
    (void)acts, (void)arena;
    struct outputs *o = arg;
    const int64_t n = st->T * o->m->config.llm.D;
    assert_in_range(o->at[block] + n, 1, o->n[block]);
    memcpy(o->layer[block] + o->at[block], y.data, (size_t)n * sizeof(float));
    o->at[block] += n;
}

// The whole sequence at once, as training does it.
static void run_whole(struct outputs *o, const struct golden *g) {
    struct mm_model *m = o->m;
    const int64_t T = g->start[1], S = m->config.image_size, V = m->config.V;
    struct mm_arena host, device;
    OK(mm_arena_init(&host, mm_layout_host_bytes(m, T, 1, g->batch.n_tiles), &err));
    OK(mm_arena_init(&device, mm_piece_plan(m, T, 1, g->batch.n_tiles, T, false), &err));
    struct mm_layout l;
    OK(mm_layout_make(&l, m, &host, &device, g->ids, g->start, 1, g->batch.n_tiles, 0, 0, "golden",
                      &err));
    struct mm_view px = mm_view4(g->pixels, mm_dtype_f32, g->batch.n_tiles, 3, S, S);
    struct mm_forward f = {0};
    const struct mm_tap tap = {keep_layer, o, false};
    mm_model_fwd(m, &l, px, NULL, &f, false, false, &tap, &device);
    mm_linear_fwd(m->be, mm_view2(o->logits, mm_dtype_f32, T, V), f.hidden,
                  mm_model_w(m, mm_role_output), MM_NONE);
    OK(mm_backend_sync(m->be, &err));
    mm_arena_deinit(&host);
    mm_arena_deinit(&device);
}

// Against a carried state, in pieces of about `chunk` tokens and from `step_from` on one by one.
// chunk 0: of every size from 1 to 9 in turn.
static void run_pieces(struct outputs *o, const struct golden *g, int64_t chunk,
                       int64_t step_from) {
    struct mm_model *m = o->m;
    const int64_t T = g->start[1], S = m->config.image_size, V = m->config.V;
    struct mm_piece_memory mem = {0};
    struct mm_state state;
    OK(mm_state_init(&state, m, &err));
    mm_state_clear(&state);
    const struct mm_tap tap = {keep_layer, o, false};
    memset(o->at, 0, sizeof o->at);
    int64_t tile = 0, turn = 0;
    for (int64_t t = 0, end; t < T; t = end) {
        int64_t tiles, want = t >= step_from ? 1 : chunk ? chunk : 1 + turn++ % 9;
        if (t < step_from && t + want > step_from) want = step_from - t;
        end = mm_piece_end(&m->config, g->ids, T, t, want, &tiles);
        OK(mm_piece_memory_reserve(&mem, m, end - t, tiles, end - t, &err));
        struct mm_view hidden;
        const float *pixels = g->pixels ? g->pixels + tile * 3 * S * S : NULL;
        OK(mm_piece_run(&mem, m, &state, g->ids + t, end - t, pixels, tiles, &tap, &hidden,
                        "golden", &err));
        OK(mm_piece_logits(&mem, m, hidden, end - t, o->logits + t * V, &err));
        tile += tiles;
    }
    assert_int_equal(tile, g->batch.n_tiles);
    for (int64_t i = 0; i < m->n_blocks; i++)
        assert_int_equal(o->at[i], o->n[i]);
    mm_piece_memory_deinit(&mem);
    mm_state_deinit(&state);
}

static void hold_outputs(struct golden *g, const char *who, const struct outputs *o) {
    char name[64];
    for (int64_t i = 0; i < o->m->n_blocks; i++) {
        snprintf(name, sizeof name, "%s.layer_%02d.out", who, (int)i);
        hold(g, name, o->layer[i], o->n[i], tol_golden);
    }
    snprintf(name, sizeof name, "%s.logits", who);
    hold(g, name, o->logits, g->start[1] * o->m->config.V, tol_golden);
}

static void forward(struct golden *g, struct mm_model *m, const char *who) {
    static const int64_t ways[][2] = {
        // chunk, step from
        {1, INT64_MAX}, {7, INT64_MAX}, {64, INT64_MAX}, {INT64_MAX, INT64_MAX}, {1, 0}, {7, 11},
        {64, 20},       {0, INT64_MAX}, {0, 17}};
    struct outputs whole, pieces;
    outputs_init(&whole, m, g);
    outputs_init(&pieces, m, g);
    run_whole(&whole, g);
    hold_outputs(g, who, &whole);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        run_pieces(&pieces, g, ways[i][0], ways[i][1]);
        char what[96];
        snprintf(what, sizeof what, "%s: %s in pieces of %lld, one by one from %lld", g->c->name,
                 who, (long long)ways[i][0], (long long)ways[i][1]);
        expect_near(what, pieces.logits, whole.logits, g->start[1] * m->config.V, tol_pieces);
        hold_outputs(g, who, &pieces);
    }
    outputs_deinit(&whole);
    outputs_deinit(&pieces);
}

// ---- gradients ----------------------------------------------------------------------------------

static bool want_grad(const struct mm_param *p, const void *arg) {
    return *(const int *)arg == 1 ? (p->stages & 1) != 0 : p->stages != 0;
}

// Gradients of one stage; *student is left open, its gradients in *memory.
static struct mm_objective_result stage(struct golden *g, struct mm_model *teacher, int number,
                                        struct mm_model *student, struct mm_grad_memory *memory) {
    bool keep[mm_max_blocks];
    OK(mm_keep_parse(number == 3 ? g->c->keep : "none", teacher->n_blocks, keep, &err));
    OK(mm_model_carve(student, teacher, keep, mm_init_mimic, 5, &err));
    char name[64];
    snprintf(name, sizeof name, "distill_stage%d.safetensors", number);
    char *path = golden_path(g->c, name);
    struct mm_st *st;
    OK(mm_st_open(&st, path, &err));
    OK(mm_model_apply(student, st, false, &err));
    mm_st_close(st);
    free(path);
    OK(mm_grad_memory_init(memory, student, want_grad, &number, &err));
    struct mm_objective o = {
        .kind = number == 3 ? mm_objective_kind_kl : mm_objective_kind_layerwise,
        .teacher = teacher,
        .student = student,
        .scale = 1.0,
    };
    return run_objective(&o, &g->batch, &memory->grads);
}

static void hold_stage(struct golden *g, struct mm_model *teacher, int number) {
    struct mm_model student;
    struct mm_grad_memory memory;
    const struct mm_objective_result r = stage(g, teacher, number, &student, &memory);
    char name[256];
    snprintf(name, sizeof name, "stage%d.loss", number);
    const float loss = (float)r.loss;
    hold(g, name, &loss, 1, tol_golden);
    if (number < 3) {
        float mse[mm_max_blocks];
        for (int64_t i = 0; i < student.n_blocks; i++)
            mse[i] = (float)r.layer_mse[i];
        snprintf(name, sizeof name, "stage%d.layer_mse", number);
        hold(g, name, mse, student.n_blocks, tol_golden);
    }
    for (int i = 0; i < student.n_params; i++) {
        const struct mm_view d = memory.grads.of[i];
        if (!d.data) continue;
        snprintf(name, sizeof name, "stage%d.grad.%s", number, student.params[i].name);
        hold(g, name, d.data, mm_view_count(d), tol_golden_grad);
    }
    mm_grad_memory_deinit(&memory);
    mm_model_deinit(&student);
}

// The ill-conditioned case: this path's gradients against the reference's.
static void hold_to_reference(struct golden *g, struct mm_model *teacher,
                              struct mm_model *reference_teacher) {
    struct mm_model student, reference;
    struct mm_grad_memory memory, reference_memory;
    const struct mm_objective_result r = stage(g, teacher, 3, &student, &memory);
    const struct mm_objective_result s =
        stage(g, reference_teacher, 3, &reference, &reference_memory);
    assert_true(fabs(r.loss - s.loss) <= tol_golden * s.loss);
    for (int i = 0; i < student.n_params; i++) {
        const struct mm_view d = memory.grads.of[i], want = reference_memory.grads.of[i];
        assert_true((d.data != NULL) == (want.data != NULL));
        if (!d.data) continue;
        expect_near(student.params[i].name, d.data, want.data, mm_view_count(d),
                    tol_ill_conditioned);
        char name[256];
        snprintf(name, sizeof name, "stage3.grad.%s", student.params[i].name);
        expected(g, name);
    }
    expected(g, "stage3.loss");
    mm_grad_memory_deinit(&memory);
    mm_grad_memory_deinit(&reference_memory);
    mm_model_deinit(&student);
    mm_model_deinit(&reference);
}

// ---- the tests ----------------------------------------------------------------------------------

static void load(struct mm_model *m, struct mm_backend *be, const struct golden_case *c,
                 const char *who) {
    char *path = mm_xasprintf("tests/golden/%s/%s_config.json:tests/golden/%s/%s.safetensors",
                              c->name, who, c->name, who);
    OK(mm_model_load(m, be, path, mm_dtype_f32, &err));
    free(path);
}

static void one_case(const struct golden_case *c, enum mm_isa isa, int n_threads) {
    struct golden g;
    golden_open(&g, c);
    struct mm_backend *be = open_isa(isa, n_threads), *plain = open_isa(mm_isa_plain, 1);
    struct mm_model teacher, student, reference;
    load(&teacher, be, c, "teacher");
    load(&student, be, c, "student");
    load(&reference, plain, c, "teacher");
    forward(&g, &teacher, "teacher");
    forward(&g, &student, "student");
    hold_stage(&g, &teacher, 1);
    hold_stage(&g, &teacher, 2);
    if (c->ill_conditioned && isa != mm_isa_plain) {
        hold_to_reference(&g, &teacher, &reference);
    } else {
        hold_stage(&g, &teacher, 3);
    }
    // the ids with pictures spelled out, which the layout makes by itself
    const struct mm_st_tensor *longer = expected(&g, "hd_input_ids");
    const int64_t grown = c == &cases[0] ? 3 * 8 : 0;
    assert_int_equal(longer->shape[1], g.start[1] + grown);
    for (int i = 0; i < mm_st_count(g.st); i++) {
        if (!g.seen[i]) fail_msg("%s: '%s' was not looked at", c->name, mm_st_at(g.st, i)->name);
    }
    mm_model_deinit(&teacher);
    mm_model_deinit(&student);
    mm_model_deinit(&reference);
    mm_backend_close(be);
    mm_backend_close(plain);
    golden_close(&g);
}

static void reference_path(void **state) {
    (void)state;
    if (testing_cuda()) skip();  // it is the CPU's
    for (int i = 0; i < n_cases; i++)
        one_case(&cases[i], mm_isa_plain, 1);
}

static void fast_paths(void **state) {
    (void)state;
    // from the best down: oneDNN can be limited only once in a process
    for (int isa = best_under_test(); isa > mm_isa_plain; isa--) {
        for (int i = 0; i < n_cases; i++) {
            one_case(&cases[i], (enum mm_isa)isa, 1);
            if (!testing_cuda()) one_case(&cases[i], (enum mm_isa)isa, 3);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reference_path),
        cmocka_unit_test(fast_paths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
