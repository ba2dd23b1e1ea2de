// One run of decode_step on the CPU: what its files share. All threads go through every block
// together (base/team.h); between two meetings each writes rows that nobody reads.
#ifndef MM_OPS_CPU_STEP_H
#define MM_OPS_CPU_STEP_H

#include "base/team.h"
#include "ops/cpu/gemv.h"
#include "ops/cpu/kernels.h"
#include "ops/cpu/mixer.h"

enum {
    mm_step_taps = 16,    // widest convolution
    mm_step_pieces = 32,  // pieces that the keys of one sequence are cut into, at most
    mm_step_tile = 128,   // keys whose scores are made at a time
    mm_step_rows = 256,   // weight rows whose products are finished at a time
};

struct mm_stepping {
    const struct mm_step *s;
    const struct mm_kernels *k;
    const struct mm_mixer_kernels *x;
    struct mm_gemv_kernels g;
    int64_t n, d_dim;
    // Shared rows, (n, ...): outputs of the projections, of the mixer, of silu(w1 h) * w3 h.
    float *z, *o, *act;
    int64_t ldz, ldo, lda;
    float *angles;   // (n, 2, 2, ld_angles): of each stack the cosines, then the sines
    float *partial;  // (n, H, pieces, ld_partial): top, sum, then from 16 on P outputs
    int64_t ld_angles, ld_partial;
    // Each thread's own: normed rows, codes, and products or what a head needs.
    char *room;
    size_t room_bytes, codes_at, work_at;
};

static inline char *mm_step_room(const struct mm_stepping *r, int thread) {
    return r->room + (size_t)thread * r->room_bytes;
}
static inline float *mm_step_work(const struct mm_stepping *r, int thread) {
    return (float *)(mm_step_room(r, thread) + r->work_at);
}

// Floats of a thread's work that one head of Mamba-2, or one group of attention, needs.
int64_t mm_step_mamba2_floats(const struct mm_step_block *b);
int64_t mm_step_attention_floats(const struct mm_step_block *b);
// Cosines and sines of all sequences; before the first block, when one is attention.
void mm_step_angles(const struct mm_stepping *r, int thread);
// From z to o. Ends before a meeting.
void mm_step_mamba2(const struct mm_stepping *r, struct mm_team *team, int64_t block, int thread);
void mm_step_attention(const struct mm_stepping *r, struct mm_team *team, int64_t block,
                       int thread);
// z's rows become the convolution's past: after mm_step_mamba2 and a meeting.
void mm_step_conv_past(const struct mm_stepping *r, int64_t block, int thread, int n_threads);

#endif
