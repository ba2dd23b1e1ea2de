// FreeType: colour bitmaps of the emoji font, letters of the DejaVu fonts.
#include <ft2build.h>
#include FT_FREETYPE_H
#include <stdlib.h>
#include <string.h>
#include "io/file.h"
#include "scenes/paint.h"

static const char *const font_files[mm_fonts_count] = {
    "DejaVuSans.ttf",      "DejaVuSerif.ttf",      "DejaVuSansMono.ttf",
    "DejaVuSans-Bold.ttf", "DejaVuSerif-Bold.ttf", "DejaVuSansMono-Bold.ttf",
};

enum { first_char = 32, n_chars = 95, n_sizes = mm_fonts_max_px - mm_fonts_min_px + 1 };

struct glyph {
    int left, top, width, height, advance;  // pixels; top above the baseline
    uint8_t *alpha;                         // (height, width)
};
struct mm_fonts {
    struct glyph glyph[mm_fonts_count][n_sizes][n_chars];
};

static const struct glyph *glyph_of(const struct mm_fonts *f, int font, int px, char ch) {
    const int c = (unsigned char)ch - first_char;
    return &f->glyph[font][px - mm_fonts_min_px][c >= 0 && c < n_chars ? c : '?' - first_char];
}

// Unhinted, so that the same pixels come out of every FreeType build.
static enum mm_code load_glyph(struct glyph *g, FT_Face face, int ch, const char *path,
                               struct mm_error *err) {
    if (FT_Load_Char(face, (FT_ULong)ch, FT_LOAD_RENDER | FT_LOAD_NO_HINTING | FT_LOAD_NO_BITMAP)) {
        return mm_fail(err, mm_code_input, "%s: cannot draw character U+%04X", path, (unsigned)ch);
    }
    const FT_GlyphSlot slot = face->glyph;
    const FT_Bitmap *b = &slot->bitmap;
    g->left = slot->bitmap_left;
    g->top = slot->bitmap_top;
    g->width = (int)b->width;
    g->height = (int)b->rows;
    g->advance = (int)((slot->advance.x + 32) >> 6);
    if (b->width && b->rows) {
        g->alpha = mm_xmalloc((size_t)b->width * b->rows);
        for (unsigned y = 0; y < b->rows; y++) {
            memcpy(g->alpha + (size_t)y * b->width, b->buffer + (ptrdiff_t)y * b->pitch, b->width);
        }
    }
    return mm_code_ok;
}

static enum mm_code load_font(struct mm_fonts *f, int font, FT_Library library, const char *path,
                              struct mm_error *err) {
    FT_Face face;
    if (FT_New_Face(library, path, 0, &face)) {
        return mm_fail(err, mm_code_io, "cannot open the font %s: apt install fonts-dejavu-core",
                       path);
    }
    enum mm_code code = mm_code_ok;
    for (int s = 0; s < n_sizes && code == mm_code_ok; s++) {
        if (FT_Set_Pixel_Sizes(face, 0, (FT_UInt)(mm_fonts_min_px + s))) {
            code = mm_fail(err, mm_code_input, "%s: cannot be scaled", path);
        }
        for (int c = 0; c < n_chars && code == mm_code_ok; c++) {
            code = load_glyph(&f->glyph[font][s][c], face, first_char + c, path, err);
        }
    }
    FT_Done_Face(face);
    return code;
}

enum mm_code mm_fonts_open(struct mm_fonts **fonts, const char *folder, struct mm_error *err) {
    FT_Library library;
    if (FT_Init_FreeType(&library)) {
        return mm_fail(err, mm_code_memory, "FreeType does not start");
    }
    struct mm_fonts *f = mm_xcalloc(1, sizeof *f);
    enum mm_code code = mm_code_ok;
    for (int i = 0; i < mm_fonts_count && code == mm_code_ok; i++) {
        char *path = mm_path_join(folder, font_files[i]);
        code = load_font(f, i, library, path, err);
        free(path);
    }
    FT_Done_FreeType(library);
    if (code != mm_code_ok) {
        mm_fonts_close(f);
        f = NULL;
    }
    *fonts = f;
    return code;
}

