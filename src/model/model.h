// A model in memory: one list of parameters, blocks that point into it, and the functions that
// compute with them. Nothing here knows where it runs: all arithmetic goes through src/ops.
//
// Letters as in docs/MODEL.md: T tokens of all packed sequences, D hidden, H query heads, G
// key/value heads, P head size, F feed-forward size, V vocabulary, L blocks of both stacks,
// Z = 2GP + 2HP + H rows of the stacked mixer projection, C = (2G+H)P convolution channels.
#ifndef MM_MODEL_MODEL_H
#define MM_MODEL_MODEL_H

#include "base/arena.h"
#include "io/safetensors.h"
#include "model/config.h"
#include "ops/draw.h"
#include "ops/ops.h"

// ---- the list of parameters ---------------------------------------------------------------------

enum mm_role {
    // once a model
    mm_role_patch_w,
    mm_role_patch_b,
    mm_role_class,  // stored, not used by the published forward
    mm_role_position,
    mm_role_shuffle0_w,
    mm_role_shuffle0_b,
    mm_role_shuffle2_w,
    mm_role_shuffle2_b,
    mm_role_text,
    mm_role_special,
    mm_role_tok,  // stored, not used when the embedding model feeds the decoder
    mm_role_norm,
    mm_role_output,
    // once a block
    mm_role_attention_norm,
    mm_role_wqkv,    // attention blocks
    mm_role_v_proj,  // Mamba-2 blocks: v, k, q, g, dt are adjacent rows of one tensor
    mm_role_k_proj,
    mm_role_q_proj,
    mm_role_g_proj,
    mm_role_in_proj,
    mm_role_conv_w,
    mm_role_conv_b,
    mm_role_dt_bias,
    mm_role_A_log,
    mm_role_D,
    mm_role_q_norm_w,
    mm_role_q_norm_b,
    mm_role_k_norm_w,
    mm_role_k_norm_b,
    mm_role_g_norm,
    mm_role_wo,  // "wo" in attention blocks, "o_proj" in Mamba-2 blocks
    mm_role_ffn_norm,
    mm_role_w1,
    mm_role_w2,
    mm_role_w3,
    mm_role_count,
};
enum { mm_role_first_of_block = mm_role_attention_norm };

// Parameters of a Mamba-2 block that are adjacent rows of one tensor, in files (released layout)
// and in memory: all five projections; of a quantized model v, k, q (quantized) and g, dt (not).
enum mm_stack {
    mm_stack_none,
    mm_stack_vkqgdt,
    mm_stack_vkq,
    mm_stack_gdt,
    mm_stack_count,
};

struct mm_param {
    char name[112];  // as in a distillation checkpoint (and, outside mixers, everywhere)
    enum mm_role role;
    enum mm_stack stack;
    int block;  // -1: once a model
    int n_axes;
    int64_t shape[4];  // as stored
    bool matrix;       // in the model's dtype, or quantized; everything else is f32 in memory
    bool decay;        // weight decay applies: names without "bias"
    bool used;         // takes part in the forward
    unsigned stages;   // bit s-1: the published stage s trains it
    bool borrowed;     // memory belongs to a mapping or to another model
    struct mm_view w;  // (shape[0], rest); 1-axis parameters: (n)
};

struct mm_block {
    enum mm_mixer mixer;
    const struct mm_stack_config *stack;
    int p[mm_role_count];  // index into params of each role; -1: this block has none
    // Mamba-2 blocks only: the five projections as one, (Z, D); of a quantized model data is NULL
    // there, and two stacks take its place.
    struct mm_view wvkqgdt;
    struct mm_view wvkq;  // (2GP + HP, D), quantized
    struct mm_view wgdt;  // (HP + H, D)
};

