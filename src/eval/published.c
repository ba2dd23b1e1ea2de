// Published figures, out of the tables in src/eval/data.
#include "eval/published.h"

const char mm_published_source[] =
    "Published by the authors (mmMamba, Table 1), not measured here. Its MME is taken to be the "
    "perception part.";
const char mm_published_speed_source[] =
    "Published by the authors (mmMamba, Table 2): one RTX 4090, the same prompt, total = prefill "
    "and decoding; not measured here.";

int mm_published_rows(const char *table) {
    int n = 0;
    for (; *table; table++)
        n += *table == '\n';
    return n;
}

int mm_published_columns(const char *table) {
    int n = 1;
    for (; *table != '\n'; table++)
        n += *table == '\t';
    return n;
}

struct mm_str mm_published_cell(const char *table, int row, int column) {
    for (; row > 0; row--)
        table = strchr(table, '\n') + 1;
    for (; column > 0; column--)
        table = strchr(table, '\t') + 1;
    return (struct mm_str){table, strcspn(table, "\t\n")};
}

int mm_published_find(const char *table, const char *column) {
    const int n = mm_published_columns(table);
    for (int i = 0; i < n; i++) {
        if (mm_str_is(mm_published_cell(table, 0, i), column)) return i;
    }
    return -1;
}
