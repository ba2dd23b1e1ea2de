// Owns: SentencePiece's normalizer: longest rule of the charsmap (a Darts double array), spaces
// collapsed and written as U+2581, the dummy prefix (or suffix).
#include "io/spm.h"

#include <string.h>

#include "base/utf8.h"

struct span {
    const char *text;
    size_t len;
    size_t used;  // bytes of the input it stands for, >= 1
};

size_t mm_spm_char_bytes(const char *text, size_t n) {
    static const unsigned char by_lead[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 3, 4};
    const size_t len = by_lead[(unsigned char)text[0] >> 4];
    return len < n ? len : n;
}

size_t mm_spm_match_user(const struct mm_spm *m, const char *text, size_t n, mm_spm_barred barred) {
    struct mm_prefix_cursor c = {0, 0, 0};
    size_t best = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t id;
        if (!mm_prefix_step(&m->user, &c, (unsigned char)text[i], &id)) break;
        if (id >= 0 && !(barred && barred[id])) best = i + 1;
    }
    return best;
}

static bool unit_at(const struct mm_spm *m, uint32_t at, uint32_t *unit) {
    if (at >= m->n_trie) return false;  // only in a damaged trie
    const unsigned char *p = (const unsigned char *)m->trie + 4 * (size_t)at;
    *unit = (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
    return true;
}

// Where the children of a unit are, relative to it: bits 10..30, times 256 when bit 9 is set.
static uint32_t unit_offset(uint32_t unit) {
    return (unit >> 10) << ((unit & (1u << 9)) >> 6);
}

// The longest rule that opens text[0, n): its length, and where its replacement starts. 0: none.
// A unit holds its label in bits 0..7, bit 8 says that it has a leaf; a leaf has bit 31 and its
// value in bits 0..30.
static size_t match_rule(const struct mm_spm *m, const char *text, size_t n, uint32_t *value) {
    size_t best = 0;
    uint32_t at = 0, unit, leaf;
    if (!m->trie || !unit_at(m, 0, &unit)) return 0;
    at ^= unit_offset(unit);
    for (size_t i = 0; i < n; i++) {
        const uint32_t label = (unsigned char)text[i];
        at ^= label;
        if (!unit_at(m, at, &unit) || (unit & (1u << 31 | 0xFF)) != label) break;
        at ^= unit_offset(unit);
        if ((unit >> 8 & 1) && unit_at(m, at, &leaf)) {
            const uint32_t v = leaf & 0x7FFFFFFF;
            if (v < m->n_replacements) {
                best = i + 1;
                *value = v;
            }
        }
    }
    return best;
}

// What the opening of text[0, n) is replaced by.
static struct span next_span(const struct mm_spm *m, const char *text, size_t n,
                             mm_spm_barred barred) {
    const size_t user = mm_spm_match_user(m, text, n, barred);
    if (user > 0) return (struct span){text, user, user};
    uint32_t at = 0;
    const size_t rule = match_rule(m, text, n, &at);
    if (rule > 0) {
        const char *out = m->replacements + at;  // the last byte of all replacements is 0
        return (struct span){out, strlen(out), rule};
    }
    const int len = mm_utf8_char(text, n);
    if (len == 0) return (struct span){"\xEF\xBF\xBD", 3, 1};  // U+FFFD for a stray byte
    return (struct span){text, (size_t)len, (size_t)len};
}

static void add_space(const struct mm_spm *m, struct mm_buf *out) {
    mm_buf_adds(out, m->escape_spaces ? MM_SPM_SPACE : " ");
}

static void add_span(const struct mm_spm *m, const char *text, size_t len, struct mm_buf *out) {
    for (size_t i = 0; i < len;) {
        const char *space = memchr(text + i, ' ', len - i);
        const size_t end = space ? (size_t)(space - text) : len;
        mm_buf_add(out, text + i, end - i);
        if (space) add_space(m, out);
        i = end + 1;
    }
}

static void trim_end(const struct mm_spm *m, size_t start, struct mm_buf *out) {
    const char *const space = m->escape_spaces ? MM_SPM_SPACE : " ";
    const size_t n = strlen(space);
    while (out->len - start >= n && memcmp(out->data + out->len - n, space, n) == 0) {
        out->len -= n;
    }
}

void mm_spm_normalize(const struct mm_spm *m, const char *text, size_t n, mm_spm_barred barred,
                      struct mm_buf *out) {
    size_t at = 0;
    const size_t start = out->len;
    while (m->remove_extra_spaces && at < n) {
        const struct span s = next_span(m, text + at, n - at, barred);
        if (s.len != 1 || s.text[0] != ' ') break;
        at += s.used;
    }
    if (at == n) return;
    if (m->add_dummy_prefix && !m->space_is_suffix) add_space(m, out);
    bool after_space = m->remove_extra_spaces;
    while (at < n) {
        struct span s = next_span(m, text + at, n - at, barred);
        at += s.used;
        while (after_space && s.len > 0 && s.text[0] == ' ') {
            s.text++;
            s.len--;
        }
        if (s.len == 0) continue;
        add_span(m, s.text, s.len, out);
        after_space = m->remove_extra_spaces && s.text[s.len - 1] == ' ';
    }
    if (m->remove_extra_spaces) trim_end(m, start, out);
    if (m->add_dummy_prefix && m->space_is_suffix) add_space(m, out);
}

void mm_spm_emit(const struct mm_spm *m, const char *text, size_t len, int32_t id,
                 bool *after_unknown, struct mm_ids *ids) {
    const bool unknown = id < 0 || id == m->unk;
    if (!unknown) {
        mm_ids_add(ids, id);
    } else if (m->byte_fallback) {
        for (size_t i = 0; i < len; i++) {
            mm_ids_add(ids, m->byte_ids[(unsigned char)text[i]]);
        }
    } else if (!*after_unknown) {
        mm_ids_add(ids, m->unk);
    }
    *after_unknown = unknown;
}

void mm_spm_encode(const struct mm_spm *m, const char *text, size_t n, mm_spm_barred barred,
                   struct mm_ids *ids) {
    struct mm_buf normal = {NULL, 0, 0};
    mm_spm_normalize(m, text, n, barred, &normal);
    if (normal.len > 0 && m->algorithm == mm_spm_algorithm_bpe) {
        mm_spm_encode_bpe(m, normal.data, normal.len, barred, ids);
    } else if (normal.len > 0) {
        mm_spm_encode_unigram(m, normal.data, normal.len, barred, ids);
    }
    mm_buf_free(&normal);
}
