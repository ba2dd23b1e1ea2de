// config.json of the two kinds of model: the teacher HoVLE ("internvl_chat") and the student
// mmMamba ("mmMamba_chat"). Sizes always come from here, never from code.
#ifndef MM_MODEL_CONFIG_H
#define MM_MODEL_CONFIG_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/quant.h"
#include "base/status.h"

enum mm_mixer { mm_mixer_mha, mm_mixer_mamba2 };

enum mm_rope_scaling { mm_rope_scaling_none, mm_rope_scaling_linear, mm_rope_scaling_dynamic };

enum { mm_max_blocks = 512 };  // both stacks together

// One of the two stacks of blocks.
struct mm_stack_config {
    int64_t n_blocks;
    int64_t D, H, G, P, F;
    double rms_eps;
    double rope_theta;
    enum mm_rope_scaling rope_scaling;
    double rope_factor;     // 1 when none
    int64_t max_positions;  // max_position_embeddings
    // Options of the Mamba-2 mixer; the paper's model: A on, D and qknorm off. (The published
    // code has no consistent model with use_conv or use_gnorm off: those are refused.)
    bool use_A, use_D, use_qknorm;
    int64_t K;  // convolution width, 2
};

struct mm_config {
    bool student;                         // mmMamba_chat
    struct mm_stack_config embed;         // embedding_model: the first blocks
    struct mm_stack_config llm;           // language_model
    enum mm_mixer mixers[mm_max_blocks];  // of block 0 .. L-1, through both stacks
    int64_t V;                            // vocabulary of text embeddings and of the output
    int64_t n_special;                    // rows of special_text_embeddings; 0: none
    bool normalize_encoder_output;
    bool shuffle_post;          // pixel_shuffle_loc
    int64_t image_size, patch;  // S, and the side of a patch
    int64_t img_context_id;
    bool dynamic_tiles, thumbnail;
    int64_t min_tiles, max_tiles;
    int64_t bos_id, eos_id;  // -1 when the config has none
    char torch_dtype[16];
    enum mm_dtype quant;  // q8 or q4: the format of the big matrices; else they are not quantized
    json_t *json;         // the file as read, so that unknown fields survive writing
};

static inline int64_t mm_config_blocks(const struct mm_config *c) {  // L
    return c->embed.n_blocks + c->llm.n_blocks;
}
static inline const struct mm_stack_config *mm_config_stack(const struct mm_config *c,
                                                            int64_t block) {
    return block < c->embed.n_blocks ? &c->embed : &c->llm;
}
static inline int64_t mm_config_tile_patches(const struct mm_config *c) {  // (S/patch)^2
    return (c->image_size / c->patch) * (c->image_size / c->patch);
}
static inline int64_t mm_config_tile_tokens(const struct mm_config *c) {  // after the shuffle
    return mm_config_tile_patches(c) / 4;
}

// `path` is the JSON file itself. Checks everything; see the .c for the ranges.
enum mm_code mm_config_read(struct mm_config *c, const char *path, struct mm_error *err);
enum mm_code mm_config_parse(struct mm_config *c, const char *text, size_t n, const char *what,
                             struct mm_error *err);
void mm_config_deinit(struct mm_config *c);
enum mm_code mm_config_copy(struct mm_config *to, const struct mm_config *from,
                            struct mm_error *err);

// Makes *to the student of a teacher: the same sizes, mmMamba's names, block b a Mamba-2 block
// unless keep[b] (L flags). With every block kept it is still the student's format.
enum mm_code mm_config_student(struct mm_config *to, const struct mm_config *teacher,
                               const bool *keep, struct mm_error *err);
// Changes "torch_dtype" ("float32", "float16", "bfloat16").
void mm_config_set_dtype(struct mm_config *c, const char *torch_dtype);
// Changes "quantization_config" to q8 or q4; any other type takes it out.
void mm_config_set_quant(struct mm_config *c, enum mm_dtype quant);
// Writes json with this struct's mixers and dtype in it to `path`; atomic.
enum mm_code mm_config_write(const struct mm_config *c, const char *path, struct mm_error *err);

// KEEP of the command line: "none", "all", "0,4,8", "head-interleaved:8", "tail-interleaved:8",
// "head-stacked:8", "tail-stacked:8"; fills L flags. docs/MODEL.md section 2.
enum mm_code mm_keep_parse(const char *text, int64_t n_blocks, bool *keep, struct mm_error *err);

#endif
