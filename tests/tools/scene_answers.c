#include "scene_answers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool complain(const char *question, const char *why) {
    printf("'%s': %s\n", question, why);
    return false;
}

bool dumped_read(struct dumped *d, const json_t *line) {
    memset(d, 0, sizeof *d);
    const json_t *things = json_object_get(line, "things");
    d->split = json_string_value(json_object_get(line, "split"));
    d->word = json_string_value(json_object_get(line, "word"));
    d->grid = (int)json_integer_value(json_object_get(line, "grid"));
    d->questions = json_object_get(line, "questions");
    d->n = (int)json_array_size(things);
    if (!d->split || d->grid < 2 || d->n < 1 || d->n > max_things || !json_is_array(d->questions)) {
        return complain("dump", "a line lacks 'split', 'grid', 'things' or 'questions'");
    }
    for (int i = 0; i < d->n; i++) {
        const json_t *t = json_array_get(things, (size_t)i);
        struct seen *s = &d->thing[i];
        s->name = json_string_value(json_object_get(t, "name"));
        s->plural = json_string_value(json_object_get(t, "plural"));
        s->kind = json_string_value(json_object_get(t, "kind"));
        s->colour = json_string_value(json_object_get(t, "color"));
        s->colours = json_object_get(t, "colors");
        s->shape = json_is_true(json_object_get(t, "shape"));
        s->row = (int)json_integer_value(json_object_get(t, "row"));
        s->col = (int)json_integer_value(json_object_get(t, "col"));
        if (!s->name || !s->plural || !s->kind || !s->colour || !json_is_array(s->colours)) {
            return complain("dump", "a thing lacks a field");
        }
        for (int k = 0; k < i; k++) {
            if (d->thing[k].row == s->row && d->thing[k].col == s->col) {
                return complain("dump", "two things in one cell");
            }
        }
    }
    return true;
}

static bool called(const struct seen *s, const char *phrase) {
    if (!strcmp(s->name, phrase)) return true;
    const size_t n = strlen(s->colour);
    return s->shape && n && !strncmp(phrase, s->colour, n) && phrase[n] == ' ' &&
           !strcmp(phrase + n + 1, s->name);
}

static bool has_colour(const struct seen *s, const char *colour) {
    for (size_t i = 0; i < json_array_size(s->colours); i++) {
        if (!strcmp(json_string_value(json_array_get(s->colours, i)), colour)) return true;
    }
    return false;
}

// "red thing": the colour in front; NULL for any other phrase.
static const char *colour_of_thing(const char *phrase, char colour[32]) {
    const char *tail = strstr(phrase, " thing");
    if (!tail || tail[6] || (size_t)(tail - phrase) >= 32) return NULL;
    memcpy(colour, phrase, (size_t)(tail - phrase));
    colour[tail - phrase] = 0;
    return colour;
}

// The one thing that a phrase means; -1 when it means none or several.
static int meant(const struct dumped *d, const char *phrase) {
    int found = -1, n = 0;
    char colour[32];
    const bool by_colour = colour_of_thing(phrase, colour) != NULL;
    for (int i = 0; i < d->n; i++) {
        const bool it = by_colour ? has_colour(&d->thing[i], colour) : called(&d->thing[i], phrase);
        if (it) found = i, n++;
    }
    if (n != 1) return -1;
    return by_colour && strcmp(d->thing[found].colour, colour) != 0 ? -1 : found;
}

static int at_place(const struct dumped *d, const char *place) {
    int row = -1, col = -1;
    if (d->grid == 2) {
        row = !strncmp(place, "top ", 4) ? 0 : !strncmp(place, "bottom ", 7) ? 1 : -1;
        col = strstr(place, " left") ? 0 : strstr(place, " right") ? 1 : -1;
    } else if (!strcmp(place, "center")) {
        row = col = 1;
    } else {
        row = !strncmp(place, "top ", 4)      ? 0
              : !strncmp(place, "middle ", 7) ? 1
              : !strncmp(place, "bottom ", 7) ? 2
                                              : -1;
        col = strstr(place, " left")     ? 0
              : strstr(place, " center") ? 1
              : strstr(place, " right")  ? 2
                                         : -1;
    }
    for (int i = 0; i < d->n; i++) {
        if (d->thing[i].row == row && d->thing[i].col == col) return i;
    }
    return -1;
}

