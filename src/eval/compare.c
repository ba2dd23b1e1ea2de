// Collecting and scoring models x benchmarks.
#include "eval/compare.h"

#include <dirent.h>
#include <stdlib.h>
#include "eval/questions.h"
#include "io/file.h"

void mm_compare_init(struct mm_compare *c) {
    *c = (struct mm_compare){.teacher = -1, .n_draws = 2000};
}

struct mm_compare_cell *mm_compare_at(const struct mm_compare *c, int64_t model, int bench) {
    return &c->cell[model * c->n_benches + bench];
}

static void free_cell(struct mm_compare_cell *cell) {
    for (int i = 0; i < cell->n_files; i++) {
        free(cell->files[i]);
    }
    free(cell->files);
    free(cell->judge);
    mm_report_free(&cell->report);
    mm_outcomes_free(&cell->outcomes);
}

void mm_compare_free(struct mm_compare *c) {
    for (int64_t i = 0; c->cell && i < c->models.n * c->n_benches; i++) {
        free_cell(&c->cell[i]);
    }
    for (int b = 0; b < c->n_benches; b++) {
        free(c->bench[b].data);
        free(c->bench[b].images);
        free(c->bench[b].failed);
    }
    free(c->cell);
    free(c->bench);
    mm_names_free(&c->models);
    *c = (struct mm_compare){0};
}

// ---- what is given ----

// "NAME=PATH" in two; *name is malloc'ed.
static enum mm_code cut(const char *option, const char *text, const char *wanted, char **name,
                        const char **path, struct mm_error *err) {
    const char *equal = strchr(text, '=');
    *name = NULL;
    *path = NULL;
    if (!equal || equal == text || !equal[1]) {
        return mm_fail(err, mm_code_usage, "%s is '%s', must be %s", option, text, wanted);
    }
    *name = mm_xasprintf("%.*s", (int)(equal - text), text);
    *path = equal + 1;
    return mm_code_ok;
}

static int find_bench(const struct mm_compare *c, const struct mm_bench *bench) {
    for (int b = 0; b < c->n_benches; b++) {
        if (c->bench[b].bench == bench) return b;
    }
    return -1;
}

enum mm_code mm_compare_add_data(struct mm_compare *c, const char *text, struct mm_error *err) {
    char *name;
    const char *path;
    const struct mm_bench *bench;
    MM_TRY(cut("--data", text, "BENCH=PATH", &name, &path, err));
    enum mm_code code = mm_bench_find(&bench, name, err);
    if (code == mm_code_ok && find_bench(c, bench) >= 0) {
        code = mm_fail(err, mm_code_usage, "--data is given twice for %s", name);
    }
    free(name);
    if (code != mm_code_ok) return code;
    c->bench = mm_xrealloc(c->bench, (size_t)(c->n_benches + 1) * sizeof *c->bench);
    c->bench[c->n_benches++] = (struct mm_compare_bench){.bench = bench, .data = mm_xstrdup(path)};
    return mm_code_ok;
}

enum mm_code mm_compare_add_images(struct mm_compare *c, const char *text, struct mm_error *err) {
    char *name;
    const char *path;
    const struct mm_bench *bench;
    MM_TRY(cut("--images", text, "BENCH=FOLDER", &name, &path, err));
    enum mm_code code = mm_bench_find(&bench, name, err);
    const int b = code == mm_code_ok ? find_bench(c, bench) : -1;
    if (code == mm_code_ok && b < 0) {
        code = mm_fail(err, mm_code_usage, "--images is for %s, which has no --data", name);
    }
    free(name);
    if (code != mm_code_ok) return code;
    free(c->bench[b].images);
    c->bench[b].images = mm_xstrdup(path);
    return mm_code_ok;
}

// The cells grow a row when a model is new.
static int64_t model_of(struct mm_compare *c, const char *name) {
    const int64_t before = c->models.n;
    const int64_t model = mm_names_add(&c->models, mm_str_of(name));
    if (model < before) return model;
    const size_t row = (size_t)c->n_benches;
    c->cell = mm_xrealloc(c->cell, ((size_t)model + 1) * row * sizeof *c->cell);
    memset(c->cell + (size_t)model * row, 0, row * sizeof *c->cell);
    return model;
}

// "MODEL/BENCH" in two: the model's name is cut out of `name` in place.
static enum mm_code cell_of(struct mm_compare *c, const char *option, char *name,
                            struct mm_compare_cell **cell, struct mm_error *err) {
    char *slash = strrchr(name, '/');
    const struct mm_bench *bench;
    if (!slash || slash == name) {
        return mm_fail(err, mm_code_usage, "%s is for '%s', must be MODEL/BENCH=FILE", option,
                       name);
    }
    MM_TRY(mm_bench_find(&bench, slash + 1, err));
    const int b = find_bench(c, bench);
    if (b < 0) {
        return mm_fail(err, mm_code_usage, "%s is for %s, which has no --data", option, slash + 1);
    }
    *slash = '\0';
    *cell = mm_compare_at(c, model_of(c, name), b);
    return mm_code_ok;
}

static void add_file(struct mm_compare_cell *cell, const char *path) {
    cell->files = mm_xrealloc(cell->files, (size_t)(cell->n_files + 2) * sizeof(char *));
    cell->files[cell->n_files++] = mm_xstrdup(path);
    cell->files[cell->n_files] = NULL;
}

// Whether a file is named for a benchmark: <bench>.jsonl, or <bench>-anything.jsonl.
static bool is_named_for(const char *file, const char *bench) {
    static const char ending[] = ".jsonl";
    const size_t n = strlen(file), of_bench = strlen(bench), of_ending = sizeof ending - 1;
    if (n < of_bench + of_ending || strncmp(file, bench, of_bench) != 0) return false;
    if (strcmp(file + n - of_ending, ending) != 0) return false;
    return n == of_bench + of_ending || file[of_bench] == '-';
}

