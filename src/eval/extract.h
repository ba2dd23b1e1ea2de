// From what a model said to the answer that is scored.
#ifndef MM_EVAL_EXTRACT_H
#define MM_EVAL_EXTRACT_H

#include "eval/text.h"

// The options of a multiple choice question: text of A..Z; .s is NULL where there is none.
struct mm_choices {
    struct mm_str text[26];
};

// VLMEvalKit's can_infer: a letter that has an option, 'Z' (refuses to answer), or 0 (unresolved).
char mm_can_infer(struct mm_normalizer *room, struct mm_str answer, const struct mm_choices *c);

enum mm_yes_no { mm_yes_no_unknown, mm_yes_no_yes, mm_yes_no_no };
// VLMEvalKit's YOrN_Extraction.
enum mm_yes_no mm_yorn_extract(struct mm_normalizer *room, struct mm_str answer);
// The InternVL kit's rule for POPE: never unknown.
enum mm_yes_no mm_pope_extract(struct mm_str answer);

// The InternVL kit's answer for GQA: without full stops at the end, lower-cased.
struct mm_str mm_gqa_convert(struct mm_buf *out, struct mm_str answer);

#endif
