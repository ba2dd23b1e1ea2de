// The queues of weights. A tile is 16 rows of a matrix; some warps of a block share its columns out
// among them; a lane brings what it will multiply itself, 16 bytes at a time, so it waits for
// nobody but its own copies. What the lanes hold is laid out for m16n8 products: lane 4 g + t has
// rows g and g + 8, and of every 64 bytes the 16 from 16 t. The order of the k inside a product is
// therefore not that of memory; it is the same for both operands, which is all that matters.
#ifndef MM_OPS_CUDA_STEP_QUEUE_CUH
#define MM_OPS_CUDA_STEP_QUEUE_CUH

#include "ops/cuda/step.cuh"

__device__ inline uint32_t mm_shared_at(const void *p) {
    return (uint32_t)__cvta_generic_to_shared(p);
}
// Weights pass through the L2 once a token; states and vectors should stay in it.
__device__ inline uint64_t mm_passing() {
    uint64_t policy;
    asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    return policy;
}
// `bytes` of 16, and zeros.
__device__ inline void mm_copy16(uint32_t to, const char *from, int bytes, uint64_t policy) {
    asm volatile(
        "cp.async.cg.shared.global.L2::cache_hint.L2::128B [%0], [%1], 16, %2, %3;" ::"r"(to),
        "l"(from), "r"(bytes), "l"(policy)
        : "memory");
}
__device__ inline void mm_copy4(uint32_t to, const char *from) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(to), "l"(from) : "memory");
}
__device__ inline uint4 mm_load16_shared(uint32_t at) {
    uint4 r;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r.x), "=r"(r.y), "=r"(r.z), "=r"(r.w)
                 : "r"(at)
                 : "memory");
    return r;
}
__device__ inline uint32_t mm_load4_shared(uint32_t at) {
    uint32_t r;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(r) : "r"(at) : "memory");
    return r;
}

// How shared memory is cut for a kernel: the type of most weights, slots of a queue.
template <int WEIGHTS, int SLOTS>
struct mm_step_kernel {
    static constexpr int weights = WEIGHTS, slots = SLOTS;
    // beside q4, slots of other types are half as long: those are few
    static constexpr bool small = WEIGHTS == mm_dtype_q4;
    static constexpr int codes = small ? 1024 : 2048, slot = codes + 128;
    static constexpr int queues = mm_step_warps * SLOTS * slot;
};

// Who this block is.
struct mm_step_who {
    int crew, rank;
};

// A warp's part of a product: tiles tile, tile + (16 >> split_log)... before `last`; of each, slots
// [begin, begin + n). The same in all blocks of a kind; a table in shared memory.
struct alignas(16) mm_part {
    int tile, last, begin, n;
};

// Where a warp is in the list of products.
struct mm_step_place {
    const struct mm_step_shape *m;
    const char *w, *w3;
    struct mm_part part;
    int head;     // of the crew's heads: -1 none
    int hidden0;  // the crew's first hidden number of the MLP
    int ratio_log;
};

__device__ __forceinline__ const struct mm_step_model *mm_model(const struct mm_step_args &a,
                                                                const char *memory) {
    return (const struct mm_step_model *)(memory + a.room.model);
}
__device__ __forceinline__ const struct mm_step_layer *mm_layer(const struct mm_step_args &a,
                                                                const char *memory, int l) {
    return (const struct mm_step_layer *)(memory + a.room.layers) + l;
}

// The products of a layer come one after the other: op = 3 round + gate, in or wo, then w1 with w3,
// then w2.
__device__ __forceinline__ int mm_which(int rounds, int op) {
    const int mlp = op - 3 * rounds;
    return mlp >= 0 ? mm_step_ffn + mlp : op % 3;
}

__device__ __forceinline__ struct mm_part *mm_parts_of(const struct mm_step_args &a, char *memory,
                                                       int kind, int op) {
    return (struct mm_part *)(memory + a.room.parts) + (kind * mm_step_ops + op) * mm_step_warps +
           threadIdx.x / 32;
}

