// Finds stamps, makes names of their captions, reads their pixels.
#include "scenes/stamps.h"

#include <ctype.h>
#include <errno.h>
#include <ftw.h>
#include <png.h>
#include <stdlib.h>
#include <string.h>
#include "base/buf.h"
#include "base/log.h"
#include "io/file.h"
#include "scenes/paint.h"

enum { max_side = 160, max_source = 4096, max_name = 40 };

static struct {  // nftw has no argument to pass these in
    char **path;
    size_t n;
} found;

static int visit(const char *path, const struct stat *st, int type, struct FTW *ftw) {
    (void)st, (void)ftw;
    const size_t n = strlen(path);
    if (type != FTW_F || n < 5 || strcmp(path + n - 4, ".png") != 0) return 0;
    found.path = mm_xrealloc(found.path, (found.n + 1) * sizeof *found.path);
    found.path[found.n++] = mm_xstrdup(path);
    return 0;
}

static int by_name(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

// The first line of the caption without its article and full stop, in lower case. False when it
// is not one to three plain singular words.
static bool name_of(const char *png, char name[max_name]) {
    char *path = mm_xasprintf("%.*s.txt", (int)strlen(png) - 4, png);
    struct mm_buf text = {0};
    const enum mm_code code = mm_file_read(&text, path, 1 << 20, NULL);
    free(path);
    if (code != mm_code_ok || !text.data) {
        mm_buf_free(&text);
        return false;
    }
    char *line = text.data;
    line[strcspn(line, "\r\n")] = 0;
    bool article = false;
    for (char *p = line; *p; p++) {
        *p = (char)tolower((unsigned char)*p);
    }
    if (!strncmp(line, "a ", 2)) line += 2, article = true;
    if (!article && !strncmp(line, "an ", 3)) line += 3, article = true;
    size_t n = strlen(line), words = 1;
    if (n > 0 && line[n - 1] == '.') line[--n] = 0;
    bool ok = article && n > 1 && n < max_name && !strstr(line, " of ");  // "a pair of pants"
    for (size_t i = 0; i < n && ok; i++) {
        words += line[i] == ' ';
        ok = line[i] == ' ' || (line[i] >= 'a' && line[i] <= 'z');
    }
    ok = ok && words <= 3;
    if (ok) memcpy(name, line, n + 1);
    mm_buf_free(&text);
    return ok;
}

// Reads RGBA, premultiplies, and shrinks by whole steps to at most max_side: the painter takes
// 16 samples a pixel, which larger sources would outrun.
static bool read_sprite(struct mm_sprite *s, const char *path) {
    png_image image = {.version = PNG_IMAGE_VERSION};
    if (!png_image_begin_read_from_file(&image, path)) return false;
    if (image.width > max_source || image.height > max_source) {
        png_image_free(&image);
        return false;
    }
    image.format = PNG_FORMAT_RGBA;
    uint8_t *px = mm_xmalloc(PNG_IMAGE_SIZE(image));
    if (!png_image_finish_read(&image, NULL, px, 0, NULL)) {
        free(px);
        return false;
    }
    const int w = (int)image.width, h = (int)image.height, longest = w > h ? w : h;
    const int step = (longest + max_side - 1) / max_side;
    s->width = w / step, s->height = h / step;
    if (s->width < 16 || s->height < 16) {
        free(px);
        return false;
    }
    s->rgba = mm_xmalloc((size_t)s->width * (size_t)s->height * 4);
    for (int y = 0; y < s->height; y++) {
        for (int x = 0; x < s->width; x++) {
            unsigned sum[4] = {0};
            for (int i = 0; i < step * step; i++) {
                const uint8_t *p = px + 4 * ((y * step + i / step) * w + x * step + i % step);
                for (int k = 0; k < 3; k++) {
                    sum[k] += (unsigned)p[k] * p[3];
                }
                sum[3] += p[3];
            }
            uint8_t *out = s->rgba + 4 * (y * s->width + x);
            const unsigned n = (unsigned)(step * step);
            for (int k = 0; k < 3; k++) {
                out[k] = (uint8_t)((sum[k] + n * 127) / (n * 255));
            }
            out[3] = (uint8_t)((sum[3] + n / 2) / n);
        }
    }
    free(px);
    return true;
}

static bool is_named(const struct mm_things *w, const char *name) {
    for (int i = 0; i < w->n; i++) {
        if (!strcmp(w->list[i].name, name)) return true;
    }
    return false;
}

static void add(struct mm_things *w, const char *path) {
    char name[max_name];
    struct mm_thing t = {.shape = mm_shape_none};
    if (!name_of(path, name) || is_named(w, name) || !read_sprite(&t.sprite, path)) return;
    // The folder above the file tells what it is like: ".../animals/birds/x.png".
    const char *end = strrchr(path, '/'), *start = end;
    while (start > path && start[-1] != '/') {
        start--;
    }
    t.name = mm_xstrdup(name);
    t.plural = mm_plural(name);
    t.article = mm_article(name);
    t.family = mm_xasprintf("stamp/%.*s", (int)(end - start), start);
    t.kind = strstr(path, "/animals/") ? mm_xstrdup("animal") : NULL;
    mm_colours_measure(&t.sprite, &t.colour, &t.colour_mask);
    mm_things_add(w, &t);
}

enum mm_code mm_stamps_add(struct mm_things *w, const char *folder, struct mm_error *err) {
    found.path = NULL, found.n = 0;
    if (nftw(folder, visit, 16, FTW_PHYS) != 0) {
        return mm_fail_errno(err,
                             "cannot read the stamps in %s: apt install "
                             "tuxpaint-stamps-default",
                             folder);
    }
    qsort(found.path, found.n, sizeof *found.path, by_name);
    const int before = w->n;
    for (size_t i = 0; i < found.n; i++) {
        add(w, found.path[i]);
        free(found.path[i]);
    }
    free(found.path);
    if (w->n == before) {
        return mm_fail(err, mm_code_input, "%s: no stamp with a plain caption in it", folder);
    }
    mm_info("%d stamps from %s", w->n - before, folder);
    return mm_code_ok;
}
