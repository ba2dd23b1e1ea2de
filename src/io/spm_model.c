// Owns: reading a SentencePiece ModelProto and the look-up of its pieces. Fields (proto2, the last
// value of a repeated scalar counts):
//   ModelProto      1 pieces   2 trainer_spec   3 normalizer_spec   5 denormalizer_spec
//   SentencePiece   1 piece    2 score (float)  3 type
//   TrainerSpec     3 model_type   24 treat_whitespace_as_suffix   35 byte_fallback
//                   44 unk_surface   46 bos_piece   47 eos_piece   48 pad_piece
//   NormalizerSpec  2 precompiled_charsmap   3 add_dummy_prefix   4 remove_extra_whitespaces
//                   5 escape_whitespaces
#include "io/spm.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "io/protobuf.h"

struct reader {
    struct mm_spm *m;
    const char *what;
    struct mm_error *err;
};

static uint32_t unit_at(const char *p) {
    uint32_t u = 0;
    for (int i = 0; i < 4; i++) {
        u |= (uint32_t)(unsigned char)p[i] << (8 * i);
    }
    return u;
}

// "%.*s" of a piece in a message: not all of a long one.
#define SHOWN(p) (int)((p)->len < 60 ? (p)->len : 60), (p)->text

static enum mm_code cut(const struct reader *r, const char *part) {
    return mm_fail(r->err, mm_code_input,
                   "%s: not a SentencePiece model, or cut short: %s cannot be read", r->what, part);
}

static enum mm_code want_kind(const struct reader *r, const struct mm_pb_field *f,
                              enum mm_pb_kind kind, const char *field) {
    if (f->kind == kind) return mm_code_ok;
    return mm_fail(r->err, mm_code_input, "%s: field %s has wire type %d, must be %d", r->what,
                   field, (int)f->kind, (int)kind);
}

static enum mm_code read_flag(const struct reader *r, const struct mm_pb_field *f, bool *out,
                              const char *field) {
    MM_TRY(want_kind(r, f, mm_pb_kind_varint, field));
    *out = f->value != 0;
    return mm_code_ok;
}

static enum mm_code read_text(const struct reader *r, const struct mm_pb_field *f, const char **out,
                              uint32_t *len, const char *field) {
    MM_TRY(want_kind(r, f, mm_pb_kind_bytes, field));
    if (f->n > mm_spm_max_piece_bytes) {
        return mm_fail(r->err, mm_code_input, "%s: %s has %zu bytes, at most %d are allowed",
                       r->what, field, f->n, mm_spm_max_piece_bytes);
    }
    *out = (const char *)f->data;
    *len = (uint32_t)f->n;
    return mm_code_ok;
}

static enum mm_code check_piece(const struct reader *r, const struct mm_spm_piece *p) {
    const int32_t i = r->m->n;
    if (p->len == 0 || memchr(p->text, 0, p->len)) {
        return mm_fail(r->err, mm_code_input, "%s: piece %d is empty or has a zero byte", r->what,
                       i);
    }
    if (!isfinite(p->score)) {
        return mm_fail(r->err, mm_code_input, "%s: the score of piece %d '%.*s' is not a number",
                       r->what, i, SHOWN(p));
    }
    if (i >= mm_spm_max_pieces) {
        return mm_fail(r->err, mm_code_input, "%s: more than %d pieces", r->what,
                       mm_spm_max_pieces);
    }
    return mm_code_ok;
}

static enum mm_code read_piece(const struct reader *r, const struct mm_pb_field *whole) {
    struct mm_spm *m = r->m;
    struct mm_spm_piece p = {"", 0, 0.0f, mm_spm_type_normal};
    struct mm_pb pb = mm_pb_over(whole->data, whole->n);
    struct mm_pb_field f;
    while (mm_pb_next(&pb, &f)) {
        if (f.number == 1) {
            MM_TRY(read_text(r, &f, &p.text, &p.len, "pieces.piece"));
        } else if (f.number == 2) {
            MM_TRY(want_kind(r, &f, mm_pb_kind_fixed32, "pieces.score"));
            p.score = mm_pb_float(&f);
        } else if (f.number == 3) {
            MM_TRY(want_kind(r, &f, mm_pb_kind_varint, "pieces.type"));
            if (f.value < mm_spm_type_normal || f.value > mm_spm_type_byte) {
                return mm_fail(r->err, mm_code_input,
                               "%s: type of piece %d is %" PRIu64 ", must be 1 to 6", r->what, m->n,
                               f.value);
            }
            p.type = (enum mm_spm_type)f.value;
        }
    }
    if (pb.broken) return cut(r, "a piece");
    MM_TRY(check_piece(r, &p));
    if (m->n == m->cap) {
        m->cap = m->cap ? 2 * m->cap : 1024;
        m->pieces = mm_xrealloc(m->pieces, (size_t)m->cap * sizeof *m->pieces);
    }
    m->pieces[m->n++] = p;
    if (p.len > m->longest) m->longest = p.len;
    return mm_code_ok;
}