struct mm_model {
    struct mm_config config;
    struct mm_backend *be;
    enum mm_dtype dtype;  // of matrices that are not quantized; config.quant says which are
    int n_params;
    struct mm_param *params;
    int global[mm_role_count];  // index into params of a role once a model; -1: none
    int64_t n_blocks;
    struct mm_block *blocks;
    struct mm_st *source;  // mapping that borrowed parameters live in, or NULL
    void **owned;          // device blocks to release
    size_t *owned_bytes;
    int n_owned;
    char path[1024];  // where it came from, for messages
};

static inline struct mm_view mm_model_w(const struct mm_model *m, enum mm_role role) {
    return m->global[role] < 0 ? MM_NONE : m->params[m->global[role]].w;
}
static inline struct mm_view mm_block_w(const struct mm_model *m, const struct mm_block *b,
                                        enum mm_role role) {
    return b->p[role] < 0 ? MM_NONE : m->params[b->p[role]].w;
}

static inline bool mm_model_quantized(const struct mm_model *m) {
    return mm_dtype_quantized(m->config.quant);
}
static inline const char *mm_model_dtype_name(const struct mm_model *m) {
    return mm_dtype_name(mm_model_quantized(m) ? m->config.quant : m->dtype);
}

// What weight gradients round their operands to: products follow the dtype of the weights.
static inline enum mm_dtype mm_model_product(const struct mm_model *m) {
    return m->dtype == mm_dtype_bf16 ? mm_dtype_bf16 : mm_dtype_f32;
}

// What activations, keys and values are: half floats only where weights have no more.
static inline enum mm_dtype mm_model_act(const struct mm_model *m) {
    const bool coarse = m->dtype == mm_dtype_bf16 || mm_model_quantized(m);
    return coarse && m->be ? m->be->activations : mm_dtype_f32;
}

// Builds the list for a config: names, shapes, roles; no memory yet. The list of a quantized model
// has no parameters that the forward does not use.
void mm_model_init(struct mm_model *m, const struct mm_config *config, struct mm_backend *be,
                   enum mm_dtype dtype);
void mm_model_deinit(struct mm_model *m);                       // also after a failed load
int mm_model_find(const struct mm_model *m, const char *name);  // index of a parameter, or -1
int64_t mm_model_n_parameters(const struct mm_model *m);        // elements, unused ones included
size_t mm_model_weight_bytes(const struct mm_model *m);         // in memory, shared ones included
// Gives every parameter memory of its own (zeros).
enum mm_code mm_model_alloc(struct mm_model *m, struct mm_error *err);
// The same for those that the forward uses: for models that are measured, never written.
enum mm_code mm_model_alloc_used(struct mm_model *m, struct mm_error *err);
// Gives one parameter (with its stacked neighbours) memory of its own and copies it there.
enum mm_code mm_model_own(struct mm_model *m, int param, struct mm_error *err);

// Points a parameter, or all of the stack it is in, at memory of so many bytes.
void mm_param_place(struct mm_model *m, int param, void *data, bool borrowed);
size_t mm_param_place_bytes(const struct mm_model *m, int param);
// The tensor that a stacked parameter is rows of.
struct mm_view mm_param_stack(const struct mm_model *m, const struct mm_param *p);
// The name in a released checkpoint where it differs from p->name: written to out, else NULL.
const char *mm_param_released_name(const struct mm_param *p, char out[128]);
// mm_code_input for a quantized model: `what` cannot be done with it, and why.
enum mm_code mm_model_refuse_quantized(const struct mm_model *m, const char *what,
                                       struct mm_error *err);

// Loads a folder, or "CONFIG.json:WEIGHTS.safetensors". dtype -1 keeps matrices as stored (the
// dtype of the first block's wo), else converts. Weights that need no conversion stay in the
// mapping when the backend can read host memory.
enum mm_code mm_model_load(struct mm_model *m, struct mm_backend *be, const char *path, int dtype,
                           struct mm_error *err);
// Overwrites parameters from tensors of a file, by released or distillation names. Tensors that
// are no parameter of the model are an error.
// Where `others` is true, such tensors are passed over instead: a hybrid takes its converted blocks
// from a checkpoint in which all were.
enum mm_code mm_model_apply(struct mm_model *m, const struct mm_st *st, bool others,
                            struct mm_error *err);
