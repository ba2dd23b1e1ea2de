// Questions answered by a word, a number or a letter: counting, places, relations, reading,
// compositions of these (GQA), and multiple choice (ScienceQA).
#include <stdio.h>
#include <string.h>
#include "scenes/ask.h"

static void start(struct mm_question *q, enum mm_form form, const char *topic) {
    *q = (struct mm_question){.form = form, .topic = topic};
}

static const char *name_of(const struct mm_world *w, const struct mm_item *it) {
    return w->things.list[it->thing].name;
}

static int draw_item(const struct mm_scene *s, struct mm_rng *rng) {
    return (int)mm_rng_below(rng, (uint32_t)s->n);
}

static const char *const side_words[4] = {"left of", "right of", "above", "below"};
static const int side_dx[4] = {-1, 1, 0, 0}, side_dy[4] = {0, 0, -1, 1};

bool mm_ask_count(struct mm_question *q, const struct mm_world *w, const struct mm_scene *s,
                  struct mm_rng *rng) {
    start(q, mm_form_gqa, "count");
    if (mm_rng_below(rng, 2)) {
        snprintf(q->text, sizeof q->text, "How many things are there in the image?");
        snprintf(q->answer, sizeof q->answer, "%d", s->n);
        return true;
    }
    int thing = s->item[draw_item(s, rng)].thing;
    if (mm_rng_below(rng, 8) == 0) thing = (int)mm_rng_below(rng, (uint32_t)w->things.n);
    const int n = mm_scene_count(s, thing);
    if (n == 1 && mm_rng_below(rng, 3)) return false;  // or "1" would nearly always be right
    snprintf(q->text, sizeof q->text, "How many %s are there in the image?",
             w->things.list[thing].plural);
    snprintf(q->answer, sizeof q->answer, "%d", n);
    return true;
}

bool mm_ask_place(struct mm_question *q, const struct mm_world *w, const struct mm_scene *s,
                  struct mm_rng *rng) {
    start(q, mm_form_gqa, "place");
    const struct mm_item *it = &s->item[draw_item(s, rng)];
    char place[32];
    mm_scene_place(place, sizeof place, w, it->row, it->col);
    snprintf(q->text, sizeof q->text, "What is at the %s?", place);
    snprintf(q->answer, sizeof q->answer, "%s", name_of(w, it));
    return true;
}

bool mm_ask_where(struct mm_question *q, const struct mm_world *w, const struct mm_scene *s,
                  struct mm_rng *rng) {
    start(q, mm_form_gqa, "place");
    const int i = draw_item(s, rng);
    char name[48];
    if (!mm_scene_refer(name, sizeof name, w, s, i)) return false;
    snprintf(q->text, sizeof q->text, "Where is the %s?", name);
    mm_scene_place(q->answer, sizeof q->answer, w, s->item[i].row, s->item[i].col);
    return true;
}

bool mm_ask_relation(struct mm_question *q, const struct mm_world *w, const struct mm_scene *s,
                     struct mm_rng *rng) {
    start(q, mm_form_gqa, "relation");
    const int i = draw_item(s, rng), side = (int)mm_rng_below(rng, 4);
    const int j = mm_scene_beside(s, i, side_dx[side], side_dy[side]);
    char name[48];
    if (j < 0 || !mm_scene_refer(name, sizeof name, w, s, i)) return false;
    snprintf(q->text, sizeof q->text, "What is %s the %s?", side_words[side], name);
    snprintf(q->answer, sizeof q->answer, "%s", name_of(w, &s->item[j]));
    return true;
}

enum composition {
    beside_coloured,  // "What is left of the red thing?"
    colour_beside,    // "What color is the thing left of the dog?"
    colour_at,        // "What color is the thing at the top left?"
    colour_of,        // "What color is the star?"
    where_coloured,   // "Where is the red thing?"
    n_compositions,
};