void mm_fonts_close(struct mm_fonts *f) {
    if (!f) return;
    struct glyph *g = &f->glyph[0][0][0];
    for (int i = 0; i < mm_fonts_count * n_sizes * n_chars; i++) {
        free(g[i].alpha);
    }
    free(f);
}

int mm_fonts_width(const struct mm_fonts *f, int font, int px, const char *text) {
    int w = 0;
    for (; *text; text++) {
        w += glyph_of(f, font, px, *text)->advance;
    }
    return w;
}

int mm_fonts_ascent(const struct mm_fonts *f, int font, int px) {
    return glyph_of(f, font, px, 'H')->top;
}

void mm_paint_text(struct mm_canvas *c, const struct mm_fonts *f, int font, int px, int x,
                   int baseline, const char *text, const uint8_t rgb[3]) {
    for (; *text; text++) {
        const struct glyph *g = glyph_of(f, font, px, *text);
        for (int gy = 0; gy < g->height; gy++) {
            const int py = baseline - g->top + gy;
            if (py < 0 || py >= c->height) continue;
            for (int gx = 0; gx < g->width; gx++) {
                const int at = x + g->left + gx;
                if (at < 0 || at >= c->width) continue;
                const int a = g->alpha[gy * g->width + gx];
                uint8_t *out = c->rgb + 3 * (py * c->width + at);
                for (int k = 0; k < 3; k++) {
                    out[k] = (uint8_t)((rgb[k] * a + out[k] * (255 - a) + 127) / 255);
                }
            }
        }
        x += g->advance;
    }
}

static enum mm_code load_sprite(struct mm_thing *t, FT_Face face, const char *path,
                                struct mm_error *err) {
    const FT_UInt index = FT_Get_Char_Index(face, t->code);
    if (!index || FT_Load_Glyph(face, index, FT_LOAD_COLOR) ||
        face->glyph->bitmap.pixel_mode != FT_PIXEL_MODE_BGRA) {
        return mm_fail(err, mm_code_input, "%s: no colour bitmap for U+%04X ('%s')", path,
                       (unsigned)t->code, t->name);
    }
    const FT_Bitmap *b = &face->glyph->bitmap;
    t->sprite.width = (int32_t)b->width;
    t->sprite.height = (int32_t)b->rows;
    t->sprite.rgba = mm_xmalloc((size_t)b->width * b->rows * 4);
    for (unsigned y = 0; y < b->rows; y++) {
        const uint8_t *from = b->buffer + (ptrdiff_t)y * b->pitch;
        uint8_t *to = t->sprite.rgba + (size_t)y * b->width * 4;
        for (unsigned x = 0; x < b->width; x++, from += 4, to += 4) {
            to[0] = from[2], to[1] = from[1], to[2] = from[0], to[3] = from[3];
        }
    }
    return mm_code_ok;
}

enum mm_code mm_emoji_load(struct mm_thing *things, int n, const char *font_path,
                           struct mm_error *err) {
    FT_Library library;
    if (FT_Init_FreeType(&library)) {
        return mm_fail(err, mm_code_memory, "FreeType does not start");
    }
    FT_Face face;
    enum mm_code code = mm_code_ok;
    if (FT_New_Face(library, font_path, 0, &face)) {
        code = mm_fail(err, mm_code_io,
                       "cannot open the font %s: apt install "
                       "fonts-noto-color-emoji",
                       font_path);
    } else {
        if (face->num_fixed_sizes < 1 || FT_Select_Size(face, 0)) {
            code = mm_fail(err, mm_code_input, "%s: has no bitmaps", font_path);
        }
        for (int i = 0; i < n && code == mm_code_ok; i++) {
            if (things[i].code) code = load_sprite(&things[i], face, font_path, err);
        }
        FT_Done_Face(face);
    }
    FT_Done_FreeType(library);
    return code;
}