// Writes config.json and model.safetensors in the released layout: stacked wvkqgdt,
// g_norm_swish_gate, teacher's names in attention blocks. Unless NULL, mm_model_copy_assets copies
// the rest from `assets_from` (a folder). Refuses a quantized model: the layout has no place for
// it.
enum mm_code mm_model_save(const struct mm_model *m, const char *folder, enum mm_dtype dtype,
                           const char *assets_from, struct mm_error *err);
// Writes the model as `folder` with its big matrices quantized. A slice of rows at a time, so
// memory does not grow with the model; the same bytes for any number of threads.
struct mm_feedback {
    const float *u;           // (K, K) of model/feedback.h, or NULL: every weight for itself
    const float *importance;  // (K) mean squares of the inputs, or NULL
};
struct mm_quantize {
    enum mm_dtype dtype;  // q8 or q4
    // What is known of the inputs of a parameter (of a stack: its first); NULL: nothing of any
    enum mm_code (*feedback)(void *arg, const struct mm_param *p, struct mm_feedback *f,
                             struct mm_error *err);
    void *arg;
};
struct mm_quantize_report {
    int n_quantized, n_kept;                // tensors
    size_t quantized_bytes, kept_bytes;     // as written
    size_t source_bytes;                    // of all of them before
    int64_t n_weights;                      // quantized ones
    double squared_error, squared_weights;  // sums over quantized weights
};
enum mm_code mm_model_quantize(const struct mm_model *m, const char *folder,
                               const struct mm_quantize *how, const char *assets_from,
                               struct mm_quantize_report *report, struct mm_error *err);
// Copies what a model folder has beside config and weights: the tokenizer's files (warns where
// there is none), generation_config.json, preprocessor_config.json, and the Python files when the
// modules that the auto_map of `config` names are among them.
enum mm_code mm_model_copy_assets(const char *from, const char *to, const struct mm_config *config,
                                  struct mm_error *err);
// The folder that a model's path (folder, CONFIG.json, or CONFIG.json:WEIGHTS) lies in; free it.
char *mm_model_folder(const char *path);
// Random weights for training from scratch: matrices U(+-1/sqrt(in)), residual outputs scaled by
// 1/sqrt(2L), embeddings N(0, 0.02^2), norms 1, biases 0.
void mm_model_randomize(struct mm_model *m, uint64_t seed);
// Copies host f32 values into a parameter, converting (n elements), and back. Quantized ones only
// back.
void mm_param_put(struct mm_model *m, struct mm_view w, const float *src);
void mm_param_get(const struct mm_model *m, struct mm_view w, float *dst);
// 128-bit hash of the names and values of the weights, as 32 hex digits.
void mm_model_hash(const struct mm_model *m, char out[33]);

// ---- carving (docs/MODEL.md section 3) ----------------------------------------------------------

enum mm_init { mm_init_scratch, mm_init_inherit, mm_init_mimic };
int mm_init_parse(const char *text);  // -1 when unknown

// Makes a student of a teacher. Frozen tensors are shared with the teacher's memory, which must
// outlive the student; mixers are new, in the teacher's dtype. keep: L flags.
enum mm_code mm_model_carve(struct mm_model *student, const struct mm_model *teacher,
                            const bool *keep, enum mm_init init, uint64_t seed,
                            struct mm_error *err);

// ---- layout of an input -------------------------------------------------------------------------

// Packed sequences of token ids, with pictures, as the two stacks see them. Built on the host by
// mm_layout_make, arrays then live in the backend's memory.
struct mm_stream {  // one for each stack; the same when the shuffle comes first
    int64_t T;
    struct mm_segs segs;
    struct mm_view pos;  // (T) i32
    int64_t longest;     // rows of the longest sequence, `past` included
    int64_t tail;        // rows at the end that a block has to make; 0: all of them
};
struct mm_layout {
    int64_t n_tiles;
    struct mm_stream embed, llm;
    struct mm_view ids;       // (embed.T) i32: text rows; -1 at image rows and special tokens
    struct mm_view img_rows;  // rows of the embed stream that images fill, i32
    struct mm_view special_rows, special_ids;  // ids >= V: rows, and indices into `special`
    // "post" only: how rows of the embed stream become rows of the llm stream
    struct mm_view text_from, text_to;  // i32: llm row text_to[i] = embed row text_from[i]
    struct mm_view img_to;              // i32: llm rows that shuffled image rows fill
};

