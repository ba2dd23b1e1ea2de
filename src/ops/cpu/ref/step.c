// The plain reference of a token step: the reference operations, one after the other.
#include "ops/cpu/cpu.h"
#include "ops/step_by_ops.h"

void mm_decode_step_ref(struct mm_backend *be, const struct mm_step *s) {
    const size_t bytes = (size_t)mm_step_by_ops_floats(s) * sizeof(float);
    float *room = mm_cpu_scratch(be, mm_scratch_step, bytes);
    int32_t ints[3];
    if (room) mm_step_by_ops(be, s, room, ints);
}
