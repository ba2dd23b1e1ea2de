// What the three files of a run share: run.c (the whole), run_stage.c (one stage's loop),
// run_folder.c (what is on disk).
#ifndef MM_TRAIN_RUN_INTERNAL_H
#define MM_TRAIN_RUN_INTERNAL_H

#include <stdio.h>
#include "io/tokenizer.h"
#include "train/data.h"
#include "train/optim.h"
#include "train/run.h"

enum { mm_run_done = 4 };  // the stage number of a finished run

struct mm_checkpoint {  // all that a run needs to go on, beside the tensors
    int stage;          // 0: supervised; 1..3; mm_run_done
    int64_t step;       // steps done in that stage
    int64_t total_steps, tokens;
    double seconds, loss;
    struct mm_data_cursor cursor;
    int64_t log_bytes;  // length of log.jsonl then
};

struct mm_run_context {
    const struct mm_run_options *opt;
    struct mm_backend *be;
    struct mm_tokenizer *tokenizer;
    char *assets;             // folder of the tokenizer
    struct mm_model teacher;  // distillation; else empty
    struct mm_model student;
    bool has_teacher, has_student;
    bool keep[mm_max_blocks];
    char data_hash[33], model_hash[33];
    struct mm_checkpoint at;
    int64_t planned_bytes;  // of the hungriest stage so far
    // Of the steps since this process began: useful operations (objective.c) and their seconds.
    double operations, seconds;
    FILE *log;
};

// run_folder.c
char *mm_run_path(const struct mm_run_options *o, const char *name);
enum mm_code mm_run_describe(const struct mm_run_context *c, json_t **out, struct mm_error *err);
// Writes run.json of a new run, or compares it with what is asked for now.
enum mm_code mm_run_begin_folder(struct mm_run_context *c, struct mm_error *err);
enum mm_code mm_run_load_checkpoint(struct mm_run_context *c, struct mm_error *err);  // `at` only
enum mm_code mm_run_restore(struct mm_run_context *c, struct mm_optim *o, struct mm_error *err);
enum mm_code mm_run_save_checkpoint(struct mm_run_context *c, const struct mm_optim *o,
                                    struct mm_error *err);
// stage<N>.safetensors: the student's own tensors, f32; masters where they train.
enum mm_code mm_run_save_stage(struct mm_run_context *c, int stage, const struct mm_optim *o,
                               struct mm_error *err);
enum mm_code mm_run_open_log(struct mm_run_context *c, struct mm_error *err);
enum mm_code mm_run_write_log(struct mm_run_context *c, json_t *line, struct mm_error *err);
// The file of the last finished stage before `stage`, or NULL.
char *mm_run_previous_stage(const struct mm_run_options *o, int stage);

// run_stage.c: trains context->student until the stage's last step.
enum mm_code mm_run_stage(struct mm_run_context *c, int stage, struct mm_error *err);
struct mm_data_options mm_run_data_options(const struct mm_run_context *c, int stage,
                                           const struct mm_config *config);

#endif
