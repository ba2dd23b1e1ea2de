// Owns: the tokenizer as the program sees it: a SentencePiece model, the tokens a folder adds to
// it, and the rule that special tokens split a text before the model sees the pieces between them.
#include "io/tokenizer.h"

#include <assert.h>
#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "io/file.h"
#include "io/special_tokens.h"
#include "io/spm.h"

struct mm_tokenizer {
    struct mm_spm spm;
    struct mm_special_tokens special;
    unsigned char *barred;  // (spm.n) 1 for ids that belong to a special token
    int32_t size;
};

static const char model_file[] = "tokenizer.model";

void mm_ids_add(struct mm_ids *ids, int32_t id) {
    if (ids->n == ids->cap) {
        ids->cap = ids->cap ? 2 * ids->cap : 64;
        ids->data = mm_xrealloc(ids->data, (size_t)ids->cap * sizeof *ids->data);
    }
    ids->data[ids->n++] = id;
}

void mm_ids_free(struct mm_ids *ids) {
    free(ids->data);
    *ids = (struct mm_ids){NULL, 0, 0};
}

static enum mm_code open_parts(struct mm_tokenizer **out, const void *model, size_t n_model,
                               const char *model_name, const struct mm_special_sources *sources,
                               struct mm_error *err) {
    struct mm_tokenizer *t = mm_xcalloc(1, sizeof *t);
    enum mm_code code = mm_spm_init(&t->spm, model, n_model, model_name, err);
    if (code == mm_code_ok) code = mm_special_init(&t->special, sources, &t->spm, err);
    if (code != mm_code_ok) {
        mm_tokenizer_close(t);
        return code;
    }
    t->size = t->spm.n;
    t->barred = mm_xcalloc((size_t)t->spm.n, 1);
    for (int32_t i = 0; i < t->special.n; i++) {
        const int32_t id = t->special.items[i].id;
        if (id < t->spm.n) t->barred[id] = 1;
        if (id >= t->size) t->size = id + 1;
    }
    *out = t;
    return mm_code_ok;
}

enum mm_code mm_tokenizer_open(struct mm_tokenizer **t, const char *folder, struct mm_error *err) {
    *t = NULL;
    char *path = mm_path_join(folder, model_file);
    char *other = mm_path_join(folder, "tokenizer.json");
    struct mm_buf model = {NULL, 0, 0};
    struct mm_special_sources sources = {.where = folder};
    enum mm_code code;
    if (!mm_path_exists(path) && mm_path_exists(other)) {
        code = mm_fail(err, mm_code_unsupported,
                       "%s: there is only a tokenizer.json; SentencePiece's %s is wanted", folder,
                       model_file);
    } else {
        code = mm_file_read(&model, path, 256 << 20, err);
    }
    if (code == mm_code_ok) code = mm_special_sources_load(&sources, folder, err);
    if (code == mm_code_ok) code = open_parts(t, model.data, model.len, path, &sources, err);
    mm_special_sources_deinit(&sources);
    mm_buf_free(&model);
    free(other);
    free(path);
    return code;
}

enum mm_code mm_tokenizer_open_memory(struct mm_tokenizer **t, const void *model, size_t n_model,
                                      const char *added, size_t n_added, const char *what,
                                      struct mm_error *err) {
    *t = NULL;
    struct mm_special_sources sources = {.where = what};
    if (added) MM_TRY(mm_special_parse(&sources.added, added, n_added, what, err));
    const enum mm_code code = open_parts(t, model, n_model, what, &sources, err);
    mm_special_sources_deinit(&sources);
    return code;
}

void mm_tokenizer_close(struct mm_tokenizer *t) {
    if (!t) return;
    mm_spm_deinit(&t->spm);
    mm_special_deinit(&t->special);
    free(t->barred);
    free(t);
}

int32_t mm_tokenizer_size(const struct mm_tokenizer *t) {
    return t->size;
}

