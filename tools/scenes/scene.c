// Composing: how many things, which, where; never two that are held out, unless asked to.
#include "scenes/scene.h"

#include <assert.h>
#include <math.h>
#include <string.h>

struct mm_rng mm_scene_rng(const struct mm_world *w, const char *split, int64_t index) {
    return mm_rng_make(w->seed, mm_rng_stream(split) + 2 * (uint64_t)index + 1);
}

static const struct mm_thing *thing_of(const struct mm_things *t, const struct mm_item *it) {
    return &t->list[it->thing];
}

static bool clash(const struct mm_things *t, const struct mm_item *a, const struct mm_item *b) {
    return mm_held_out_pair(thing_of(t, a), thing_of(t, b));
}

bool mm_scene_held_out(const struct mm_scene *s, const struct mm_things *things) {
    for (int i = 0; i < s->n; i++) {
        const struct mm_item *it = &s->item[i];
        if (mm_held_out_colour(thing_of(things, it), it->colour)) return true;
        for (int j = 0; j < i; j++) {
            if (clash(things, it, &s->item[j])) return true;
        }
    }
    return false;
}

static int draw_colour(struct mm_rng *rng, const struct mm_thing *shape) {
    int colour;
    do {
        colour = (int)mm_rng_below(rng, mm_colour_shapes);
    } while (mm_held_out_colour(shape, colour));
    return colour;
}

// Things of the first quarter are met twice as often: the popular ones of the POPE questions.
static int draw_thing(const struct mm_world *w, struct mm_rng *rng) {
    const struct mm_things *t = &w->things;
    const int n_pictures = t->n - t->n_shapes;
    if (t->n_shapes && (!n_pictures || mm_rng_f32(rng) < (float)w->shape_share)) {
        return n_pictures + (int)mm_rng_below(rng, (uint32_t)t->n_shapes);
    }
    const bool popular = n_pictures >= 8 && mm_rng_below(rng, 5) == 0;
    return (int)mm_rng_below(rng, (uint32_t)(popular ? n_pictures / 4 : n_pictures));
}

static bool shown(const struct mm_scene *s, int thing) {
    for (int i = 0; i < s->n; i++) {
        if (s->item[i].thing == thing) return true;
    }
    return false;
}

static void put(struct mm_scene *s, const struct mm_world *w, struct mm_rng *rng, int thing) {
    const struct mm_thing *t = &w->things.list[thing];
    s->item[s->n++] = (struct mm_item){
        .thing = thing,
        .colour = t->shape >= 0 ? draw_colour(rng, t) : t->colour,
    };
}

static void put_held_out_shape(struct mm_scene *s, const struct mm_world *w, struct mm_rng *rng) {
    const struct mm_things *t = &w->things;
    put(s, w, rng, t->n - t->n_shapes + (int)mm_rng_below(rng, (uint32_t)t->n_shapes));
    struct mm_item *it = &s->item[s->n - 1];
    do {
        it->colour = (it->colour + 1) % mm_colour_shapes;
    } while (!mm_held_out_colour(thing_of(t, it), it->colour));
}

// Opens a held-out picture with the combination that makes it one: a shape in its held-out
// colour, or two things that are never seen together.
static void put_held_out(struct mm_scene *s, const struct mm_world *w, struct mm_rng *rng) {
    const struct mm_things *t = &w->things;
    const int n_pictures = t->n - t->n_shapes;
    if (t->n_shapes && (n_pictures < 2 || mm_rng_below(rng, 2))) {
        put_held_out_shape(s, w, rng);
        return;
    }
    for (int tries = 0; tries < 5000; tries++) {
        const int a = (int)mm_rng_below(rng, (uint32_t)n_pictures);
        const int b = (int)mm_rng_below(rng, (uint32_t)n_pictures);
        if (!mm_held_out_pair(&t->list[a], &t->list[b])) continue;
        put(s, w, rng, a);
        put(s, w, rng, b);
        return;
    }
    if (t->n_shapes) put_held_out_shape(s, w, rng);  // so few things that no pair is held out
}

