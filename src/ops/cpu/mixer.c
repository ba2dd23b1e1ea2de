// What the fast operations of the mixer share: sums over rows.
#include "ops/cpu/mixer.h"

enum { max_blocks = 64, min_block_rows = 16 };

struct mm_blocks mm_blocks_of(int64_t n_rows) {
    int64_t rows = (n_rows + max_blocks - 1) / max_blocks;
    rows = rows > min_block_rows ? rows : min_block_rows;
    return (struct mm_blocks){n_rows, rows, (n_rows + rows - 1) / rows};
}

void mm_blocks_add(float *dst, const float *partial, int64_t ld, int64_t n_blocks, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        double sum = 0.0;
        for (int64_t b = 0; b < n_blocks; b++) {
            sum += (double)partial[b * ld + i];
        }
        dst[i] += (float)sum;
    }
}
