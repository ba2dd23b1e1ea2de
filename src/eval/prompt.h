// Questions as the mmMamba adapter and the InternVL kit put them to the model. Nothing is trimmed.
#ifndef MM_EVAL_PROMPT_H
#define MM_EVAL_PROMPT_H

#include "eval/bench.h"

// One per shape of question; each appends the text that follows the picture.
void mm_prompt_mme(const struct mm_question *q, bool kit, struct mm_buf *out);
void mm_prompt_pope(const struct mm_question *q, bool kit, struct mm_buf *out);
void mm_prompt_gqa(const struct mm_question *q, bool kit, struct mm_buf *out);
void mm_prompt_vqa(const struct mm_question *q, bool kit, struct mm_buf *out);
void mm_prompt_bare(const struct mm_question *q, bool kit, struct mm_buf *out);  // MM-Vet
void mm_prompt_choice(const struct mm_question *q, bool kit, struct mm_buf *out);

// The user's whole message with "<image>" where pictures go: one in front; several as numbered
// headers and, behind the text, tags of their numbers; none.
void mm_prompt_message(const struct mm_bench *bench, const struct mm_question *q, bool kit,
                       int n_pictures, struct mm_buf *out);

// Whether the text has the instruction already that the prompt adds, so that it is there twice, as
// in the kit. What is wrong with the text of a question that the kit's own prompt refuses, or NULL.
bool mm_prompt_is_doubled(const struct mm_bench *bench, const struct mm_question *q);
const char *mm_prompt_wrong(const struct mm_bench *bench, const struct mm_question *q, bool kit);

#endif
