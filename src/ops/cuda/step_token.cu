// The kernel of a token step: one block a multiprocessor, eight blocks a crew, all of a token in
// one launch (step.cuh says how the work is shared out).
#include "ops/cuda/step_bring.cuh"
#include "ops/cuda/step_mixer.cuh"

// The member that has the row of dt: the last one.
static __device__ __forceinline__ bool me_dt(const struct mm_step_who &me) {
    return me.rank == mm_step_crew - 1;
}

// A copy of things of the device's memory to shared memory.
static __device__ __forceinline__ void copy_in(char *to, const void *from, int bytes) {
#pragma unroll 1
    for (int i = threadIdx.x; i < bytes / 16; i += mm_step_all)
        ((uint4 *)to)[i] = __ldg((const uint4 *)from + i);
}

// Of a walk through a token.
template <class KERNEL>
struct walk {
    char *memory;
    struct mm_step_who me;
    struct mm_queue<KERNEL> queue;
    struct mm_step_here here;
    float dt_bias;
    float factor;      // of the norm, of sequence threadIdx.x % 8
    unsigned meeting;  // of the parts that are sent next
};

static __device__ __forceinline__ struct mm_step_here here_of(const struct mm_step_args &a,
                                                              const char *memory, int l) {
    struct mm_step_here here;
    here.y = mm_layer(a, memory, l);
    here.t = &mm_model(a, memory)->kinds[here.y->kind];
    here.states = (const struct mm_step_state *)(memory + a.room.states) + l * a.n;
    return here;
}

// The stream becomes the operand of the first products of a half of a block, or of the output.
template <class KERNEL>
static __device__ __forceinline__ void begin_half(const struct mm_step_args &a, walk<KERNEL> &w,
                                                  int l, bool mlp) {
    const bool end = l == a.n_layers;
    const struct mm_step_kind &t = *w.here.t;
    const float *norm = end ? a.norm : w.here.y->norm[mlp];
    const bool codes = end ? a.out_codes : t.codes[mlp];
    const bool exact = end ? !a.out_codes : t.exact[mlp];
    const bool l2norm = !end && !mlp && w.here.y->l2norm;
    mm_stream<KERNEL>(a, w.me, w.memory, w.meeting, l == 0 && !mlp, norm, codes, exact);
    mm_hear_operand<KERNEL>(a, w.memory, w.me, w.meeting, codes, exact);
    float length;
    mm_meet();
    w.factor = mm_norm_factor(a, w.memory, min((int)threadIdx.x % 8, a.n - 1), end ? a.eps : t.eps,
                              l2norm, &length);
    if (l2norm) {
        mm_shorten(a, w.memory);
        mm_meet();
    }
}

template <class KERNEL>
static __device__ __forceinline__ float factor_of(const walk<KERNEL> &w, int seq) {
    return __shfl_sync(0xffffffffu, w.factor, seq);
}

// Before the first product of a half, or of a round of heads; head -1: the crew has none.
template <class KERNEL>
static __device__ __forceinline__ void begin(const struct mm_step_args &a, walk<KERNEL> &w, int l,
                                             bool mixer, int head, int round) {
    struct mm_step_item i = {};
    struct mm_step_conv conv = {};
    struct mm_step_dt dt = {};
    const bool has_dt = mixer && head >= 0 && !w.here.t->attention && me_dt(w.me);
    if (mixer) {  // what comes from far is asked for before the crew has the operand
#pragma unroll 1
        for (int at = threadIdx.x + mm_step_threads; at < a.n * mm_step_rows;
             at += mm_step_threads) {
            const struct mm_step_item more = mm_item(a, w.me, w.here, head, at);
            mm_conv_store(a, w.memory, more, round, mm_conv_load(w.here, more));
        }
        i = mm_item(a, w.me, w.here, head, threadIdx.x);
        conv = mm_conv_load(w.here, i);
        if (has_dt) {
            dt.w[0] = mm_dt_weights(a, w.here, head, threadIdx.x / 32);
            dt.w[1] = mm_dt_weights(a, w.here, head, threadIdx.x / 32 + mm_step_warps);
            w.dt_bias = __ldg(w.here.y->dt_bias + head);
        }
    }
    if (round == 0) begin_half(a, w, l, !mixer);
    if (mixer) mm_conv_store(a, w.memory, i, round, conv);
    if (has_dt) mm_dt_sums<KERNEL>(a, w.memory, w.here, head, dt);
}

