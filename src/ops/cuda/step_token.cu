// The kernel of a token step: one block a multiprocessor, eight blocks a crew, all of a token in
// one launch (step.cuh says how the work is shared out).
#include "ops/cuda/step_attend.cuh"
#include "ops/cuda/step_bring_groups.cuh"

// The member that has the row of dt: the last one.
static __device__ __forceinline__ bool me_dt(const struct mm_step_who &me) {
    return me.rank == mm_step_crew - 1;
}

// A copy of things of the device's memory to shared memory.
template <class ARGS>
static __device__ __forceinline__ void copy_in(const ARGS &, char *to, const void *from,
                                               int bytes) {
#pragma unroll 1
    for (int i = threadIdx.x; i < bytes / 16; i += mm_step_all<ARGS>)
        ((uint4 *)to)[i] = __ldg((const uint4 *)from + i);
}

// Of a walk through a token.
template <class KERNEL>
struct walk {
    char *memory;
    struct mm_step_who me;
    struct mm_queue<KERNEL> queue;
    struct mm_step_here here;
    float dt_bias;     // of the head; not of groups
    float factor;      // of the norm, of sequence threadIdx.x % 8
    unsigned meeting;  // of the parts that are sent next
};

template <class ARGS>
static __device__ __forceinline__ struct mm_step_here here_of(const ARGS &a, const char *memory,
                                                              int l) {
    struct mm_step_here here;
    here.y = mm_layer(a, memory, l);
    here.t = &mm_model(a, memory)->kinds[here.y->kind];
    here.states = (const struct mm_step_state *)(memory + a.room.states) + l * a.n;
    return here;
}

// The stream becomes the operand of the first products of a half of a block, or of the output.
template <class KERNEL, class ARGS>
static __device__ __forceinline__ void begin_half(const ARGS &a, walk<KERNEL> &w, int l, bool mlp) {
    const bool end = l == a.n_layers;
    const struct mm_step_kind &t = *w.here.t;
    const float *norm = end ? a.norm : w.here.y->norm[mlp];
    const bool codes = end ? a.out_codes : t.codes[mlp];
    const bool exact = end ? !a.out_codes : t.exact[mlp];
    const bool l2norm = !end && !mlp && w.here.y->l2norm;
    if constexpr (KERNEL::one) {
        mm_stream_whole<KERNEL>(a, w.memory, mm_turn_of(a, w.memory, w.meeting) - 1, l == 0 && !mlp,
                                norm, codes, exact);
    } else {
        mm_stream<KERNEL>(a, w.me, w.memory, w.meeting, l == 0 && !mlp, norm, codes, exact);
        mm_hear_operand<KERNEL>(a, w.memory, w.me, w.meeting, codes, exact);
    }
    float length;
    mm_meet(a);
    w.factor = mm_norm_factor(a, w.memory, min((int)threadIdx.x % 8, a.n - 1), end ? a.eps : t.eps,
                              l2norm, &length);
    if (l2norm) {
        mm_shorten<KERNEL>(a, w.memory);
        mm_meet(a);
    }
}

template <class KERNEL>
static __device__ __forceinline__ float factor_of(const walk<KERNEL> &w, int seq) {
    return KERNEL::one ? w.factor : __shfl_sync(0xffffffffu, w.factor, seq);
}

// Before the first product of a half, or of a round of heads; head -1: the crew has none.
template <class KERNEL, class ARGS>
static __device__ __forceinline__ void begin(const ARGS &a, walk<KERNEL> &w, int l, bool mixer,
                                             int head, int round) {
    const bool has_dt = mixer && head >= 0 && !w.here.t->attention && (ARGS::groups || me_dt(w.me));
    if (mixer) {  // what comes from far is asked for before the crew has the operand
#pragma unroll 1
        for (int at = threadIdx.x; at < a.n * mm_step_rows; at += mm_step_threads<ARGS>)
            mm_conv_ask(a, w.memory, w.here, mm_item(a, w.memory, w.here, round, at), round);
        if (has_dt && !ARGS::groups) w.dt_bias = __ldg(w.here.y->dt_bias + head);
    }
    if (round == 0) begin_half(a, w, l, !mixer);
    if (!has_dt) return;
    if constexpr (ARGS::groups) {
        mm_dt_say<KERNEL>(a, w.me, w.memory, w.here, head, w.meeting, round);
    } else {
        mm_dt_sums<KERNEL>(a, w.memory, w.here, head);
    }
}

