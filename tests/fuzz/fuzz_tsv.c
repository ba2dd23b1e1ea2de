// Any bytes as a table: refused with a sentence, or every cell can be read, in any order, the same
// each time; and cells as lists.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "eval/pylist.h"
#include "eval/text.h"
#include "eval/tsv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check(int holds) {
    if (!holds) abort();
}

static uint64_t sum_of(struct mm_tsv_row *row, int64_t i, struct mm_pylist *list,
                       struct mm_normalizer *room) {
    uint64_t sum = 1469598103934665603u;
    mm_tsv_row_load(row, i);
    for (int c = 0; c < row->tsv->n_columns; c++) {
        const struct mm_str s = mm_tsv_cell(row, c, mm_tsv_form_table);
        for (size_t k = 0; k < s.n; k++) {
            sum = (sum ^ (uint8_t)s.s[k]) * 1099511628211u;
        }
        sum = (sum ^ (s.s != NULL)) * 1099511628211u;
        if (!s.s) continue;
        if (mm_pylist_read(list, s) && list->n) mm_process_answer(room, mm_pylist_get(list, 0));
        mm_process_answer(room, s);
        mm_tsv_cell(row, c, mm_tsv_form_result);
    }
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static int fd = -1;
    static char path[64];
    if (fd < 0) {
        fd = memfd_create("tsv", 0);
        check(fd >= 0);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    }
    check(ftruncate(fd, 0) == 0 && pwrite(fd, data, n, 0) == (ssize_t)n);
    struct mm_error err = {0};
    struct mm_tsv t;
    if (mm_tsv_open(&t, path, n & 1, &err) != mm_code_ok) {
        check(err.text[0] && !strchr(err.text, '\n'));
        return 0;
    }
    struct mm_tsv_row row;
    struct mm_pylist list = {0};
    struct mm_normalizer room = {0};
    mm_tsv_row_init(&row, &t);
    uint64_t forth = 0, back = 0;
    for (int64_t i = 0; i < t.n_rows; i++) {
        forth += (uint64_t)(i + 1) * sum_of(&row, i, &list, &room);
        check(mm_tsv_line(&t, i) > 0);
    }
    for (int64_t i = t.n_rows; i-- > 0;) {
        back += (uint64_t)(i + 1) * sum_of(&row, i, &list, &room);
    }
    check(forth == back);
    mm_normalizer_deinit(&room);
    mm_pylist_free(&list);
    mm_tsv_row_deinit(&row);
    mm_tsv_close(&t);
    return 0;
}