// The mixer itself: what the crew said of z becomes the last projection's operand.
template <class KERNEL>
static __device__ __forceinline__ void mix(const struct mm_step_args &a, walk<KERNEL> &w, int head,
                                           int round) {
    if (head < 0) {
        mm_meet();
        return;
    }
    if (w.here.t->attention) {
        mm_hear_z(a, w.me, w.memory, w.here, w.meeting, round);
        mm_meet();
        mm_attend(a, w.me, w.memory, w.here, head, w.meeting, round);
        mm_attended<KERNEL>(a, w.me, w.memory, w.here, head, w.meeting, round);
    } else {  // asked for before the crew has said what is next
        const int warp = threadIdx.x / 32;
        const float4 state = mm_state_load(a, w.here, w.me, head, warp);
        const float4 next = mm_state_load(a, w.here, w.me, head, warp + mm_step_warps);
        const float4 weights = mm_gated_weights(w.here, head);
        const float d = w.here.y->d ? __ldg(w.here.y->d + head) : 0.0f;
        const float rate = w.here.y->a_log ? -expf(__ldg(w.here.y->a_log + head)) : 0.0f;
        mm_hear_z(a, w.me, w.memory, w.here, w.meeting, round);
        mm_meet();
        mm_recur(a, w.me, w.memory, w.here, head, state, next, rate, d, w.meeting, round);
        mm_gated<KERNEL>(a, w.me, w.memory, w.here, head, weights, w.meeting, round);
    }
    mm_meet();
}

// What the crew said of the MLP's hidden numbers becomes the operand of w2.
template <class KERNEL>
static __device__ __forceinline__ void hear_hidden(const struct mm_step_args &a, walk<KERNEL> &w) {
    const struct mm_step_kind &t = *w.here.t;
    const int left = min(t.unit, t.F - w.me.crew * t.unit);
#pragma unroll 1
    for (int i = threadIdx.x / 32; i < t.unit / mm_step_block * a.n && left > 0;
         i += mm_step_warps) {
        const int seq = i % a.n, block = i / a.n;
        const int at = block * mm_step_block + threadIdx.x % 32 * 4;
        float4 v = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (at < left)
            v = mm_as_floats(mm_hear4(mm_words_s(a, w.me.crew, w.meeting, seq) + at, w.meeting));
        mm_keep_operand<KERNEL>(a, w.memory, block, seq, v,
                                t.shape[mm_step_w2].type != mm_dtype_bf16);
    }
    mm_meet();
}

// The sums of v, k, q, gate and dt are all in shared memory.
template <class KERNEL>
static __device__ __forceinline__ void end_mixer(const struct mm_step_args &a, walk<KERNEL> &w,
                                                 int head, int round) {
    const struct mm_step_kind &t = *w.here.t;
    const float *red = (const float *)(w.memory + a.room.red);
#pragma unroll 1
    for (int at0 = threadIdx.x / 32 * 32; at0 < a.n * mm_step_rows; at0 += mm_step_threads) {
        const int at = at0 + threadIdx.x % 32;
        const struct mm_step_item i = mm_item(a, w.me, w.here, head, at);
        const float factor = factor_of(w, i.seq);  // the same for a warp
        if (!i.there) continue;
        const struct mm_step_shape &m = t.shape[i.gate ? mm_step_gate : mm_step_in];
        const float sum = mm_row_sum(red + (i.gate ? mm_step_warps * 128 : 0), m.split_log, i.group,
                                     i.row, i.seq);
        mm_finish_row(a, w.me, w.memory, w.here, i, w.meeting, round, factor * sum);
    }
    // by a warp that has the least to do
    const int seq = mm_step_threads - 1 - (int)threadIdx.x;
    if (head >= 0 && !t.attention && me_dt(w.me) && seq < 32) {
        const float factor = factor_of(w, min(seq, a.n - 1));
        if (seq < a.n)
            mm_dt_finish(a, w.me, w.memory, w.here, w.meeting, round, seq, factor, w.dt_bias);
    }
}

// The sums of a tile of the MLP, 8 rows of w1 and the same of w3, or of the output.
template <class KERNEL>
static __device__ __forceinline__ void end_tile(const struct mm_step_args &a, walk<KERNEL> &w,
                                                const struct mm_step_shape &m, const float c[4],
                                                bool mlp, int tile) {
    const int g = threadIdx.x % 32 / 4;
#pragma unroll
    for (int e = 0; e < 2; e++) {
        const int seq = threadIdx.x % 4 * 2 + e;
        const float factor = factor_of(w, seq), u = factor * c[e], v = factor * c[e + 2];
        if (seq >= a.n) continue;
        if (mlp) {
            mm_say_float(mm_words_s(a, w.me.crew, w.meeting, seq) + tile * 8 + g,
                         u * mm_sigmoid(u) * v, w.meeting);
        } else {
            float *to = a.logits + seq * a.logits_ld + tile * mm_step_tile + g;
            if (tile * mm_step_tile + g < m.rows) to[0] = u;
            if (tile * mm_step_tile + g + 8 < m.rows) to[8] = v;
        }
    }
}

