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

struct mm_sorter;

struct mm_questions {
    const struct mm_bench *bench;
    char *path;  // the file, or the kit's folder
    bool kit;
    int64_t limit;  // at most so many questions; 0: all
    bool partial;   // scoring: questions are known to be left out, by a limit or as other shards'
    // scoring: memory of each sorter, 0: the usual; where joins keep the sorted indexes for the
    // next
    size_t sort_room;
    struct mm_sorter **keys;
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
    size_t line_at;  // where the line read last begins, and how many are in front of it
    int64_t line_before;
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
// A second reader of the same data from its beginning; `q` must outlive it.
void mm_questions_share(struct mm_questions *again, const struct mm_questions *q);
void mm_questions_unshare(struct mm_questions *again);
// *out receives the next question; *end is set behind the last.
enum mm_code mm_questions_next(struct mm_questions *q, struct mm_question *out, bool *end,
                               struct mm_error *err);
// Where the question read last stands, to read it again in any order.
struct mm_question_place {
    int64_t number;  // of the question
    int64_t at;      // the row of a table, or the byte of a line
    int64_t line;    // kit: lines in front of it
};
struct mm_question_place mm_questions_tell(const struct mm_questions *q);
enum mm_code mm_questions_at(struct mm_questions *q, struct mm_question_place place,
                             struct mm_question *out, struct mm_error *err);
// "<file>: line 12: column 'answer': <what>" about the question read last; for later, about the
// question that was the last when mm_questions_spot was called.
enum mm_code mm_questions_wrong(const struct mm_questions *q, const char *field,
                                struct mm_error *err, const char *what);
int64_t mm_questions_spot(const struct mm_questions *q);
enum mm_code mm_questions_wrong_at(const struct mm_questions *q, int64_t spot, const char *field,
                                   struct mm_error *err, const char *what);

#endif
