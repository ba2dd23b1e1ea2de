// The tensor cores as our kernels use them: products of 16 x 16 by 16 x 8 tiles of bf16 with sums
// in f32 (mma.sync, from sm_80 on), tiles in shared memory and the copies that fill them.
//
// Who holds what of a tile, for lane l of a warp, r = l / 4 and c = l % 4 * 2:
//   result (16 x 8)    [0] (r, c)  [1] (r, c + 1)  [2] (r + 8, c)  [3] (r + 8, c + 1)
//   left (16 x 16)     [0] (r, c..)  [1] (r + 8, c..)  [2] (r, c + 8..)  [3] (r + 8, c + 8..)
//   right (16 x 8)     [0] (c.., r)  [1] (c + 8.., r)
// with two bf16 in a register, the lower index low. So two results side by side, rounded, are a
// left operand.
#ifndef MM_OPS_CUDA_TENSOR_CUH
#define MM_OPS_CUDA_TENSOR_CUH

#include <cuda_bf16.h>
#include <stdint.h>

#define MM_DYNAMIC_SHARED(name) extern __shared__ __align__(1024) unsigned char name[]

typedef uint32_t mm_shared_ptr;
__device__ inline mm_shared_ptr mm_shared_at(const void *p) {
    return (mm_shared_ptr)__cvta_generic_to_shared(p);
}
__device__ inline void mm_store(mm_shared_ptr to, uint32_t x) {
    asm volatile("st.shared.b32 [%0], %1;" ::"r"(to), "r"(x) : "memory");
}
__device__ inline uint32_t mm_read(mm_shared_ptr from) {
    uint32_t x;
    asm volatile("ld.shared.b32 %0, [%1];" : "=r"(x) : "r"(from) : "memory");
    return x;
}
__device__ inline void mm_prefetch(const void *p) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
}

// 16 bytes to shared memory, by themselves; zeros when not real (`from` must still be an address).
__device__ inline void mm_copy16(mm_shared_ptr to, const void *from, bool real) {
    const int bytes = real ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes)
                 : "memory");
}
__device__ inline void mm_copy4(mm_shared_ptr to, const void *from, bool real) {
    const int bytes = real ? 4 : 0;
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(bytes)
                 : "memory");
}
__device__ inline void mm_copies_close() {  // what was begun until now is one group
    asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int N>
__device__ inline void mm_copies_wait() {  // until at most the last N groups are on their way
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// Four 8 x 8 matrices; lane l names row l % 8 of matrix l / 8.
__device__ inline void mm_load4(uint32_t (&r)[4], mm_shared_ptr row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
}
__device__ inline void mm_load4_turned(uint32_t (&r)[4], mm_shared_ptr row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
}
// An 8 x 8 matrix that the warp holds two elements a lane, turned.
__device__ inline uint32_t mm_turn(uint32_t x) {
    uint32_t y;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
    return y;
}
__device__ inline void mm_mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
        "{%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ inline float mm_exp2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ inline uint32_t mm_pair(float low, float high) {
    const __nv_bfloat162 x = __floats2bfloat162_rn(low, high);
    uint32_t y;
    memcpy(&y, &x, sizeof y);
    return y;
}
__device__ inline float mm_low(uint32_t x) {
    return __uint_as_float(x << 16);
}
__device__ inline float mm_high(uint32_t x) {
    return __uint_as_float(x & 0xffff0000u);
}

// Rows of D bf16 in shared memory. Their pieces of 16 bytes are exchanged within a row, so that
// eight neighbouring rows have a piece in different banks. The tile begins at a multiple of a row's
// bytes: a piece further on is an exclusive or away.
template <int D>
struct mm_tile_of {
    mm_shared_ptr p;
    static_assert(D == 32 || D % 64 == 0, "");
    __device__ mm_shared_ptr at(int row, int piece) const {
        const int turn = D == 32 ? row / 2 % 4 : row % 8;
        return p + (mm_shared_ptr)(row * D * 2 + (piece ^ turn) * 16);
    }
    // Left operand of rows r0.., sum over columns k0..
    __device__ void left(uint32_t (&a)[4], int r0, int k0) const {
        const int l = threadIdx.x % 32;
        mm_load4(a, (at(l % 16, l / 16) ^ (mm_shared_ptr)(k0 * 2)) + r0 * D * 2);
    }
    // The same of the turned tile: its rows are the sum, its columns r0.. the rows.
    __device__ void left_turned(uint32_t (&a)[4], int r0, int k0) const {
        const int l = threadIdx.x % 32;
        mm_load4_turned(a,
                        (at(l % 8 + l / 16 * 8, l / 8 % 2) ^ (mm_shared_ptr)(r0 * 2)) + k0 * D * 2);
    }
    // Two right operands, columns c0.. and c0 + 8..: rows of the tile are columns of the operand.
    __device__ void right(uint32_t (&b)[4], int c0, int k0) const {
        const int l = threadIdx.x % 32;
        mm_load4(b, (at(l % 8 + l / 16 * 8, l / 8 % 2) ^ (mm_shared_ptr)(k0 * 2)) + c0 * D * 2);
    }
    // The same where rows of the tile are the sum.
    __device__ void right_turned(uint32_t (&b)[4], int c0, int k0) const {
        const int l = threadIdx.x % 32;
        mm_load4_turned(b, (at(l % 16, l / 16) ^ (mm_shared_ptr)(c0 * 2)) + k0 * D * 2);
    }
};

#endif