// The norm of the last rows, this block's columns.
template <class KERNEL>
static __device__ __forceinline__ void hidden(const struct mm_step_args &a, const walk<KERNEL> &w) {
    const float *rows = (const float *)(w.memory + a.room.stream);
    if (w.me.crew != 0) return;
#pragma unroll 1
    for (int i = threadIdx.x; i < a.n * a.slice; i += mm_step_threads) {
        const int seq = i / a.slice, column = w.me.rank * a.slice + i % a.slice;
        float length;
        const float factor = mm_norm_factor(a, w.memory, seq, a.eps, false, &length);
        if (column < a.D) a.hidden[seq * a.hidden_ld + column] = rows[i] * factor * a.norm[column];
    }
}

// A product of the walk, all its tiles: what it needs, the sums, what becomes of them. One place
// for all products, or the code would not fit the instruction cache.
template <class KERNEL>
static __device__ __forceinline__ void product(const struct mm_step_args &a, walk<KERNEL> &w, int l,
                                               int op) {
    const bool end = l == a.n_layers;
    const struct mm_step_kind &t = *w.here.t;
    const int which = end ? mm_step_output : mm_which(t.rounds, op);
    const int round = op / 3, warp = threadIdx.x / 32;
    int head = w.me.crew + round * a.crews;
    if (head >= t.H) head = -1;
    const struct mm_step_shape &m = end ? mm_model(a, w.memory)->output : t.shape[which];
    const struct mm_part part =
        *mm_parts_of(a, w.memory, end ? mm_step_kinds : w.here.y->kind, end ? 0 : op, warp);
    const int log = m.split_log;
    int tile0 = (end ? (int)blockIdx.x : w.me.rank) * m.per, last = part.last;
    const bool sends = which == mm_step_wo || which == mm_step_w2;
    if (which == mm_step_wo) {
        mix(a, w, head, round);
    } else if (which == mm_step_w2) {
        hear_hidden(a, w);
    } else if (which != mm_step_in) {
        begin(a, w, l, which == mm_step_gate, head, which == mm_step_gate ? round : 0);
        if (end) hidden(a, w);
    }
    // where this crew has nothing to multiply, zeros are sent, and sums of nothing are finished
    const bool splits = which <= mm_step_in;
    if (sends) last = min(m.tiles, tile0 + m.per);
    if (splits) last = tile0 + 1;
    if (end && !a.logits) last = tile0;
#pragma unroll 1
    for (; tile0 < last; tile0 += mm_step_warps) {
        const int tile = tile0 + (warp >> log);
        float c[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        mm_tile_sums(c, a, w.memory, w.queue, m, part.begin, tile < part.last ? part.n : 0, sends);
        if (splits) {
            float *red = (float *)(w.memory + a.room.red);
            mm_put_sums(red + (which == mm_step_gate ? mm_step_warps * 128 : 0), c, a.n);
        } else if (sends) {
            if (tile < last)
                mm_send(a, w.me, w.memory, c, tile, w.meeting, which == mm_step_wo ? round : 0,
                        which == mm_step_wo ? t.rounds : 1);
        } else if (tile < last) {
            end_tile(a, w, m, c, which == mm_step_ffn, tile);
        }
    }
    if (which == mm_step_in) {
        mm_meet();
        end_mixer(a, w, head, round);
    }
    if (sends && (which == mm_step_w2 || round + 1 == t.rounds)) w.meeting++;
}

// Bit i: sequence i has stopped. Whoever said so did before this kernel began, so all blocks see
// the same.
static __device__ __forceinline__ unsigned stopped_of(const struct mm_step_args &a) {
    unsigned stopped = 0;
#pragma unroll 1
    for (int i = 0; a.stopped && i < a.n; i++)
        stopped |= (unsigned)(__ldg(a.stopped + i) != 0) << i;
    return stopped;
}

template <class KERNEL>
static __global__ void __launch_bounds__(mm_step_all, 1)
    step_token(const __grid_constant__ struct mm_step_args a) {
    extern __shared__ __align__(128) char memory[];
    const unsigned stopped = stopped_of(a);
    if (stopped + 1 == 1u << a.n) return;  // nobody meets anybody
    if (threadIdx.x == 0) *(unsigned *)(memory + a.room.stopped) = stopped;
    walk<KERNEL> w;
    w.memory = memory;
    w.me.crew = (int)blockIdx.x / mm_step_crew, w.me.rank = (int)blockIdx.x % mm_step_crew;
    w.meeting = a.meeting;
    copy_in(memory + a.room.model, a.model, (int)sizeof(struct mm_step_model));
    copy_in(memory + a.room.layers, a.layers, a.n_layers * (int)sizeof(struct mm_step_layer));
#pragma unroll 1
    for (int i = threadIdx.x; i < a.n_layers * a.n; i += mm_step_all)
        ((struct mm_step_state *)(memory + a.room.states))[i] =
            a.states[i / a.n * mm_step_cols + i % a.n];
    __syncthreads();
    const struct mm_step_model *model = mm_model(a, memory);
    if (threadIdx.x < mm_step_threads) {
#pragma unroll 1
        for (int i = -1; i < model->n_kinds * mm_step_ops; i++) {
            const int kind = i < 0 ? -1 : i / mm_step_ops, op = i < 0 ? 0 : i % mm_step_ops;
            const int warp = (int)threadIdx.x / 32;
            if (i < 0 || op < 3 * model->kinds[kind].rounds + 2)
                *mm_parts_of(a, memory, i < 0 ? mm_step_kinds : kind, op, warp) =
                    mm_part_make(a, model, w.me, kind, op, warp);
        }
        w.queue.start(memory);
    }
    __syncthreads();
    if (threadIdx.x >= mm_step_threads) {
        mm_bring_all<KERNEL>(a, memory, w.me);
        return;
    }
    w.here = here_of(a, memory, 0);
#pragma unroll 1
    for (int l = 0, op = 0;;) {
        product(a, w, l, op);
        if (l == a.n_layers) break;
        if (++op < 3 * w.here.t->rounds + 2) continue;
#pragma unroll 1
        for (int round = 0; round < w.here.t->rounds; round++) {
            const int head = w.me.crew + round * a.crews;
            if (head < w.here.t->H) mm_conv_keep(a, w.me, memory, w.here, head, round);
        }
        op = 0, l++;
        if (l < a.n_layers) w.here = here_of(a, memory, l);
    }
}

// A kernel of its own: functions in double would take registers from everything else.
static __global__ void rope_table(const __grid_constant__ struct mm_step_args a) {
    mm_rope_table(a);
}

struct kernel {
    const void *function;
    int weights, slots, queues;
};

template <int WEIGHTS, int SLOTS>
static struct kernel kernel_of() {
    using k = mm_step_kernel<WEIGHTS, SLOTS>;
    return {(const void *)step_token<k>, WEIGHTS, SLOTS, k::queues};
}

static const struct kernel kernels[] = {
    kernel_of<mm_dtype_bf16, 10>(), kernel_of<mm_dtype_bf16, 7>(), kernel_of<mm_dtype_bf16, 3>(),
    kernel_of<mm_dtype_q8, 10>(),   kernel_of<mm_dtype_q8, 6>(),   kernel_of<mm_dtype_q8, 3>(),
    kernel_of<mm_dtype_q4, 18>(),   kernel_of<mm_dtype_q4, 10>(),  kernel_of<mm_dtype_q4, 5>(),
};

int mm_step_slots(int weights, int room) {
    for (const struct kernel &k : kernels)
        if (k.weights == weights && k.queues <= room) return k.slots;
    return 0;
}

bool mm_step_ask(struct mm_backend *be, struct mm_step_device *d) {
    const struct mm_cuda *cuda = mm_cuda_of(be);
    int together = 0;
    d->asked = true;
    if (!mm_cuda_ok(be,
                    cudaDeviceGetAttribute(&together, cudaDevAttrCooperativeLaunch, cuda->device),
                    "cudaDeviceGetAttribute"))
        return false;
    d->shared = (int)cuda->shared_most, d->crews = together ? cuda->sms / mm_step_crew : 0;
    if (d->crews > mm_step_crews) d->crews = mm_step_crews;
    for (const struct kernel &k : kernels) {
        if (k.queues >= d->shared) continue;
        if (!mm_cuda_ok(be,
                        cudaFuncSetAttribute(
                            k.function, cudaFuncAttributeMaxDynamicSharedMemorySize, d->shared),
                        "asking for shared memory for a token step"))
            return false;
    }
    return true;
}

bool mm_step_launch(struct mm_backend *be, const struct mm_step_args *a, enum mm_dtype weights) {
    const void *function = NULL;
    for (const struct kernel &k : kernels)
        if (k.weights == (int)weights && k.slots == a->slots) function = k.function;
    if (a->rope_half[0] > 0 || a->rope_half[1] > 0)
        MM_LAUNCH(be, rope_table, (unsigned)a->n, 256, 0, *a);
    void *args[] = {(void *)a};
    if (!mm_cuda_ok(be,
                    cudaLaunchCooperativeKernel(function, dim3((unsigned)(a->crews * mm_step_crew)),
                                                dim3(mm_step_all), args, (size_t)a->room.bytes,
                                                mm_cuda_of(be)->stream),
                    "a token step"))
        return false;
    mm_cuda_launched(be, "a token step");
    return !be->error.code;
}
