// The questions of a data set in order: rows of a VLMEvalKit TSV, or lines of the InternVL kit's
// jsonl files.
#ifndef MM_EVAL_QUESTIONS_H
#define MM_EVAL_QUESTIONS_H

#include "eval/bench.h"
#include "eval/jsonl.h"
#include "eval/tsv.h"

enum mm_column {
    mm_column_index,
    mm_column_question,
    mm_column_answer,
    mm_column_image,
    mm_column_image_path,
    mm_column_hint,
    mm_column_category,
    mm_column_l2_category,
    mm_column_split,
    mm_column_g_index,
    mm_column_structural,
    mm_column_semantic,
    mm_column_count
};

struct mm_questions {
    const struct mm_bench *bench;
    char *path;  // the file, or the kit's folder
    bool kit;
    int64_t limit;  // at most so many questions; 0: all
    enum mm_tsv_form form;
    int64_t next_row;   // of the table
    int64_t n_given;    // questions given out
    int64_t n_dropped;  // rows passed over because their image cell is missing
    // a table
    struct mm_tsv tsv;
    struct mm_tsv_row row;
    int column[mm_column_count];  // -1: the table has none
    int option[26];
    // the kit's lines
    struct mm_jsonl lines;
    json_t *line;
    char index_room[24];
    struct mm_str line_image;
};

// `form`: mm_tsv_form_table to ask, mm_tsv_form_result to score.
enum mm_code mm_questions_open(struct mm_questions *q, const struct mm_bench *bench,
                               const char *path, bool pandas1, enum mm_tsv_form form, int64_t limit,
                               struct mm_error *err);
void mm_questions_close(struct mm_questions *q);
void mm_questions_rewind(struct mm_questions *q);
// *out receives the next question; *end is set behind the last.
enum mm_code mm_questions_next(struct mm_questions *q, struct mm_question *out, bool *end,
                               struct mm_error *err);
// How many there are in all, counted by reading.
enum mm_code mm_questions_count(struct mm_questions *q, int64_t *n, struct mm_error *err);
// "<file>: line 12: column 'answer': <what>" about the question read last.
enum mm_code mm_questions_wrong(const struct mm_questions *q, const char *field,
                                struct mm_error *err, const char *what);

#endif