static bool compose(struct mm_question *q, const struct mm_world *w, const struct mm_scene *s,
                    struct mm_rng *rng, enum composition what) {
    const int i = draw_item(s, rng), side = (int)mm_rng_below(rng, 4);
    const struct mm_item *it = &s->item[i];
    const int j = mm_scene_beside(s, i, side_dx[side], side_dy[side]);
    const bool only = it->colour >= 0 && mm_scene_only_coloured(w, s, it->colour) == i;
    const char *colour = it->colour >= 0 ? mm_colour_names[it->colour] : NULL;
    char text[48];
    switch (what) {
        case beside_coloured:
            if (j < 0 || !only) return false;
            snprintf(q->text, sizeof q->text, "What is %s the %s thing?", side_words[side], colour);
            snprintf(q->answer, sizeof q->answer, "%s", name_of(w, &s->item[j]));
            return true;
        case colour_beside:
            if (j < 0 || s->item[j].colour < 0) return false;
            if (!mm_scene_refer(text, sizeof text, w, s, i)) return false;
            snprintf(q->text, sizeof q->text, "What color is the thing %s the %s?",
                     side_words[side], text);
            snprintf(q->answer, sizeof q->answer, "%s", mm_colour_names[s->item[j].colour]);
            return true;
        case colour_at:
            if (!colour) return false;
            mm_scene_place(text, sizeof text, w, it->row, it->col);
            snprintf(q->text, sizeof q->text, "What color is the thing at the %s?", text);
            snprintf(q->answer, sizeof q->answer, "%s", colour);
            return true;
        case colour_of:
            if (w->things.list[it->thing].shape < 0 || mm_scene_count(s, it->thing) > 1) {
                return false;
            }
            snprintf(q->text, sizeof q->text, "What color is the %s?", name_of(w, it));
            snprintf(q->answer, sizeof q->answer, "%s", colour);
            return true;
        case where_coloured:
            if (!only) return false;
            snprintf(q->text, sizeof q->text, "Where is the %s thing?", colour);
            mm_scene_place(q->answer, sizeof q->answer, w, it->row, it->col);
            return true;
        case n_compositions:
            break;
    }
    return false;
}

bool mm_ask_compositional(struct mm_question *q, const struct mm_world *w, const struct mm_scene *s,
                          struct mm_rng *rng) {
    start(q, mm_form_gqa, "compositional");
    // The first of these five is the point of the topic, and the one that pictures can least
    // often be asked: it is tried twice as often, and each for a while before another one.
    const uint32_t draw = mm_rng_below(rng, n_compositions + 1);
    const enum composition what = draw < n_compositions ? (enum composition)draw : beside_coloured;
    for (int tries = 0; tries < 20; tries++) {
        if (compose(q, w, s, rng, what)) return true;
    }
    return false;
}

// Names everything in reading order: "top left cat, bottom right key". Only in training: an answer
// that says something of every place teaches a small model to look long before yes and no do.
bool mm_ask_describe(struct mm_question *q, const struct mm_world *w, const struct mm_scene *s,
                     struct mm_rng *rng) {
    (void)rng;
    start(q, mm_form_gqa, "describe");
    snprintf(q->text, sizeof q->text, "What is in the image?");
    size_t used = 0;
    for (int row = 0; row < w->grid; row++) {
        for (int col = 0; col < w->grid; col++) {
            const int i = mm_scene_at(s, row, col);
            if (i < 0) continue;
            char place[32];
            mm_scene_place(place, sizeof place, w, row, col);
            used += (size_t)snprintf(q->answer + used, sizeof q->answer - used, "%s%s %s",
                                     used ? ", " : "", place, name_of(w, &s->item[i]));
            if (used >= sizeof q->answer) return false;  // more than fits is not half said
        }
    }
    return true;
}

bool mm_ask_text(struct mm_question *q, const struct mm_world *w, const struct mm_scene *s,
                 struct mm_rng *rng) {
    (void)w;
    start(q, mm_form_text, "text");
    if (!s->labelled) return false;
    snprintf(q->text, sizeof q->text, "%s",
             mm_rng_below(rng, 4) ? "what is written in the image?" : "what does the label say?");
    snprintf(q->answer, sizeof q->answer, "%s", s->word);
    return true;
}

