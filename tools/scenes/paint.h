// Pixels: a canvas, things, shapes and words on it; the fonts they come from; colours measured.
#ifndef MM_SCENES_PAINT_H
#define MM_SCENES_PAINT_H

#include <stddef.h>
#include "scenes/things.h"
#include "base/buf.h"

struct mm_canvas {
    int32_t width, height;
    uint8_t *rgb;  // (height, width, 3)
};

// A flat or graded background: corner colours blended along a direction; `marks` faint strokes.
struct mm_ground {
    uint8_t from[3], to[3];
    double angle;  // radians; direction of the grading
    int marks;     // strokes of clutter
    uint64_t mark_seed;
};
void mm_paint_ground(struct mm_canvas *c, const struct mm_ground *g);

// The sprite centred at (x, y), its longer side `size` pixels, turned by `angle` radians.
void mm_paint_sprite(struct mm_canvas *c, const struct mm_sprite *s, double x, double y,
                     double size, double angle);
// A drawn shape with a thin contour that keeps it visible on any ground.
void mm_paint_shape(struct mm_canvas *c, enum mm_shape shape, int colour, double x, double y,
                    double size, double angle);

// Letters of the DejaVu fonts, rasterised once in every size the pictures use.
struct mm_fonts;
enum { mm_fonts_count = 6, mm_fonts_min_px = 9, mm_fonts_max_px = 17 };
enum mm_code mm_fonts_open(struct mm_fonts **fonts, const char *folder, struct mm_error *err);
void mm_fonts_close(struct mm_fonts *fonts);
int mm_fonts_width(const struct mm_fonts *f, int font, int px, const char *text);  // pixels
int mm_fonts_ascent(const struct mm_fonts *f, int font, int px);                   // of capitals
// Printable ASCII with the pen starting at (x, baseline).
void mm_paint_text(struct mm_canvas *c, const struct mm_fonts *f, int font, int px, int x,
                   int baseline, const char *text, const uint8_t rgb[3]);
// A white label of w x h pixels with its top left corner at (x, y).
void mm_paint_box(struct mm_canvas *c, int x, int y, int w, int h, const uint8_t rgb[3]);

// Loads the colour bitmap of every thing with a code point. mm_code_input when the font lacks one.
enum mm_code mm_emoji_load(struct mm_thing *things, int n, const char *font_path,
                           struct mm_error *err);

// Shares of the opaque pixels by colour word, and what can be said about the whole: *dominant is
// mm_colour_none unless one colour clearly rules; *mask has every colour with a share over 8%.
void mm_colours_measure(const struct mm_sprite *s, int *dominant, uint32_t *mask);

// Encoded picture, appended to *out. quality 0: PNG, else JPEG of that quality.
enum mm_code mm_picture_encode(struct mm_buf *out, const struct mm_canvas *c, int quality,
                               struct mm_error *err);

#endif
