// The queues of weights. A tile is 16 rows of a matrix; the 16 warps of a block share its columns
// out among them; a lane brings what it will multiply itself, 16 bytes at a time, so it waits for
// nobody but its own copies. What the lanes hold is laid out for m16n8 products: lane 4 g + t has
// rows g and g + 8, and of every 64 bytes the 16 from 16 t. The order of the k inside a product is
// therefore not that of memory; it is the same for both operands, which is all that matters.
#ifndef MM_OPS_CUDA_STEP_QUEUE_CUH
#define MM_OPS_CUDA_STEP_QUEUE_CUH

#include "ops/cuda/step.cuh"

// Slots that fit beside the rest of shared memory.
#ifndef MM_STEP_SLOTS
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 800
#define MM_STEP_SLOTS 3
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
#define MM_STEP_SLOTS 2
#else
#define MM_STEP_SLOTS 5
#endif
#endif

__device__ inline uint32_t mm_shared_at(const void *p) {
    return (uint32_t)__cvta_generic_to_shared(p);
}
// Zeros where `there` is false.
__device__ inline void mm_copy16(uint32_t to, const char *from, bool there) {
    const int bytes = there ? 16 : 0;
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
                 "r"(bytes)
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

struct mm_queue {
    struct mm_step_matrix *here;        // in shared memory: the matrix that is being brought
    const struct mm_step_matrix *next;  // the one after it
    int left;                           // matrices from `next` on
    uint32_t room;                      // of this lane in slot 0
    int slot;                           // to multiply next
    const char *p0, *p1, *ps;           // of the lane's two rows: codes, and scales
    int type, k, tile, begin, n, at;
    bool done;

    __device__ int g() const {
        return threadIdx.x % 32 / 4;
    }
    __device__ int t() const {
        return threadIdx.x % 4;
    }

    // Points the lane at its rows of the tile.
    __device__ void aim() {
        const struct mm_step_matrix &m = *here;
        const int r0 = m.w3 ? tile * 8 + g() : tile * 16 + g(), r1 = m.w3 ? r0 : r0 + 8;
        const int last = m.rows - 1;
        const char *a = m.w + min(r0, last) * m.pitch;
        const char *b = (m.w3 ? m.w3 : m.w) + min(r1, last) * m.pitch;
        ps = (t() & 1 ? b : a) + m.code_bytes + (t() >= 2 ? 2 * m.blocks : 0);
        const int64_t from = (int64_t)begin * (type == mm_dtype_q4 ? 64 : 128) + t() * 16;
        p0 = a + from, p1 = b + from;
        at = 0;
    }

    // The next matrix of which this warp has a part.
    __device__ void open() {
        for (done = true; done && left > 0; next++, left--) {
            const int lane = threadIdx.x % 32;
            __syncwarp();
            if (lane < (int)(sizeof *here / 16))
                ((uint4 *)here)[lane] = __ldg((const uint4 *)next + lane);
            __syncwarp();
            begin = threadIdx.x / 32 * here->per_warp;
            n = min(here->per_warp, here->n_slots - begin);
            tile = (int)blockIdx.x - here->first;
            if (tile < 0) tile += gridDim.x;
            if (n <= 0 || tile >= here->tiles) continue;
            type = here->type, k = here->k;
            done = false;
            aim();
        }
    }

    __device__ void bring(int slot) {
        if (!done) {
            const uint32_t to = room + slot * mm_step_slot;
            if (type == mm_dtype_bf16) {
                const int at_k = (begin + at) * 64 + t() * 8;
                const bool first = at_k < k, second = at_k + 32 < k;
                mm_copy16(to, first ? p0 : here->w, first);
                mm_copy16(to + 512, first ? p1 : here->w, first);
                mm_copy16(to + 1024, second ? p0 + 64 : here->w, second);
                mm_copy16(to + 1536, second ? p1 + 64 : here->w, second);
                p0 += 128, p1 += 128;
            } else {
                const int b = 2 * (begin + at);
                mm_copy16(to, p0, true);
                mm_copy16(to + 512, p1, true);
                if (type == mm_dtype_q8) {
                    mm_copy16(to + 1024, p0 + 64, true);
                    mm_copy16(to + 1536, p1 + 64, true);
                    p0 += 64, p1 += 64;
                }
                p0 += 64, p1 += 64;
                // scales of two neighbours at a time: the smallest copy has 4 bytes
                if (type == mm_dtype_q4 || t() < 2) {
                    mm_copy4(scales_at(slot), (const char *)((uintptr_t)(ps + b) & ~(uintptr_t)3));
                }
            }
            if (++at == n) {
                tile += gridDim.x;
                if (tile < here->tiles) {
                    aim();
                } else {
                    open();
                }
            }
        }
        asm volatile("cp.async.commit_group;" ::: "memory");
    }
    __device__ uint32_t scales_at(int slot) const {
        return room + slot * mm_step_slot + 2048 - (threadIdx.x % 32) * 12;
    }

    __device__ void start(const struct mm_step_args &a, const void *memory,
                          struct mm_step_matrix *shared) {
        here = shared + threadIdx.x / 32;
        room = mm_shared_at(memory) + threadIdx.x / 32 * (MM_STEP_SLOTS * mm_step_slot) +
               threadIdx.x % 32 * 16;
        next = a.matrices, left = a.n_matrices, slot = 0;
        open();
#pragma unroll 1
        for (int i = 0; i < MM_STEP_SLOTS - 1; i++)
            bring(i);
    }
    // The slot to multiply has come; `free` afterwards brings the next into the one before it.
    __device__ uint32_t wait() const {
        asm volatile("cp.async.wait_group %0;" ::"n"(MM_STEP_SLOTS - 2) : "memory");
        return room + slot * mm_step_slot;
    }
    __device__ void free() {
        bring(slot == 0 ? MM_STEP_SLOTS - 1 : slot - 1);
        slot = slot == MM_STEP_SLOTS - 1 ? 0 : slot + 1;
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

template <int TYPE>
__device__ inline void mm_slot_product(float c[4], uint32_t slot, uint32_t scales, int block,
                                       int n_blocks, const struct mm_step_x &x) {
    const int lane = threadIdx.x % 32;
    const uint4 g0 = mm_load16_shared(slot), h0 = mm_load16_shared(slot + 512);
    if (TYPE == mm_dtype_bf16) {
        const uint4 g1 = mm_load16_shared(slot + 1024), h1 = mm_load16_shared(slot + 1536);
        mm_mma_bf16(c, g0.x, h0.x, g0.y, h0.y, x.b[0], x.b[1]);
        mm_mma_bf16(c, g0.z, h0.z, g0.w, h0.w, x.b[2], x.b[3]);
        mm_mma_bf16(c, g1.x, h1.x, g1.y, h1.y, x.b[4], x.b[5]);
        mm_mma_bf16(c, g1.z, h1.z, g1.w, h1.w, x.b[6], x.b[7]);
        return;
    }
    const uint32_t pair = mm_load4_shared(scales);
    const float sg = mm_half_of(__shfl_sync(0xffffffffu, pair, lane & ~3), block & 1);
    const float sh = mm_half_of(__shfl_sync(0xffffffffu, pair, (lane & ~3) + 1), block & 1);
    int i[4] = {0, 0, 0, 0};
    if (TYPE == mm_dtype_q8) {
        const uint4 g1 = mm_load16_shared(slot + 1024), h1 = mm_load16_shared(slot + 1536);
        mm_mma_s8(i, g0.x, h0.x, g0.y, h0.y, x.b[0], x.b[1]);
        mm_mma_s8(i, g0.z, h0.z, g0.w, h0.w, x.b[2], x.b[3]);
        mm_mma_s8(i, g1.x, h1.x, g1.y, h1.y, x.b[4], x.b[5]);
        mm_mma_s8(i, g1.z, h1.z, g1.w, h1.w, x.b[6], x.b[7]);
    } else {
        // u * (c + 8) of four codes in one multiplication; 8 u times the sum of x goes off again
        const int odd = (block + n_blocks) & 1, shift = threadIdx.x % 4 / 2 * 4;
        const uint32_t pg = __shfl_sync(0xffffffffu, pair, (lane & ~3) + 2),
                       ph = __shfl_sync(0xffffffffu, pair, (lane & ~3) + 3);
        const uint32_t fg = odd ? pg >> 16 : pg & 0xffff, fh = odd ? ph >> 16 : ph & 0xffff;
        const uint32_t ug = mm_spread(fg), uh = mm_spread(fh);
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