// Puts the right option at a random letter among wrong ones, which must already stand in 1..3.
static void shuffle_options(struct mm_question *q, const struct mm_scene *s, struct mm_rng *rng) {
    const int at = (int)mm_rng_below(rng, 4);
    char right[sizeof q->option[0]];
    memcpy(right, q->option[0], sizeof right);
    memcpy(q->option[0], q->option[at], sizeof right);
    memcpy(q->option[at], right, sizeof right);
    q->n_options = 4;
    snprintf(q->answer, sizeof q->answer, "%c", 'A' + at);
    if (mm_rng_below(rng, 4) == 0) {
        snprintf(q->hint, sizeof q->hint, "Things in the image: %d.", s->n);
    }
}

static bool has_option(const struct mm_question *q, int n, const char *text) {
    for (int i = 0; i < n; i++) {
        // An option inside another one ("bus" in "bus stop") would make answers ambiguous.
        if (strstr(q->option[i], text) || strstr(text, q->option[i])) return true;
    }
    return false;
}

// Fills options n..3 with names of things, absent ones only.
static bool fill_absent(struct mm_question *q, int n, const struct mm_world *w,
                        const struct mm_scene *s, struct mm_rng *rng) {
    for (int tries = 0; tries < 200 && n < 4; tries++) {
        const int i = (int)mm_rng_below(rng, (uint32_t)w->things.n);
        const char *name = w->things.list[i].name;
        if (mm_scene_count(s, i) || has_option(q, n, name)) continue;
        snprintf(q->option[n++], sizeof q->option[0], "%s", name);
    }
    return n == 4;
}

bool mm_ask_choice_which(struct mm_question *q, const struct mm_world *w, const struct mm_scene *s,
                         struct mm_rng *rng) {
    start(q, mm_form_choice, "which");
    const struct mm_item *it = &s->item[draw_item(s, rng)];
    snprintf(q->text, sizeof q->text, "Which of these is in the image?");
    snprintf(q->option[0], sizeof q->option[0], "%s", name_of(w, it));
    if (!fill_absent(q, 1, w, s, rng)) return false;
    shuffle_options(q, s, rng);
    return true;
}

bool mm_ask_choice_place(struct mm_question *q, const struct mm_world *w, const struct mm_scene *s,
                         struct mm_rng *rng) {
    start(q, mm_form_choice, "place");
    const struct mm_item *it = &s->item[draw_item(s, rng)];
    char place[32];
    mm_scene_place(place, sizeof place, w, it->row, it->col);
    snprintf(q->text, sizeof q->text, "What is at the %s?", place);
    snprintf(q->option[0], sizeof q->option[0], "%s", name_of(w, it));
    int n = 1;
    for (int i = 0; i < s->n && n < 4; i++) {  // what else is shown tempts most
        const char *name = name_of(w, &s->item[i]);
        if (!has_option(q, n, name)) snprintf(q->option[n++], sizeof q->option[0], "%s", name);
    }
    if (!fill_absent(q, n, w, s, rng)) return false;
    shuffle_options(q, s, rng);
    return true;
}

bool mm_ask_choice_kind(struct mm_question *q, const struct mm_world *w, const struct mm_scene *s,
                        struct mm_rng *rng) {
    start(q, mm_form_choice, "kind");
    const struct mm_item *it = &s->item[draw_item(s, rng)];
    const char *kind = w->things.list[it->thing].kind;
    if (!kind || w->things.n_kinds < 4) return false;
    char place[32];
    mm_scene_place(place, sizeof place, w, it->row, it->col);
    snprintf(q->text, sizeof q->text, "What kind of thing is at the %s?", place);
    snprintf(q->option[0], sizeof q->option[0], "%s", kind);
    int n = 1;
    for (int tries = 0; tries < 200 && n < 4; tries++) {
        const char *other = w->things.kinds[mm_rng_below(rng, (uint32_t)w->things.n_kinds)];
        if (!has_option(q, n, other)) snprintf(q->option[n++], sizeof q->option[0], "%s", other);
    }
    if (n < 4) return false;
    shuffle_options(q, s, rng);
    return true;
}
