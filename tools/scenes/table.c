// Reads things.tsv, and chooses from it: the table of all emoji that one code point reaches.
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/buf.h"
#include "scenes/things.h"

static const char *const columns[] = {"code",     "name", "word",   "rank",   "group",
                                      "subgroup", "kind", "colour", "colours"};
enum {
    col_code,
    col_name,
    col_word,
    col_rank,
    col_group,
    col_subgroup,
    col_kind,
    col_colour,
    col_colours,
    n_columns
};

static int colour_by_name(const char *text, size_t n) {
    for (int c = 0; c < mm_colour_count; c++) {
        if (strlen(mm_colour_names[c]) == n && !memcmp(mm_colour_names[c], text, n)) return c;
    }
    return mm_colour_none;
}

// "red,brown" or "-".
static bool parse_mask(const char *text, uint32_t *mask) {
    *mask = 0;
    if (!strcmp(text, "-")) return true;
    for (const char *p = text;;) {
        const size_t n = strcspn(p, ",");
        const int c = colour_by_name(p, n);
        if (c < 0) return false;
        *mask |= 1u << c;
        if (!p[n]) return true;
        p += n + 1;
    }
}

static char *word_or_null(const char *text) {
    return strcmp(text, "-") != 0 ? mm_xstrdup(text) : NULL;
}

static enum mm_code parse_row(struct mm_table_row *row, char *line, int n_wanted, const char *path,
                              int n_line, struct mm_error *err) {
    char *cell[n_columns] = {0};
    int n = 0;
    for (char *p = line; n < n_columns; n++) {
        cell[n] = p;
        p += strcspn(p, "\t");
        if (!*p) {
            n++;
            break;
        }
        *p++ = 0;
    }
    if (n != n_wanted) {
        return mm_fail(err, mm_code_input, "%s, line %d: %d columns, must be %d", path, n_line, n,
                       n_wanted);
    }
    char *end;
    const unsigned long code = strtoul(cell[col_code], &end, 16);
    if (*end || end == cell[col_code] || code == 0 || code > 0x10ffff) {
        return mm_fail(err, mm_code_input,
                       "%s, line %d: 'code' is '%s', must be a code point in "
                       "hexadecimal",
                       path, n_line, cell[col_code]);
    }
    const long rank = strtol(cell[col_rank], &end, 10);
    if (*end || end == cell[col_rank] || rank < 0 || rank > 100000) {
        return mm_fail(err, mm_code_input, "%s, line %d: 'rank' is '%s', must be 0 or a place",
                       path, n_line, cell[col_rank]);
    }
    *row =
        (struct mm_table_row){.code = (uint32_t)code, .rank = (int)rank, .colour = mm_colour_none};
    if (n_wanted == n_columns) {
        row->colour = colour_by_name(cell[col_colour], strlen(cell[col_colour]));
        if ((row->colour < 0 && strcmp(cell[col_colour], "-") != 0) ||
            !parse_mask(cell[col_colours], &row->colour_mask)) {
            return mm_fail(err, mm_code_input, "%s, line %d: '%s' and '%s' must be colour words",
                           path, n_line, cell[col_colour], cell[col_colours]);
        }
    }
    row->name = mm_xstrdup(cell[col_name]);
    row->word = word_or_null(cell[col_word]);
    row->group = mm_xstrdup(cell[col_group]);
    row->subgroup = mm_xstrdup(cell[col_subgroup]);
    row->kind = word_or_null(cell[col_kind]);
    return mm_code_ok;
}

static enum mm_code read_rows(struct mm_table *t, FILE *f, const char *path, bool with_colours,
                              struct mm_error *err) {
    const int n_wanted = with_colours ? n_columns : col_colour;
    char line[1024];
    for (int n_line = 1; fgets(line, sizeof line, f); n_line++) {
        const size_t len = strcspn(line, "\n");
        if (!line[len] && len + 1 == sizeof line) {
            return mm_fail(err, mm_code_input, "%s, line %d: longer than %zu bytes", path, n_line,
                           sizeof line - 2);
        }
        line[len] = 0;
        if (n_line == 1) {
            if (strncmp(line, "code\tname\tword\trank\t", 20) != 0) {
                return mm_fail(err, mm_code_input,
                               "%s: the first line must name the columns "
                               "'%s', '%s', '%s', ...",
                               path, columns[0], columns[1], columns[2]);
            }
            continue;
        }
        t->rows = mm_xrealloc(t->rows, (size_t)(t->n + 1) * sizeof *t->rows);
        MM_TRY(parse_row(&t->rows[t->n], line, n_wanted, path, n_line, err));
        t->n++;
    }
    if (ferror(f)) return mm_fail_errno(err, "cannot read %s", path);
    if (t->n == 0) return mm_fail(err, mm_code_input, "%s: no things in it", path);
    return mm_code_ok;
}

