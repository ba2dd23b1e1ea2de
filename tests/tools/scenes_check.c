// Reads a world back: every answer worked out again from the dump, every file in its container,
// pictures that decode and differ, held-out combinations that training never shows, and the
// training data through the program's own loader.
//   scenes_check WORLD DUMP TOKENIZER_FOLDER
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>
#include "base/buf.h"
#include "io/file.h"
#include "io/image.h"
#include "io/json.h"
#include "io/tokenizer.h"
#include "scene_answers.h"
#include "train/data.h"

static int failures;

#define CHECK(condition, ...)                        \
    do {                                             \
        if (!(condition) && ++failures <= 20) {      \
            printf("scenes_check.c:%d: ", __LINE__); \
            printf(__VA_ARGS__);                     \
            printf("\n");                            \
        }                                            \
    } while (0)

struct lines {
    struct mm_buf text;
    char **at;
    int n;
};

static struct lines read_lines(const char *folder, const char *name) {
    struct lines l = {0};
    struct mm_error err;
    char *path = mm_path_join(folder, name);
    if (mm_file_read(&l.text, path, (size_t)1 << 30, &err) != mm_code_ok) {
        printf("%s\n", err.text);
        exit(1);
    }
    free(path);
    for (char *p = l.text.data; p && *p;) {
        l.at = mm_xrealloc(l.at, (size_t)(l.n + 1) * sizeof *l.at);
        l.at[l.n++] = p;
        p += strcspn(p, "\n");
        if (*p) *p++ = 0;
    }
    return l;
}

static void free_lines(struct lines *l) {
    free(l->at);
    mm_buf_free(&l->text);
}

// ---- combinations -------------------------------------------------------------------------------

struct set {
    char **item;
    int n;
};

static bool contains(const struct set *s, const char *text) {
    for (int i = 0; i < s->n; i++) {
        if (!strcmp(s->item[i], text)) return true;
    }
    return false;
}

static void insert(struct set *s, const char *text) {
    if (contains(s, text)) return;
    s->item = mm_xrealloc(s->item, (size_t)(s->n + 1) * sizeof *s->item);
    s->item[s->n++] = mm_xstrdup(text);
}

static void free_set(struct set *s) {
    for (int i = 0; i < s->n; i++) {
        free(s->item[i]);
    }
    free(s->item);
}

// Calls for every combination of a scene: two names, or a shape with its colour. Returns how many
// of them are not in *known; adds them to *into when given.
static int combinations(const struct dumped *d, const struct set *known, struct set *into) {
    int fresh = 0;
    char text[128];
    for (int i = 0; i < d->n; i++) {
        const struct seen *a = &d->thing[i];
        for (int j = 0; j <= i; j++) {
            const struct seen *b = &d->thing[j];
            if (i == j && a->shape) {
                snprintf(text, sizeof text, "%s %s", a->colour, a->name);
            } else if (i != j && !a->shape && !b->shape && strcmp(a->name, b->name) != 0) {
                const bool first = strcmp(a->name, b->name) < 0;
                snprintf(text, sizeof text, "%s + %s", first ? a->name : b->name,
                         first ? b->name : a->name);
            } else {
                continue;
            }
            fresh += known && !contains(known, text);
            if (into) insert(into, text);
        }
    }
    return fresh;
}

// ---- the dump and the jsonl ---------------------------------------------------------------------

struct scene {
    json_t *json;
    struct dumped d;
};