// Adds a thing not yet shown that is not held out against one that is.
static void put_fresh(struct mm_scene *s, const struct mm_world *w, struct mm_rng *rng) {
    for (int tries = 0; tries < 1000; tries++) {
        const struct mm_item it = {.thing = draw_thing(w, rng), .colour = mm_colour_none};
        bool ok = !shown(s, it.thing);
        for (int i = 0; i < s->n && ok; i++) {
            ok = !clash(&w->things, &it, &s->item[i]);
        }
        if (!ok) continue;
        put(s, w, rng, it.thing);
        return;
    }
}

static void choose_things(struct mm_scene *s, const struct mm_world *w, struct mm_rng *rng,
                          enum mm_held held) {
    const int cells = w->grid * w->grid - (s->labelled ? 1 : 0);
    const int most = cells < 2 * w->grid + 1 ? cells : 2 * w->grid + 1;
    int n = 1 + (int)mm_rng_below(rng, (uint32_t)most);
    if (n == 1 && mm_rng_below(rng, 2)) n = 2;  // one thing alone leaves little to ask
    if (held == mm_held_always) put_held_out(s, w, rng);
    if (n < s->n) n = s->n;
    if (n >= 2 && n > s->n && mm_rng_below(rng, 5) < 2) {
        const int copies = n - s->n >= 3 && mm_rng_below(rng, 4) == 0 ? 3 : 2;
        if (n - s->n >= copies || s->n == 1) {
            if (s->n == 0) put_fresh(s, w, rng);
            const struct mm_item first = s->item[s->n - 1];
            for (int i = 1; i < copies && s->n < n; i++) {
                s->item[s->n++] = first;
                const struct mm_thing *t = thing_of(&w->things, &first);
                // Of two stars one may be red and one blue.
                if (t->shape >= 0 && mm_rng_below(rng, 2)) {
                    s->item[s->n - 1].colour = draw_colour(rng, t);
                }
            }
        }
    }
    while (s->n < n) {
        const int before = s->n;
        put_fresh(s, w, rng);
        if (s->n == before) break;  // a world so small that nothing more fits together
    }
}

static void place_label(struct mm_scene *s, const struct mm_world *w, struct mm_rng *rng,
                        int cell) {
    const double side = (double)w->size / w->grid;
    mm_words_draw(&w->things.words, rng, s->word);
    s->word_row = cell / w->grid;
    s->word_col = cell % w->grid;
    s->font = (int)mm_rng_below(rng, mm_fonts_count);
    s->px = 13 + (int)mm_rng_below(rng, 5);
    while (s->px > mm_fonts_min_px &&
           mm_fonts_width(w->fonts, s->font, s->px, s->word) + 6 > (int)side) {
        s->px--;
    }
    s->box_w = mm_fonts_width(w->fonts, s->font, s->px, s->word) + 6 + (int)mm_rng_below(rng, 5);
    s->box_h = mm_fonts_ascent(w->fonts, s->font, s->px) + 7 + (int)mm_rng_below(rng, 3);
    if (s->box_w > (int)side) s->box_w = (int)side;
    // In small cells a wide word needs more than its cell; it stays inside the picture.
    const int least = mm_fonts_width(w->fonts, s->font, s->px, s->word) + 6;
    if (s->box_w < least) s->box_w = least;
    const int room_x = (int)side - s->box_w, room_y = (int)side - s->box_h;
    s->box_x = (int)(s->word_col * side) +
               (room_x >= 0 ? (int)mm_rng_below(rng, (uint32_t)(room_x + 1)) : room_x / 2);
    s->box_y = (int)(s->word_row * side) +
               (room_y > 0 ? (int)mm_rng_below(rng, (uint32_t)(room_y + 1)) : 0);
    if (s->box_x > w->size - s->box_w) s->box_x = w->size - s->box_w;
    if (s->box_x < 0) s->box_x = 0;
}

