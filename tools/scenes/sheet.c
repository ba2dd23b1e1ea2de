// Contact sheets: pictures with their questions, and every thing with its name.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "io/file.h"
#include "scenes/write.h"

static const uint8_t paper[3] = {255, 255, 255}, ink[3] = {20, 20, 20}, faint[3] = {0, 90, 160};

static struct mm_canvas blank(int width, int height) {
    struct mm_canvas c = {width, height, mm_xmalloc((size_t)width * (size_t)height * 3)};
    mm_paint_box(&c, 0, 0, width, height, paper);
    return c;
}

static enum mm_code finish(struct mm_canvas *c, const char *path, struct mm_error *err) {
    struct mm_buf png = {0};
    enum mm_code code = mm_picture_encode(&png, c, 0, err);
    if (code == mm_code_ok) code = mm_file_write(path, png.data, png.len, err);
    mm_buf_free(&png);
    free(c->rgb);
    return code;
}

static void copy(struct mm_canvas *to, const struct mm_canvas *from, int x, int y, int times) {
    for (int py = 0; py < from->height * times; py++) {
        for (int px = 0; px < from->width * times; px++) {
            memcpy(to->rgb + 3 * ((y + py) * to->width + x + px),
                   from->rgb + 3 * (py / times * from->width + px / times), 3);
        }
    }
}

// As much of a text as fits into `width` pixels.
static void write_fitting(struct mm_canvas *c, const struct mm_fonts *f, int x, int y, int width,
                          const char *text, const uint8_t rgb[3]) {
    char line[256];
    snprintf(line, sizeof line, "%s", text);
    size_t n = strlen(line);
    while (n > 0 && mm_fonts_width(f, 0, 9, line) > width) {
        line[--n] = 0;
    }
    mm_paint_text(c, f, 0, 9, x, y, line, rgb);
}

enum mm_code mm_write_sheet(const struct mm_world *w, const char *path, struct mm_error *err) {
    enum { across = 6, down = 4, gap = 8, captions = 3 * 24 + 4 };
    const int times = w->size <= 160 ? 2 : 1, side = w->size * times;
    struct mm_canvas sheet =
        blank(gap + across * (side + gap), gap + down * (side + captions + gap));
    struct mm_canvas one = blank(w->size, w->size);
    for (int i = 0; i < across * down; i++) {
        const int x = gap + i % across * (side + gap),
                  y = gap + i / across * (side + captions + gap);
        struct mm_scene s;
        struct mm_question q[3];
        mm_scene_compose(&s, w, "scenes/train", i, mm_held_never);
        struct mm_rng rng = mm_scene_rng(w, "scenes/train", i);
        const int n = mm_ask_some(q, 3, w, &s, &rng);
        mm_scene_paint(&s, w, &one);
        copy(&sheet, &one, x, y, times);
        for (int k = 0; k < n; k++) {
            char *answer = q[k].n_options
                               ? mm_xasprintf("%s  (%s, %s, %s, %s)", q[k].answer, q[k].option[0],
                                              q[k].option[1], q[k].option[2], q[k].option[3])
                               : mm_xstrdup(q[k].answer);
            write_fitting(&sheet, w->fonts, x, y + side + 12 + 24 * k, side, q[k].text, ink);
            write_fitting(&sheet, w->fonts, x + 6, y + side + 23 + 24 * k, side - 6, answer, faint);
            free(answer);
        }
    }
    free(one.rgb);
    return finish(&sheet, path, err);
}

enum mm_code mm_write_names(const struct mm_world *w, const char *path, struct mm_error *err) {
    enum { across = 16, cell = 76, room = 92 };
    const int down = (w->things.n + across - 1) / across;
    struct mm_canvas sheet = blank(across * cell, down * room);
    for (int i = 0; i < w->things.n; i++) {
        const struct mm_thing *t = &w->things.list[i];
        const int x = i % across * cell, y = i / across * room;
        if (t->shape >= 0) {
            mm_paint_shape(&sheet, t->shape, i % mm_colour_shapes, x + cell / 2.0, y + 32, 46, 0);
        } else {
            mm_paint_sprite(&sheet, &t->sprite, x + cell / 2.0, y + 32, 56, 0);
        }
        write_fitting(&sheet, w->fonts, x + 3, y + 72, cell - 4, t->name, ink);
        char about[64];
        snprintf(about, sizeof about, "%s%s%s", t->colour >= 0 ? mm_colour_names[t->colour] : "",
                 t->colour >= 0 && t->kind ? " " : "", t->kind ? t->kind : "");
        write_fitting(&sheet, w->fonts, x + 3, y + 83, cell - 4, about, faint);
    }
    return finish(&sheet, path, err);
}