// The recurrence, of what the crew said of v, k, q and dt.
template <class KERNEL, class ARGS>
static __device__ __forceinline__ void recur(const ARGS &a, walk<KERNEL> &w, int head, int round) {
    if (head >= 0) {
        // asked for before the crew has said what is next
        const auto state = mm_state_rows(a, w.here, w.me, head, threadIdx.x / 32);
        const float d = w.here.y->d ? __ldg(w.here.y->d + head) : 0.0f;
        const float a_log = w.here.y->a_log ? __ldg(w.here.y->a_log + head) : -INFINITY;
        const float bias = ARGS::groups ? __ldg(w.here.y->dt_bias + head) : 0.0f;
        mm_hear_z(a, w.me, w.memory, w.here, w.meeting, round);
        if constexpr (ARGS::groups)
            mm_hear_dt(a, w.me, w.memory, w.here, w.meeting, round, w.factor, bias);
        mm_meet(a);
        mm_phase_is<KERNEL>(a, w.memory, mm_phase_gate);
        mm_recur(a, w.me, w.memory, w.here, head, state, -expf(a_log), d, w.meeting, round);
    }
}

// What the mixer makes becomes the last projection's operand.
template <class KERNEL, class ARGS>
static __device__ __forceinline__ void mix(const ARGS &a, walk<KERNEL> &w, int head, int round) {
    if constexpr (KERNEL::attends) {
        if (w.here.t->attention && head >= 0) {
            if (a.half_cache) {
                mm_attend_soon<true>(a, w.me, w.here, head);
            } else {
                mm_attend_soon<false>(a, w.me, w.here, head);
            }
            mm_hear_z(a, w.me, w.memory, w.here, w.meeting, round);
            mm_meet(a);
            mm_attend(a, w.me, w.memory, w.here, head, w.meeting, round);
            mm_attended<KERNEL>(a, w.me, w.memory, w.here, head, w.meeting, round);
        }
    }
    const bool attention = KERNEL::attends && w.here.t->attention;
    if (!attention && head >= 0) {
        const float4 weights = mm_gated_weights(w.here, head);
        mm_gated<KERNEL>(a, w.me, w.memory, w.here, head, weights, w.meeting, round);
    }
    mm_meet(a);
}

// What the crew said of the MLP's hidden numbers becomes the operand of w2.
template <class KERNEL, class ARGS>
static __device__ __forceinline__ void hear_hidden(const ARGS &a, walk<KERNEL> &w) {
    const struct mm_step_kind &t = *w.here.t;
    const int left = min(t.unit, t.F - w.me.crew * t.unit);
#pragma unroll 1
    for (int i = threadIdx.x / 32; i < t.unit / mm_step_block * a.n && left > 0; i += ARGS::warps) {
        const int seq = i % a.n, block = i / a.n;
        const int at = block * mm_step_block + threadIdx.x % 32 * 4;
        const uint64_t *const s[1] = {mm_words_s(a, w.me.crew, w.meeting, seq) + at};
        uint4 heard[1];
        mm_hear4(heard, s, w.meeting, at < left);  // else zeros
        const float4 v = mm_as_floats(heard[0]);
        mm_keep_operand<KERNEL>(a, w.memory, block, seq, v,
                                t.shape[mm_step_w2].type != mm_dtype_bf16);
    }
    mm_meet(a);
}

