// The feed-forward half of a block: as one product where the architecture has it, else by the
// other operations.
#include "ops/cpu/cpu.h"
#include "ops/cpu/gemv.h"
#include "ops/cpu/product.h"

void mm_ffn_fwd_cpu(struct mm_backend *be, struct mm_view y, struct mm_view x, struct mm_view h,
                    struct mm_view w1, struct mm_view w3, struct mm_view w2) {
    if (h.shape[0] == 0) return;
    // a few rows are matrix-vector products
    if (h.shape[0] > mm_gemv_most && mm_ffn_product(be, y, x, h, w1, w3, w2)) return;
    mm_ffn_fwd_ref(be, y, x, h, w1, w3, w2);
}