static void place_of(char *out, size_t n, const struct dumped *d, int i) {
    const int r = d->thing[i].row, c = d->thing[i].col, last = d->grid - 1;
    if (d->grid == 3 && r == 1 && c == 1) {
        snprintf(out, n, "center");
        return;
    }
    snprintf(out, n, "%s %s",
             r == 0      ? "top"
             : r == last ? "bottom"
                         : "middle",
             c == 0      ? "left"
             : c == last ? "right"
                         : "center");
}

// "left of the dog" and so on: the one thing there.
static int beside(const struct dumped *d, const char *phrase) {
    static const struct {
        const char *words;
        int dx, dy;
    } sides[] = {{"left of the ", -1, 0},
                 {"right of the ", 1, 0},
                 {"above the ", 0, -1},
                 {"below the ", 0, 1}};
    for (int k = 0; k < 4; k++) {
        const size_t len = strlen(sides[k].words);
        if (strncmp(phrase, sides[k].words, len) != 0) continue;
        const int from = meant(d, phrase + len);
        int found = -1, n = 0;
        for (int i = 0; from >= 0 && i < d->n; i++) {
            const int dx = d->thing[i].col - d->thing[from].col;
            const int dy = d->thing[i].row - d->thing[from].row;
            const bool there =
                sides[k].dx ? dy == 0 && dx * sides[k].dx > 0 : dx == 0 && dy * sides[k].dy > 0;
            if (there) found = i, n++;
        }
        return n == 1 ? found : -1;
    }
    return -1;
}

// -1: the question makes no sense; else 0 or 1.
static int is_there(const struct dumped *d, const char *rest) {
    const bool an = !strncmp(rest, "an ", 3);
    if (!an && strncmp(rest, "a ", 2) != 0) return -1;
    const char *phrase = rest + (an ? 3 : 2);
    if (an != (strchr("aeiou", phrase[0]) != NULL) && strncmp(phrase, "uni", 3) != 0) return -1;
    char colour[32];
    int yes = 0, maybe = 0;
    if (colour_of_thing(phrase, colour)) {
        for (int i = 0; i < d->n; i++) {
            yes |= !strcmp(d->thing[i].colour, colour);
            maybe |= has_colour(&d->thing[i], colour);
        }
        return yes ? 1 : maybe ? -1 : 0;
    }
    for (int i = 0; i < d->n; i++) {
        yes |= called(&d->thing[i], phrase);
    }
    return yes;
}

static int count_of(const struct dumped *d, const char *plural) {
    if (!strcmp(plural, "things")) return d->n;
    int n = 0;
    for (int i = 0; i < d->n; i++) {
        n += !strcmp(d->thing[i].plural, plural);
    }
    return n;
}

static int is_the(const struct dumped *d, char *rest) {
    static const char *const hows[] = {" on the left side of the ", " on the right side of the ",
                                       " above the ", " below the "};
    for (int k = 0; k < 4; k++) {
        char *at = strstr(rest, hows[k]);
        if (!at) continue;
        *at = 0;
        const int a = meant(d, rest), b = meant(d, at + strlen(hows[k]));
        if (a < 0 || b < 0) return -1;
        const int dx = d->thing[a].col - d->thing[b].col, dy = d->thing[a].row - d->thing[b].row;
        if (k < 2 ? dx == 0 : dy == 0) return -1;
        return k == 0 ? dx < 0 : k == 1 ? dx > 0 : k == 2 ? dy < 0 : dy > 0;
    }
    char *space = strrchr(rest, ' ');  // "star red"
    if (!space) return -1;
    *space = 0;
    const int i = meant(d, rest);
    return i < 0 || !d->thing[i].colour[0] ? -1 : !strcmp(d->thing[i].colour, space + 1);
}

static const char *after(const char *text, const char *start) {
    const size_t n = strlen(start);
    return strncmp(text, start, n) == 0 ? text + n : NULL;
}

static bool say_yes_no(char *out, size_t n, int yes, const char *question) {
    if (yes < 0) return complain(question, "cannot be answered");
    snprintf(out, n, "%s", yes ? "Yes" : "No");
    return true;
}

static bool say(char *out, size_t n, const char *text, const char *question) {
    if (!text || !text[0]) return complain(question, "cannot be answered");
    snprintf(out, n, "%s", text);
    return true;
}