// ids (T) in short form, sequences start[0..n_seqs]; past: rows of the (single) sequence already
// in the state of each stack. Index arrays are made in *host and copied to *device (for a backend
// with host memory both may be the same arena); both must live as long as the layout. Fails when
// image tokens and tiles do not fit together (each tile: tile_tokens ids img_context_id), or an id
// is out of range; `what` names the input.
enum mm_code mm_layout_make(struct mm_layout *l, const struct mm_model *m, struct mm_arena *host,
                            struct mm_arena *device, const int32_t *ids, const int32_t *start,
                            int64_t n_seqs, int64_t n_tiles, int64_t past_embed, int64_t past_llm,
                            const char *what, struct mm_error *err);
// Shapes only, for planning memory: T short tokens in n_seqs sequences with n_tiles tiles.
void mm_layout_plan(struct mm_layout *l, const struct mm_model *m, struct mm_arena *device,
                    int64_t T, int64_t n_seqs, int64_t n_tiles);
// Bytes of host arena that mm_layout_make takes for such an input, at most.
size_t mm_layout_host_bytes(const struct mm_model *m, int64_t T, int64_t n_seqs, int64_t n_tiles);

// ---- state of one sequence ----------------------------------------------------------------------

struct mm_state {
    struct mm_model *model;
    int64_t n_embed, n_llm;         // rows seen by each stack
    int64_t cap;                    // rows of k and v that fit
    struct mm_block_state *blocks;  // (L)
    void *fixed, *cache;            // device memory
    size_t fixed_bytes, cache_bytes;
    struct mm_parts parts;  // in place of `cache` where memory can grow: k and v of each block
};
enum mm_code mm_state_init(struct mm_state *s, struct mm_model *m, struct mm_error *err);
void mm_state_deinit(struct mm_state *s);
void mm_state_clear(struct mm_state *s);
enum mm_code mm_state_reserve(struct mm_state *s, int64_t tokens, struct mm_error *err);
enum mm_code mm_state_copy(struct mm_state *to, const struct mm_state *from, struct mm_error *err);
size_t mm_model_state_bytes(const struct mm_model *m);            // fixed part, of one sequence
size_t mm_model_cache_bytes_per_token(const struct mm_model *m);  // of kept attention blocks

// ---- computing ----------------------------------------------------------------------------------

// Gradients by parameter: f32 views of the parameter's shape, data NULL where it does not train.
struct mm_grads {
    struct mm_view *of;  // (n_params)
};

// What a block's forward leaves for its backward. Views are NULL where they do not apply.
struct mm_mixer_acts {
    struct mm_view u;                                       // (T, D) normed input
    struct mm_view q, k, v, y, lse;                         // attention; y (T,H,P) before wo
    struct mm_view z, c, cn, dt, ys, rinv, qstats, kstats;  // Mamba-2; ys = SSD output
    struct mm_view o;  // (T, H*P) before the output projection, either kind
};
struct mm_block_acts {
    struct mm_view x, rinv1;  // input, (T)
    struct mm_mixer_acts mix;
    struct mm_view x2, rinv2, h;  // after the mixer; normed
    struct mm_view a, b, s;       // w1 h, w3 h, silu(a) * b   (T, F)
};

// Mixer without its output projection: fills acts->o from acts->u. state NULL: sequences start
// from nothing. keep: leave what the backward needs.
void mm_mixer_fwd(struct mm_model *m, const struct mm_block *b, const struct mm_stream *st,
                  struct mm_mixer_acts *acts, struct mm_block_state *state, bool keep,
                  struct mm_arena *arena);