// This warp's part of a product that a kind of block has; kind -1: the output.
__device__ __forceinline__ struct mm_part mm_part_make(const struct mm_step_args &a,
                                                       const struct mm_step_model *model,
                                                       const struct mm_step_who &me, int kind,
                                                       int op) {
    const struct mm_step_shape *m = &model->output;
    int column = 0, block = me.rank, tiles = m->tiles;
    if (kind < 0) {
        block += me.crew * mm_step_crew;
    } else {
        const struct mm_step_kind &t = model->kinds[kind];
        const int which = mm_which(t.rounds, op), head = me.crew + op / 3 * a.crews;
        const int left = min(t.unit, t.F - me.crew * t.unit);
        m = &t.shape[which], tiles = m->tiles;
        if (which < mm_step_ffn && head >= t.H) tiles = 0;
        if (which == mm_step_wo) column = head * t.P / mm_step_block;
        if (which == mm_step_ffn) tiles = max(0, (left + 7) / 8);
        if (which == mm_step_w2) {
            column = me.crew * (t.unit / mm_step_block);
            if (left <= 0) tiles = 0;
        }
    }
    const int log = m->split_log, warp = threadIdx.x / 32, first = block * m->per;
    struct mm_part p;
    p.tile = first + (warp >> log), p.last = min(tiles, first + m->per);
    p.begin = column * m->spb + (warp & ((1 << log) - 1)) * m->per_part;
    p.n = p.tile < p.last ? max(0, min(m->per_part, m->slots - p.begin)) : 0;
    return p;
}

// Product `op` of layer l; l = n_layers: the output.
__device__ __forceinline__ void mm_place_at(struct mm_step_place &p, const struct mm_step_args &a,
                                            char *memory, const struct mm_step_who &me, int l,
                                            int op) {
    const struct mm_step_model *model = mm_model(a, memory);
    p.w3 = NULL, p.head = 0;
    if (l >= a.n_layers) {
        p.m = &model->output, p.w = a.output;
        p.part = *mm_parts_of(a, memory, mm_step_kinds, 0);
        return;
    }
    const struct mm_step_layer *y = mm_layer(a, memory, l);
    const struct mm_step_kind *t = &model->kinds[y->kind];
    const int which = mm_which(t->rounds, op);
    p.m = &t->shape[which], p.w = y->w[which];
    if (which == mm_step_ffn) p.w3 = y->w3;
    p.part = *mm_parts_of(a, memory, y->kind, op);
    p.head = me.crew + op / 3 * a.crews;
    if (p.head >= t->H) p.head = -1;
    p.hidden0 = me.crew * t->unit, p.ratio_log = t->ratio_log;
}

// Row `row` of 16 of a tile in the matrix, -1 where there is none.
__device__ __forceinline__ int mm_tile_row(const struct mm_step_place &p, int tile, int row) {
    const struct mm_step_shape &m = *p.m;
    if (!m.n_seg) {
        const int r = tile * mm_step_tile + row;
        return r < m.rows ? r : -1;
    }
    const int j = tile >> m.seg_tiles_log;
    const int in = (tile - (j << m.seg_tiles_log)) * mm_step_tile + row;
    if (in >= m.seg_rows) return -1;
    return m.seg[j].row + p.head * m.seg[j].per_head +
           (p.head >> p.ratio_log) * m.seg[j].per_group + in;
}

template <class KERNEL>
struct mm_queue {
    uint32_t room;             // of this lane in slot 0
    int slot, next;            // to multiply next; to be brought next
    const char *p0, *p1, *ps;  // of the lane's two rows: codes, and scales
    int layer, op;             // the open product
    int at, n, type, tile;     // of it: slots; type -1: none was opened
    int k;                     // bf16: columns from the lane's first on; else the tile's first slot
    bool there0, there1, ended;

    __device__ static int g() {
        return threadIdx.x % 32 / 4;
    }
    __device__ static int t() {
        return threadIdx.x % 4;
    }

