// Questions answered yes or no: presence (POPE), existence, count, position and colour (MME).
#include <stdio.h>
#include <string.h>
#include "scenes/ask.h"

static void start(struct mm_question *q, enum mm_form form, const char *topic, bool yes) {
    *q = (struct mm_question){.form = form, .topic = topic};
    snprintf(q->answer, sizeof q->answer, "%s", yes ? "Yes" : "No");
}

static bool looks_like(const struct mm_thing *a, const struct mm_thing *b) {
    if (!strcmp(a->family, b->family)) return true;
    return a->kind && b->kind && !strcmp(a->kind, b->kind);
}

// An absent thing of the wanted sort; -1 when a hundred draws find none.
static int draw_absent(const struct mm_world *w, const struct mm_scene *s, struct mm_rng *rng,
                       enum mm_negative negative) {
    const struct mm_things *t = &w->things;
    const int n_pictures = t->n - t->n_shapes;
    for (int tries = 0; tries < 300; tries++) {
        int i = (int)mm_rng_below(rng, (uint32_t)t->n);
        if (negative == mm_negative_popular && n_pictures >= 8) {
            i = (int)mm_rng_below(rng, (uint32_t)(n_pictures / 4));
        }
        if (mm_scene_count(s, i) > 0) continue;
        // As shapes are few and met often, an unfiltered draw would ask for them too rarely.
        if (negative == mm_negative_random && t->n_shapes && n_pictures &&
            mm_rng_below(rng, 12) == 0) {
            i = n_pictures + (int)mm_rng_below(rng, (uint32_t)t->n_shapes);
            if (mm_scene_count(s, i) > 0) continue;
        }
        if (negative == mm_negative_adversarial && tries < 200) {
            bool like = false;
            for (int k = 0; k < s->n && !like; k++) {
                like = looks_like(&t->list[i], &t->list[s->item[k].thing]);
            }
            if (!like) continue;
        }
        return i;
    }
    return -1;
}

// "a red star" where no red star is: of a shape that is shown in another colour when `near`, so
// that shape and colour must be seen together. Held-out combinations are not asked for either:
// "no" to them in training would teach the answer.
static bool absent_coloured(char *out, size_t n, const struct mm_world *w, const struct mm_scene *s,
                            struct mm_rng *rng, bool near) {
    const struct mm_things *t = &w->things;
    for (int tries = 0; tries < 60; tries++) {
        int thing = t->n - t->n_shapes + (int)mm_rng_below(rng, (uint32_t)t->n_shapes);
        int colour = (int)mm_rng_below(rng, mm_colour_shapes);
        if (near) {
            const struct mm_item *it = &s->item[mm_rng_below(rng, (uint32_t)s->n)];
            if (t->list[it->thing].shape < 0) continue;
            if (mm_rng_below(rng, 3)) {
                thing = it->thing;
            } else {
                colour = it->colour;
            }
        }
        bool there = mm_held_out_colour(&t->list[thing], colour);
        for (int k = 0; k < s->n; k++) {
            there |= s->item[k].thing == thing && s->item[k].colour == colour;
        }
        if (there) continue;
        snprintf(out, n, "%s %s %s", mm_article(mm_colour_names[colour]), mm_colour_names[colour],
                 t->list[thing].name);
        return true;
    }
    return false;
}

static bool name_wanted(char *out, size_t n, const struct mm_world *w, const struct mm_scene *s,
                        struct mm_rng *rng, bool yes, enum mm_negative negative) {
    const struct mm_things *t = &w->things;
    if (yes) {
        const struct mm_item *it = &s->item[mm_rng_below(rng, (uint32_t)s->n)];
        const struct mm_thing *thing = &t->list[it->thing];
        if (thing->shape >= 0 && mm_rng_below(rng, 2)) {
            snprintf(out, n, "%s %s %s", mm_article(mm_colour_names[it->colour]),
                     mm_colour_names[it->colour], thing->name);
        } else {
            snprintf(out, n, "%s %s", thing->article, thing->name);
        }
        return true;
    }
    int n_shapes = 0;
    for (int k = 0; k < s->n; k++) {
        n_shapes += t->list[s->item[k].thing].shape >= 0;
    }
    // As often as "yes" names a coloured shape: half of the times that the draw meets a shape.
    if (n_shapes && negative == mm_negative_adversarial &&
        mm_rng_below(rng, 2 * (uint32_t)s->n) < 2 * (uint32_t)n_shapes &&
        absent_coloured(out, n, w, s, rng, true)) {
        return true;
    }
    const int i = draw_absent(w, s, rng, negative);
    if (i < 0) return false;
    if (t->list[i].shape >= 0 && mm_rng_below(rng, 3) == 0 &&
        absent_coloured(out, n, w, s, rng, false)) {
        return true;
    }
    snprintf(out, n, "%s %s", t->list[i].article, t->list[i].name);
    return true;
}

