// What scoring gives: a headline, named scores, and what was left out.
#ifndef MM_EVAL_REPORT_H
#define MM_EVAL_REPORT_H

#include <stdint.h>
#include <stdio.h>
#include "base/buf.h"
#include "base/status.h"
#include "eval/outcomes.h"
#include "eval/str.h"

struct mm_score {
    char *name;
    double value;  // 0..100; MME in its points
};

struct mm_question;

// What became of the answer that was added last, for those who show it.
struct mm_verdict {
    double score;     // 0 wrong .. 1 right
    bool unresolved;  // no rule could read it, or no judge has yet
    char wanted[32];  // where only the scorer knows it, else empty
    char read[32];    // what was taken out of it: a letter, Yes; empty: nothing
};

struct mm_report {
    const char *bench;
    int64_t questions;       // scored
    int64_t unresolved;      // answers that no rule could read
    int64_t missing_images;  // questions left out because of their picture
    int64_t unanswered;      // questions without a prediction
    bool has_headline;
    double headline;
    struct mm_score *scores;  // (n_scores)
    int64_t n_scores;
    struct mm_score *extras;  // (n_extras) fields beside the scores
    int64_t n_extras;
    double seconds;
    // What scoring may use; each may be NULL.
    FILE *unresolved_to;           // receives what a judge has to read, as JSON lines
    const char *judge_path;        // a file of the judge's grades or readings
    struct mm_outcomes *outcomes;  // receives what the headline is made of
    struct mm_verdict verdict;     // of the answer added last
};

void mm_report_free(struct mm_report *r);
void mm_report_add(struct mm_report *r, double value, const char *name, ...)
    __attribute__((format(printf, 3, 4)));
void mm_report_extra(struct mm_report *r, double value, const char *name);
double mm_report_get(const struct mm_report *r, const char *name);  // a score; NaN: there is none
void mm_report_headline(struct mm_report *r, double value);
// Notes the verdict; `read` may be empty.
void mm_report_verdict(struct mm_report *r, double score, struct mm_str read);
void mm_report_wanted(struct mm_report *r, struct mm_str wanted);
// Counts an answer that no rule could read and writes it down for a judge.
enum mm_code mm_report_unresolved(struct mm_report *r, const struct mm_question *q,
                                  struct mm_str prediction, struct mm_error *err);

void mm_report_print_json(const struct mm_report *r, struct mm_buf *out);
void mm_report_print_table(const struct mm_report *r, struct mm_buf *out);

#endif
