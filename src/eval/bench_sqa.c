// ScienceQA with pictures: multiple choice.
#include "eval/mcq.h"
#include "eval/prompt.h"

const struct mm_bench mm_bench_sqa = {
    .name = "sqa",
    .title = "ScienceQA-Image",
    .max_new_tokens = {1024, 0},
    .max_tiles = 6,
    .prompt = mm_prompt_choice,
    .begin = mm_mcq_begin,
    .add = mm_mcq_add,
    .end = mm_mcq_end,
    .release = mm_mcq_release,
    .combine = mm_outcomes_mean,
};
