// Every backward operation (but the mixer's, tested beside it) against central differences of its
// forward, on odd sizes, for the reference and for the best of the fast ones. The loss is a sum of
// the outputs with random weights, taken in double.
#include "ops_test.h"

struct ctx {
    struct mm_backend *be;
    struct mm_view x, w, bias, e, q, k, v, y, lse, q_out, k_out, v_out;
    struct mm_view r, rk, rv, t, ids;  // weights of the sums, and fixed operands
    struct mm_segs segs;
    int64_t grid;
};

enum { rows = 7, cols = 33 };

static struct mm_view rnd(struct world *w, int64_t n, int64_t m) {
    return random_view(w, mm_dtype_f32, n, m, 0, 1.0);
}
static struct mm_view zeros(struct world *w, int64_t n, int64_t m) {
    const struct mm_view v = make(w, mm_dtype_f32, n, m, 0);
    mm_fill(w->be[1], v, 0.0f);
    return v;
}
static struct mm_view nans(struct world *w, int64_t n, int64_t m) {
    return make(w, mm_dtype_f32, n, m, 0);
}

static double linear_loss(void *arg) {
    const struct ctx *c = arg;
    mm_linear_fwd(c->be, c->y, c->x, c->w, c->bias);
    return project(c->y, c->r);
}

static void linear(struct world *w, struct mm_backend *be) {
    struct ctx c = {.be = be, .x = rnd(w, rows, cols), .w = rnd(w, 19, cols)};
    c.bias = vector_of(rnd(w, 19, 1)), c.y = nans(w, rows, 19), c.r = rnd(w, rows, 19);
    const struct mm_view dx = nans(w, rows, cols), dw = zeros(w, 19, cols);
    const struct mm_view db = vector_of(zeros(w, 19, 1));
    mm_linear_bwd_x(be, dx, c.r, c.w, false);
    mm_linear_bwd_w(be, dw, db, c.r, c.x, mm_dtype_f32);
    expect_gradient("linear dx", linear_loss, &c, c.x, dx);
    expect_gradient("linear dw", linear_loss, &c, c.w, dw);
    expect_gradient("linear dbias", linear_loss, &c, c.bias, db);
}

static double embed_loss(void *arg) {
    const struct ctx *c = arg;
    mm_embed_fwd(c->be, c->y, c->w, c->ids);
    return project(c->y, c->r);
}

static void embed(struct world *w, struct mm_backend *be) {
    struct ctx c = {.be = be, .w = rnd(w, 5, cols), .ids = random_ids(w, 23, -1, 5)};
    c.y = nans(w, 23, cols), c.r = rnd(w, 23, cols);
    const struct mm_view dw = zeros(w, 5, cols);
    mm_embed_bwd(be, dw, c.r, c.ids);
    expect_gradient("embed", embed_loss, &c, c.w, dw);
}

static double position_loss(void *arg) {
    const struct ctx *c = arg;
    mm_add_position_fwd(c->be, c->y, c->x, c->e);
    return project(c->y, c->r);
}

static void position(struct world *w, struct mm_backend *be) {
    struct ctx c = {.be = be, .x = rnd(w, 27, cols), .e = rnd(w, 9, cols)};
    c.y = nans(w, 27, cols), c.r = rnd(w, 27, cols);
    const struct mm_view de = zeros(w, 9, cols);
    mm_add_position_bwd(be, de, c.r);
    expect_gradient("add_position", position_loss, &c, c.e, de);
}

static double shuffle_loss(void *arg) {
    const struct ctx *c = arg;
    mm_pixel_shuffle_fwd(c->be, c->y, c->x, c->grid);
    return project(c->y, c->r);
}

static void shuffle(struct world *w, struct mm_backend *be) {
    struct ctx c = {.be = be, .x = rnd(w, 72, 5), .grid = 6};
    c.y = nans(w, 18, 20), c.r = rnd(w, 18, 20);
    const struct mm_view dx = nans(w, 72, 5);
    mm_pixel_shuffle_bwd(be, dx, c.r, c.grid);
    expect_gradient("pixel_shuffle", shuffle_loss, &c, c.x, dx);
}

