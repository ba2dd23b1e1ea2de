// Numbers in cells: which texts pandas takes for numbers, and how Python prints them.
#ifndef MM_EVAL_TSV_NUMBER_H
#define MM_EVAL_TSV_NUMBER_H

#include <stdbool.h>
#include <stdint.h>
#include "eval/str.h"

enum { mm_number_text_max = 32 };

struct mm_number_int_parts {
    bool valid;  // optional white space, sign, digits, white space, and nothing else
    bool negative;
    bool fits_signed, fits_unsigned;  // the digits, as far as they go
    uint64_t magnitude;
};
struct mm_number_int_parts mm_number_int(struct mm_str cell);

// pandas' own conversion, which may be a unit in the last place off the nearest double.
bool mm_number_float(struct mm_str cell, double *value);
bool mm_number_bool(struct mm_str cell, bool *value);  // True TRUE true False FALSE false

// Python's str() of a float: the fewest digits that read back, 5.0, 1e+16, inf.
void mm_number_print(char out[mm_number_text_max], double value);

#endif
