// Plain reference: moving rows and elements.
#include <math.h>

#include "ops/cpu/ref/ref.h"

void mm_fill_ref(struct mm_backend *be, struct mm_view y, float value) {
    (void)be;
    for (int64_t r = 0; r < y.shape[0]; r++) {
        for (int64_t c = 0; c < mm_view_cols(y); c++)
            ref_put(y, r, c, value);
    }
}

void mm_copy_ref(struct mm_backend *be, struct mm_view y, struct mm_view x) {
    (void)be;
    for (int64_t r = 0; r < y.shape[0]; r++) {
        for (int64_t c = 0; c < mm_view_cols(y); c++)
            ref_put(y, r, c, ref_get(x, r, c));
    }
}

void mm_add_ref(struct mm_backend *be, struct mm_view y, struct mm_view a, struct mm_view b) {
    (void)be;
    for (int64_t r = 0; r < y.shape[0]; r++) {
        for (int64_t c = 0; c < mm_view_cols(y); c++) {
            ref_put(y, r, c, ref_get(a, r, c) + ref_get(b, r, c));
        }
    }
}

void mm_scale_ref(struct mm_backend *be, struct mm_view y, struct mm_view x, float s) {
    (void)be;
    for (int64_t r = 0; r < y.shape[0]; r++) {
        for (int64_t c = 0; c < mm_view_cols(y); c++)
            ref_put(y, r, c, ref_get(x, r, c) * s);
    }
}

void mm_embed_fwd_ref(struct mm_backend *be, struct mm_view y, struct mm_view table,
                      struct mm_view ids) {
    (void)be;
    for (int64_t t = 0; t < y.shape[0]; t++) {
        const int32_t id = ref_int(ids, t);
        for (int64_t c = 0; c < mm_view_cols(y); c++) {
            ref_put(y, t, c, id < 0 ? 0.0f : ref_get(table, id, c));
        }
    }
}

void mm_embed_bwd_ref(struct mm_backend *be, struct mm_view dtable, struct mm_view dy,
                      struct mm_view ids) {
    (void)be;
    for (int64_t t = 0; t < dy.shape[0]; t++) {
        const int32_t id = ref_int(ids, t);
        if (id < 0) continue;
        for (int64_t c = 0; c < mm_view_cols(dy); c++) {
            ref_put(dtable, id, c, ref_get(dtable, id, c) + ref_get(dy, t, c));
        }
    }
}

void mm_gather_rows_ref(struct mm_backend *be, struct mm_view y, struct mm_view x,
                        struct mm_view idx) {
    (void)be;
    for (int64_t r = 0; r < y.shape[0]; r++) {
        for (int64_t c = 0; c < mm_view_cols(y); c++) {
            ref_put(y, r, c, ref_get(x, ref_int(idx, r), c));
        }
    }
}

void mm_scatter_rows_ref(struct mm_backend *be, struct mm_view y, struct mm_view x,
                         struct mm_view idx) {
    (void)be;
    for (int64_t r = 0; r < x.shape[0]; r++) {
        for (int64_t c = 0; c < mm_view_cols(x); c++) {
            ref_put(y, ref_int(idx, r), c, ref_get(x, r, c));
        }
    }
}

void mm_argmax_ref(struct mm_backend *be, struct mm_view y, struct mm_view x,
                   struct mm_view banned) {
    (void)be;
    for (int64_t r = 0; r < x.shape[0]; r++) {
        int32_t best = -1;
        double most = -INFINITY;
        for (int64_t c = 0; c < mm_view_cols(x); c++) {
            bool out = false;
            for (int64_t i = 0; banned.data && i < banned.shape[0]; i++)
                out = out || ref_int(banned, i) == c;
            if (!out && ref_get(x, r, c) > most) most = ref_get(x, r, c), best = (int32_t)c;
        }
        ((int32_t *)y.data)[r] = isfinite(most) ? best : -1;
    }
}