static void choose_ground(struct mm_scene *s, const struct mm_world *w, struct mm_rng *rng) {
    struct mm_ground *g = &s->ground;
    // Any hue, but neither so strong nor so dark that a thing in front of it is hard to see.
    const double hue = mm_rng_uniform(rng, 0, 6), strong = mm_rng_uniform(rng, 0.05, 0.5);
    const double light = mm_rng_uniform(rng, 120, 245);
    const bool flat = mm_rng_below(rng, 3) == 0;
    const double fade = flat ? 1.0 : mm_rng_uniform(rng, 0.55, 0.95);
    for (int k = 0; k < 3; k++) {
        const double d = fabs(fmod(hue + 2 * k, 6.0) - 3.0) - 1.0;  // 0..1 is the channel's share
        const double share = d < 0 ? 0 : d > 1 ? 1 : d;
        const double v = light * (1 - strong + strong * share);
        g->from[k] = (uint8_t)lrint(v);
        g->to[k] = (uint8_t)lrint(v * fade);
    }
    g->angle = mm_rng_uniform(rng, 0, 6.2831853);
    g->marks = w->marks ? (int)mm_rng_below(rng, (uint32_t)w->marks + 1) : 0;
    g->mark_seed = mm_rng_u64(rng);
}

void mm_scene_compose(struct mm_scene *s, const struct mm_world *w, const char *split,
                      int64_t index, enum mm_held held) {
    *s = (struct mm_scene){0};
    struct mm_rng rng = mm_rng_make(w->seed, mm_rng_stream(split) + 2 * (uint64_t)index);
    const int n_cells = w->grid * w->grid;
    const double side = (double)w->size / w->grid;
    s->labelled = mm_rng_below(&rng, 2) != 0;
    choose_things(s, w, &rng, held);
    int64_t cell[mm_scene_max_items];
    for (int i = 0; i < n_cells; i++) {
        cell[i] = i;
    }
    mm_rng_shuffle(&rng, cell, n_cells);
    for (int i = 0; i < s->n; i++) {
        struct mm_item *it = &s->item[i];
        it->row = (int)cell[i] / w->grid;
        it->col = (int)cell[i] % w->grid;
        it->size = side * mm_rng_uniform(&rng, 34.0 / 56, 52.0 / 56);
        const double free = side - it->size;  // room to move inside the cell
        it->x = (it->col + 0.5) * side + free * mm_rng_uniform(&rng, -0.5, 0.5);
        it->y = (it->row + 0.5) * side + free * mm_rng_uniform(&rng, -0.5, 0.5);
        it->angle = w->max_angle > 0 ? mm_rng_uniform(&rng, -w->max_angle, w->max_angle) : 0;
    }
    if (s->labelled) place_label(s, w, &rng, (int)cell[s->n]);
    choose_ground(s, w, &rng);
    assert(mm_scene_held_out(s, &w->things) == (held == mm_held_always) || held == mm_held_always);
}

void mm_scene_paint(const struct mm_scene *s, const struct mm_world *w, struct mm_canvas *c) {
    static const uint8_t white[3] = {255, 255, 255}, ink[3] = {16, 16, 16};
    mm_paint_ground(c, &s->ground);
    for (int i = 0; i < s->n; i++) {
        const struct mm_item *it = &s->item[i];
        const struct mm_thing *t = &w->things.list[it->thing];
        if (t->shape >= 0) {
            mm_paint_shape(c, t->shape, it->colour, it->x, it->y, it->size * 0.86, it->angle);
        } else {
            mm_paint_sprite(c, &t->sprite, it->x, it->y, it->size, it->angle);
        }
    }
    if (s->labelled) {
        const int rise = mm_fonts_ascent(w->fonts, s->font, s->px);
        const int width = mm_fonts_width(w->fonts, s->font, s->px, s->word);
        mm_paint_box(c, s->box_x, s->box_y, s->box_w, s->box_h, white);
        mm_paint_text(c, w->fonts, s->font, s->px, s->box_x + (s->box_w - width) / 2,
                      s->box_y + (s->box_h + rise) / 2, s->word, ink);
    }
}
