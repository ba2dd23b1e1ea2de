// A token step on the GPU: what the host writes down once for a model, what changes from token to
// token (the arguments of the launch), and how memory is laid out.
//
// One kernel walks through a token, one block on every multiprocessor. Eight blocks are a crew. A
// head of a mixer belongs to one crew from the first projection to its part of the last one, and so
// do some of the MLP's hidden numbers: a block of the model meets all other multiprocessors twice,
// when the crews' parts of the residual stream are added up, and not after every product. Nobody
// waits for a barrier first and for the data then: every number that travels has that of its
// meeting beside it (step_words.cuh). Weights wait for nobody at all: some warps of a block do
// nothing but bring them (step_bring.cuh), into queues in shared memory (step_queue.cuh) that run
// ahead, so the memory is busy while the others wait.
#ifndef MM_OPS_CUDA_STEP_CUH
#define MM_OPS_CUDA_STEP_CUH

#include "ops/cuda/cuda.h"

struct CUtensorMap_st;  // of cuda.h

enum {
    mm_step_warps = 8,                  // of a block that multiply; they are who this speaks of
    mm_step_twice = 2 * mm_step_warps,  // ... where there are as many (mm_step_args_linear)
    mm_step_bringers = 4,  // warps that bring the others their weights, some of them each
    mm_step_group = 4,     // of twice the warps as many share a queue
    mm_step_cols = 8,      // sequences of one walk: the columns of a tensor-core product
    mm_step_crew = 8,      // blocks of a crew
    mm_step_crews = 16,    // at most: as many parts are added up
    mm_step_kinds = 4,     // kinds of blocks in a model, at most
    mm_step_rounds = 2,    // heads of a crew, at most
    mm_step_tile = 16,     // rows of a product
    mm_step_rows = 64,     // of the first projection that a block has, at most
    mm_step_block = 128,   // columns that are handed on together
    mm_step_dt_ways = 16,  // sums of the row of dt
    mm_part_bytes = 48,
    mm_sums_piece = 512,  // bytes of sums that become zeros at once
    mm_exact_parts = 3,   // bf16 of a number of f32, where weights are not quantized
    // words of those that are said, and bytes of them as an operand (step_product.cuh)
    mm_words_bf16 = 68,
    mm_words_codes = 36,
    mm_words_exact = 128,
    mm_step_row_bf16 = 272,
    mm_step_row_codes = 192,
    mm_step_row_codes_one = 256,  // of one sequence; where it has what products of q4 meet besides
    mm_step_zeros = 144,
    mm_step_eights = 160,
    mm_step_negated = 192,
    // what the copy engine knows of a block's matrices: each one's codes (or bf16) and scales
    mm_step_maps = 2 * 5,
    mm_step_map_last = 2,  // of the output's, whose last tile has maps of its own
    mm_step_row_exact = 2 * 400,
};

// Where a block is in a block of the model, for who brings its weights (mm_pace).
enum mm_step_phase {
    mm_phase_begin,
    mm_phase_in,      // multiplies for v, k, q and dt, and hears what the crew has of them
    mm_phase_gate,    // the recurrence, the gate
    mm_phase_y,       // hears what comes of them
    mm_phase_wo,      // multiplies
    mm_phase_stream,  // hears what the mixer adds to the stream
    mm_phase_ffn,
    mm_phase_hidden,  // hears the MLP's hidden numbers
    mm_phase_w2,
    mm_phase_next,  // hears what the MLP adds to the stream
    mm_phase_output,
    mm_phases,
};

// Squares of a sequence's blocks of columns, and zeros behind them: 16 are asked for at a time.
__host__ __device__ inline int mm_squares_of(int D_blocks) {
    return (D_blocks + 15) / 16 * 16;
}

// The products of a block, in the order of the queues; those of the mixer come once a round.
enum mm_step_which {
    mm_step_in,    // v, k, q
    mm_step_gate,  // of a Mamba-2 block: while what the recurrence gave is on its way
    mm_step_wo,
    mm_step_ffn,  // w1 and w3
    mm_step_w2,
    mm_step_output,
};