enum mm_code mm_table_open(struct mm_table *t, const char *path, bool with_colours,
                           struct mm_error *err) {
    *t = (struct mm_table){0};
    const bool std = !strcmp(path, "-");
    FILE *f = std ? stdin : fopen(path, "r");
    if (!f) return mm_fail_errno(err, "cannot open %s", path);
    const enum mm_code code = read_rows(t, f, path, with_colours, err);
    if (!std) fclose(f);
    if (code != mm_code_ok) mm_table_free(t);
    return code;
}

void mm_table_free(struct mm_table *t) {
    for (int i = 0; i < t->n; i++) {
        struct mm_table_row *r = &t->rows[i];
        free(r->name), free(r->word), free(r->group), free(r->subgroup), free(r->kind);
    }
    free(t->rows);
    *t = (struct mm_table){0};
}

// Order: ranked rows by rank, then the other named rows shuffled by a fixed seed.
static int *order_of(const struct mm_table *t, int *n_out) {
    int *order = mm_xmalloc((size_t)t->n * sizeof *order);
    int n = 0, n_ranked = 0;
    for (int i = 0; i < t->n; i++) {
        if (t->rows[i].word && t->rows[i].rank > 0) order[n++] = i;
    }
    n_ranked = n;
    for (int i = 1; i < n_ranked; i++) {  // insertion: some two hundred rows
        const int row = order[i];
        int j = i;
        for (; j > 0 && t->rows[order[j - 1]].rank > t->rows[row].rank; j--) {
            order[j] = order[j - 1];
        }
        order[j] = row;
    }
    for (int i = 0; i < t->n; i++) {
        if (t->rows[i].word && t->rows[i].rank == 0) order[n++] = i;
    }
    struct mm_rng rng = mm_rng_make(1, mm_rng_stream("scenes/choice"));
    for (int i = n - 1; i > n_ranked; i--) {
        const int j = n_ranked + (int)mm_rng_below(&rng, (uint32_t)(i - n_ranked + 1));
        const int swap = order[i];
        order[i] = order[j];
        order[j] = swap;
    }
    *n_out = n;
    return order;
}

static const char *const shape_names[mm_shape_count] = {
    "circle", "square", "triangle", "star", "ring", "cross", "diamond", "heart",
};

static struct mm_thing named(const char *name, const char *kind, const char *family) {
    return (struct mm_thing){
        .shape = mm_shape_none,
        .name = mm_xstrdup(name),
        .plural = mm_plural(name),
        .article = mm_article(name),
        .kind = kind ? mm_xstrdup(kind) : NULL,
        .family = mm_xstrdup(family),
        .colour = mm_colour_none,
    };
}

enum mm_code mm_things_choose(struct mm_things *w, const struct mm_table *t, int n, bool shapes,
                              struct mm_error *err) {
    *w = (struct mm_things){0};
    int n_named;
    int *order = order_of(t, &n_named);
    if (n == 0) n = n_named;
    if (n > n_named) {
        free(order);
        return mm_fail(err, mm_code_usage, "--things is %d; the table has words for %d things", n,
                       n_named);
    }
    w->list = mm_xcalloc((size_t)n + mm_shape_count, sizeof *w->list);
    for (int i = 0; i < n; i++) {
        const struct mm_table_row *r = &t->rows[order[i]];
        struct mm_thing thing = named(r->word, r->kind, r->subgroup);
        thing.code = r->code;
        thing.colour = r->colour;
        thing.colour_mask = r->colour_mask;
        thing.rank = r->rank;
        w->list[w->n++] = thing;
    }
    free(order);
    for (int s = 0; shapes && s < mm_shape_count; s++) {
        struct mm_thing thing = named(shape_names[s], "shape", "shape");
        thing.shape = (enum mm_shape)s;
        w->list[w->n++] = thing;
        w->n_shapes++;
    }
    return mm_code_ok;
}

void mm_things_add(struct mm_things *w, struct mm_thing *extra) {
    w->list = mm_xrealloc(w->list, (size_t)(w->n + 1) * sizeof *w->list);
    struct mm_thing *at = &w->list[w->n - w->n_shapes];
    memmove(at + 1, at, (size_t)w->n_shapes * sizeof *at);
    *at = *extra;
    w->n++;
    *extra = (struct mm_thing){0};
}

void mm_things_finish(struct mm_things *w) {
    const int max = (int)(sizeof w->kinds / sizeof w->kinds[0]);
    w->n_kinds = 0;
    for (int i = 0; i < w->n; i++) {
        const char *kind = w->list[i].kind;
        int k = 0, same = 0;
        for (int j = 0; kind && j < w->n; j++) {
            same += w->list[j].kind && !strcmp(w->list[j].kind, kind);
        }
        while (k < w->n_kinds && kind && strcmp(w->kinds[k], kind) != 0) {
            k++;
        }
        if (same >= 2 && k == w->n_kinds && w->n_kinds < max) w->kinds[w->n_kinds++] = kind;
    }
}

void mm_things_free(struct mm_things *w) {
    for (int i = 0; i < w->n; i++) {
        struct mm_thing *t = &w->list[i];
        free(t->name), free(t->plural), free(t->kind), free(t->family), free(t->sprite.rgba);
    }
    free(w->list);
    free(w->words.list);
    *w = (struct mm_things){0};
}