// Everything in a folder that is named for a benchmark.
static enum mm_code add_folder(struct mm_compare *c, const char *model, const char *folder,
                               struct mm_error *err) {
    const int64_t m = model_of(c, model);
    struct dirent **entry;
    const int n = scandir(folder, &entry, NULL, alphasort);
    if (n < 0) return mm_fail_errno(err, "%s: cannot be read", folder);
    bool any = false;
    for (int i = 0; i < n; i++) {
        for (int b = 0; b < c->n_benches; b++) {
            if (!is_named_for(entry[i]->d_name, c->bench[b].bench->name)) continue;
            char *path = mm_path_join(folder, entry[i]->d_name);
            add_file(mm_compare_at(c, m, b), path);
            free(path);
            any = true;
        }
        free(entry[i]);
    }
    free(entry);
    if (any) return mm_code_ok;
    return mm_fail(err, mm_code_input,
                   "%s: holds no predictions of the benchmarks given by --data; they must be named "
                   "<bench>.jsonl or <bench>-*.jsonl",
                   folder);
}

enum mm_code mm_compare_add_predictions(struct mm_compare *c, const char *text,
                                        struct mm_error *err) {
    char *name;
    const char *path;
    MM_TRY(cut("--predictions", text, "MODEL/BENCH=FILE or MODEL=FOLDER", &name, &path, err));
    enum mm_code code;
    if (mm_path_is_folder(path)) {
        code = add_folder(c, name, path, err);
    } else {
        struct mm_compare_cell *cell;
        code = cell_of(c, "--predictions", name, &cell, err);
        if (code == mm_code_ok) add_file(cell, path);
    }
    free(name);
    return code;
}

enum mm_code mm_compare_add_judge(struct mm_compare *c, const char *text, struct mm_error *err) {
    char *name;
    const char *path;
    struct mm_compare_cell *cell = NULL;
    MM_TRY(cut("--judge", text, "MODEL/BENCH=FILE", &name, &path, err));
    enum mm_code code = cell_of(c, "--judge", name, &cell, err);
    if (code == mm_code_ok && cell->judge) {
        code = mm_fail(err, mm_code_usage, "--judge is given twice for '%s'", text);
    }
    free(name);
    if (code == mm_code_ok) cell->judge = mm_xstrdup(path);
    return code;
}

enum mm_code mm_compare_set_teacher(struct mm_compare *c, const char *model, struct mm_error *err) {
    c->teacher = mm_names_find(&c->models, mm_str_of(model));
    if (c->teacher >= 0) return mm_code_ok;
    return mm_fail(err, mm_code_usage, "--teacher is '%s', which has no --predictions", model);
}

// ---- scoring ----

struct mm_score_job mm_compare_job(const struct mm_compare *c, int64_t model, int bench) {
    const struct mm_compare_cell *cell = mm_compare_at(c, model, bench);
    return (struct mm_score_job){.bench = c->bench[bench].bench,
                                 .model = mm_names_get(&c->models, model).s,
                                 .data = c->bench[bench].data,
                                 .predictions = (const char *const *)cell->files,
                                 .pandas1 = c->pandas1,
                                 .limit = c->limit,
                                 .judge = cell->judge};
}

// Notes which questions were failed.
static enum mm_code note(void *arg, const struct mm_question *q, const struct mm_prediction *p,
                         const struct mm_verdict *v, struct mm_error *err) {
    struct mm_compare_bench *b = arg;
    (void)err;
    if (q->number >= b->n_questions) {
        int64_t cap = b->n_questions;
        if ((cap & (cap - 1)) == 0) {  // full at each power of two
            b->failed = mm_xrealloc(b->failed, (size_t)(cap ? 2 * cap : 1));
        }
        b->failed[b->n_questions++] = 0;
    }
    if (p->found && !p->missing_image && v->score < 1) b->failed[q->number] = 1;
    return mm_code_ok;
}

static enum mm_code score_cell(struct mm_compare *c, int64_t model, int bench,
                               struct mm_error *err) {
    struct mm_compare_cell *cell = mm_compare_at(c, model, bench);
    const struct mm_score_listener listener = {note, &c->bench[bench]};
    struct mm_score_job job = mm_compare_job(c, model, bench);
    job.outcomes = &cell->outcomes;
    job.listener = &listener;
    return mm_score_run(&job, &cell->report, err);
}

static void compare_cell(struct mm_compare *c, int64_t model, int bench) {
    struct mm_compare_cell *cell = mm_compare_at(c, model, bench);
    const struct mm_compare_cell *to = mm_compare_at(c, c->reference, bench);
    if (cell == to || !cell->files || !to->files || !c->n_draws) return;
    cell->has_difference =
        mm_outcomes_compare(&cell->outcomes, &to->outcomes, c->bench[bench].bench->combine,
                            c->n_draws, c->seed, &cell->difference);
}

enum mm_code mm_compare_run(struct mm_compare *c, struct mm_error *err) {
    c->reference = c->teacher >= 0 ? c->teacher : 0;
    for (int64_t m = 0; m < c->models.n; m++) {
        for (int b = 0; b < c->n_benches; b++) {
            if (mm_compare_at(c, m, b)->files) MM_TRY(score_cell(c, m, b, err));
        }
    }
    for (int64_t m = 0; m < c->models.n; m++) {
        for (int b = 0; b < c->n_benches; b++) {
            compare_cell(c, m, b);
        }
    }
    return mm_code_ok;
}