    // Points the lane at its rows of the tile.
    __device__ __forceinline__ void aim(const struct mm_step_place &p) {
        const struct mm_step_shape &m = *p.m;
        int r0, r1;
        if (p.w3) {
            r0 = p.hidden0 + tile * 8 + g();
            r0 = r1 = r0 < m.rows ? r0 : -1;
        } else {
            r0 = mm_tile_row(p, tile, g()), r1 = mm_tile_row(p, tile, g() + 8);
        }
        there0 = r0 >= 0, there1 = r1 >= 0;
        const char *row0 = p.w + (int64_t)max(r0, 0) * m.pitch;
        const char *row1 = (p.w3 ? p.w3 : p.w) + (int64_t)max(r1, 0) * m.pitch;
        const int begin = p.part.begin;
        ps = (t() & 1 ? row1 : row0) + m.code_bytes + (t() >= 2 ? 2 * m.blocks : 0);
        const int stride = KERNEL::small || type == mm_dtype_q4 ? 64 : 128;
        const int64_t from = (int64_t)begin * stride + t() * 16;
        p0 = row0 + from, p1 = row1 + from;
        k = type == mm_dtype_bf16 ? m.k - (begin * (KERNEL::small ? 32 : 64) + t() * 8) : begin;
        at = 0;
    }

    // The next tile of the open product, or the first of the next of which this warp has a part.
    __device__ __forceinline__ void open(const struct mm_step_args &a, char *memory,
                                         const struct mm_step_who &me) {
        struct mm_step_place p;
        bool next = type < 0;  // only before the first
#pragma unroll 1
        while (true) {
            mm_place_at(p, a, memory, me, layer, op);
            tile = next ? p.part.tile : tile + (mm_step_warps >> p.m->split_log);
            if (p.part.n > 0 && tile < p.part.last) break;
            next = true, type = -1;
            if (layer == a.n_layers) {
                ended = true;
                return;
            }
            const int kind = mm_layer(a, memory, layer)->kind;
            if (++op == 3 * mm_model(a, memory)->kinds[kind].rounds + 2) op = 0, layer++;
            if (layer == a.n_layers && !a.logits) {
                ended = true;
                return;
            }
        }
        n = p.part.n, type = p.m->type;
        aim(p);
    }

    // The next slot comes into the place of the one that was multiplied last.
    __device__ __forceinline__ void bring(const struct mm_step_args &a, char *memory,
                                          const struct mm_step_who &me) {
        if (at == n && !ended) open(a, memory, me);
        if (!ended) {
            const uint64_t policy = mm_passing();
            const uint32_t to = room + next * KERNEL::slot;
            const int size0 = there0 ? 16 : 0, size1 = there1 ? 16 : 0;
            if (type == mm_dtype_bf16) {
                constexpr int slot_k = KERNEL::small ? 32 : 64;
                const char *none = (const char *)a.model;  // a row's end: nothing is read there
                if (k > slot_k - 32) {
                    mm_copy16(to, p0, size0, policy), mm_copy16(to + 512, p1, size1, policy);
                } else {
                    mm_copy16(to, none, 0, policy), mm_copy16(to + 512, none, 0, policy);
                }
                if constexpr (!KERNEL::small) {
                    if (k > slot_k - 32) {
                        mm_copy16(to + 1024, p0 + 64, size0, policy);
                        mm_copy16(to + 1536, p1 + 64, size1, policy);
                    } else {
                        if (k > 0) mm_copy16(to, p0, size0, policy);
                        if (k > 0) mm_copy16(to + 512, p1, size1, policy);
                        mm_copy16(to + 1024, none, 0, policy);
                        mm_copy16(to + 1536, none, 0, policy);
                    }
                    p0 += 64, p1 += 64;
                }
                k -= slot_k;
            } else {
                mm_copy16(to, p0, size0, policy), mm_copy16(to + 512, p1, size1, policy);
                const bool half = KERNEL::small && type == mm_dtype_q8;
                if constexpr (!KERNEL::small) {
                    mm_copy16(to + 1024, p0 + 64, size0, policy);
                    mm_copy16(to + 1536, p1 + 64, size1, policy);
                    p0 += 64, p1 += 64;
                }
                // scales of two neighbours at a time: the smallest copy has 4 bytes
                if (type == mm_dtype_q4 || t() < 2) {
                    const int b = 2 * (half ? (k + at) / 2 : k + at);
                    mm_copy4(scales_at(next), (const char *)((uintptr_t)(ps + b) & ~(uintptr_t)3));
                }
            }
            p0 += 64, p1 += 64;
            at++;
        }
        asm volatile("cp.async.commit_group;" ::: "memory");
        next = next == KERNEL::slots - 1 ? 0 : next + 1;
    }
    __device__ __forceinline__ uint32_t scales_at(int at_slot) const {
        return scales_of(room + at_slot * KERNEL::slot);
    }
    __device__ __forceinline__ static uint32_t scales_of(uint32_t slot_room) {
        return slot_room + KERNEL::codes - (threadIdx.x % 32) * 12;
    }

