// The picture of a run: that it is drawn from any log that holds a step, shows the points it was
// given, and that nothing else draws or harms anything.
#include "cmocka_all.h"

#include <cairo.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/log.h"
#include "io/file.h"
#include "scratch.h"
#include "train/plot.h"

static char log_path[128], png_path[128];

static int setup(void **state) {
    if (scratch_make(state)) return -1;
    snprintf(log_path, sizeof log_path, "%s/log.jsonl", folder);
    snprintf(png_path, sizeof png_path, "%s/loss.png", folder);
    mm_log_set_level(mm_log_level_error);
    return 0;
}

static enum mm_code plot(const char *text, struct mm_error *err) {
    assert_int_equal(mm_file_write(log_path, text, strlen(text), err), mm_code_ok);
    remove(png_path);
    return mm_plot_loss(log_path, png_path, err);
}

static void add_step(struct mm_buf *b, int stage, int step, double loss, double lr) {
    mm_buf_addf(b, "{\"stage\":%d,\"step\":%d,\"loss\":%.9g,\"lr\":%.9g,\"tokens\":3}\n", stage,
                step, loss, lr);
}

static cairo_surface_t *drawn(void) {
    cairo_surface_t *s = cairo_image_surface_create_from_png(png_path);
    assert_int_equal(cairo_surface_status(s), CAIRO_STATUS_SUCCESS);
    return s;
}

// Where the pixels of the smoothed line's blue lie, on average and from top to bottom, between the
// columns left and right of the picture, given as parts of its width.
struct where {
    int n;
    double top, bottom, mean;  // parts of the height
};
static struct where blue(cairo_surface_t *s, double left, double right) {
    const int w = cairo_image_surface_get_width(s), h = cairo_image_surface_get_height(s);
    struct where r = {.top = 1.0};
    for (int y = 0; y < h; y++) {
        const unsigned char *row =
            cairo_image_surface_get_data(s) + y * cairo_image_surface_get_stride(s);
        for (int x = (int)(left * w); x < (int)(right * w); x++) {
            uint32_t p;
            memcpy(&p, row + 4 * x, 4);
            const int red = (int)(p >> 16 & 255), blue_ = (int)(p & 255);
            if (red > 60 || blue_ < 140 || blue_ > 180) continue;
            const double at = (double)y / h;
            r.n++;
            r.mean += at;
            r.top = fmin(r.top, at);
            r.bottom = fmax(r.bottom, at);
        }
    }
    if (r.n > 0) r.mean /= r.n;
    return r;
}

static void a_falling_loss_falls(void **state) {
    (void)state;
    struct mm_error err = {0};
    struct mm_buf b = {0};
    for (int i = 1; i <= 400; i++)
        add_step(&b, 0, i, 5.0 - 0.01 * i, 1e-3);
    assert_int_equal(plot(b.data, &err), mm_code_ok);
    cairo_surface_t *s = drawn();
    const struct where early = blue(s, 0.20, 0.25), middle = blue(s, 0.425, 0.475),
                       late = blue(s, 0.65, 0.7);
    assert_true(early.n > 50 && middle.n > 50 && late.n > 50);
    assert_true(early.mean < middle.mean && middle.mean < late.mean);
    // a straight line stays one: halfway between its ends
    assert_true(fabs((early.mean + late.mean) / 2 - middle.mean) < 0.03);
    cairo_surface_destroy(s);
    mm_buf_free(&b);
}

// Ten to the power of a straight line is a straight line again on the log scale.
static void a_wide_range_is_drawn_by_its_logarithm(void **state) {
    (void)state;
    struct mm_error err = {0};
    struct mm_buf b = {0};
    for (int i = 1; i <= 400; i++)
        add_step(&b, 0, i, pow(10.0, 3.0 - 0.01 * i), 1e-3);
    assert_int_equal(plot(b.data, &err), mm_code_ok);
    cairo_surface_t *s = drawn();
    const struct where early = blue(s, 0.20, 0.25), middle = blue(s, 0.425, 0.475),
                       late = blue(s, 0.65, 0.7);
    assert_true(early.mean < middle.mean - 0.1 && middle.mean < late.mean - 0.1);
    assert_true(fabs((early.mean + late.mean) / 2 - middle.mean) < 0.03);
    cairo_surface_destroy(s);
    mm_buf_free(&b);
}