static double rmsnorm_loss(void *arg) {
    const struct ctx *c = arg;
    mm_rmsnorm_fwd(c->be, c->y, MM_NONE, c->x, c->w, 1e-3f);
    return project(c->y, c->r);
}

static double l2norm_loss(void *arg) {
    const struct ctx *c = arg;
    mm_l2norm_fwd(c->be, c->y, MM_NONE, c->x);
    return project(c->y, c->r);
}

static void norms(struct world *w, struct mm_backend *be) {
    struct ctx c = {.be = be, .x = rnd(w, rows, cols), .w = vector_of(rnd(w, cols, 1))};
    c.y = nans(w, rows, cols), c.r = rnd(w, rows, cols);
    const struct mm_view rinv = empty_vector(w, rows), dx = nans(w, rows, cols);
    const struct mm_view dw = vector_of(zeros(w, cols, 1));
    mm_rmsnorm_fwd(be, c.y, rinv, c.x, c.w, 1e-3f);
    mm_rmsnorm_bwd(be, dx, dw, c.r, c.x, c.w, rinv);
    expect_gradient("rmsnorm dx", rmsnorm_loss, &c, c.x, dx);
    expect_gradient("rmsnorm dw", rmsnorm_loss, &c, c.w, dw);
    mm_l2norm_fwd(be, c.y, rinv, c.x);
    mm_l2norm_bwd(be, dx, c.r, c.y, rinv);
    expect_gradient("l2norm", l2norm_loss, &c, c.x, dx);
}

static double swiglu_loss(void *arg) {
    const struct ctx *c = arg;
    mm_swiglu_fwd(c->be, c->y, c->x, c->w);
    return project(c->y, c->r);
}

static double gelu_loss(void *arg) {
    const struct ctx *c = arg;
    mm_gelu_fwd(c->be, c->y, c->x);
    return project(c->y, c->r);
}

static void pointwise(struct world *w, struct mm_backend *be) {
    struct ctx c = {.be = be, .x = rnd(w, rows, cols), .w = rnd(w, rows, cols)};
    c.y = nans(w, rows, cols), c.r = rnd(w, rows, cols);
    const struct mm_view da = nans(w, rows, cols), db = nans(w, rows, cols);
    mm_swiglu_bwd(be, da, db, c.r, c.x, c.w);
    expect_gradient("swiglu da", swiglu_loss, &c, c.x, da);
    expect_gradient("swiglu db", swiglu_loss, &c, c.w, db);
    mm_gelu_bwd(be, da, c.r, c.x);
    expect_gradient("gelu", gelu_loss, &c, c.x, da);
}

static double rope_loss(void *arg) {
    const struct ctx *c = arg;
    mm_qkv_rope_fwd(c->be, c->q_out, c->k_out, c->v_out, c->x, c->ids, 100.0f, 0.5f);
    return project(c->q_out, c->r) + project(c->k_out, c->rk) + project(c->v_out, c->rv);
}

static void rope(struct world *w, struct mm_backend *be) {
    const int64_t h = 6, g = 2, p = 10;
    struct ctx c = {
        .be = be, .x = rnd(w, rows, (h + 2 * g) * p), .ids = random_ids(w, rows, 0, 50)};
    c.q_out = heads_view(nans(w, rows, h * p), h), c.r = heads_view(rnd(w, rows, h * p), h);
    c.k_out = heads_view(nans(w, rows, g * p), g), c.rk = heads_view(rnd(w, rows, g * p), g);
    c.v_out = heads_view(nans(w, rows, g * p), g), c.rv = heads_view(rnd(w, rows, g * p), g);
    const struct mm_view dx = nans(w, rows, (h + 2 * g) * p);
    mm_qkv_rope_bwd(be, dx, c.r, c.rk, c.rv, c.ids, 100.0f, 0.5f);
    expect_gradient("qkv_rope", rope_loss, &c, c.x, dx);
}

static double attention_loss(void *arg) {
    const struct ctx *c = arg;
    mm_attention_fwd(c->be, c->y, MM_NONE, c->q, c->k, c->v, c->segs);
    return project(c->y, c->r);
}