    // Nothing is brought yet: that is for `slots` calls of `bring`.
    __device__ __forceinline__ void start(const char *memory) {
        room = mm_shared_at(memory) + threadIdx.x / 32 * (KERNEL::slots * KERNEL::slot) +
               threadIdx.x % 32 * 16;
        layer = op = at = n = tile = slot = next = 0, type = -1, ended = false;
    }
    // The two oldest slots have come, or the oldest; `bring` is due as often.
    __device__ __forceinline__ void wait(bool two) const {
        if (two) {
            asm volatile("cp.async.wait_group %0;" ::"n"(KERNEL::slots - 2) : "memory");
        } else {
            asm volatile("cp.async.wait_group %0;" ::"n"(KERNEL::slots - 1) : "memory");
        }
    }
    __device__ __forceinline__ uint32_t take() {
        const int was = slot;
        slot = slot == KERNEL::slots - 1 ? 0 : slot + 1;
        return room + was * KERNEL::slot;
    }
};

// ---- products of one slot: 16 rows, 8 columns ----

__device__ inline void mm_mma_bf16(float c[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,
                                   uint32_t b0, uint32_t b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
        "{%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
__device__ inline void mm_mma_s8(int c[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,
                                 uint32_t b0, uint32_t b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
__device__ inline void mm_mma_u8(int c[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,
                                 uint32_t b0, uint32_t b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// The other operand of a slot, as a lane holds it: the k that meet its weights, of sequence g.
struct mm_step_x {
    uint32_t b[8];
    float r[2];      // quantized: scales of sequences 2 t and 2 t + 1
    int sums[2][2];  // q4: sums of the codes of groups 0 and 1, and 2 and 3, 16 bits each
};

__device__ inline float mm_half_of(uint32_t pair, int which) {
    return __half2float(__ushort_as_half((unsigned short)(which ? pair >> 16 : pair & 0xffff)));
}
// Four factors of 4 bits as four bytes.
__device__ inline uint32_t mm_spread(uint32_t f) {
    return (f & 0xf) | (f & 0xf0) << 4 | (f & 0xf00) << 8 | (f & 0xf000) << 12;
}

// SMALL: half a slot of bf16 or q8, which meets x.b[0] to x.b[3].
template <int TYPE, bool SMALL>
__device__ __forceinline__ void mm_slot_product(float c[4], uint32_t slot, uint32_t scales,
                                                int block, int n_blocks,
                                                const struct mm_step_x &x) {
    const int lane = threadIdx.x % 32;
    const uint4 g0 = mm_load16_shared(slot), h0 = mm_load16_shared(slot + 512);
    if constexpr (TYPE == mm_dtype_bf16) {
        mm_mma_bf16(c, g0.x, h0.x, g0.y, h0.y, x.b[0], x.b[1]);
        mm_mma_bf16(c, g0.z, h0.z, g0.w, h0.w, x.b[2], x.b[3]);
        if constexpr (SMALL) return;
        const uint4 g1 = mm_load16_shared(slot + 1024), h1 = mm_load16_shared(slot + 1536);
        mm_mma_bf16(c, g1.x, h1.x, g1.y, h1.y, x.b[4], x.b[5]);
        mm_mma_bf16(c, g1.z, h1.z, g1.w, h1.w, x.b[6], x.b[7]);
        return;
    }
    const uint32_t pair = mm_load4_shared(scales);
    const float sg = mm_half_of(__shfl_sync(0xffffffffu, pair, lane & ~3), block & 1);
    const float sh = mm_half_of(__shfl_sync(0xffffffffu, pair, (lane & ~3) + 1), block & 1);
    int i[4] = {0, 0, 0, 0};
    if constexpr (TYPE == mm_dtype_q8) {
        mm_mma_s8(i, g0.x, h0.x, g0.y, h0.y, x.b[0], x.b[1]);
        mm_mma_s8(i, g0.z, h0.z, g0.w, h0.w, x.b[2], x.b[3]);
        if constexpr (!SMALL) {
            const uint4 g1 = mm_load16_shared(slot + 1024), h1 = mm_load16_shared(slot + 1536);
            mm_mma_s8(i, g1.x, h1.x, g1.y, h1.y, x.b[4], x.b[5]);
            mm_mma_s8(i, g1.z, h1.z, g1.w, h1.w, x.b[6], x.b[7]);
        }
    } else {
        // u * (c + 8) of four codes in one multiplication; 8 u times the sum of x goes off again
        const int odd = (block + n_blocks) & 1, shift = threadIdx.x % 4 / 2 * 4;
        const uint32_t pg = __shfl_sync(0xffffffffu, pair, (lane & ~3) + 2),
                       ph = __shfl_sync(0xffffffffu, pair, (lane & ~3) + 3);
        const uint32_t fg = odd ? pg >> 16 : pg & 0xffff, fh = odd ? ph >> 16 : ph & 0xffff;
        const uint32_t ug = mm_spread(fg), uh = mm_spread(fh);
#pragma unroll
        for (int e = 0; e < 2; e++) {
            i[e] = -8 * __dp2a_lo(x.sums[e][0], (int)ug, __dp2a_hi(x.sums[e][1], (int)ug, 0));
            i[e + 2] = -8 * __dp2a_lo(x.sums[e][0], (int)uh, __dp2a_hi(x.sums[e][1], (int)uh, 0));
        }
        const uint32_t mask = 0x0f0f0f0fu;
        const uint32_t gl = fg >> shift & 15, gh = fg >> (8 + shift) & 15;
        const uint32_t hl = fh >> shift & 15, hh = fh >> (8 + shift) & 15;
        mm_mma_u8(i, (g0.x & mask) * gl, (h0.x & mask) * hl, (g0.y & mask) * gl, (h0.y & mask) * hl,
                  x.b[0], x.b[1]);
        mm_mma_u8(i, (g0.z & mask) * gl, (h0.z & mask) * hl, (g0.w & mask) * gl, (h0.w & mask) * hl,
                  x.b[2], x.b[3]);
        mm_mma_u8(i, (g0.x >> 4 & mask) * gh, (h0.x >> 4 & mask) * hh, (g0.y >> 4 & mask) * gh,
                  (h0.y >> 4 & mask) * hh, x.b[4], x.b[5]);
        mm_mma_u8(i, (g0.z >> 4 & mask) * gh, (h0.z >> 4 & mask) * hh, (g0.w >> 4 & mask) * gh,
                  (h0.w >> 4 & mask) * hh, x.b[6], x.b[7]);
    }
    c[0] = fmaf(sg * x.r[0], (float)i[0], c[0]);
    c[1] = fmaf(sg * x.r[1], (float)i[1], c[1]);
    c[2] = fmaf(sh * x.r[0], (float)i[2], c[2]);
    c[3] = fmaf(sh * x.r[1], (float)i[3], c[3]);
}

#endif
