// One picture before it is painted: which things stand in which cells of the grid, and the word
// on the label. Questions are asked of this, never of pixels.
#ifndef MM_SCENES_SCENE_H
#define MM_SCENES_SCENE_H

#include "scenes/paint.h"
#include "scenes/things.h"

enum { mm_scene_max_grid = 3, mm_scene_max_items = mm_scene_max_grid * mm_scene_max_grid };

struct mm_world {
    struct mm_things things;
    struct mm_fonts *fonts;
    int size;               // pixels a side
    int grid;               // cells a side, 2..mm_scene_max_grid
    double describe_share;  // of the training pictures, how many are described as well
    double shape_share;     // of the things in a picture, how many are drawn shapes
    double max_angle;       // radians
    int marks;              // strokes of clutter, at most
    uint64_t seed;
};

struct mm_item {
    int thing;   // index in things.list
    int colour;  // a shape's paint, a picture's dominant colour, or mm_colour_none
    int row, col;
    double x, y, size, angle;  // pixels, radians
};

struct mm_scene {
    int n;
    struct mm_item item[mm_scene_max_items];
    bool labelled;
    char word[5];
    int word_row, word_col, font, px;
    int box_x, box_y, box_w, box_h;
    struct mm_ground ground;
};

enum mm_held {
    mm_held_never,   // no held-out combination: training and the usual tests
    mm_held_always,  // at least one: the heldout_ tests
};

// The scene of a split at an index: a function of the world's seed, the split's name and index.
void mm_scene_compose(struct mm_scene *s, const struct mm_world *w, const char *split,
                      int64_t index, enum mm_held held);
void mm_scene_paint(const struct mm_scene *s, const struct mm_world *w, struct mm_canvas *c);

// The generator a scene's questions draw from, apart from the one that composed it.
struct mm_rng mm_scene_rng(const struct mm_world *w, const char *split, int64_t index);
// Does the scene show a held-out combination?
bool mm_scene_held_out(const struct mm_scene *s, const struct mm_things *things);

#endif