bool mm_ask_presence(struct mm_question *q, const struct mm_world *w, const struct mm_scene *s,
                     struct mm_rng *rng, bool yes, enum mm_negative negative) {
    char name[96];
    start(q, mm_form_pope, "presence", yes);
    if (!name_wanted(name, sizeof name, w, s, rng, yes, negative)) return false;
    snprintf(q->text, sizeof q->text, "Is there %s in the image?", name);
    return true;
}

bool mm_ask_existence(struct mm_question *q, const struct mm_world *w, const struct mm_scene *s,
                      struct mm_rng *rng, bool yes) {
    char name[96];
    start(q, mm_form_mme, "existence", yes);
    const enum mm_negative negative =
        mm_rng_below(rng, 2) ? mm_negative_random : mm_negative_adversarial;
    if (!name_wanted(name, sizeof name, w, s, rng, yes, negative)) return false;
    snprintf(q->text, sizeof q->text, "Is there %s in this image?", name);
    return true;
}

bool mm_ask_count_yesno(struct mm_question *q, const struct mm_world *w, const struct mm_scene *s,
                        struct mm_rng *rng, bool yes) {
    start(q, mm_form_mme, "count", yes);
    if (s->n < 2) return false;
    const int thing = s->item[mm_rng_below(rng, (uint32_t)s->n)].thing;
    const int same = mm_scene_count(s, thing);
    const bool all = same < 2 || mm_rng_below(rng, 2);
    const int truth = all ? s->n : same;
    const int most = all ? (w->grid == 2 ? 4 : 7) : 3;
    int k = truth;
    while (!yes && k == truth) {
        k = 2 + (int)mm_rng_below(rng, (uint32_t)most - 1);
    }
    snprintf(q->text, sizeof q->text, "Are there %d %s in the image?", k,
             all ? "things" : w->things.list[thing].plural);
    return true;
}

bool mm_ask_position(struct mm_question *q, const struct mm_world *w, const struct mm_scene *s,
                     struct mm_rng *rng, bool yes) {
    start(q, mm_form_mme, "position", yes);
    if (s->n < 2) return false;
    const int a = (int)mm_rng_below(rng, (uint32_t)s->n);
    const int b = (int)mm_rng_below(rng, (uint32_t)s->n);
    char name_a[48], name_b[48];
    if (a == b || !mm_scene_refer(name_a, sizeof name_a, w, s, a) ||
        !mm_scene_refer(name_b, sizeof name_b, w, s, b)) {
        return false;
    }
    const int right = s->item[a].col - s->item[b].col, down = s->item[a].row - s->item[b].row;
    const bool across = mm_rng_below(rng, 2) != 0;
    if (across ? right == 0 : down == 0) return false;
    const char *how;
    if (across) {
        how = (right > 0) == yes ? "on the right side of" : "on the left side of";
    } else {
        how = (down > 0) == yes ? "below" : "above";
    }
    snprintf(q->text, sizeof q->text, "Is the %s %s the %s?", name_a, how, name_b);
    return true;
}

bool mm_ask_colour(struct mm_question *q, const struct mm_world *w, const struct mm_scene *s,
                   struct mm_rng *rng, bool yes) {
    start(q, mm_form_mme, "color", yes);
    const struct mm_item *it = &s->item[mm_rng_below(rng, (uint32_t)s->n)];
    const struct mm_thing *t = &w->things.list[it->thing];
    if (it->colour < 0) return false;
    uint32_t seen = 0;
    for (int i = 0; i < s->n; i++) {
        seen |= mm_scene_colours(w, &s->item[i]);
    }
    // Only of shapes is the colour of one thing asked: a banana's is known without looking.
    const bool of_one = t->shape >= 0 && mm_scene_count(s, it->thing) == 1 && mm_rng_below(rng, 3);
    int colour = it->colour;
    if (!yes && of_one) {
        // Half of the time the colour of something else in the picture, to be told apart.
        const int other = s->item[mm_rng_below(rng, (uint32_t)s->n)].colour;
        colour =
            other >= 0 && mm_rng_below(rng, 2) ? other : (int)mm_rng_below(rng, mm_colour_shapes);
        if (colour == it->colour || mm_held_out_colour(t, colour)) return false;
    } else if (!yes) {
        colour = (int)mm_rng_below(rng, mm_colour_shapes);
        if (seen >> colour & 1u) return false;
    }
    if (of_one) {
        snprintf(q->text, sizeof q->text, "Is the %s %s?", t->name, mm_colour_names[colour]);
    } else {
        snprintf(q->text, sizeof q->text, "Is there %s %s thing in the image?",
                 mm_article(mm_colour_names[colour]), mm_colour_names[colour]);
    }
    return true;
}