// A matrix as the queues see it; the same in all blocks of a kind.
struct mm_step_shape {
    int type, rows, k;
    int pitch;               // bytes from row to row
    int code_bytes, blocks;  // of a quantized row
    int slots;               // of a row; `spb` in a block of 128 columns
    int spb;
    int split_log, per_part;  // 2^split_log warps share a tile; slots of each
    int tiles, per;           // tiles of a crew (of the device: output), and of one of its blocks
    // Rows of a head: segments of seg_rows each, 2^seg_tiles_log tiles; one begins at
    // row + head * per_head + group * per_group, and becomes part seg_z, seg_z + 1... of z.
    int n_seg, seg_rows, seg_tiles_log, seg_z;
    struct {
        int row, per_head, per_group;
    } seg[4];
};

// A kind of block.
struct mm_step_kind {
    int attention, H, P, ratio_log, F, conv_k, channels;  // 2^ratio_log heads a group
    int pairs;   // heads 2 i and 2 i + 1 have the same keys, and crews beside each other
    int rounds;  // heads of a crew, at most
    int unit;    // hidden numbers of the MLP a crew has
    int codes[2], exact[2];  // operands of the mixer's and the MLP's first product
    int dt_row, dt_pitch;    // of the first head's row of dt, and from row to row
    float eps;
    struct mm_step_shape shape[mm_step_output];
};

struct alignas(16) mm_step_layer {
    int kind, l2norm, stack;
    int turned;  // w1 is behind w3 in memory, so w[mm_step_ffn] is w3 and `w3` is w1
    const char *w[mm_step_output], *w3, *dt;
    const float *norm[2];  // of the mixer, of the MLP
    const float *conv_w, *conv_b, *dt_bias, *a_log, *d;
    const float *q_norm_w, *q_norm_b, *k_norm_w, *k_norm_b, *g_norm;
};

struct mm_step_state {
    float *S, *conv;
    void *k, *v;
};

// What lies in the device's memory, and is copied to shared memory when a token begins.
struct alignas(16) mm_step_model {
    struct mm_step_shape output;
    int n_kinds;
    struct mm_step_kind kinds[mm_step_kinds];  // the last: as many as there are come along
};

struct mm_step_at {
    int past[2];
    float base[2];
};

// Where things are in shared memory, in bytes from its begin; the queues come first.
struct mm_step_room {
    int red;      // (2, warps, 8 or 1, 16) f32: sums of warps that share a tile; and, but for one
                  // sequence without attention, parts of the stream, attention
    int dt;       // (mm_step_dt_ways, 8) f32: the same of the row of dt
    int local;    // (blocks of 128 columns, n): operand of a last projection
    int operand;  // (D_blocks, n): what first products multiply: codes, or bf16
    int exact;    // ... of a quantized model: what is not quantized does
    int squares;  // (n, mm_squares_of(D_blocks)) f32: of the residual stream
    int z;        // (n, z_ld) f32: of a head v, k, q, gate, dt; words of it: step_mixer.cuh
    int stream;   // (n, slice) f32: this block's columns of the residual stream; all, of one
                  // sequence
    int fresh;    // (rounds, n, 64) f32: new rows of the convolution's state
    int sum;      // (n, slice) f32: the last projection's sums over a crew's heads
    int conv;     // (rounds, n, 64, 8) f32: what the convolution of a row needs besides the new one
    int parts;    // (n_kinds * ops + 1, warps) of mm_part: step_queue.cuh
    int items;    // (kinds, rounds, 64) of mm_step_row: step_mixer.cuh
    int states, layers, model;
    int lanes;    // (32) of mm_q4_lane, of q4 in groups: step_slot.cuh
    int pace;     // what who brings for groups goes by: step_queue.cuh
    int zeros;    // mm_sums_piece bytes of them, of one sequence: step_words.cuh
    int numbers;  // two unsigned: bit i says that sequence i has stopped; turn of the first sums
    int bytes;
};