static enum mm_code read_trainer(const struct reader *r, const struct mm_pb_field *whole) {
    struct mm_spm *m = r->m;
    struct mm_pb pb = mm_pb_over(whole->data, whole->n);
    struct mm_pb_field f;
    while (mm_pb_next(&pb, &f)) {
        switch (f.number) {
            case 3:
                MM_TRY(want_kind(r, &f, mm_pb_kind_varint, "trainer_spec.model_type"));
                if (f.value != mm_spm_algorithm_unigram && f.value != mm_spm_algorithm_bpe) {
                    return mm_fail(r->err, mm_code_unsupported,
                                   "%s: trainer_spec.model_type is %" PRIu64
                                   ", supported are 1 (unigram) and 2 (BPE)",
                                   r->what, f.value);
                }
                m->algorithm = (enum mm_spm_algorithm)f.value;
                break;
            case 24:
                MM_TRY(read_flag(r, &f, &m->space_is_suffix, "treat_whitespace_as_suffix"));
                break;
            case 35:
                MM_TRY(read_flag(r, &f, &m->byte_fallback, "byte_fallback"));
                break;
            case 44:
                MM_TRY(read_text(r, &f, &m->unk_surface, &m->unk_surface_len, "unk_surface"));
                break;
            case 46:
                MM_TRY(read_text(r, &f, &m->bos_text, &m->bos_len, "bos_piece"));
                break;
            case 47:
                MM_TRY(read_text(r, &f, &m->eos_text, &m->eos_len, "eos_piece"));
                break;
            case 48:
                MM_TRY(read_text(r, &f, &m->pad_text, &m->pad_len, "pad_piece"));
                break;
            default:
                break;
        }
    }
    return pb.broken ? cut(r, "trainer_spec") : mm_code_ok;
}

// The charsmap is <bytes of the trie, u32> <Darts double array> <zero-terminated replacements>.
static enum mm_code read_charsmap(const struct reader *r, const struct mm_pb_field *f) {
    struct mm_spm *m = r->m;
    MM_TRY(want_kind(r, f, mm_pb_kind_bytes, "precompiled_charsmap"));
    m->trie = NULL;
    if (f->n == 0) return mm_code_ok;  // identity
    const char *data = (const char *)f->data;
    const uint32_t trie_bytes = f->n > 4 ? unit_at(data) : 0;
    if (f->n <= 4 || trie_bytes < 4 || trie_bytes % 4 != 0 || trie_bytes >= f->n - 4 ||
        f->n > UINT32_MAX || data[f->n - 1] != 0) {
        return mm_fail(r->err, mm_code_input,
                       "%s: precompiled_charsmap (%zu bytes, trie of %" PRIu32
                       ") is not a trie followed by zero-terminated texts",
                       r->what, f->n, trie_bytes);
    }
    m->trie = data + 4;
    m->n_trie = trie_bytes / 4;
    m->replacements = m->trie + trie_bytes;
    m->n_replacements = (uint32_t)(f->n - 4 - trie_bytes);
    return mm_code_ok;
}

