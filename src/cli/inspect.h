// What `inspect` knows of a model: counted from the list of parameters, shown as a table.
#ifndef MM_CLI_INSPECT_H
#define MM_CLI_INSPECT_H

#include "io/file.h"
#include "model/model.h"
#include "train/recipe.h"

enum mm_part {
    mm_part_image,      // patches, positions, what follows the shuffle
    mm_part_text,       // embeddings of text and special tokens
    mm_part_attention,  // mixers of attention blocks
    mm_part_mamba2,     // mixers of Mamba-2 blocks
    mm_part_mlp,
    mm_part_norms,
    mm_part_output,
    mm_part_unused,  // stored, and not part of the forward
    mm_part_count,
};
extern const char *const mm_part_keys[mm_part_count];  // as in the JSON

struct mm_inspection {
    const char *path;
    struct mm_model model;  // the list only: no memory
    bool planned;           // not what is on disk, but what would be
    size_t disk_bytes, memory_bytes;
    size_t quantized_bytes;  // of memory_bytes: rows of q8 or q4
    int64_t tokens;
    int64_t parameters, part[mm_part_count];
    int64_t trainable[4];  // [1..3]
    int64_t of[4];         // parameters of the model that stage trains
};

// Fills the counts. What trains: stages 1 and 2 convert every block, stage 3 those that are
// Mamba-2 blocks (of a teacher: every block). recipe_path names the recipe in messages, or is NULL
// for the published one.
enum mm_code mm_inspection_count(struct mm_inspection *x, const struct mm_recipe *r,
                                 const char *recipe_path, struct mm_error *err);
const char *mm_inspection_type(const struct mm_inspection *x);  // "mmMamba_chat", "internvl_chat"
void mm_inspection_print(const struct mm_inspection *x);

#endif