// Where words are that members of a crew say to each other, in words from the crew's begin.
struct mm_step_exchange {
    int x, x_block, x_exact;  // (2, cols, D_blocks, x_block); of a block, where exact ones begin
    int z;                    // (2, rounds, cols, z_ld)
    int y, y_ld;              // (2, rounds, cols, y_ld)
    int s, s_ld;              // (2, cols, s_ld): hidden numbers of the MLP
    int words;                // of a crew
};

// The arguments of one launch.
struct mm_step_args {
    static constexpr int warps = mm_step_warps, queues = warps;
    static constexpr bool groups = false;
    static constexpr int tile_sums = mm_step_cols * mm_step_tile;
    const struct mm_step_model *model;
    const struct mm_step_layer *layers;
    const struct mm_step_state *states;       // (blocks, cols)
    const struct CUtensorMap_st *maps;        // (blocks + 1) of mm_step_maps; NULL: none
    const struct CUtensorMap_st *group_maps;  // as many, of the slots that groups share; NULL: none
    int n_layers, n, D, crews;
    int queue, ring;  // bytes of a queue, and of its slots
    unsigned givers;  // lanes that say that a slot was read: 1 of the warp; all, for racecheck
    int slice;        // columns of the residual stream that a block has: whole blocks of 128
    int D_blocks;     // blocks of 128 columns of the residual stream
    int z_ld;
    int rounds;       // heads of a crew, at most
    int ops;          // products of a block, at most
    int model_bytes;  // of what is copied of the model
    float share;      // 1 / D
    int half_cache;   // keys and values are bf16
    int out_codes;    // the output is quantized
    float *x, *hidden, *logits;
    int64_t x_ld, hidden_ld, logits_ld;
    const char *output;
    const float *norm;
    float eps;
    const int32_t *stopped;  // (n) sequences that have; NULL: none
    unsigned meeting;        // the first of this token's
    uint64_t *parts;         // (2, crews, cols, D_blocks * 128) words between crews
    uint64_t *sums;          // (4, D_blocks * 128) of one sequence: mm_sums; then the turn
    uint64_t *exchange;      // (crews, words) words within them
    struct mm_step_exchange ex;
    float2 *rope;      // (n, 2, 128): cosine and sine
    int rope_half[2];  // 0: no attention in this stack
    float rope_scale[2];
    struct mm_step_room room;
    struct mm_step_at at[mm_step_cols];
};
// The same of one sequence, whose number the compiler knows.
struct mm_step_args_one : mm_step_args {
    static constexpr int n = 1, tile_sums = mm_step_tile;
};
// Of one sequence of a model without kept attention: twice the warps, with fewer registers each,
// wait for their own instructions half as long. Four of them share a queue, so that the copy engine
// is asked for 4096 bytes at a time, or 8192; that wants matrices whose parts are as long for all
// four (step_maps.cu).
struct mm_step_args_linear : mm_step_args_one {
    static constexpr int warps = mm_step_twice, queues = warps / mm_step_group;
    static constexpr bool groups = true;
};
// Threads that multiply, and all of a block.
template <class ARGS>
inline constexpr int mm_step_threads = 32 * ARGS::warps;
template <class ARGS>
inline constexpr int mm_step_all = mm_step_threads<ARGS> + 32 * mm_step_bringers;

// Cuts `room` bytes of shared memory into the queues of `warps` as long as there is a use for
// (step_token.cu): a->queue and a->ring. Their bytes; 0: they would be too short.
int mm_step_queues(int weights, int room, int warps, struct mm_step_args *a);
bool mm_step_ask(struct mm_backend *be, struct mm_step_device *d);
// weights: q4 where any matrix is, else q8 where any is, else bf16. warps: for as many a is cut.
bool mm_step_launch(struct mm_backend *be, const struct mm_step_args *a, enum mm_dtype weights,
                    int warps);

#endif