// The sums of v, k, q and dt, or those of the gate, are in shared memory when all have met: rows
// are finished, of the gate by warps that are not first to hear the others. What a warp's first
// rows need besides is looked up before.
template <class KERNEL, class ARGS>
static __device__ __forceinline__ void end_mixer(const ARGS &a, walk<KERNEL> &w, int head,
                                                 int round, bool gate) {
    const struct mm_step_kind &t = *w.here.t;
    const float *red = (const float *)(w.memory + a.room.red);
    const int warp = threadIdx.x / 32, turn = gate ? ARGS::warps - 1 - warp : warp;
    const int rows = a.n * mm_step_rows;
    if (!gate) mm_conv_wait();
    struct mm_step_ready r;
    int at = turn * 32 + (int)threadIdx.x % 32;
    if (turn * 32 < rows) r = mm_ready(a, w.memory, w.here, round, at, gate);
    mm_meet(a);
#pragma unroll 1
    while (at < rows) {  // the same for a warp
        const float factor = factor_of(w, r.item.seq);
        if (r.has) {
            const float *sums = red + r.item.row.sum + r.item.seq * 16;
            mm_finish_row(a, w.me, w.memory, w.here, r, w.meeting, round,
                          factor * mm_row_sum(a, sums, r.item.row.parts & 15));
        }
        at += mm_step_threads<ARGS>;
        if (at < rows) r = mm_ready(a, w.memory, w.here, round, at, gate);
    }
    // by a warp that has the least to do
    const int seq = mm_step_threads<ARGS> - 1 - (int)threadIdx.x;
    if (!ARGS::groups && !gate && head >= 0 && !t.attention && me_dt(w.me) && seq < 32) {
        const float factor = factor_of(w, min(seq, a.n - 1));
        if (seq < a.n)
            mm_dt_finish(a, w.me, w.memory, w.here, w.meeting, round, seq, factor, w.dt_bias);
    }
}

// The sums of a tile of the MLP, 8 rows of w1 and the same of w3, or of the output.
template <class KERNEL, class ARGS>
static __device__ __forceinline__ void end_tile(const ARGS &a, walk<KERNEL> &w, const float c[4],
                                                bool mlp, int tile) {
    const int g = threadIdx.x % 32 / 4, rows = mlp ? 0 : mm_model(a, w.memory)->output.rows;
    const bool turned = mlp && w.here.y->turned;
#pragma unroll
    for (int e = 0; e < 2; e++) {
        const int seq = threadIdx.x % 4 * 2 + e;
        const float factor = factor_of(w, seq), u = factor * c[e], v = factor * c[e + 2];
        if (seq >= a.n) continue;
        if (mlp) {
            const float gate = turned ? v : u, up = turned ? u : v;
            mm_say_float(mm_words_s(a, w.me.crew, w.meeting, seq) + tile * 8 + g,
                         gate * mm_sigmoid(gate) * up, w.meeting);
        } else {
            float *to = a.logits + seq * a.logits_ld + tile * mm_step_tile + g;
            if (tile * mm_step_tile + g < rows) to[0] = u;
            if (tile * mm_step_tile + g + 8 < rows) to[8] = v;
        }
    }
}

// The norm of the last rows, this block's columns.
template <class KERNEL, class ARGS>
static __device__ __forceinline__ void hidden(const ARGS &a, const walk<KERNEL> &w) {
    // of one sequence the block has them all
    const float *rows =
        (const float *)(w.memory + a.room.stream) + (KERNEL::one ? w.me.rank * a.slice : 0);
    if (w.me.crew != 0) return;
#pragma unroll 1
    for (int i = threadIdx.x; i < a.n * a.slice; i += mm_step_threads<ARGS>) {
        const int seq = i / a.slice, column = w.me.rank * a.slice + i % a.slice;
        float length;
        const float factor = mm_norm_factor(a, w.memory, seq, a.eps, false, &length);
        if (column < a.D) a.hidden[seq * a.hidden_ld + column] = rows[i] * factor * a.norm[column];
    }
}

// When it is multiplied.
static __device__ __forceinline__ enum mm_step_phase phase_of(int which) {
    return which == mm_step_in     ? mm_phase_in
           : which == mm_step_gate ? mm_phase_gate
           : which == mm_step_wo   ? mm_phase_wo
           : which == mm_step_ffn  ? mm_phase_ffn
           : which == mm_step_w2   ? mm_phase_w2
                                   : mm_phase_output;
}

