// Numbers in cells.
#include "eval/tsv_number.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

static bool is_space(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

struct mm_number_int_parts mm_number_int(struct mm_str cell) {
    struct mm_number_int_parts n = {.fits_unsigned = true};
    const char *p = cell.s, *end = cell.s + cell.n;
    while (p < end && is_space(*p))
        p++;
    n.negative = p < end && *p == '-';
    if (p < end && (*p == '-' || *p == '+')) p++;
    const char *digits = p;
    for (; p < end && is_digit(*p); p++) {
        const uint64_t digit = (uint64_t)(*p - '0');
        n.fits_unsigned = n.fits_unsigned && n.magnitude <= (UINT64_MAX - digit) / 10;
        n.magnitude = n.magnitude * 10 + digit;
    }
    n.fits_signed = n.fits_unsigned && n.magnitude <= (uint64_t)INT64_MAX + (n.negative ? 1u : 0u);
    n.valid = p > digits;
    while (p < end && is_space(*p))
        p++;
    n.valid = n.valid && p == end;
    return n;
}

// 10^k as the nearest double, k = 0..308.
static double power_of_ten(int k) {
    char text[8];
    snprintf(text, sizeof text, "1e%d", k);
    return strtod(text, NULL);
}

static bool is_infinity(struct mm_str cell, double *value) {
    static const char *const names[] = {"inf", "infinity"};
    const char *s = cell.s;
    size_t n = cell.n;
    const bool negative = n && s[0] == '-';
    if (n && (s[0] == '-' || s[0] == '+')) {
        s++;
        n--;
    }
    for (int i = 0; i < 2; i++) {
        if (n == strlen(names[i]) && !strncasecmp(s, names[i], n)) {
            *value = negative ? -HUGE_VAL : HUGE_VAL;
            return true;
        }
    }
    return false;
}

// The optional e, sign and digits. Adds to *exponent; false when what follows e is no number.
static bool read_exponent(const char **p, const char *end, int *exponent) {
    const char *q = *p;
    if (q == end || (*q != 'e' && *q != 'E')) return true;
    q++;
    const bool negative = q < end && *q == '-';
    if (q < end && (*q == '-' || *q == '+')) q++;
    if (q == end || !is_digit(*q)) return false;
    int n = 0;
    for (; q < end && is_digit(*q); q++) {
        if (n < 100000) n = n * 10 + (*q - '0');
    }
    *exponent += negative ? -n : n;
    *p = q;
    return true;
}

// pandas/_libs/src/parser/tokenizer.c, precise_xstrtod: up to 17 digits collected in a double,
// then one product with or one quotient by a power of ten.
bool mm_number_float(struct mm_str cell, double *value) {
    if (is_infinity(cell, value)) return true;
    const char *p = cell.s, *end = cell.s + cell.n;
    while (p < end && is_space(*p))
        p++;
    const bool negative = p < end && *p == '-';
    if (p < end && (*p == '-' || *p == '+')) p++;
    double number = 0;
    int exponent = 0, n_digits = 0;
    for (; p < end && is_digit(*p); p++) {
        if (n_digits < 17) {
            number = number * 10 + (*p - '0');
            n_digits++;
        } else if (exponent < 100000) {
            exponent++;
        }
    }
    if (p < end && *p == '.') {
        for (p++; p < end && is_digit(*p); p++) {
            if (n_digits == 17) continue;
            number = number * 10 + (*p - '0');
            n_digits++;
            exponent--;
        }
    }
    if (n_digits == 0) return false;
    if (!read_exponent(&p, end, &exponent)) return false;
    if (exponent > 308) {
        if (number != 0) return false;
    } else if (exponent >= 0) {
        number *= power_of_ten(exponent);
    } else if (exponent < -616) {
        number = 0;
    } else if (exponent < -308) {
        number = number / power_of_ten(-308 - exponent) / power_of_ten(308);
    } else {
        number /= power_of_ten(-exponent);
    }
    while (p < end && is_space(*p))
        p++;
    if (p != end || isinf(number)) return false;
    *value = negative ? -number : number;
    return true;
}

bool mm_number_bool(struct mm_str cell, bool *value) {
    if (mm_str_is(cell, "True") || mm_str_is(cell, "TRUE") || mm_str_is(cell, "true")) {
        *value = true;
        return true;
    }
    *value = false;
    return mm_str_is(cell, "False") || mm_str_is(cell, "FALSE") || mm_str_is(cell, "false");
}

void mm_number_print(char out[mm_number_text_max], double value) {
    if (isinf(value) || isnan(value)) {
        snprintf(out, mm_number_text_max, "%s", isnan(value) ? "nan" : value > 0 ? "inf" : "-inf");
        return;
    }
    char text[40];
    int digits = 1;
    do {
        snprintf(text, sizeof text, "%.*e", digits - 1, value);
    } while (strtod(text, NULL) != value && ++digits <= 17);
    const int exponent = atoi(strchr(text, 'e') + 1);
    if (exponent < -4 || exponent >= 16) {
        char *e = strchr(text, 'e');
        snprintf(out, mm_number_text_max, "%.*se%c%02d", (int)(e - text), text,
                 exponent < 0 ? '-' : '+', abs(exponent));
        return;
    }
    const int decimals = digits - 1 - exponent;
    snprintf(out, mm_number_text_max, "%.*f", decimals > 1 ? decimals : 1, value);
}
