// What scenes can be asked: lookups shared by all askers, the mixture of a training picture, and
// the prompts.
#include "scenes/ask.h"

#include <stdio.h>
#include <string.h>

int mm_scene_count(const struct mm_scene *s, int thing) {
    int n = 0;
    for (int i = 0; i < s->n; i++) {
        n += s->item[i].thing == thing;
    }
    return n;
}

int mm_scene_at(const struct mm_scene *s, int row, int col) {
    for (int i = 0; i < s->n; i++) {
        if (s->item[i].row == row && s->item[i].col == col) return i;
    }
    return -1;
}

void mm_scene_place(char *out, size_t n, const struct mm_world *w, int row, int col) {
    static const char *const rows[2][3] = {{"top", "bottom", ""}, {"top", "middle", "bottom"}};
    static const char *const cols[2][3] = {{"left", "right", ""}, {"left", "center", "right"}};
    if (w->grid == 3 && row == 1 && col == 1) {
        snprintf(out, n, "center");
        return;
    }
    snprintf(out, n, "%s %s", rows[w->grid - 2][row], cols[w->grid - 2][col]);
}

bool mm_scene_refer(char *out, size_t n, const struct mm_world *w, const struct mm_scene *s,
                    int i) {
    const struct mm_item *it = &s->item[i];
    const struct mm_thing *t = &w->things.list[it->thing];
    if (mm_scene_count(s, it->thing) == 1) {
        snprintf(out, n, "%s", t->name);
        return true;
    }
    if (t->shape < 0) return false;
    for (int j = 0; j < s->n; j++) {
        if (j != i && s->item[j].thing == it->thing && s->item[j].colour == it->colour) {
            return false;
        }
    }
    snprintf(out, n, "%s %s", mm_colour_names[it->colour], t->name);
    return true;
}

int mm_scene_beside(const struct mm_scene *s, int i, int dx, int dy) {
    int found = -1;
    for (int j = 0; j < s->n; j++) {
        const int right = s->item[j].col - s->item[i].col, down = s->item[j].row - s->item[i].row;
        if (dx ? down != 0 || right * dx <= 0 : right != 0 || down * dy <= 0) continue;
        if (found >= 0) return -1;
        found = j;
    }
    return found;
}

uint32_t mm_scene_colours(const struct mm_world *w, const struct mm_item *it) {
    const struct mm_thing *t = &w->things.list[it->thing];
    return t->shape >= 0 ? 1u << it->colour : t->colour_mask;
}

int mm_scene_only_coloured(const struct mm_world *w, const struct mm_scene *s, int colour) {
    int found = -1;
    for (int i = 0; i < s->n; i++) {
        if (s->item[i].colour == colour) {
            if (found >= 0) return -1;
            found = i;
        } else if (mm_scene_colours(w, &s->item[i]) >> colour & 1u) {
            return -1;
        }
    }
    return found;
}

static bool presence_any(struct mm_question *q, const struct mm_world *w, const struct mm_scene *s,
                         struct mm_rng *rng) {
    const bool yes = mm_rng_below(rng, 2) != 0;
    // Half of the no's ask for a look-alike of something shown.
    const enum mm_negative negative =
        mm_rng_below(rng, 2) ? mm_negative_adversarial : mm_negative_random;
    return mm_ask_presence(q, w, s, rng, yes, negative);
}

// The mixture of training questions. Weights are shares of what is tried, so questions that few
// pictures can answer stand with more than they get.
static const struct {
    int weight;
    mm_ask_fn *ask;
    mm_ask_yesno_fn *ask_yesno;
} mixture[] = {
    {13, presence_any, NULL},       {5, NULL, mm_ask_existence},   {10, mm_ask_count, NULL},
    {6, NULL, mm_ask_count_yesno},  {13, mm_ask_place, NULL},      {5, mm_ask_where, NULL},
    {22, mm_ask_relation, NULL},    {9, NULL, mm_ask_position},    {11, mm_ask_compositional, NULL},
    {7, NULL, mm_ask_colour},       {50, mm_ask_text, NULL},       {4, mm_ask_choice_which, NULL},
    {5, mm_ask_choice_place, NULL}, {4, mm_ask_choice_kind, NULL},
};
enum { n_mixture = sizeof mixture / sizeof mixture[0], insist = 30 };

static bool ask_one(struct mm_question *q, const struct mm_world *w, const struct mm_scene *s,
                    struct mm_rng *rng) {
    int total = 0;
    for (int i = 0; i < n_mixture; i++) {
        total += mixture[i].weight;
    }
    int at = (int)mm_rng_below(rng, (uint32_t)total), i = 0;
    while (at >= mixture[i].weight) {
        at -= mixture[i++].weight;
    }
    // What is drawn is insisted on, the sort of question and the answer of yes/no questions: to
    // give up at the first draw that fails would leave more of the easier ones.
    const bool yes = mm_rng_below(rng, 2) != 0;
    for (int tries = 0; tries < insist; tries++) {
        if (mixture[i].ask ? mixture[i].ask(q, w, s, rng)
                           : mixture[i].ask_yesno(q, w, s, rng, yes)) {
            return true;
        }
    }
    return false;
}

int mm_ask_some(struct mm_question *q, int max, const struct mm_world *w, const struct mm_scene *s,
                struct mm_rng *rng) {
    int n = 0;
    for (int tries = 0; tries < 200 && n < max - 1; tries++) {
        if (!ask_one(&q[n], w, s, rng)) continue;
        bool fresh = true;
        for (int i = 0; i < n && fresh; i++) {
            // Neither the same question twice nor two that ask for the word.
            fresh = q[i].form != q[n].form ||
                    (q[n].form != mm_form_text && strcmp(q[i].text, q[n].text) != 0);
        }
        n += fresh;
    }
    if (mm_rng_f32(rng) >= (float)w->describe_share) return n;
    // Last: in front, the other answers could be read off the text instead of the picture.
    return n + mm_ask_describe(&q[n], w, s, rng);
}

void mm_ask_prompt(struct mm_buf *out, const struct mm_question *q) {
    static const char brief[] = "Answer the question using a single word or phrase.";
    if (q->hint[0]) mm_buf_addf(out, "%s\n", q->hint);
    mm_buf_adds(out, q->text);
    switch (q->form) {
        case mm_form_mme:
            mm_buf_addf(out, " Please answer yes or no.%s", brief);
            break;
        case mm_form_gqa:
            mm_buf_addf(out, " %s", brief);
            break;
        case mm_form_choice:
            for (int i = 0; i < q->n_options; i++) {
                mm_buf_addf(out, "\n%c. %s", 'A' + i, q->option[i]);
            }
            mm_buf_adds(out, "\nAnswer with the option's letter from the given choices directly.");
            break;
        case mm_form_pope:
        case mm_form_text:
            mm_buf_addf(out, "\n%s", brief);
            break;
    }
}