// A product of the walk, all its tiles: what it needs, the sums, what becomes of them. One place
// for all products, or the code would not fit the instruction cache. The next one; less than 0: the
// block of the model has none.
template <class KERNEL, class ARGS>
static __device__ __forceinline__ int product(const ARGS &a, walk<KERNEL> &w, int l,
                                              const struct mm_part &of, int next) {
    const int which = KERNEL::small ? of.which : next;  // q4 has no registers to spare
    if (KERNEL::attends && which == mm_step_gate && w.here.t->attention) return which + 1;
    const bool splits = which <= mm_step_gate, sends = which == mm_step_wo || which == mm_step_w2;
    // sums of two meetings later: who sends now has heard the last ones
    if (KERNEL::one && sends) mm_clear_sums(a, w.memory, mm_turn_of(a, w.memory, w.meeting) + 2);
    if (which == mm_step_wo) {
        mm_phase_is<KERNEL>(a, w.memory, mm_phase_y);
        mix(a, w, of.head, of.round);
    } else if (which == mm_step_w2) {
        mm_phase_is<KERNEL>(a, w.memory, mm_phase_hidden);
        hear_hidden(a, w);
    } else if (which == mm_step_gate) {
        recur(a, w, of.head, of.round);
    } else {
        begin(a, w, l, which == mm_step_in, of.head, which == mm_step_in ? of.round : 0);
        if (which == mm_step_output) hidden(a, w);
    }
    const mm_part_here<KERNEL> part = mm_part_of<KERNEL>(of);
    mm_phase_is<KERNEL>(a, w.memory, phase_of(which));
    int tile = part.tile;
#pragma unroll 1
    for (int turn = 0; turn < part.turns; turn++, tile += part.step) {
        const bool has = tile < part.last;
        float c[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        // a group takes its slots together, whoever has rows there
        const int n = has || (KERNEL::groups && !splits) ? part.n : 0;
        if constexpr (KERNEL::groups) {
            mm_group_sums(c, a, w.memory, w.queue, part, n, sends);
        } else {
            mm_tile_sums(c, a, w.memory, w.queue, part, n, sends);
        }
        float *red = (float *)(w.memory + a.room.red);
        if (splits) {
            mm_put_sums(a, red + (which == mm_step_gate ? ARGS::warps * ARGS::tile_sums : 0), c);
        } else if (sends) {
            if (has)
                mm_send<KERNEL>(a, w.me, w.memory, c, tile, w.meeting,
                                which == mm_step_wo ? part.round : 0, part.more != 0);
        } else {
            const bool shared = ARGS::warps > mm_step_warps && which == mm_step_ffn;
            if (shared) mm_add_halves(red, c, turn);
            if (has && !(shared && threadIdx.x / 32 >= mm_step_warps))
                end_tile(a, w, c, which == mm_step_ffn, tile);
        }
    }
    if (splits) end_mixer(a, w, part.head, part.round, which == mm_step_gate);
    if (sends && !part.more) {
        w.meeting++;
        mm_phase_is<KERNEL>(a, w.memory, which == mm_step_wo ? mm_phase_stream : mm_phase_next);
    }
    if (which == mm_step_wo) return part.more ? mm_step_in : mm_step_ffn;
    return which >= mm_step_w2 ? -1 : which + 1;
}

// Bit i: sequence i has stopped. Whoever said so did before this kernel began, so all blocks see
// the same.
template <class ARGS>
static __device__ __forceinline__ unsigned stopped_of(const ARGS &a) {
    unsigned stopped = 0;
#pragma unroll 1
    for (int i = 0; a.stopped && i < a.n; i++)
        stopped |= (unsigned)(__ldg(a.stopped + i) != 0) << i;
    return stopped;
}

// Of groups, who brings needs few registers, and who multiplies gets them: of 96 a thread, 640
// threads.
template <class ARGS>
static __device__ __forceinline__ void give_registers() {
#if MM_HOPPER
    if (ARGS::groups) asm volatile("setmaxnreg.dec.sync.aligned.u32 32;");
#endif
}
template <class ARGS>
static __device__ __forceinline__ void take_registers() {
#if MM_HOPPER
    if (ARGS::groups) asm volatile("setmaxnreg.inc.sync.aligned.u32 112;");
#endif
}

template <class KERNEL>
static __global__ void __launch_bounds__(mm_step_all<typename KERNEL::args>, 1)
    step_token(const __grid_constant__ typename KERNEL::args a) {
    using args = typename KERNEL::args;
    if (args::groups && !MM_HOPPER) return;  // it is for the copy engine
    extern __shared__ __align__(128) char memory[];
    const unsigned stopped = stopped_of(a);
    if (stopped + 1 == 1u << a.n) return;  // nobody meets anybody
    if (threadIdx.x == 0) {
        unsigned *numbers = (unsigned *)(memory + a.room.numbers);
        numbers[0] = stopped, numbers[1] = KERNEL::one ? (unsigned)*mm_turn(a) : 0;
    }
    walk<KERNEL> w;
    w.memory = memory;
    w.me.crew = (int)blockIdx.x / mm_step_crew, w.me.rank = (int)blockIdx.x % mm_step_crew;
    w.meeting = a.meeting;
    copy_in(a, memory + a.room.model, a.model, a.model_bytes);
    copy_in(a, memory + a.room.layers, a.layers, a.n_layers * (int)sizeof(struct mm_step_layer));
#pragma unroll 1
    for (int i = threadIdx.x; i < a.n * mm_squares_of(a.D_blocks); i += mm_step_all<args>)
        ((float *)(memory + a.room.squares))[i] = 0.0f;
#pragma unroll 1
    for (int i = threadIdx.x; i < a.n_layers * a.n; i += mm_step_all<args>)
        ((struct mm_step_state *)(memory + a.room.states))[i] =
            a.states[i / a.n * mm_step_cols + i % a.n];
    __syncthreads();
    if (threadIdx.x < mm_step_threads<args>) {
        const struct mm_step_model *model = mm_model(a, memory);
#pragma unroll 1
        for (int i = threadIdx.x; i < (model->n_kinds * a.ops + 1) * args::warps;
             i += mm_step_threads<args>) {
            const int warp = i % args::warps, at = i / args::warps;
            const int kind = at / a.ops, op = at % a.ops;
            if (kind == model->n_kinds || op < 3 * model->kinds[kind].rounds + 2)
                *mm_parts_of(a, memory, kind, op, warp) =
                    mm_part_make(a, KERNEL::factors, model, w.me, kind, op, warp);
        }
#pragma unroll 1
        for (int i = threadIdx.x; i < model->n_kinds * a.rounds * mm_step_rows;
             i += mm_step_threads<args>) {
            const int at = i / mm_step_rows, kind = at / a.rounds, round = at % a.rounds;
            const struct mm_step_kind &t = model->kinds[kind];
            const int head = w.me.crew + round * a.crews;
            mm_rows_of(a, memory, kind, round)[i % mm_step_rows] =
                mm_row_make(a, t, w.me, head < t.H ? head : -1, i % mm_step_rows);
        }
        if (KERNEL::groups && KERNEL::weights == mm_dtype_q4 && threadIdx.x < 32)
            ((struct mm_q4_lane *)(memory + a.room.lanes))[threadIdx.x] =
                mm_q4_lane_make<KERNEL>((int)threadIdx.x);
        if (KERNEL::one) mm_zeros_make(a, memory);
        mm_phase_is<KERNEL>(a, memory, mm_phase_begin);
        w.queue.start(a, memory);
    }
    __syncthreads();
    if (threadIdx.x >= mm_step_threads<args>) {
        give_registers<args>();
        mm_bring_all<KERNEL>(a, memory, w.me);
        return;
    }
    take_registers<args>();
#pragma unroll 1
    for (int l = 0; l <= a.n_layers; l++) {
        if (l < a.n_layers) w.here = here_of(a, memory, l);
        const int kind = l < a.n_layers ? w.here.y->kind : mm_model(a, memory)->n_kinds;
        const struct mm_part *part = mm_parts_of(a, memory, kind, 0, (int)threadIdx.x / 32);
#pragma unroll 1
        for (int which = l < a.n_layers ? mm_step_in : mm_step_output; which >= 0;
             part += args::warps)
            which = product(a, w, l, *part, which);
#pragma unroll 1
        for (int round = 0; l < a.n_layers && round < w.here.t->rounds; round++) {
            const int head = w.me.crew + round * a.crews;
            if (head < w.here.t->H) mm_conv_keep(a, memory, w.here, head, round);
        }
    }
    if (KERNEL::one) mm_sums_cleared(a);
    // all have begun: their parts were heard
    if (KERNEL::one && blockIdx.x == 0 && threadIdx.x == 0)
        *mm_turn(a) = mm_turn_of(a, memory, w.meeting) % mm_sums_turns;
}

// A kernel of its own: functions in double would take registers from everything else.
static __global__ void rope_table(const __grid_constant__ struct mm_step_args a) {
    mm_rope_table(a);
}

struct kernel {
    const void *function;
    int weights, n;  // of as many sequences; 0: of any number
    bool attends;
    int warps, threads, queues;
    int slot, bars, scales, least, most;
};

template <int WEIGHTS, class ARGS, bool ATTENDS>
static struct kernel kernel_of(int n) {
    using k = mm_step_kernel<WEIGHTS, ARGS, ATTENDS>;
    return {(const void *)step_token<k>,
            WEIGHTS,
            n,
            ATTENDS,
            ARGS::warps,
            mm_step_all<ARGS>,
            ARGS::queues,
            k::slot,
            k::bars,
            k::scales,
            k::least,
            k::most};
}

static const struct kernel kernels[] = {
    kernel_of<mm_dtype_bf16, struct mm_step_args_linear, false>(1),
    kernel_of<mm_dtype_bf16, struct mm_step_args_one, false>(1),
    kernel_of<mm_dtype_bf16, struct mm_step_args_one, true>(1),
    kernel_of<mm_dtype_bf16, struct mm_step_args, true>(0),
    kernel_of<mm_dtype_q8, struct mm_step_args_linear, false>(1),
    kernel_of<mm_dtype_q8, struct mm_step_args_one, false>(1),
    kernel_of<mm_dtype_q8, struct mm_step_args_one, true>(1),
    kernel_of<mm_dtype_q8, struct mm_step_args, true>(0),
    kernel_of<mm_dtype_q4, struct mm_step_args_linear, false>(1),
    kernel_of<mm_dtype_q4, struct mm_step_args_one, false>(1),
    kernel_of<mm_dtype_q4, struct mm_step_args_one, true>(1),
    kernel_of<mm_dtype_q4, struct mm_step_args, true>(0),
};

static const struct kernel *kernel_for(int weights, int n, bool attends, int warps) {
    const struct kernel *k = kernels;
    while (k->weights != weights || (k->n != 0 && k->n != n) || (attends && !k->attends) ||
           k->warps != warps)
        k++;
    return k;
}

int mm_step_queues(int weights, int room, int warps, struct mm_step_args *a) {
    const struct kernel *k = kernel_for(weights, 1, false, warps);
    const int fit = (room / k->queues - k->scales) / (k->slot + k->bars);
    const int slots = fit < k->most ? fit : k->most;
    if (slots < k->least) return 0;
    a->ring = slots * k->slot;
    a->queue = a->ring + slots * k->bars + k->scales;
    return k->queues * a->queue;
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
        if (!mm_cuda_ok(be,
                        cudaFuncSetAttribute(
                            k.function, cudaFuncAttributeMaxDynamicSharedMemorySize, d->shared),
                        "asking for shared memory for a token step"))
            return false;
    }
    return true;
}

bool mm_step_launch(struct mm_backend *be, const struct mm_step_args *a, enum mm_dtype weights,
                    int warps) {
    const bool attends = a->rope_half[0] > 0 || a->rope_half[1] > 0;
    const struct kernel *k = kernel_for(weights, a->n, attends, warps);
    if (attends) MM_LAUNCH(be, rope_table, (unsigned)a->n, 256, 0, *a);
    void *args[] = {(void *)a};
    if (!mm_cuda_ok(
            be,
            cudaLaunchCooperativeKernel(k->function, dim3((unsigned)(a->crews * mm_step_crew)),
                                        dim3((unsigned)k->threads), args, (size_t)a->room.bytes,
                                        mm_cuda_of(be)->stream),
            "a token step"))
        return false;
    mm_cuda_launched(be, "a token step");
    return !be->error.code;
}
