// What a world is made of: things with names, colours and kinds; words; and the pairs that no
// training picture shows together. Nothing here knows about pixels but the bitmaps it holds.
#ifndef MM_SCENES_THINGS_H
#define MM_SCENES_THINGS_H

#include <stdbool.h>
#include <stdint.h>
#include "base/rng.h"
#include "base/status.h"

enum mm_shape {
    mm_shape_none = -1,
    mm_shape_circle,
    mm_shape_square,
    mm_shape_triangle,
    mm_shape_star,
    mm_shape_ring,
    mm_shape_cross,
    mm_shape_diamond,
    mm_shape_heart,
    mm_shape_count,
};

enum {
    mm_colour_none = -1,
    mm_colour_red,
    mm_colour_orange,
    mm_colour_yellow,
    mm_colour_green,
    mm_colour_blue,
    mm_colour_purple,
    mm_colour_pink,
    mm_colour_brown,
    mm_colour_black,
    mm_colour_white,
    mm_colour_gray,
    mm_colour_count,
    mm_colour_shapes = mm_colour_gray,  // shapes are painted in the colours before this one
};

extern const char *const mm_colour_names[mm_colour_count];
extern const uint8_t mm_colour_rgb[mm_colour_count][3];

// A picture of a thing: premultiplied RGBA.
struct mm_sprite {
    int32_t width, height;
    uint8_t *rgba;  // (height, width, 4)
};

struct mm_thing {
    uint32_t code;         // Unicode code point; 0 for shapes and stamps
    enum mm_shape shape;   // mm_shape_none for pictures
    char *name;            // "dog": singular, lower case
    char *plural;          // "dogs"
    const char *article;   // "a" or "an"
    char *kind;            // "animal", or NULL: takes no part in questions about kind
    char *family;          // Unicode subgroup; look-alikes share one
    int colour;            // dominant colour, mm_colour_none when not clear; shapes: none
    uint32_t colour_mask;  // every colour with a noticeable share of the picture
    int rank;              // place among the everyday things, from 1; 0: not among them
    struct mm_sprite sprite;
};

struct mm_words {
    int n;
    char (*list)[5];  // NULL: random letters, three or four
};

struct mm_things {
    int n;         // pictures of things first, then the shapes
    int n_shapes;  // the last n_shapes of list
    struct mm_thing *list;
    const char *kinds[24];  // every kind that at least two things have
    int n_kinds;
    struct mm_words words;
};

// One row of tools/scenes/things.tsv.
struct mm_table_row {
    uint32_t code;
    char *name, *word, *group, *subgroup, *kind;  // word NULL: not used in pictures
    int rank;
    int colour;
    uint32_t colour_mask;
};
struct mm_table {
    int n;
    struct mm_table_row *rows;
};
// with_colours: the two last columns must be there. path "-" is standard input.
enum mm_code mm_table_open(struct mm_table *t, const char *path, bool with_colours,
                           struct mm_error *err);
void mm_table_free(struct mm_table *t);

// The first n things in the order of their rank, then of a fixed shuffle; and the shapes. n = 0
// takes all. Sprites stay empty. mm_code_usage when the table has fewer than n.
enum mm_code mm_things_choose(struct mm_things *w, const struct mm_table *t, int n, bool shapes,
                              struct mm_error *err);
// Appends things, shapes kept last; takes over the strings and the sprite of *extra.
void mm_things_add(struct mm_things *w, struct mm_thing *extra);
void mm_things_finish(struct mm_things *w);  // fills kinds; after the last add
void mm_things_free(struct mm_things *w);

char *mm_plural(const char *name);  // malloc'ed
const char *mm_article(const char *name);

// "short:N": N fixed pronounceable words of three and four capitals; "random": any capitals.
enum mm_code mm_words_parse(struct mm_words *words, const char *text, struct mm_error *err);
void mm_words_draw(const struct mm_words *words, struct mm_rng *rng, char out[5]);

// Combinations kept out of training: a function of the two things alone, not of any seed, so
// that every world agrees. About one pair of pictures in 25, and one colour of each shape.
bool mm_held_out_pair(const struct mm_thing *a, const struct mm_thing *b);
bool mm_held_out_colour(const struct mm_thing *shape, int colour);

#endif
