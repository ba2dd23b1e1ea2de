// What a benchmark is: how its questions are asked, and how answers become scores. One file
// bench_<name>.c each.
#ifndef MM_EVAL_BENCH_H
#define MM_EVAL_BENCH_H

#include "eval/extract.h"
#include "eval/report.h"

// One question. All texts are valid until the next is read; .s is NULL for what is not there.
struct mm_question {
    int64_t number;       // from 0, in the data set's order
    struct mm_str index;  // the key of predictions
    struct mm_str text, hint, answer;
    struct mm_str category, l2_category, split;
    struct mm_str structural, semantic;  // GQA
    struct mm_str image_path;
    struct mm_str g_index;      // MMBench, where the file has it
    struct mm_choices options;  // multiple choice
};

struct mm_questions;

struct mm_bench {
    const char *name;   // as on the command line
    const char *title;  // as people write it
    bool has_kit;       // may be a folder of the InternVL kit's files
    // Asking; [0] is a TSV, [1] the kit's files.
    int32_t max_new_tokens[2];
    bool never_empty[2];  // the stop token is forbidden as the first
    int32_t max_tiles;
    bool twice_as_large;  // the (first) picture is doubled before it is tiled
    void (*prompt)(const struct mm_question *q, bool kit, struct mm_buf *out);
    // Scoring: begin, add for every answered question in the data set's order, end.
    enum mm_code (*begin)(void **state, const struct mm_questions *all, const struct mm_report *r,
                          struct mm_error *err);
    enum mm_code (*add)(void *state, const struct mm_question *q, struct mm_str prediction,
                        struct mm_report *r, struct mm_error *err);
    // For a question without an answer (its picture was not there, or nobody asked); may be NULL.
    enum mm_code (*skip)(void *state, const struct mm_question *q, struct mm_error *err);
    enum mm_code (*end)(void *state, struct mm_report *r, struct mm_error *err);
    void (*release)(void *state);  // NULL is allowed
    mm_combine combine;            // the headline from the sums of outcomes
};

extern const struct mm_bench mm_bench_mme, mm_bench_mmbench, mm_bench_pope, mm_bench_seed,
    mm_bench_mmmu, mm_bench_mmvet, mm_bench_textvqa, mm_bench_sqa, mm_bench_gqa;

// By name; an unknown one is mm_code_usage and the sentence lists them.
enum mm_code mm_bench_find(const struct mm_bench **bench, const char *name, struct mm_error *err);

#endif
