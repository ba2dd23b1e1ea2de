// A run: one folder that holds everything about a training or a distillation, from which it goes on
// after it was killed, on the CPU to the same bits.
//
//   run.json                what the run is: kind, model, data, their hashes, recipe
//   checkpoint.safetensors  masters and moments of what trains, step, place in the data
//   stage<N>.safetensors    what stage N trained, f32, by distillation names
//   log.jsonl               a line a step;  loss.png: the curves
//   model/                  the result, as a Hugging Face folder
#ifndef MM_TRAIN_RUN_H
#define MM_TRAIN_RUN_H

#include "train/recipe.h"

struct mm_run_options {
    bool distill;        // else supervised training
    const char *model;   // teacher, or the model to train from; NULL: random from `config`
    const char *config;  // config.json for random weights, with the tokenizer beside it
    const char *data;    // meta JSON
    const char *out;     // run folder
    struct mm_recipe recipe;
    bool stages[4];    // [1..3], distillation
    const char *keep;  // KEEP text
    enum mm_init init;
    bool resume;
};

struct mm_run_summary {
    int64_t steps, tokens, skipped_samples;
    double loss, seconds;               // loss: of the last step
    int64_t planned_bytes, peak_bytes;  // said before the stages began, the largest; taken
    double operations_per_s;            // useful ones (docs/PERFORMANCE.md), of this process
};

// Runs, or goes on. mm_code_interrupted after a checkpoint was written. Says on standard error
// what memory it will take before it starts.
enum mm_code mm_run(const struct mm_run_options *options, struct mm_backend *be,
                    struct mm_run_summary *summary, struct mm_error *err);

// Opens the model a run folder holds after stage `stage` (0: its result; of supervised training
// that is not finished, its last checkpoint), for export and eval: *model shares memory with
// *teacher where that is wanted; both must be deinit'ed, the teacher last. `assets` receives the
// folder that has the tokenizer (free it).
enum mm_code mm_run_open_model(struct mm_model *model, struct mm_model *teacher, char **assets,
                               const char *folder, int stage, struct mm_backend *be,
                               struct mm_error *err);
bool mm_run_is_folder(const char *path);  // has a run.json

#endif
