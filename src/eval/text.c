// Text as Python sees it, and the answers' normal form.
#include "eval/text.h"

#include <utf8proc.h>
#include "base/utf8.h"
#include "eval/contractions.h"

int32_t mm_text_next(struct mm_str s, size_t *at) {
    const unsigned char c = (unsigned char)s.s[*at];
    if (c < 0x80) {
        ++*at;
        return c;
    }
    const int n = mm_utf8_char(s.s + *at, s.n - *at);
    if (n == 0) {
        ++*at;
        return -1;
    }
    int32_t code = c & (0xff >> (n + 1));
    for (int i = 1; i < n; i++) {
        code = code << 6 | (s.s[*at + (size_t)i] & 0x3f);
    }
    *at += (size_t)n;
    return code;
}

bool mm_text_is_space(int32_t c) {
    if (c < 0x80) return c == ' ' || (c >= 9 && c <= 13) || (c >= 28 && c <= 31);
    return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
           c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

bool mm_text_is_digit(int32_t c) {
    if (c < 0x80) return c >= '0' && c <= '9';
    return utf8proc_category(c) == UTF8PROC_CATEGORY_ND;
}

// ---- lower case ----

static bool is_cased(int32_t c) {
    switch (utf8proc_category(c)) {
        case UTF8PROC_CATEGORY_LU:
        case UTF8PROC_CATEGORY_LL:
        case UTF8PROC_CATEGORY_LT:
            return true;
        default:  // Unicode's Other_Lowercase and Other_Uppercase that no sigma looks through
            return c == 0xaa || c == 0xba || (c >= 0x2160 && c <= 0x217f) ||
                   (c >= 0x24b6 && c <= 0x24e9) || (c >= 0x1f130 && c <= 0x1f149) ||
                   (c >= 0x1f150 && c <= 0x1f169) || (c >= 0x1f170 && c <= 0x1f189);
    }
}

static bool is_case_ignorable(int32_t c) {
    switch (c) {  // word breaking's MidLetter, MidNumLet and Single_Quote
        case '\'':
        case '.':
        case ':':
        case 0xb7:
        case 0x387:
        case 0x55f:
        case 0x5f4:
        case 0x2018:
        case 0x2019:
        case 0x2024:
        case 0x2027:
        case 0xfe13:
        case 0xfe52:
        case 0xfe55:
        case 0xff07:
        case 0xff0e:
        case 0xff1a:
            return true;
        default:
            break;
    }
    switch (utf8proc_category(c)) {
        case UTF8PROC_CATEGORY_MN:
        case UTF8PROC_CATEGORY_ME:
        case UTF8PROC_CATEGORY_CF:
        case UTF8PROC_CATEGORY_LM:
        case UTF8PROC_CATEGORY_SK:
            return true;
        default:
            return false;
    }
}

// Whether the capital sigma at s[begin, end) ends a word: a cased letter before it and none behind,
// looking through marks.
static bool is_final_sigma(struct mm_str s, size_t begin, size_t end) {
    int32_t before = -1;
    for (size_t at = begin; at > 0;) {
        do {
            at--;
        } while (at > 0 && ((unsigned char)s.s[at] & 0xc0) == 0x80);
        size_t next = at;
        before = mm_text_next(s, &next);
        if (before < 0 || !is_case_ignorable(before)) break;
        before = -1;
    }
    if (before < 0 || !is_cased(before)) return false;
    for (size_t at = end; at < s.n;) {
        const int32_t c = mm_text_next(s, &at);
        if (c < 0) return true;
        if (!is_case_ignorable(c)) return !is_cased(c);
    }
    return true;
}

struct mm_str mm_text_lower(struct mm_buf *out, struct mm_str s) {
    mm_buf_reset(out);
    size_t plain = 0;  // where the bytes begin that need no change
    for (size_t at = 0; at < s.n;) {
        const size_t begin = at;
        if ((unsigned char)s.s[at] < 0x80) {
            const char c = s.s[at++];
            if (c < 'A' || c > 'Z') continue;
            const char small = (char)(c + ('a' - 'A'));
            mm_buf_add(out, s.s + plain, begin - plain);
            mm_buf_add(out, &small, 1);
            plain = at;
            continue;
        }
        const int32_t c = mm_text_next(s, &at);
        const int32_t small = c < 0 ? c : utf8proc_tolower(c);
        if (small == c && c != 0x130) continue;
        mm_buf_add(out, s.s + plain, begin - plain);
        plain = at;
        if (c == 0x130) {
            mm_buf_adds(out, "i\xcc\x87");
        } else if (c == 0x3a3 && is_final_sigma(s, begin, at)) {
            mm_buf_adds(out, "\xcf\x82");
        } else {
            utf8proc_uint8_t bytes[4];
            const utf8proc_ssize_t n = utf8proc_encode_char(small, bytes);
            mm_buf_add(out, bytes, (size_t)n);
        }
    }
    mm_buf_add(out, s.n ? s.s + plain : "", s.n - plain);
    return (struct mm_str){out->data ? out->data : "", out->len};
}

// ---- words ----

bool mm_text_word(struct mm_str s, size_t *at, struct mm_str *word) {
    size_t begin = *at;
    while (begin < s.n) {
        size_t next = begin;
        if (!mm_text_is_space(mm_text_next(s, &next))) break;
        begin = next;
    }
    size_t end = begin;
    while (end < s.n) {
        size_t next = end;
        if (mm_text_is_space(mm_text_next(s, &next))) break;
        end = next;
    }
    *at = end;
    *word = (struct mm_str){s.s + begin, end - begin};
    return end > begin;
}

struct mm_str mm_text_strip(struct mm_str s) {
    size_t begin = 0, end = 0;
    bool inside = false;
    for (size_t at = 0; at < s.n;) {
        const size_t here = at;
        if (mm_text_is_space(mm_text_next(s, &at))) continue;
        if (!inside) begin = here;
        inside = true;
        end = at;
    }
    return (struct mm_str){s.s + begin, inside ? end - begin : 0};
}

// ---- the normal form ----

void mm_normalizer_deinit(struct mm_normalizer *n) {
    mm_buf_free(&n->a);
    mm_buf_free(&n->b);
}

// Digit, comma, digit anywhere.
static bool has_comma_number(struct mm_str s) {
    if (!s.n || !memchr(s.s, ',', s.n)) return false;
    int32_t last[2] = {-1, -1};
    for (size_t at = 0; at < s.n;) {
        const int32_t c = mm_text_next(s, &at);
        if (last[1] == ',' && last[0] >= 0 && mm_text_is_digit(last[0]) && c >= 0 &&
            mm_text_is_digit(c)) {
            return true;
        }
        last[0] = last[1];
        last[1] = c;
    }
    return false;
}

// Deletes or blanks the 21 marks (each looks at the text as it came), then deletes the first 32
// full stops that no digit follows. `out` is reset first.
static void punctuation(struct mm_buf *out, struct mm_str s) {
    static const char marks[] = ";/[]\"{}()=+\\_-><@`,?!";
    enum { keep, blank, drop };
    unsigned char what[256] = {0};
    const bool drop_all = has_comma_number(s);
    for (const char *m = marks; *m; m++) {
        what[(unsigned char)*m] = drop_all ? drop : blank;
    }
    for (size_t i = 1; i < s.n; i++) {
        const unsigned char a = (unsigned char)s.s[i - 1], b = (unsigned char)s.s[i];
        if (b == ' ' && what[a] == blank) what[a] = drop;
        if (a == ' ' && what[b] == blank) what[b] = drop;
    }
    mm_buf_reset(out);
    mm_buf_add(out, "", 0);
    size_t run = 0;
    for (size_t i = 0; i < s.n; i++) {
        const unsigned char w = what[(unsigned char)s.s[i]];
        if (w == keep) continue;
        mm_buf_add(out, s.s + run, i - run);
        if (w == blank) mm_buf_add(out, " ", 1);
        run = i + 1;
    }
    if (s.n) mm_buf_add(out, s.s + run, s.n - run);

    size_t to = 0;
    int removed = 0;
    const struct mm_str whole = {out->data ? out->data : "", out->len};
    for (size_t i = 0; i < whole.n; i++) {
        if (out->data[i] == '.' && removed < 32) {
            size_t next = i + 1;
            const int32_t c = next < whole.n ? mm_text_next(whole, &next) : -1;
            if (c < 0 || !mm_text_is_digit(c)) {
                removed++;
                continue;
            }
        }
        out->data[to++] = out->data[i];
    }
    out->len = to;
}

struct mm_str mm_process_punctuation(struct mm_normalizer *n, struct mm_str s) {
    punctuation(&n->a, s);
    return (struct mm_str){n->a.data ? n->a.data : "", n->a.len};
}

static struct mm_str number_of(struct mm_str word) {
    static const char *const names[] = {"none", "zero", "one",   "two",   "three", "four",
                                        "five", "six",  "seven", "eight", "nine",  "ten"};
    static const char *const digits[] = {"0", "0", "1", "2", "3", "4",
                                         "5", "6", "7", "8", "9", "10"};
    if (word.n < 3 || word.n > 5) return word;
    for (int i = 0; i < 12; i++) {
        if (mm_str_is(word, names[i])) return mm_str_of(digits[i]);
    }
    return word;
}

static struct mm_str contraction_of(struct mm_str word) {
    int lo = 0, hi = (int)(sizeof contractions / sizeof contractions[0]);
    while (lo < hi) {
        const int mid = lo + (hi - lo) / 2;
        const char *key = contractions[mid].word;
        const size_t n = strlen(key);
        const int order = memcmp(key, word.s, n < word.n ? n : word.n);
        if (order == 0 && n == word.n) return mm_str_of(contractions[mid].becomes);
        if (order < 0 || (order == 0 && n < word.n)) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return word;
}

struct mm_str mm_process_answer(struct mm_normalizer *n, struct mm_str s) {
    // Line feeds and tabs become spaces first: they decide whether a mark stands beside a space.
    mm_buf_reset(&n->b);
    mm_buf_add(&n->b, s.n ? s.s : "", s.n);
    for (size_t i = 0; i < n->b.len; i++) {
        if (n->b.data[i] == '\n' || n->b.data[i] == '\t') n->b.data[i] = ' ';
    }
    punctuation(&n->a, mm_text_strip((struct mm_str){n->b.data ? n->b.data : "", n->b.len}));
    const struct mm_str small =
        mm_text_lower(&n->b, (struct mm_str){n->a.data ? n->a.data : "", n->a.len});
    struct mm_buf *out = &n->a;  // its text is in n->b by now
    mm_buf_reset(out);
    size_t at = 0;
    struct mm_str word;
    while (mm_text_word(small, &at, &word)) {
        word = number_of(word);
        if (mm_str_is(word, "a") || mm_str_is(word, "an") || mm_str_is(word, "the")) continue;
        word = contraction_of(word);
        if (out->len) mm_buf_add(out, " ", 1);
        mm_buf_add(out, word.s, word.n);
    }
    return (struct mm_str){out->len ? out->data : "", out->len};
}