static void one_panel_a_stage(void **state) {
    (void)state;
    struct mm_error err = {0};
    struct mm_buf b = {0};
    int width[4] = {0};
    for (int stage = 1; stage <= 3; stage++) {
        for (int i = 1; i <= 30; i++)
            add_step(&b, stage, i, 1.0 + 1.0 / i, 1e-3 * i);
        assert_int_equal(plot(b.data, &err), mm_code_ok);
        cairo_surface_t *s = drawn();
        width[stage] = cairo_image_surface_get_width(s);
        for (int k = 0; k < stage; k++) {  // a curve in the middle of every panel
            const double each = 1.0 / stage;
            assert_true(blue(s, each * (k + 0.4), each * (k + 0.6)).n > 20);
        }
        cairo_surface_destroy(s);
    }
    assert_true(width[3] - width[2] > 800);
    mm_buf_free(&b);
}

// Logs at the edges of what there can be; each must give a picture with a curve or a dot in it.
static void odd_logs_are_drawn(void **state) {
    (void)state;
    static const char *const logs[] = {
        "{\"stage\":1,\"step\":1,\"loss\":3.3,\"lr\":0}\n",
        "{\"stage\":0,\"step\":1,\"loss\":0,\"lr\":0}\n{\"stage\":0,\"step\":2,\"loss\":0,\"lr\":"
        "0}",
        "{\"stage\":0,\"step\":7,\"loss\":-2,\"lr\":1}\n{\"stage\":0,\"step\":9,\"loss\":3,\"lr\":"
        "1}",
        "{\"stage\":3,\"step\":1,\"loss\":1e300,\"lr\":1e-9}\n"
        "{\"stage\":3,\"step\":2,\"loss\":1e-300,\"lr\":1e-9}",
        "{\"stage\":2,\"step\":1e15,\"loss\":1e-12,\"lr\":1e9}\n",
        "{\"stage\":2,\"step\":1,\"loss\":5,\"lr\":1}\n{\"stage\":2,\"step\":2,\"loss\":5,\"lr\":"
        "1}",
        // lines that are no step between lines that are
        "{\"stage\":1,\"step\":1,\"loss\":3,\"lr\":1}\nnonsense\n\n[1]\n{\"stage\":9}\n"
        "{\"stage\":1,\"step\":2,\"loss\":2,\"lr\":1}\n{\"stage\":1,\"st",
    };
    for (size_t i = 0; i < sizeof logs / sizeof *logs; i++) {
        struct mm_error err = {0};
        if (plot(logs[i], &err)) fail_msg("log %zu: %s", i, err.text);
        cairo_surface_t *s = drawn();
        assert_true(blue(s, 0.05, 0.95).n > 60);
        cairo_surface_destroy(s);
    }
}

static void a_long_log_is_drawn(void **state) {
    (void)state;
    struct mm_error err = {0};
    struct mm_buf b = {0};
    for (int i = 1; i <= 20000; i++)
        add_step(&b, 0, i, 1.0 + 0.5 * (i * 7919 % 1000) / 1000.0, 1e-3);
    assert_int_equal(plot(b.data, &err), mm_code_ok);
    mm_buf_free(&b);
}

static void nothing_to_draw_is_said(void **state) {
    (void)state;
    static const char *const logs[] = {
        "",
        "\n\n",
        "nonsense\n",
        "{}\n",
        "{\"stage\":1,\"step\":0,\"loss\":1,\"lr\":1}\n",
        "{\"stage\":-1,\"step\":1,\"loss\":1,\"lr\":1}\n",
        "{\"stage\":4,\"step\":1,\"loss\":1,\"lr\":1}\n",
        "{\"stage\":1,\"step\":1,\"loss\":\"1\",\"lr\":1}\n",
    };
    for (size_t i = 0; i < sizeof logs / sizeof *logs; i++) {
        struct mm_error err = {0};
        assert_int_equal(plot(logs[i], &err), mm_code_input);
        assert_non_null(strstr(err.text, "holds no step"));
        assert_false(mm_path_exists(png_path));
    }
    struct mm_error err = {0};
    assert_int_equal(mm_plot_loss("/nowhere/log.jsonl", png_path, &err), mm_code_io);
    assert_int_equal(plot("{\"stage\":1,\"step\":1,\"loss\":3.3,\"lr\":0}\n", &err), mm_code_ok);
    assert_int_equal(mm_plot_loss(log_path, "/nowhere/loss.png", &err), mm_code_io);
    assert_non_null(strstr(err.text, "/nowhere/loss.png"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_falling_loss_falls),
        cmocka_unit_test(a_wide_range_is_drawn_by_its_logarithm),
        cmocka_unit_test(one_panel_a_stage),
        cmocka_unit_test(odd_logs_are_drawn),
        cmocka_unit_test(a_long_log_is_drawn),
        cmocka_unit_test(nothing_to_draw_is_said),
    };
    return cmocka_run_group_tests(tests, setup, scratch_remove);
}