static enum mm_code read_normalizer(const struct reader *r, const struct mm_pb_field *whole) {
    struct mm_spm *m = r->m;
    struct mm_pb pb = mm_pb_over(whole->data, whole->n);
    struct mm_pb_field f;
    while (mm_pb_next(&pb, &f)) {
        if (f.number == 2) MM_TRY(read_charsmap(r, &f));
        if (f.number == 3) MM_TRY(read_flag(r, &f, &m->add_dummy_prefix, "add_dummy_prefix"));
        if (f.number == 4) {
            MM_TRY(read_flag(r, &f, &m->remove_extra_spaces, "remove_extra_whitespaces"));
        }
        if (f.number == 5) MM_TRY(read_flag(r, &f, &m->escape_spaces, "escape_whitespaces"));
    }
    return pb.broken ? cut(r, "normalizer_spec") : mm_code_ok;
}

static enum mm_code read_model(const struct reader *r, size_t n) {
    struct mm_pb pb = mm_pb_over(r->m->bytes, n);
    struct mm_pb_field f;
    while (mm_pb_next(&pb, &f)) {
        if (f.number < 1 || f.number > 3) continue;
        const char *const names[] = {"", "pieces", "trainer_spec", "normalizer_spec"};
        MM_TRY(want_kind(r, &f, mm_pb_kind_bytes, names[f.number]));
        if (f.number == 1) MM_TRY(read_piece(r, &f));
        if (f.number == 2) MM_TRY(read_trainer(r, &f));
        if (f.number == 3) MM_TRY(read_normalizer(r, &f));
    }
    if (pb.broken) return cut(r, "a field");
    if (r->m->n == 0) {
        return mm_fail(r->err, mm_code_input, "%s: not a SentencePiece model: it has no pieces",
                       r->what);
    }
    return mm_code_ok;
}

static void hash_init(struct mm_spm_hash *h, int32_t n) {
    uint32_t size = 16;
    while (size < 2 * (uint32_t)n) {
        size *= 2;
    }
    h->mask = size - 1;
    h->slots = mm_xmalloc(size * sizeof *h->slots);
    memset(h->slots, 0xFF, size * sizeof *h->slots);  // -1
}

// The slot that holds the text, or the free one where it belongs.
static int32_t *hash_slot(const struct mm_spm *m, const struct mm_spm_hash *h, const char *text,
                          size_t len) {
    uint32_t at = (uint32_t)XXH3_64bits(text, len) & h->mask;
    for (;; at = (at + 1) & h->mask) {
        int32_t *slot = h->slots + at;
        if (*slot < 0) return slot;
        const struct mm_spm_piece *p = m->pieces + *slot;
        if (p->len == len && memcmp(p->text, text, len) == 0) return slot;
    }
}

int32_t mm_spm_find_text(const struct mm_spm *m, const char *text, size_t len) {
    return len > m->longest ? -1 : *hash_slot(m, &m->text_ids, text, len);
}

int32_t mm_spm_find(const struct mm_spm *m, const char *text, size_t len) {
    if (len > m->longest) return -1;
    const int32_t id = *hash_slot(m, &m->other_ids, text, len);
    return id >= 0 ? id : mm_spm_find_text(m, text, len);
}

static bool is_text(enum mm_spm_type type) {
    return type == mm_spm_type_normal || type == mm_spm_type_user_defined ||
           type == mm_spm_type_unused;
}

// "<0x41>" -> 0x41; -1 for another text. Upper case digits only, as SentencePiece writes them.
static int byte_of(const struct mm_spm_piece *p) {
    if (p->len != 6 || memcmp(p->text, "<0x", 3) != 0 || p->text[5] != '>') return -1;
    int value = 0;
    for (int i = 3; i < 5; i++) {
        const char *const digits = "0123456789ABCDEF";
        const char *at = memchr(digits, p->text[i], 16);
        if (!at) return -1;
        value = value * 16 + (int)(at - digits);
    }
    return value;
}

static enum mm_code index_special_types(const struct reader *r, int32_t id) {
    struct mm_spm *m = r->m;
    const struct mm_spm_piece *p = m->pieces + id;
    if (p->type == mm_spm_type_unknown) {
        if (m->unk >= 0) {
            return mm_fail(r->err, mm_code_input,
                           "%s: pieces %d and %d both have type UNKNOWN, one must", r->what, m->unk,
                           id);
        }
        m->unk = id;
    }
    if (p->type == mm_spm_type_byte) {
        const int byte = byte_of(p);
        if (!m->byte_fallback || byte < 0) {
            return mm_fail(r->err, mm_code_input, "%s: piece %d '%.*s' has type BYTE, %s", r->what,
                           id, SHOWN(p),
                           byte < 0 ? "must be spelled <0xNN>" : "and byte_fallback is off");
        }
        m->byte_ids[byte] = id;
    }
    return mm_code_ok;
}

