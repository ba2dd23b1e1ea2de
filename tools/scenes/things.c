// Words about things: colours, plurals, articles, the word list, and the held-out combinations.
#include "scenes/things.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/buf.h"

const char *const mm_colour_names[mm_colour_count] = {
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "gray",
};

const uint8_t mm_colour_rgb[mm_colour_count][3] = {
    {222, 32, 38}, {250, 140, 18},  {252, 218, 40},  {38, 166, 64},
    {36, 98, 224}, {136, 52, 190},  {250, 130, 192}, {124, 74, 34},
    {22, 22, 24},  {250, 250, 250}, {140, 140, 140},
};

static bool ends(const char *s, const char *tail) {
    const size_t n = strlen(s), m = strlen(tail);
    return n >= m && !strcmp(s + n - m, tail);
}

char *mm_plural(const char *name) {
    static const char *const odd[][2] = {
        {"mouse", "mice"},        {"goose", "geese"},
        {"wolf", "wolves"},       {"knife", "knives"},
        {"leaf", "leaves"},       {"scarf", "scarves"},
        {"sheep", "sheep"},       {"fish", "fish"},
        {"deer", "deer"},         {"tooth", "teeth"},
        {"foot", "feet"},         {"bison", "bison"},
        {"moose", "moose"},       {"shrimp", "shrimp"},
        {"squid", "squid"},       {"die", "dice"},
        {"ox", "oxen"},           {"aircraft", "aircraft"},
        {"potato", "potatoes"},   {"tomato", "tomatoes"},
        {"volcano", "volcanoes"}, {"mango", "mangoes"},
        {"tornado", "tornadoes"}, {"mosquito", "mosquitoes"},
        {"buffalo", "buffaloes"}, {"hippopotamus", "hippopotamuses"},
    };
    const char *last = strrchr(name, ' ');  // "water buffalo"
    const char *word = last ? last + 1 : name;
    const int before = (int)(word - name);
    for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++) {
        if (!strcmp(word, odd[i][0])) return mm_xasprintf("%.*s%s", before, name, odd[i][1]);
    }
    const size_t n = strlen(name);
    if (ends(name, "s") || ends(name, "x") || ends(name, "z") || ends(name, "ch") ||
        ends(name, "sh")) {
        return mm_xasprintf("%ses", name);
    }
    if (n >= 2 && name[n - 1] == 'y' && !strchr("aeiou", name[n - 2])) {
        return mm_xasprintf("%.*sies", (int)n - 1, name);
    }
    return mm_xasprintf("%ss", name);
}

const char *mm_article(const char *name) {
    if (!strncmp(name, "uni", 3) || !strncmp(name, "eu", 2)) return "a";
    if (!strncmp(name, "hour", 4)) return "an";
    return strchr("aeiou", name[0]) ? "an" : "a";
}

// Consonant, vowel, consonant; or with a second vowel. The few that mean something unpleasant
// are left out.
static bool fit_for_print(const char *word) {
    static const char *const unfit[] = {"RAPE", "DIKE", "NUDE", "PEDO", "PENI", "TIT",  "TITA",
                                        "SOB",  "DUMB", "PEE",  "POO",  "PUS",  "PUSA", "BUM"};
    for (size_t i = 0; i < sizeof unfit / sizeof unfit[0]; i++) {
        if (!strcmp(word, unfit[i])) return false;
    }
    return true;
}

static void draw_short(struct mm_rng *rng, char out[5]) {
    static const char consonants[] = "BDKLMNPRSTV", vowels[] = "AEIOU";
    const bool four = mm_rng_below(rng, 2) != 0;
    for (int i = 0; i < 4; i++) {
        out[i] = i % 2 == 0 ? consonants[mm_rng_below(rng, sizeof consonants - 1)]
                            : vowels[mm_rng_below(rng, sizeof vowels - 1)];
    }
    out[four ? 4 : 3] = 0;
}

enum mm_code mm_words_parse(struct mm_words *words, const char *text, struct mm_error *err) {
    *words = (struct mm_words){0};
    if (!strcmp(text, "random")) return mm_code_ok;
    int n = 0, used = 0;
    if (sscanf(text, "short:%d%n", &n, &used) != 1 || text[used] || n < 4 || n > 2000) {
        return mm_fail(err, mm_code_usage,
                       "--words is '%s', must be 'random' or 'short:N' with N in 4..2000", text);
    }
    words->list = mm_xcalloc((size_t)n, sizeof *words->list);
    struct mm_rng rng = mm_rng_make(1, mm_rng_stream("scenes/words"));
    while (words->n < n) {
        char *word = words->list[words->n];
        draw_short(&rng, word);
        bool fresh = fit_for_print(word);
        for (int i = 0; i < words->n && fresh; i++) {
            fresh = strcmp(words->list[i], word) != 0;
        }
        words->n += fresh;
    }
    return mm_code_ok;
}

void mm_words_draw(const struct mm_words *words, struct mm_rng *rng, char out[5]) {
    if (words->list) {
        memcpy(out, words->list[mm_rng_below(rng, (uint32_t)words->n)], 5);
        return;
    }
    const int n = 3 + (int)mm_rng_below(rng, 2);
    for (int i = 0; i < n; i++) {
        out[i] = (char)('A' + mm_rng_below(rng, 26));
    }
    out[n] = 0;
}

static uint64_t id_of(const struct mm_thing *t) {
    return t->shape >= 0 ? 0x200000u + (uint64_t)t->shape
           : t->code     ? t->code
                         : mm_rng_stream(t->name);
}

bool mm_held_out_pair(const struct mm_thing *a, const struct mm_thing *b) {
    if (a->shape >= 0 || b->shape >= 0) return false;  // shapes: by colour
    uint64_t lo = id_of(a), hi = id_of(b);
    if (lo == hi) return false;
    if (lo > hi) {
        const uint64_t swap = lo;
        lo = hi;
        hi = swap;
    }
    return mm_rng_u32_at(lo, mm_rng_stream("scenes/held out"), hi) % 25 == 0;
}

bool mm_held_out_colour(const struct mm_thing *shape, int colour) {
    // A step of three is prime to the ten colours, so neighbouring shapes hold out different ones.
    return shape->shape >= 0 && colour == (3 * (int)shape->shape + 4) % mm_colour_shapes;
}
