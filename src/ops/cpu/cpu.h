// What the files of the CPU backend share: the two tables of operations, the instruction set in
// use, and scratch memory.
//
// Every operation exists twice: mm_<op>_ref (src/ops/cpu/ref: simple loops, sums in double; the
// judge of all others, selected by MMAMBA_ISA=plain) and mm_<op>_cpu (the fast one). Both assume
// operands that src/ops/check.c has accepted.
#ifndef MM_OPS_CPU_CPU_H
#define MM_OPS_CPU_CPU_H

#include "ops/cpu/isa.h"
#include "base/team.h"
#include "ops/ops.h"

// Scratch of one operation. The slots are distinct blocks; each is valid until the next operation
// asks for the same slot, grows when asked for more than ever before, and never shrinks, so that
// nothing is allocated once every size has been seen. Content is undefined.
enum mm_scratch {
    mm_scratch_a,
    mm_scratch_b,
    mm_scratch_c,
    mm_scratch_d,
    mm_scratch_e,
    mm_scratch_f,
    mm_scratch_step,  // of decode_step, around the operations it is made of
    mm_scratch_ffn,   // of ffn_fwd, likewise
    mm_scratch_count,
};

// 64-byte aligned; huge pages where large. To be called outside mm_parallel_for: a loop that
// needs memory for each thread takes one block of mm_pool_size(be->pool) pieces. NULL when the
// memory is not to be had: be->error is then set, and the operation returns.
void *mm_cpu_scratch(struct mm_backend *be, enum mm_scratch slot, size_t bytes);

enum mm_isa mm_cpu_isa(const struct mm_backend *be);

// A dense vector of any float type as f32: itself when it is f32, else converted into the slot.
// NULL for an absent view.
const float *mm_cpu_vector(struct mm_backend *be, enum mm_scratch slot, struct mm_view v);

// Bytes of one thread's piece, rounded up so that two threads never share a cache line.
static inline size_t mm_cpu_piece(size_t bytes) {
    return (bytes + 127) / 128 * 128;
}

// struct mm_cpu is be->impl.
struct mm_cpu {
    enum mm_isa isa;
    void *scratch[mm_scratch_count];
    size_t scratch_bytes[mm_scratch_count];
    struct mm_team *team;
};

extern const struct mm_ops mm_ops_cpu;      // fast
extern const struct mm_ops mm_ops_cpu_ref;  // plain

#define MM_OPS_DECLARE(name, params, args) \
    void mm_##name##_cpu params;           \
    void mm_##name##_ref params;
MM_OPS_TABLE(MM_OPS_DECLARE)
#undef MM_OPS_DECLARE

bool mm_mamba2_fwd_cpu(struct mm_backend *be, struct mm_view o, const struct mm_mamba2 *m);

#endif