static enum mm_code index_pieces(const struct reader *r) {
    struct mm_spm *m = r->m;
    int32_t n_text = 0, n_user = 0;
    for (int32_t id = 0; id < m->n; id++) {
        n_text += is_text(m->pieces[id].type);
        n_user += m->pieces[id].type == mm_spm_type_user_defined;
    }
    hash_init(&m->text_ids, n_text);
    hash_init(&m->other_ids, m->n - n_text);
    for (int32_t id = 0; id < m->n; id++) {
        const struct mm_spm_piece *p = m->pieces + id;
        int32_t *slot =
            hash_slot(m, is_text(p->type) ? &m->text_ids : &m->other_ids, p->text, p->len);
        if (*slot >= 0) {
            return mm_fail(r->err, mm_code_input, "%s: pieces %d and %d are both '%.*s'", r->what,
                           *slot, id, SHOWN(p));
        }
        *slot = id;
        MM_TRY(index_special_types(r, id));
        if (p->type == mm_spm_type_normal) {
            if (p->score < m->min_score) m->min_score = p->score;
            if (p->score > m->max_score) m->max_score = p->score;
        }
    }
    if (m->unk < 0) {
        return mm_fail(r->err, mm_code_input, "%s: no piece has type UNKNOWN, one must", r->what);
    }
    for (int b = 0; m->byte_fallback && b < 256; b++) {
        if (m->byte_ids[b] < 0) {
            return mm_fail(r->err, mm_code_input,
                           "%s: byte_fallback is on and piece <0x%02X> is missing", r->what, b);
        }
    }
    const bool unigram = m->algorithm == mm_spm_algorithm_unigram;
    struct mm_prefix_entry *user = mm_xmalloc((size_t)n_user * sizeof *user + 1);
    struct mm_prefix_entry *text = mm_xmalloc((size_t)(unigram ? n_text : 0) * sizeof *text + 1);
    n_user = n_text = 0;
    for (int32_t id = 0; id < m->n; id++) {
        const struct mm_spm_piece *p = m->pieces + id;
        const struct mm_prefix_entry e = {p->text, p->len, id};
        if (p->type == mm_spm_type_user_defined) user[n_user++] = e;
        if (unigram && is_text(p->type)) text[n_text++] = e;
    }
    mm_prefix_dict_init(&m->user, user, n_user);
    mm_prefix_dict_init(&m->text, text, n_text);
    return mm_code_ok;
}

enum mm_code mm_spm_init(struct mm_spm *m, const void *bytes, size_t n, const char *what,
                         struct mm_error *err) {
    *m = (struct mm_spm){
        .min_score = FLT_MAX,
        .max_score = FLT_MIN,  // sic: SentencePiece starts from the smallest positive number
        .algorithm = mm_spm_algorithm_unigram,
        .unk_surface = " \xE2\x81\x87 ",
        .unk_surface_len = 5,
        .bos_text = "<s>",
        .bos_len = 3,
        .eos_text = "</s>",
        .eos_len = 4,
        .pad_text = "<pad>",
        .pad_len = 5,
        .unk = -1,
        .add_dummy_prefix = true,
        .remove_extra_spaces = true,
        .escape_spaces = true,
    };
    for (int b = 0; b < 256; b++) {
        m->byte_ids[b] = -1;
    }
    m->bytes = mm_xmalloc(n + 1);
    memcpy(m->bytes, bytes, n);
    const struct reader r = {m, what, err};
    enum mm_code code = read_model(&r, n);
    if (code == mm_code_ok) code = index_pieces(&r);
    if (code != mm_code_ok) mm_spm_deinit(m);
    return code;
}

void mm_spm_deinit(struct mm_spm *m) {
    mm_prefix_dict_deinit(&m->user);
    mm_prefix_dict_deinit(&m->text);
    free(m->text_ids.slots);
    free(m->other_ids.slots);
    free(m->pieces);
    free(m->bytes);
    memset(m, 0, sizeof *m);
}