int32_t mm_tokenizer_bos(const struct mm_tokenizer *t) {
    return t->special.bos;
}

int32_t mm_tokenizer_eos(const struct mm_tokenizer *t) {
    return t->special.eos;
}

int64_t mm_tokenizer_max_length(const struct mm_tokenizer *t) {
    return t->special.max_length;
}

int32_t mm_tokenizer_special(const struct mm_tokenizer *t, const char *text) {
    const struct mm_special *s = mm_special_by_text(&t->special, text, strlen(text));
    return s ? s->id : -1;
}

bool mm_tokenizer_is_special(const struct mm_tokenizer *t, int32_t id) {
    const struct mm_special *s = mm_special_by_id(&t->special, id);
    return s && s->special;
}

enum mm_code mm_tokenizer_check_vocab(const struct mm_tokenizer *t, int64_t vocab,
                                      const char *where, struct mm_error *err) {
    if (t->size <= vocab) return mm_code_ok;
    const struct mm_special *last = mm_special_by_id(&t->special, t->size - 1);
    return mm_fail(
        err, mm_code_input,
        "%s: the tokenizer has ids up to %d%s%s%s, the model's vocabulary has %lld: they "
        "do not belong together",
        where, t->size - 1, last ? " ('" : "", last ? last->text : "", last ? "')" : "",
        (long long)vocab);
}

// White space at either end of a text, as Python's strip() sees it (ASCII and the Unicode spaces).
static bool is_space(const char *s, size_t n) {
    const unsigned char c = (unsigned char)s[0];
    if (n == 1) return c == ' ' || (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x1F);
    static const char *const others[] = {
        "\xC2\x85",     "\xC2\xA0",     "\xE1\x9A\x80", "\xE2\x80\x80", "\xE2\x80\x81",
        "\xE2\x80\x82", "\xE2\x80\x83", "\xE2\x80\x84", "\xE2\x80\x85", "\xE2\x80\x86",
        "\xE2\x80\x87", "\xE2\x80\x88", "\xE2\x80\x89", "\xE2\x80\x8A", "\xE2\x80\xA8",
        "\xE2\x80\xA9", "\xE2\x80\xAF", "\xE2\x81\x9F", "\xE3\x80\x80"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        if (strlen(others[i]) == n && memcmp(others[i], s, n) == 0) return true;
    }
    return false;
}

static size_t skip_spaces(const char *text, size_t at, size_t end) {
    while (at < end) {
        const int len = mm_utf8_char(text + at, end - at);
        if (len == 0 || !is_space(text + at, (size_t)len)) break;
        at += (size_t)len;
    }
    return at;
}

static size_t drop_spaces(const char *text, size_t at, size_t end) {
    while (end > at) {
        size_t open = end - 1;
        while (open > at && ((unsigned char)text[open] & 0xC0) == 0x80) {
            open--;
        }
        const int len = mm_utf8_char(text + open, end - open);
        if (open + (size_t)len != end || !is_space(text + open, (size_t)len)) break;
        end = open;
    }
    return end;
}

// Stretches of a text that special tokens may stand in, end to end.
struct open_range {
    size_t from, to;
};

static void encode_ranges(const struct mm_tokenizer *t, const char *text, size_t n,
                          const struct open_range *ranges, int n_ranges, struct mm_ids *ids) {
    size_t from = 0;    // of the piece between special tokens
    bool plain = true;  // it holds something of a plain part
    for (int i = 0; i < n_ranges; i++) {
        const struct open_range *r = ranges + i;
        size_t at = from > r->from ? from : r->from, start;
        const struct mm_special *s;
        while ((s = mm_special_next(&t->special, text, r->to, at, &start))) {
            const size_t end = s->lstrip ? drop_spaces(text, from, start) : start;
            plain = from < r->from;
            mm_spm_encode(&t->spm, text + from, end - from, plain ? t->barred : NULL, ids);
            mm_ids_add(ids, s->id);
            from = start + s->len;
            if (s->rstrip) from = skip_spaces(text, from, n);
            at = from;
        }
        plain = from < r->from || r->to < n;
    }
    mm_spm_encode(&t->spm, text + from, n - from, plain ? t->barred : NULL, ids);
}

