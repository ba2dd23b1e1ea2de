// Questions about a scene with the answers that follow from it, in the wording of the benchmark
// whose prompt they are to practise.
#ifndef MM_SCENES_ASK_H
#define MM_SCENES_ASK_H

#include "scenes/scene.h"

enum mm_form {
    mm_form_pope,    // "Is there a dog in the image?"
    mm_form_mme,     // the same kind of question ending in "Please answer yes or no."
    mm_form_text,    // TextVQA: read the word
    mm_form_choice,  // ScienceQA: four options, answered by a letter
    mm_form_gqa,     // one word or a phrase
};

struct mm_question {
    enum mm_form form;
    const char *topic;  // the category of the test row: "existence", "place", ...
    char text[160];     // without the benchmark's instruction
    char answer[256];
    char hint[64];  // mm_form_choice: may be empty
    char option[4][40];
    int n_options;
};

enum mm_negative { mm_negative_random, mm_negative_popular, mm_negative_adversarial };

// Each asks one question that the scene can answer, or returns false when it has none of this
// sort. `yes` is the answer wanted of the yes/no questions.
typedef bool mm_ask_fn(struct mm_question *q, const struct mm_world *w, const struct mm_scene *s,
                       struct mm_rng *rng);
typedef bool mm_ask_yesno_fn(struct mm_question *q, const struct mm_world *w,
                             const struct mm_scene *s, struct mm_rng *rng, bool yes);

bool mm_ask_presence(struct mm_question *q, const struct mm_world *w, const struct mm_scene *s,
                     struct mm_rng *rng, bool yes, enum mm_negative negative);
mm_ask_yesno_fn mm_ask_existence, mm_ask_count_yesno, mm_ask_position, mm_ask_colour;
mm_ask_fn mm_ask_count, mm_ask_place, mm_ask_where, mm_ask_relation, mm_ask_compositional;
mm_ask_fn mm_ask_describe;
mm_ask_fn mm_ask_text, mm_ask_choice_which, mm_ask_choice_place, mm_ask_choice_kind;

// Up to `max` different questions for a training picture; returns how many.
int mm_ask_some(struct mm_question *q, int max, const struct mm_world *w, const struct mm_scene *s,
                struct mm_rng *rng);

// The whole prompt as the benchmark's adapter builds it from the row (SPEC of the evaluation).
void mm_ask_prompt(struct mm_buf *out, const struct mm_question *q);

// Shared by the askers -------------------------------------------------------------------------

int mm_scene_count(const struct mm_scene *s, int thing);      // how many of it are shown
int mm_scene_at(const struct mm_scene *s, int row, int col);  // item there, or -1
// "top left"; grids of 3 have a middle row and a center column.
void mm_scene_place(char *out, size_t n, const struct mm_world *w, int row, int col);
// What names item i and no other: "star", or "red star" when there are several stars.
bool mm_scene_refer(char *out, size_t n, const struct mm_world *w, const struct mm_scene *s, int i);
// The only item in the same row (dx) or column (dy) on that side of item i, or -1.
int mm_scene_beside(const struct mm_scene *s, int i, int dx, int dy);
uint32_t mm_scene_colours(const struct mm_world *w, const struct mm_item *it);  // noticeable ones
// The one item that is clearly of this colour when nothing else shows any of it, or -1.
int mm_scene_only_coloured(const struct mm_world *w, const struct mm_scene *s, int colour);

#endif