// Everything with its place, in reading order.
static void describe(char *out, size_t n, const struct dumped *d) {
    size_t used = 0;
    for (int cell = 0; cell < d->grid * d->grid; cell++) {
        for (int i = 0; i < d->n; i++) {
            if (d->thing[i].row * d->grid + d->thing[i].col != cell) continue;
            char place[32];
            place_of(place, sizeof place, d, i);
            used += (size_t)snprintf(out + used, n - used, "%s%s %s", used ? ", " : "", place,
                                     d->thing[i].name);
        }
    }
}

// `body` is the question without its question mark.
static bool open_answer(char *out, size_t n, const struct dumped *d, char *body,
                        const char *question) {
    const char *rest;
    int i = -1;
    if ((rest = after(body, "Is there "))) {
        char *tail = strstr(body, " in the image");
        if (!tail) tail = strstr(body, " in this image");
        if (!tail) return complain(question, "in which image?");
        *tail = 0;
        return say_yes_no(out, n, is_there(d, rest), question);
    }
    if ((rest = after(body, "Is the "))) {
        return say_yes_no(out, n, is_the(d, body + (rest - body)), question);
    }
    char *tail = strstr(body, " in the image");
    if (tail && (rest = after(body, "Are there "))) {
        char *plural;
        *tail = 0;
        const long k = strtol(rest, &plural, 10);
        return say_yes_no(out, n, count_of(d, plural + 1) == (int)k, question);
    }
    if (tail && (rest = after(body, "How many "))) {
        char *are = strstr(body, " are there in the image");
        if (!are) return complain(question, "not understood");
        *are = 0;
        snprintf(out, n, "%d", count_of(d, rest));
        return true;
    }
    if (!strcmp(body, "what is written in the image") || !strcmp(body, "what does the label say")) {
        return say(out, n, d->word, question);
    }
    if ((rest = after(body, "Where is the "))) {
        if ((i = meant(d, rest)) < 0) return complain(question, "means none or several");
        place_of(out, n, d, i);
        return true;
    }
    if ((rest = after(body, "What kind of thing is at the "))) {
        i = at_place(d, rest);
        return say(out, n, i < 0 ? NULL : d->thing[i].kind, question);
    }
    if ((rest = after(body, "What color is the thing at the "))) {
        i = at_place(d, rest);
        return say(out, n, i < 0 ? NULL : d->thing[i].colour, question);
    }
    if ((rest = after(body, "What color is the thing "))) {
        i = beside(d, rest);
        return say(out, n, i < 0 ? NULL : d->thing[i].colour, question);
    }
    if ((rest = after(body, "What color is the "))) {
        i = meant(d, rest);
        return say(out, n, i < 0 ? NULL : d->thing[i].colour, question);
    }
    if (!strcmp(body, "What is in the image")) {
        describe(out, n, d);
        return true;
    }
    if ((rest = after(body, "What is at the "))) {
        i = at_place(d, rest);
        return say(out, n, i < 0 ? NULL : d->thing[i].name, question);
    }
    if ((rest = after(body, "What is "))) {
        i = beside(d, rest);
        return say(out, n, i < 0 ? NULL : d->thing[i].name, question);
    }
    return complain(question, "not understood");
}

bool answer_of(char *out, size_t n, const struct dumped *d, const char *question,
               const char *const *options, int n_options) {
    char body[256];
    const size_t len = strlen(question);
    if (len < 2 || len >= sizeof body || question[len - 1] != '?') {
        return complain(question, "is not a question");
    }
    memcpy(body, question, len - 1);
    body[len - 1] = 0;
    if (n_options == 0) return open_answer(out, n, d, body, question);

    const bool which = !strcmp(body, "Which of these is in the image");
    char right[64] = "";
    if (!which && !open_answer(right, sizeof right, d, body, question)) return false;
    int letter = -1, n_right = 0;
    for (int k = 0; k < n_options; k++) {
        bool ok = !which && !strcmp(options[k], right);
        for (int i = 0; which && i < d->n; i++) {
            ok |= !strcmp(d->thing[i].name, options[k]);
        }
        if (ok) letter = k, n_right++;
    }
    if (n_right != 1) return complain(question, "not exactly one option is right");
    snprintf(out, n, "%c", 'A' + letter);
    return true;
}
