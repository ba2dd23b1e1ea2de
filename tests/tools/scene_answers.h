// Answers to questions about a dumped scene, worked out again from the words of the question. It
// shares no code with tools/scenes.
#ifndef MM_TESTS_SCENE_ANSWERS_H
#define MM_TESTS_SCENE_ANSWERS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

enum { max_things = 16 };

struct seen {
    const char *name, *plural, *kind, *colour;  // borrowed from the JSON
    const json_t *colours;
    bool shape;
    int row, col;
};
struct dumped {
    const char *split, *word;  // word: NULL without a label
    int grid, n;
    struct seen thing[max_things];
    const json_t *questions;
};

// False, with the reason printed, when the line lacks something.
bool dumped_read(struct dumped *d, const json_t *line);

// The answer of a question; options (n_options 0 or 4) are the texts of multiple choice, whose
// answer is a letter. False, with the reason printed, when the question has none or two.
bool answer_of(char *out, size_t n, const struct dumped *d, const char *question,
               const char *const *options, int n_options);

#endif