// From d_o (T, H*P) to du (T, D); adds to the gradients. du.data NULL: not wanted.
void mm_mixer_bwd(struct mm_model *m, const struct mm_block *b, const struct mm_stream *st,
                  const struct mm_mixer_acts *acts, struct mm_grads *g, struct mm_view du,
                  struct mm_view d_o, struct mm_arena *arena);

// One block: y (T, D) = block(x (T, D)), y not x. keep: leave what the backward needs; whole:
// everything in `acts`, until the arena is released. Else only acts->mix and acts->h are left.
void mm_block_fwd(struct mm_model *m, const struct mm_block *b, const struct mm_stream *st,
                  struct mm_block_acts *acts, struct mm_view y, struct mm_view x,
                  struct mm_block_state *state, bool keep, bool whole, struct mm_arena *arena);
// dx overwrites dy in place.
void mm_block_bwd(struct mm_model *m, const struct mm_block *b, const struct mm_stream *st,
                  const struct mm_block_acts *acts, struct mm_grads *g, struct mm_view dy,
                  struct mm_arena *arena);

// Pictures to rows. pixels (n, 3, S, S) f32.
struct mm_vision_acts {
    struct mm_view patches;           // (n R, 3 p^2)
    struct mm_view rows;              // (n R, D) after position
    struct mm_view shuffled, h0, g0;  // (n R/4, 4D), (.., D), gelu of it
    struct mm_view out;               // (n R/4, D)
};
void mm_vision_patch_fwd(struct mm_model *m, struct mm_vision_acts *a, struct mm_view pixels,
                         struct mm_arena *arena);  // -> rows
void mm_vision_shuffle_fwd(struct mm_model *m, struct mm_vision_acts *a, struct mm_view rows,
                           struct mm_arena *arena);  // -> out
void mm_vision_shuffle_bwd(struct mm_model *m, const struct mm_vision_acts *a, struct mm_grads *g,
                           struct mm_view drows, struct mm_view dout, struct mm_arena *arena);
void mm_vision_patch_bwd(struct mm_model *m, const struct mm_vision_acts *a, struct mm_grads *g,
                         struct mm_view drows);

// Base of the rotary angles of a sequence of `length` rows, and the factor of its positions.
float mm_rope_base(const struct mm_stack_config *s, int64_t length);
float mm_rope_scale(const struct mm_stack_config *s);

// Whole model.
struct mm_forward {
    struct mm_block_acts *blocks;  // (L)
    struct mm_vision_acts vision;
    struct mm_view embed_in;           // (embed.T, D)
    struct mm_view embed_out;          // (embed.T, D) after the first stack
    struct mm_view llm_in, norm_rinv;  // decoder input; of the optional L2 norm
    struct mm_view last, last_rinv;    // output of the last block; of the final norm
    struct mm_view hidden;             // (llm.T, D) after the final norm: times `output` = logits
    // Set by the caller, with a state, one sequence and no tap: `hidden` is wanted of this many
    // rows at the end only, and has no others. What the last block does not owe its state is then
    // not computed for the rest. 0: all rows.
    int64_t tail;
};
// Called after block `block` with its output y (T, D) of its stream and its activations, before
// they are released; for probes and layerwise losses. May take from the arena and give it back.
struct mm_tap {
    void (*fn)(void *arg, int64_t block, const struct mm_stream *st,
               const struct mm_block_acts *acts, struct mm_view y, struct mm_arena *arena);
    void *arg;
    bool whole;  // fn looks at more of acts than mix and h
};
// state NULL for training. keep: leave activations for mm_model_bwd (in f); recompute: leave only
// each block's input, which changes no bit of any result. Without keep, the arena holds one block's
// temporaries at a time.
void mm_model_fwd(struct mm_model *m, const struct mm_layout *l, struct mm_view pixels,
                  struct mm_state *state, struct mm_forward *f, bool keep, bool recompute,
                  const struct mm_tap *tap, struct mm_arena *arena);