void mm_tokenizer_encode_parts(const struct mm_tokenizer *t, const struct mm_text_part *parts,
                               int n_parts, bool with_bos, struct mm_ids *ids) {
    if (with_bos && t->special.add_bos) mm_ids_add(ids, t->special.bos);
    struct mm_buf text = {NULL, 0, 0};
    struct open_range *ranges = mm_xmalloc((size_t)n_parts * sizeof *ranges + 1);
    int n_ranges = 0;
    for (int i = 0; i < n_parts; i++) {
        if (parts[i].n == 0) continue;
        const size_t from = text.len;
        mm_buf_add(&text, parts[i].text, parts[i].n);
        if (parts[i].plain) continue;
        if (n_ranges > 0 && ranges[n_ranges - 1].to == from) {
            ranges[n_ranges - 1].to = text.len;
        } else {
            ranges[n_ranges++] = (struct open_range){from, text.len};
        }
    }
    assert(text.len < (size_t)1 << 28);
    if (text.len > 0) encode_ranges(t, text.data, text.len, ranges, n_ranges, ids);
    free(ranges);
    mm_buf_free(&text);
}

void mm_tokenizer_encode(const struct mm_tokenizer *t, const char *text, size_t n, bool with_bos,
                         struct mm_ids *ids) {
    const struct mm_text_part part = {text, n, false};
    mm_tokenizer_encode_parts(t, &part, 1, with_bos, ids);
}

void mm_tokenizer_encode_plain(const struct mm_tokenizer *t, const char *text, size_t n,
                               struct mm_ids *ids) {
    const struct mm_text_part part = {text, n, true};
    mm_tokenizer_encode_parts(t, &part, 1, false, ids);
}

static int byte_value(const struct mm_spm_piece *p) {
    char digits[3] = {p->text[3], p->text[4], 0};
    return (int)strtol(digits, NULL, 16);
}

// A piece's text with U+2581 as spaces.
static void add_piece_text(const struct mm_spm_piece *p, size_t from, struct mm_buf *out) {
    const size_t n_space = sizeof MM_SPM_SPACE - 1;
    for (size_t i = from; i < p->len;) {
        const char *space = memmem(p->text + i, p->len - i, MM_SPM_SPACE, n_space);
        const size_t end = space ? (size_t)(space - p->text) : p->len;
        mm_buf_add(out, p->text + i, end - i);
        if (space) mm_buf_adds(out, " ");
        i = end + n_space;
    }
}

// Appends what a piece that is neither special nor a byte shows. Where `opens` the text, the space
// that the normalizer put in front is dropped. True when it was.
static bool add_piece(const struct mm_spm *m, int32_t id, bool opens, struct mm_buf *out) {
    const struct mm_spm_piece *p = m->pieces + id;
    const size_t n_space = sizeof MM_SPM_SPACE - 1;
    if (p->type == mm_spm_type_control) return false;
    if (p->type == mm_spm_type_unknown) {
        mm_buf_add(out, m->unk_surface, m->unk_surface_len);
        return false;
    }
    const bool drop = opens && (m->add_dummy_prefix || m->remove_extra_spaces) &&
                      p->len >= n_space && memcmp(p->text, MM_SPM_SPACE, n_space) == 0;
    add_piece_text(p, drop ? n_space : 0, out);
    return drop;
}

// The state of decoding one stretch between special tokens, as SentencePiece decodes.
struct decoding {
    size_t start;                // of the stretch in the output
    bool opens, dropped;         // nothing shown yet; the opening space was dropped just now
    struct mm_utf8_stream utf8;  // byte pieces
};

