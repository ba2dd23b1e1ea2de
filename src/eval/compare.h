// Several models on several benchmarks: scored, held against a teacher, and shown.
#ifndef MM_EVAL_COMPARE_H
#define MM_EVAL_COMPARE_H

#include "eval/score.h"

struct mm_compare_bench {
    const struct mm_bench *bench;
    char *data, *images;    // images: NULL: beside the data
    int64_t n_questions;    // of the data set
    unsigned char *failed;  // (n_questions) 1: some model was not wholly right; for the page
};

// One model's answers to one benchmark.
struct mm_compare_cell {
    char **files;  // of predictions, NULL behind the last; NULL: there are none
    int n_files;
    char *judge;
    struct mm_report report;
    struct mm_outcomes outcomes;
    bool has_difference;  // to the reference, which is another model with answers to this
    struct mm_difference difference;
};

struct mm_compare {
    struct mm_names models;          // in the order given
    struct mm_compare_bench *bench;  // (n_benches) in the order given
    int n_benches;
    struct mm_compare_cell *cell;  // (models.n, n_benches), made by mm_compare_run
    int64_t teacher;               // a model, or -1
    int64_t reference;             // what differences are to: the teacher, or the first model
    bool pandas1;
    int64_t limit;
    int n_draws;    // of the bootstrap; 0: no intervals
    uint64_t seed;  // of the bootstrap
};

void mm_compare_init(struct mm_compare *c);
void mm_compare_free(struct mm_compare *c);
// BENCH=PATH: the data of a benchmark, and where its picture files are.
enum mm_code mm_compare_add_data(struct mm_compare *c, const char *text, struct mm_error *err);
enum mm_code mm_compare_add_images(struct mm_compare *c, const char *text, struct mm_error *err);
// MODEL/BENCH=FILE, given again for each shard; or MODEL=FOLDER, in which <bench>.jsonl and
// <bench>-*.jsonl are taken. All data must have been added before.
enum mm_code mm_compare_add_predictions(struct mm_compare *c, const char *text,
                                        struct mm_error *err);
enum mm_code mm_compare_add_judge(struct mm_compare *c, const char *text, struct mm_error *err);
enum mm_code mm_compare_set_teacher(struct mm_compare *c, const char *model, struct mm_error *err);
struct mm_compare_cell *mm_compare_at(const struct mm_compare *c, int64_t model, int bench);
struct mm_score_job mm_compare_job(const struct mm_compare *c, int64_t model, int bench);

// Scores everything.
enum mm_code mm_compare_run(struct mm_compare *c, struct mm_error *err);

// The report as text, as markdown and as one JSON object.
void mm_compare_print(const struct mm_compare *c, bool markdown, bool published,
                      struct mm_buf *out);
void mm_compare_print_json(const struct mm_compare *c, bool published, struct mm_buf *out);

// One page with pictures, questions, answers and verdicts, all in one file. most: questions of a
// benchmark, those first that some model got wrong; 0: all.
enum mm_code mm_compare_write_page(const struct mm_compare *c, const char *path, bool published,
                                   int64_t most, struct mm_error *err);

#endif
