// The convolution of the mixer by rows and parts of them: conv.c, and ssd_groups.c, which computes
// the channels of some heads at a time.
#ifndef MM_OPS_CPU_CONV_H
#define MM_OPS_CPU_CONV_H

#include "ops/cpu/mixer.h"

enum { mm_conv_width_max = 16 };

struct mm_conv {
    const struct mm_mixer_kernels *kern;
    struct mm_view x, state;
    struct mm_segs segs;
    int64_t n_chan, width;
    const float *w;     // (K, C)
    const float *bias;  // (C)
    const float *zero;  // (C)
};

// Lays the taps w (C, K) out; takes scratch d and e. False: no memory. The width is at most
// mm_conv_width_max.
bool mm_conv_open(struct mm_backend *be, struct mm_conv *f, struct mm_view x, struct mm_view w,
                  struct mm_view bias, struct mm_view state, struct mm_segs segs);
// Rows [t, t + n) of sequence s, channels [chan, chan + n_chan): y (n, n_chan).
void mm_conv_rows(const struct mm_conv *f, float *y, int64_t ldy, int64_t s, int64_t t, int64_t n,
                  int64_t chan, int64_t n_chan);
// When all rows have been computed: the last K - 1 of every sequence become its state.
void mm_conv_keep(const struct mm_conv *f);

#endif