static const char *text_of(const json_t *o, const char *key) {
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static void check_answers(const struct dumped *d) {
    for (size_t i = 0; i < json_array_size(d->questions); i++) {
        const json_t *q = json_array_get(d->questions, i);
        const json_t *opts = json_object_get(q, "options");
        const char *option[4] = {0};
        const int n = (int)json_array_size(opts);
        CHECK(n == 0 || n == 4, "%d options", n);
        for (int k = 0; k < n && k < 4; k++) {
            option[k] = json_string_value(json_array_get(opts, (size_t)k));
        }
        char wanted[256];
        const char *text = text_of(q, "text"), *given = text_of(q, "answer");
        const bool ok = answer_of(wanted, sizeof wanted, d, text, option, n);
        CHECK(ok && !strcmp(wanted, given), "%s: '%s': answer '%s', should be '%s'", d->split, text,
              given, ok ? wanted : "?");
    }
}

// The prompt of a question, put together again from the rules of the benchmarks' adapters.
static bool prompt_fits(const char *prompt, const json_t *q) {
    static const char brief[] = "Answer the question using a single word or phrase.";
    const char *text = text_of(q, "text");
    const json_t *options = json_object_get(q, "options");
    struct mm_buf b = {0};
    bool fits = false;
    if (json_array_size(options) == 4) {
        if (!strncmp(prompt, "Things in the image: ", 21)) prompt += strcspn(prompt, "\n") + 1;
        mm_buf_adds(&b, text);
        for (size_t k = 0; k < 4; k++) {
            mm_buf_addf(&b, "\n%c. %s", (char)('A' + k),
                        json_string_value(json_array_get(options, k)));
        }
        mm_buf_adds(&b, "\nAnswer with the option's letter from the given choices directly.");
        fits = !strcmp(prompt, b.data);
    } else {
        static const char *const between[] = {"\n", " ", " Please answer yes or no."};
        for (int k = 0; k < 3 && !fits; k++) {
            mm_buf_reset(&b);
            mm_buf_addf(&b, "%s%s%s", text, between[k], brief);
            fits = !strcmp(prompt, b.data);
        }
    }
    mm_buf_free(&b);
    return fits;
}

static void check_sample(const char *line, const struct dumped *d) {
    json_t *root = NULL;
    struct mm_error err;
    if (mm_json_parse(&root, line, strlen(line), "train.jsonl", &err) != mm_code_ok) {
        CHECK(false, "%s", err.text);
        return;
    }
    const json_t *turns = json_object_get(root, "conversations");
    const size_t n = json_array_size(d->questions);
    CHECK((n == 3 || n == 4) && json_array_size(turns) == 2 * n, "%zu questions, %zu turns", n,
          json_array_size(turns));
    for (size_t i = 0; i < n; i++) {
        const json_t *q = json_array_get(d->questions, i);
        const char *prompt = text_of(json_array_get(turns, 2 * i), "value");
        const bool opens = !strncmp(prompt, "<image>\n", 8);
        CHECK(opens == (i == 0), "turn %zu: '<image>' belongs in front of the first one", i);
        CHECK(prompt_fits(prompt + (opens ? 8 : 0), q), "prompt '%s' for '%s'", prompt,
              text_of(q, "text"));
        CHECK(!strcmp(text_of(json_array_get(turns, 2 * i + 1), "value"), text_of(q, "answer")),
              "the jsonl's answer is not the dump's");
    }
    json_decref(root);
}

// ---- the test files -----------------------------------------------------------------------------

struct hashes {
    uint64_t *at;
    size_t n;
};

static void add_picture(struct hashes *h, const void *bytes, size_t n, const char *what) {
    struct mm_image im;
    struct mm_error err;
    if (mm_image_decode(&im, bytes, n, what, &err) != mm_code_ok) {
        CHECK(false, "%s", err.text);
        return;
    }
    h->at = mm_xrealloc(h->at, (h->n + 1) * sizeof *h->at);
    h->at[h->n++] = XXH3_64bits(im.rgb, (size_t)im.width * (size_t)im.height * 3);
    mm_image_free(&im);
}

static int by_value(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static int split_cells(char *line, char **cell, int max) {
    int n = 0;
    for (char *p = line; n < max;) {
        cell[n++] = p;
        p += strcspn(p, "\t");
        if (!*p) break;
        *p++ = 0;
    }
    return n;
}

enum { max_cells = 16 };

struct tsv_state {
    const char *name;  // "POPE", without heldout_
    int n_columns, n_yes, n_no;
    int column[max_cells];  // of question, answer, ...
    char last_answer[8];    // of the pair's first row
};

static void check_row(struct tsv_state *t, int row, char **cell, const char *question,
                      const char *answer, bool first_of_scene) {
    const int q = !strcmp(t->name, "ScienceQA_TEST") ? 8 : 3;
    char wanted[512];
    const bool asks_yes_no = !strcmp(t->name, "POPE") || !strcmp(t->name, "MME");
    snprintf(wanted, sizeof wanted, "%s%s", question,
             asks_yes_no ? " Please answer yes or no." : "");
    CHECK(!strcmp(cell[2], wanted), "%s row %d: question '%s', must be '%s'", t->name, row, cell[2],
          wanted);
    if (!strcmp(t->name, "TextVQA_VAL")) {
        struct mm_buf list = {0};
        for (int k = 0; k < 10; k++) {
            mm_buf_addf(&list, "%s'%s'", k ? ", " : "[", answer);
        }
        mm_buf_adds(&list, "]");
        CHECK(!strcmp(cell[3], list.data), "%s row %d: answer %s", t->name, row, cell[3]);
        mm_buf_free(&list);
    } else {
        CHECK(!strcmp(cell[q], answer), "%s row %d: answer '%s', must be '%s'", t->name, row,
              cell[q], answer);
    }
    if (!strcmp(t->name, "MME")) {
        CHECK(first_of_scene || strcmp(t->last_answer, answer) != 0,
              "MME row %d: both questions of a picture are answered %s", row, answer);
        snprintf(t->last_answer, sizeof t->last_answer, "%s", answer);
    }
    t->n_yes += !strcmp(answer, "Yes");
    t->n_no += !strcmp(answer, "No");
}

static void check_image(const char *cell, int row, bool first_of_scene, char *const *indices,
                        struct hashes *h, const char *name) {
    if (strlen(cell) <= 64) {  // the index of an earlier row with the same picture
        const int target = atoi(cell);
        CHECK(!first_of_scene && target < row && !strcmp(indices[target], cell),
              "%s row %d: picture '%s' is not an earlier row", name, row, cell);
        return;
    }
    CHECK(first_of_scene, "%s row %d: a second copy of the picture", name, row);
    struct mm_buf png = {0};
    struct mm_error err;
    if (mm_base64_decode(&png, cell, strlen(cell), name, &err) == mm_code_ok) {
        add_picture(h, png.data, png.len, name);
    } else {
        CHECK(false, "%s", err.text);
    }
    mm_buf_free(&png);
}

// Rows come in the order of the dump's scenes and questions.
static void check_tsv(const char *folder, const char *split, const struct scene *scenes, int n,
                      struct hashes *h) {
    static const struct {
        const char *name, *header;
    } kinds[] = {
        {"POPE", "index\timage\tquestion\tanswer\tcategory"},
        {"MME", "index\timage\tquestion\tanswer\tcategory\timage_path"},
        {"TextVQA_VAL", "index\timage\tquestion\tanswer"},
        {"ScienceQA_TEST",
         "index\timage\tquestion\thint\tA\tB\tC\tD\tanswer\tcategory\tl2-category\tsplit"},
        {"GQA", "index\timage\tquestion\tanswer\tcategory"},
    };
    struct tsv_state t = {.name = strncmp(split, "heldout_", 8) ? split : split + 8};
    char *file = mm_xasprintf("%s.tsv", split);
    struct lines l = read_lines(folder, file);
    char **indices = mm_xcalloc((size_t)l.n, sizeof *indices);
    int row = 0;
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        if (strcmp(kinds[k].name, t.name) != 0) continue;
        CHECK(!strcmp(l.at[0], kinds[k].header), "%s: columns '%s'", file, l.at[0]);
        t.n_columns = 1;
        for (const char *p = kinds[k].header; (p = strchr(p, '\t')); p++) {
            t.n_columns++;
        }
    }
    for (int i = 0; i < n; i++) {
        if (strcmp(scenes[i].d.split, split) != 0) continue;
        for (size_t k = 0; k < json_array_size(scenes[i].d.questions); k++, row++) {
            char *cell[max_cells] = {0};
            if (row + 1 >= l.n) break;
            const int n_cells = split_cells(l.at[row + 1], cell, max_cells);
            CHECK(n_cells == t.n_columns, "%s row %d: %d cells", file, row, n_cells);
            if (n_cells != t.n_columns) continue;
            indices[row] = cell[0];
            CHECK(atoi(cell[0]) == row, "%s row %d: index '%s'", file, row, cell[0]);
            check_image(cell[1], row, k == 0, indices, h, file);
            const json_t *q = json_array_get(scenes[i].d.questions, k);
            check_row(&t, row, cell, text_of(q, "text"), text_of(q, "answer"), k == 0);
        }
    }
    CHECK(row > 0 && row + 1 == l.n, "%s: %d rows, %d questions", file, l.n - 1, row);
    CHECK(t.n_yes - t.n_no <= 3 && t.n_no - t.n_yes <= 3, "%s: %d yes, %d no", file, t.n_yes,
          t.n_no);
    free(indices);
    free_lines(&l);
    free(file);
}

// ---- the loader ---------------------------------------------------------------------------------

static void check_loader(const char *folder, const char *tokenizer_folder, int n_samples) {
    struct mm_error err = {0};
    struct mm_tokenizer *tok = NULL;
    struct mm_data *data = NULL;
    const struct mm_data_options o = {.image_size = 112,
                                      .tokens_per_tile = 16,
                                      .min_tiles = 1,
                                      .max_tiles = 1,
                                      .dynamic_tiling = true,
                                      .thumbnail = true,
                                      .max_length = 4096,
                                      .micro_batch = 1,
                                      .seed = 1};
    char *meta = mm_path_join(folder, "meta.json");
    if (mm_tokenizer_open(&tok, tokenizer_folder, &err) != mm_code_ok ||
        mm_data_open(&data, meta, tok, tokenizer_folder, &o, &err) != mm_code_ok) {
        CHECK(false, "%s", err.text);
    } else {
        int64_t tokens = 0;
        CHECK(mm_data_samples(data) == n_samples, "the loader sees %lld samples of %d",
              (long long)mm_data_samples(data), n_samples);
        for (int i = 0; i < n_samples; i++) {
            const struct mm_batch *b;
            if (mm_data_next(data, &b, &err) != mm_code_ok) {
                CHECK(false, "%s", err.text);
                break;
            }
            tokens += b->n_tokens;
            CHECK(b->n_tiles == 1 && b->n_targets >= 6 && b->cursor.skipped == 0,
                  "sample %d: %lld tiles, %lld targets, %lld skipped", i, (long long)b->n_tiles,
                  (long long)b->n_targets, (long long)b->cursor.skipped);
        }
        CHECK(tokens <= 90 * (int64_t)n_samples, "%.1f tokens a sample, must be at most 90",
              (double)tokens / n_samples);
        printf("%d samples of %.1f tokens\n", n_samples, (double)tokens / n_samples);
    }
    mm_data_close(data);
    mm_tokenizer_close(tok);
    free(meta);
}

// ---- all of it ----------------------------------------------------------------------------------

static void check_held_out(const struct scene *scenes, int n) {
    struct set known = {0}, held = {0};
    int n_held = 0;
    for (int i = 0; i < n; i++) {
        const bool is_held = !strncmp(scenes[i].d.split, "heldout_", 8);
        if (!is_held) combinations(&scenes[i].d, NULL, &known);
        n_held += is_held;
    }
    for (int i = 0; i < n; i++) {
        if (strncmp(scenes[i].d.split, "heldout_", 8) != 0) continue;
        CHECK(combinations(&scenes[i].d, &known, &held) > 0,
              "%s: a scene shows nothing that training does not", scenes[i].d.split);
    }
    // That training lacks them must be a rule and no accident: nearly all others are there.
    int fresh = 0;
    for (int i = 0; i < held.n; i++) {
        fresh += !contains(&known, held.item[i]);
    }
    printf("%d combinations in training, %d only held out, in %d scenes\n", known.n, fresh, n_held);
    CHECK(n_held > 0 && fresh > 0 && fresh * 8 < known.n, "%d of %d combinations held out", fresh,
          known.n);
    free_set(&known);
    free_set(&held);
}

static void check_pictures(const char *folder, int n_train, struct hashes *h) {
    for (int i = 0; i < n_train; i++) {
        char *path = mm_xasprintf("%s/images/train/%03d/%06d.png", folder, i / 1000, i);
        struct mm_buf png = {0};
        struct mm_error err;
        if (mm_file_read(&png, path, 1 << 24, &err) == mm_code_ok) {
            add_picture(h, png.data, png.len, path);
        } else {
            CHECK(false, "%s", err.text);
        }
        mm_buf_free(&png);
        free(path);
    }
    qsort(h->at, h->n, sizeof *h->at, by_value);
    for (size_t i = 1; i < h->n; i++) {
        CHECK(h->at[i] != h->at[i - 1], "two pictures are the same");
    }
}

int main(int argc, char **argv) {
    if (argc != 4) {
        printf("usage: scenes_check WORLD DUMP TOKENIZER_FOLDER\n");
        return 2;
    }
    static const char *const names[] = {"POPE", "MME", "TextVQA_VAL", "ScienceQA_TEST", "GQA"};
    struct lines dump = read_lines(".", argv[2]), jsonl = read_lines(argv[1], "train.jsonl");
    struct scene *scenes = mm_xcalloc((size_t)dump.n, sizeof *scenes);
    int n = 0, n_train = 0;
    for (int i = 0; i < dump.n; i++) {
        json_t *line = json_loads(dump.at[i], 0, NULL);
        scenes[n].json = line;
        if (!line || !dumped_read(&scenes[n].d, line)) {
            CHECK(false, "dump line %d", i + 1);
            json_decref(line);
            continue;
        }
        check_answers(&scenes[n].d);
        if (!strcmp(scenes[n].d.split, "train")) {
            if (n_train < jsonl.n) check_sample(jsonl.at[n_train], &scenes[n].d);
            n_train++;
        }
        n++;
    }
    CHECK(n_train > 0 && n_train == jsonl.n, "%d training scenes, %d samples", n_train, jsonl.n);
    struct hashes h = {0};
    for (size_t k = 0; k < sizeof names / sizeof names[0]; k++) {
        char *held = mm_xasprintf("heldout_%s", names[k]);
        check_tsv(argv[1], names[k], scenes, n, &h);
        check_tsv(argv[1], held, scenes, n, &h);
        free(held);
    }
    check_pictures(argv[1], n_train, &h);
    check_held_out(scenes, n);
    check_loader(argv[1], argv[3], n_train);
    for (int i = 0; i < n; i++) {
        json_decref(scenes[i].json);
    }
    free(scenes);
    free(h.at);
    free_lines(&dump);
    free_lines(&jsonl);
    printf("%d checks failed\n", failures);
    return failures != 0;
}
