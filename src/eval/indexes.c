// Indexes that are there twice.
#include "eval/indexes.h"

void mm_indexes_free(struct mm_indexes *x) {
    mm_sorter_free(x->sorter);
    mm_buf_free(&x->last);
    *x = (struct mm_indexes){0};
}

static enum mm_code add(struct mm_indexes *x, const struct mm_questions *reader,
                        const struct mm_question *q, struct mm_error *err) {
    const int64_t spot = mm_questions_spot(reader);
    return mm_sorter_add(x->sorter, q->index, MM_SORTER_VALUE(spot), err);
}

// The first n questions once more.
static enum mm_code add_first(struct mm_indexes *x, int64_t n, struct mm_error *err) {
    struct mm_questions again;
    enum mm_code code = mm_code_ok;
    x->sorter = mm_sorter_new(x->all->sort_room);
    mm_questions_share(&again, x->all);
    for (int64_t i = 0; i < n && code == mm_code_ok; i++) {
        struct mm_question q;
        bool end;
        code = mm_questions_next(&again, &q, &end, err);
        if (code == mm_code_ok) code = add(x, &again, &q, err);
    }
    mm_questions_unshare(&again);
    return code;
}

enum mm_code mm_indexes_add(struct mm_indexes *x, const struct mm_question *q,
                            struct mm_error *err) {
    if (!x->sorter) {
        const struct mm_str last = {x->last.data, x->last.len};
        const bool ascends = q->number == 0 || q->index.n > last.n ||
                             (q->index.n == last.n && mm_str_compare(last, q->index) < 0);
        if (ascends) {
            mm_buf_reset(&x->last);
            mm_buf_add(&x->last, q->index.s, q->index.n);
            return mm_code_ok;
        }
        MM_TRY(add_first(x, q->number, err));
    }
    return add(x, x->all, q, err);
}

enum mm_code mm_indexes_check(struct mm_indexes *x, struct mm_error *err) {
    if (!x->sorter) return mm_code_ok;
    int64_t first = INT64_MAX;
    MM_TRY(mm_sorter_sort(x->sorter, err));
    for (mm_buf_reset(&x->last);;) {
        struct mm_str key, value;
        int64_t spot;
        MM_TRY(mm_sorter_next(x->sorter, &key, &value, err));
        if (!key.s) break;
        memcpy(&spot, value.s, sizeof spot);
        // no index is empty, so none equals what is there before the first
        if (!mm_str_equal(key, (struct mm_str){x->last.data, x->last.len})) {
            mm_buf_reset(&x->last);
            mm_buf_add(&x->last, key.s, key.n);
        } else if (spot < first) {
            first = spot;
        }
    }
    if (first == INT64_MAX) return mm_code_ok;
    return mm_questions_wrong_at(x->all, first, x->all->kit ? "question_id" : "index", err,
                                 "has been there before");
}