// dhidden (llm.T, D) is destroyed. Adds to all gradients that are wanted; stops below the lowest.
void mm_model_bwd(struct mm_model *m, const struct mm_layout *l, struct mm_forward *f,
                  struct mm_grads *g, struct mm_view dhidden, bool recompute,
                  struct mm_arena *arena);

// ---- decoding -----------------------------------------------------------------------------------

// What token steps of up to `max` sequences side by side need: the model as mm_decode_step takes
// it, and memory. Before a step the caller fills the first n of `states`, `tokens` and `wanted`.
struct mm_stepper_draw {
    // Where the penalty is not 1: the tokens it holds for, and a number, not 0, that is this
    // answer's own among all that a stepper draws for.
    const int32_t *ids;  // (n)
    int64_t n;
    uint64_t answer;
};
struct mm_stepper {
    struct mm_model *m;
    int64_t max;
    struct mm_state **states;  // different ones
    int32_t *tokens;           // not a picture's
    float **wanted;  // where the logits (V) after the token go, on the host; NULL: not wanted
    struct mm_stepper_draw *draws;     // (max) of mm_stepper_draw, which the caller fills
    struct mm_step_block *blocks;      // (L)
    struct mm_step_seq *seqs;          // (max)
    struct mm_view x, hidden, logits;  // (max, D), (max, D), (max, V)
    struct mm_view ids;                // (max) i32
    struct mm_view drawn;              // (mm_stepper_ahead, max) i32
    struct mm_view stopped;            // (max) i32: the sequence drew one of `stops`, or its last
    struct mm_view kept;               // (max, V) logits of those that stopped
    bool *is_kept;                     // (max) the row's last logits are there
    struct mm_view banned;             // (mm_stepper_banned) i32
    struct mm_view seen;               // (max, V / 32) i32: of which answers' tokens says seen_of
    struct mm_stepper_seen *seen_of;   // (max)
    uint32_t *words;                   // a row of `seen` on its way
    int32_t *text;                     // (max) ids on their way
    struct mm_draw *how;  // (mm_stepper_ahead, n) of mm_stepper_draw, as is what follows
    struct mm_draw_stops stops;
    void *memory;
    size_t bytes;
};
// Makes room for n sequences; does nothing where there is enough.
enum mm_code mm_stepper_reserve(struct mm_stepper *p, struct mm_model *m, int64_t n,
                                struct mm_error *err);
void mm_stepper_deinit(struct mm_stepper *p);
// Reads one token of each of n sequences; each weight is read once for all. Takes no memory, but
// for keys and values that outgrow their room (mm_state_reserve).
enum mm_code mm_stepper_run(struct mm_stepper *p, int64_t n, struct mm_error *err);
// `count` steps one after the other, the first of `tokens`, each other of what was drawn after the
// one before it, as how[i * n + t] says: embedding, draw and stop happen where the logits are, and
// only ids (count, n) come to the host, after all of them. -1 is drawn from logits that are not
// finite. A sequence that draws -1, one of `stops`, or what `how` calls its last, has stopped: the
// steps after it are none of its own, and draw -1. `wanted` is not looked at.
enum mm_code mm_stepper_draw(struct mm_stepper *p, int64_t n, int64_t count, int32_t *ids,
                             struct mm_error *err);
// The logits (V) of a row, as its last step with logits left them.
enum mm_code mm_stepper_logits(struct mm_stepper *p, int64_t row, float *logits,
                               struct mm_error *err);
// `count` steps one after the other, each of the token with the largest logit after the last one,
// from `tokens` on; the host waits only for the last. ids (count, n): what was drawn after each
// step, so the last n have not been read yet; -1 after logits that are not finite. `wanted` is not
// looked at.
enum { mm_stepper_ahead = 32, mm_stepper_banned = 4 };
enum mm_code mm_stepper_greedy(struct mm_stepper *p, int64_t n, int64_t count,
                               const int32_t *banned, int n_banned, int32_t *ids,
                               struct mm_error *err);

#endif
