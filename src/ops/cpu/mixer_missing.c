// The slots of the Mamba-2 mixer until src/ops/cpu/mixer*.c land; this file goes then. A call is
// a bug and ends the process.
#include <stdio.h>
#include <stdlib.h>
#include "ops/cpu/cpu.h"

#define MISSING(name) fprintf(stderr, "mmamba: bug: %s is not there yet\n", name), abort()

void mm_conv_silu_fwd_cpu(struct mm_backend *be, struct mm_view y, struct mm_view x,
                          struct mm_view w, struct mm_view bias, struct mm_view state,
                          struct mm_segs segs) {
    (void)be, (void)y, (void)x, (void)w, (void)bias, (void)state, (void)segs,
        MISSING("conv_silu_fwd");
}
void mm_conv_silu_bwd_cpu(struct mm_backend *be, struct mm_view dx, struct mm_view dw,
                          struct mm_view dbias, struct mm_view dy, struct mm_view x,
                          struct mm_view w, struct mm_view bias, struct mm_segs segs) {
    (void)be, (void)dx, (void)dw, (void)dbias, (void)dy, (void)x, (void)w, (void)bias, (void)segs,
        MISSING("conv_silu_bwd");
}
void mm_conv_silu_step_cpu(struct mm_backend *be, struct mm_view y, struct mm_view x,
                           struct mm_view w, struct mm_view bias, struct mm_view state) {
    (void)be, (void)y, (void)x, (void)w, (void)bias, (void)state, MISSING("conv_silu_step");
}
void mm_head_norm_fwd_cpu(struct mm_backend *be, struct mm_view y, struct mm_view stats,
                          struct mm_view x, struct mm_view w, struct mm_view bias, float eps) {
    (void)be, (void)y, (void)stats, (void)x, (void)w, (void)bias, (void)eps,
        MISSING("head_norm_fwd");
}
void mm_head_norm_bwd_cpu(struct mm_backend *be, struct mm_view dx, struct mm_view dw,
                          struct mm_view dbias, struct mm_view dy, struct mm_view x,
                          struct mm_view w, struct mm_view stats) {
    (void)be, (void)dx, (void)dw, (void)dbias, (void)dy, (void)x, (void)w, (void)stats,
        MISSING("head_norm_bwd");
}
void mm_softplus_fwd_cpu(struct mm_backend *be, struct mm_view y, struct mm_view x,
                         struct mm_view bias) {
    (void)be, (void)y, (void)x, (void)bias, MISSING("softplus_fwd");
}
void mm_softplus_bwd_cpu(struct mm_backend *be, struct mm_view dx, struct mm_view dbias,
                         struct mm_view dy, struct mm_view x, struct mm_view bias) {
    (void)be, (void)dx, (void)dbias, (void)dy, (void)x, (void)bias, MISSING("softplus_bwd");
}
void mm_ssd_fwd_cpu(struct mm_backend *be, struct mm_view y, struct mm_view v, struct mm_view k,
                    struct mm_view q, struct mm_view dt, struct mm_view a_log, struct mm_view d,
                    struct mm_view state, struct mm_segs segs) {
    (void)be, (void)y, (void)v, (void)k, (void)q, (void)dt, (void)a_log, (void)d, (void)state,
        (void)segs, MISSING("ssd_fwd");
}
void mm_ssd_bwd_cpu(struct mm_backend *be, struct mm_view dv, struct mm_view dk, struct mm_view dq,
                    struct mm_view ddt, struct mm_view da_log, struct mm_view dd, struct mm_view dy,
                    struct mm_view v, struct mm_view k, struct mm_view q, struct mm_view dt,
                    struct mm_view a_log, struct mm_view d, struct mm_segs segs) {
    (void)be, (void)dv, (void)dk, (void)dq, (void)ddt, (void)da_log, (void)dd, (void)dy, (void)v,
        (void)k, (void)q, (void)dt, (void)a_log, (void)d, (void)segs, MISSING("ssd_bwd");
}
void mm_ssd_step_cpu(struct mm_backend *be, struct mm_view y, struct mm_view v, struct mm_view k,
                     struct mm_view q, struct mm_view dt, struct mm_view a_log, struct mm_view d,
                     struct mm_view state) {
    (void)be, (void)y, (void)v, (void)k, (void)q, (void)dt, (void)a_log, (void)d, (void)state,
        MISSING("ssd_step");
}
void mm_gated_norm_fwd_cpu(struct mm_backend *be, struct mm_view o, struct mm_view rinv,
                           struct mm_view y, struct mm_view g, struct mm_view w, float eps) {
    (void)be, (void)o, (void)rinv, (void)y, (void)g, (void)w, (void)eps, MISSING("gated_norm_fwd");
}
void mm_gated_norm_bwd_cpu(struct mm_backend *be, struct mm_view dy, struct mm_view dg,
                           struct mm_view dw, struct mm_view d_o, struct mm_view y,
                           struct mm_view g, struct mm_view w, struct mm_view rinv) {
    (void)be, (void)dy, (void)dg, (void)dw, (void)d_o, (void)y, (void)g, (void)w, (void)rinv,
        MISSING("gated_norm_bwd");
}