static void attention(struct world *w, struct mm_backend *be) {
    static const int32_t start[] = {0, 1, 4, 21};
    const int64_t h = 6, g = 2, p = 10, n = 21;
    struct ctx c = {.be = be, .segs = segs_from(start, 3)};
    c.q = heads_view(rnd(w, n, h * p), h), c.k = heads_view(rnd(w, n, g * p), g);
    c.v = heads_view(rnd(w, n, g * p), g), c.y = heads_view(nans(w, n, h * p), h);
    c.r = heads_view(rnd(w, n, h * p), h), c.lse = nans(w, n, h);
    const struct mm_view dq = heads_view(nans(w, n, h * p), h);
    const struct mm_view dk = heads_view(nans(w, n, g * p), g);
    const struct mm_view dv = heads_view(nans(w, n, g * p), g);
    mm_attention_fwd(be, c.y, c.lse, c.q, c.k, c.v, c.segs);
    mm_attention_bwd(be, dq, dk, dv, c.r, c.y, c.lse, c.q, c.k, c.v, c.segs);
    expect_gradient("attention dq", attention_loss, &c, c.q, dq);
    expect_gradient("attention dk", attention_loss, &c, c.k, dk);
    expect_gradient("attention dv", attention_loss, &c, c.v, dv);
}

static double sum_of(struct mm_view v) {
    double sum = 0.0;
    for (int64_t i = 0; i < v.shape[0]; i++)
        sum += (double)get(v, i, 0);
    return sum;
}

static double mse_loss(void *arg) {
    const struct ctx *c = arg;
    mm_fill(c->be, c->lse, 0.0f);
    mm_mse(c->be, c->lse, MM_NONE, c->x, c->t, 0.3f);
    return sum_of(c->lse);
}

static double kl_loss(void *arg) {
    const struct ctx *c = arg;
    mm_kl(c->be, c->lse, MM_NONE, c->x, c->t, c->w);
    return sum_of(c->lse);
}

static double entropy_loss(void *arg) {
    const struct ctx *c = arg;
    mm_cross_entropy(c->be, c->lse, MM_NONE, c->x, c->ids, c->w);
    return sum_of(c->lse);
}

static void losses(struct world *w, struct mm_backend *be) {
    struct ctx c = {.be = be, .x = rnd(w, rows, cols), .t = rnd(w, rows, cols)};
    const struct mm_view dx = nans(w, rows, cols);
    c.w = vector_of(rnd(w, rows, 1)), c.ids = random_ids(w, rows, 0, cols);
    put(c.w, 3, 0, 0.0f);
    c.lse = empty_vector(w, rows);
    mm_kl(be, c.lse, dx, c.x, c.t, c.w);
    expect_gradient("kl", kl_loss, &c, c.x, dx);
    mm_cross_entropy(be, c.lse, dx, c.x, c.ids, c.w);
    expect_gradient("cross_entropy", entropy_loss, &c, c.x, dx);
    c.lse = vector_of(zeros(w, 1, 1));
    mm_mse(be, c.lse, dx, c.x, c.t, 0.3f);
    expect_gradient("mse", mse_loss, &c, c.x, dx);
}

static void run(void (*test)(struct world *, struct mm_backend *)) {
    struct world w;
    world_open(&w, mm_isa_best(), 2);
    for (int k = 0; k < 2; k++) {
        test(&w, w.be[k]);
        world_clear(&w);
    }
    world_close(&w);
}

#define TEST(name)                          \
    static void test_##name(void **state) { \
        (void)state;                        \
        run(name);                          \
    }
TEST(linear)
TEST(embed)
TEST(position)
TEST(shuffle)
TEST(norms)
TEST(pointwise)
TEST(rope)
TEST(attention)
TEST(losses)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linear),   cmocka_unit_test(test_embed),
        cmocka_unit_test(test_position), cmocka_unit_test(test_shuffle),
        cmocka_unit_test(test_norms),    cmocka_unit_test(test_pointwise),
        cmocka_unit_test(test_rope),     cmocka_unit_test(test_attention),
        cmocka_unit_test(test_losses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
