// A token step: one launch of the kernel in step_token.cu for few sequences, those in step_many.cu
// for many; what neither can take (f32 and f16 weights, rows that are not whole vectors) is made of
// the other operations.
#include "ops/cuda/attention_hopper.cuh"
#include "ops/cuda/step_many.cuh"
#include "ops/cuda/step_plan.cuh"

#include <stdlib.h>
#include <string.h>

extern "C" {
#include "ops/step_by_ops.h"
}

// Memory where the operands are: the host's (under the mirror), or the device's.
static void by_ops(struct mm_backend *be, const struct mm_step *s, bool host) {
    const size_t floats = (size_t)mm_step_by_ops_floats(s) * sizeof(float),
                 at = (floats + 63) / 64 * 64;
    char *room =
        host ? (char *)calloc(1, at + 64) : (char *)mm_cuda_scratch(be, mm_cuda_slot_step, at + 64);
    if (!room) {
        mm_cuda_ok(be, cudaErrorMemoryAllocation, "memory for a token step");
        return;
    }
    const struct mm_ops *ops = be->ops;
    if (!host) be->ops = &mm_cuda_table;
    mm_step_by_ops(be, s, (float *)room, (int32_t *)(room + at));
    be->ops = ops;
    if (host) free(room);
}

// The sequences' states, sent where they are others than in the last step.
static bool send_states(struct mm_backend *be, struct mm_step_plan *p,
                        const struct mm_step_seq *seqs, int n) {
    bool other = false;
    for (int64_t i = 0; i < p->n_blocks; i++) {
        for (int t = 0; t < n; t++) {
            const struct mm_block_state *b = &seqs[t].blocks[i];
            struct mm_step_state *to = &p->states[i * mm_step_cols + t];
            const struct mm_step_state is = {(float *)b->S.data, (float *)b->conv.data, b->k.data,
                                             b->v.data};
            if (p->blocks[i].attention) p->args.half_cache = b->k.dtype == mm_dtype_bf16;
            other = other || memcmp(to, &is, sizeof is) != 0;
            *to = is;
        }
    }
    if (!other) return true;
    return mm_cuda_ok(be,
                      cudaMemcpyAsync((void *)p->args.states, p->states,
                                      (size_t)p->n_blocks * mm_step_cols * sizeof *p->states,
                                      cudaMemcpyDefault, mm_cuda_of(be)->stream),
                      "copying where the states are");
}

// One launch; the plan has what stays the same.
static bool walk_some(struct mm_backend *be, struct mm_step_plan *p, const struct mm_step *s,
                      int64_t from, int n) {
    const unsigned meetings = 2 * (unsigned)p->n_blocks;
    if (!mm_step_plan_cut(p, n) || !send_states(be, p, s->seqs + from, n)) return false;
    struct mm_step_args a = p->args;
    a.x = (float *)mm_view_at(s->x, from, 0), a.x_ld = s->x.ld;
    a.hidden = (float *)mm_view_at(s->hidden, from, 0), a.hidden_ld = s->hidden.ld;
    a.logits = s->logits.data ? (float *)mm_view_at(s->logits, from, 0) : NULL;
    a.logits_ld = s->logits.ld;
    a.stopped = s->stopped.data ? (const int32_t *)mm_view_at(s->stopped, from, 0) : NULL;
    a.meeting = p->meeting;
    for (int t = 0; t < n; t++) {
        const struct mm_step_seq *q = &s->seqs[from + t];
        a.at[t] = {{(int)q->past[0], (int)q->past[1]}, {q->rope_base[0], q->rope_base[1]}};
    }
    if (!mm_step_launch(be, &a, p->weights, p->warps)) return false;
    p->meeting += meetings + 2;  // the last is heard; an even number keeps places in turn
    return true;
}

static void walk(struct mm_backend *be, const struct mm_step *s) {
    struct mm_step_plan *p = mm_step_plan_of(be, s, &mm_cuda_of(be)->step_device);
    if (!p) return;
    if (p->cols == 0) {
        by_ops(be, s, false);
        return;
    }
    for (int64_t from = 0; from < s->n_seqs; from += p->cols) {
        const int64_t left = s->n_seqs - from;
        if (!walk_some(be, p, s, from, left < p->cols ? (int)left : p->cols)) return;
    }
}

// Up to so many sequences are few. Where our own kernels multiply many rows, five take no longer
// than by a walk in any format, and eight 14 to 42% less (docs/PERFORMANCE.md); elsewhere a walk is
// left when it would read all weights again.
static int most_few(struct mm_backend *be) {
    const int wanted = mm_cuda_of(be)->few;
    return wanted ? wanted : mm_hopper_here(be) ? 4 : mm_step_cols;
}

void mm_decode_step_cuda(struct mm_backend *be, const struct mm_step *s) {
    struct mm_cuda *cuda = mm_cuda_of(be);
    if (s->n_seqs == 0) return;
    if (!cuda->step_device.asked) mm_step_ask(be, &cuda->step_device);
    if (be->error.code) return;
    if (cuda->step_device.crews == 0 || !mm_step_fits(s)) {
        by_ops(be, s, cuda->mirror);
        return;
    }
    void (*const way)(struct mm_backend *, const struct mm_step *) =
        s->n_seqs > most_few(be) && mm_step_many_fits(be, s) ? mm_step_many : walk;
    if (cuda->mirror) {
        mm_cuda_mirror_step(be, s, way);
    } else {
        way(be, s);
    }
}