static void decode_piece(const struct mm_spm *m, int32_t id, struct decoding *d,
                         struct mm_buf *out) {
    if (m->pieces[id].type == mm_spm_type_byte) {
        const char byte = (char)byte_value(m->pieces + id);
        mm_utf8_stream_add(&d->utf8, &byte, 1, out);
        return;
    }
    mm_utf8_stream_end(&d->utf8, out);
    if (d->dropped || out->len > d->start) d->opens = false;
    // where extra spaces are removed every opening space goes, else only the dummy prefix
    d->dropped = add_piece(m, id, d->opens, out) && !m->remove_extra_spaces;
}

enum mm_code mm_tokenizer_decode(const struct mm_tokenizer *t, const int32_t *ids, int64_t n,
                                 bool skip_special, struct mm_buf *out, struct mm_error *err) {
    for (int64_t i = 0; i < n; i++) {
        if ((ids[i] < 0 || ids[i] >= t->spm.n) && !mm_special_by_id(&t->special, ids[i])) {
            return mm_fail(err, mm_code_input,
                           "token id %d (number %lld) is no id of the tokenizer"
                           ", which has 0 to %d",
                           ids[i], (long long)i, t->size - 1);
        }
    }
    struct decoding d = {.start = out->len, .opens = true};
    for (int64_t i = 0; i < n; i++) {
        const struct mm_special *s = mm_special_by_id(&t->special, ids[i]);
        if (!s) {
            decode_piece(&t->spm, ids[i], &d, out);
        } else if (!(skip_special && s->special)) {
            mm_utf8_stream_end(&d.utf8, out);
            mm_buf_add(out, s->text, s->len);
            d = (struct decoding){.start = out->len, .opens = true};
        }
    }
    mm_utf8_stream_end(&d.utf8, out);
    return mm_code_ok;
}

void mm_tokenizer_piece(const struct mm_tokenizer *t, int32_t id, bool first, struct mm_buf *out) {
    const struct mm_special *s = mm_special_by_id(&t->special, id);
    if (s) {
        mm_buf_add(out, s->text, s->len);
    } else if (id >= 0 && id < t->spm.n && t->spm.pieces[id].type == mm_spm_type_byte) {
        const char byte = (char)byte_value(t->spm.pieces + id);
        mm_buf_add(out, &byte, 1);
    } else if (id >= 0 && id < t->spm.n) {
        add_piece(&t->spm, id, first, out);
    }
}

static enum mm_code copy_one(const char *from, const char *to, const char *name, bool required,
                             struct mm_error *err) {
    char *a = mm_path_join(from, name), *b = mm_path_join(to, name);
    const bool copy = required || mm_path_exists(a);
    const enum mm_code code = copy ? mm_file_copy(a, b, err) : mm_code_ok;
    free(a);
    free(b);
    return code;
}

enum mm_code mm_tokenizer_copy_files(const char *from_folder, const char *to_folder,
                                     struct mm_error *err) {
    static const char *const names[] = {"added_tokens.json", "tokenizer_config.json",
                                        "special_tokens_map.json", "tokenizer.json",
                                        "chat_template.jinja"};
    MM_TRY(copy_one(from_folder, to_folder, model_file, true, err));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        MM_TRY(copy_one(from_folder, to_folder, names[i], false, err));
    }
    // the Python code of a tokenizer class that tokenizer_config.json's auto_map refers to
    DIR *dir = opendir(from_folder);
    if (!dir) return mm_fail_errno(err, "%s: cannot be listed", from_folder);
    enum mm_code code = mm_code_ok;
    for (const struct dirent *e = readdir(dir); e && code == mm_code_ok; e = readdir(dir)) {
        const size_t n = strlen(e->d_name);
        if (n > 3 && strncmp(e->d_name, "tokenization_", 13) == 0 &&
            strcmp(e->d_name + n - 3, ".py") == 0) {
            code = copy_one(from_folder, to_folder, e->d_name, false, err);
        }
    }
    closedir(dir);
    return code;
}
