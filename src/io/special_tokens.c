// Owns: gathering special tokens out of added_tokens.json, tokenizer_config.json and
// special_tokens_map.json, and finding them in a text.
#include "io/special_tokens.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "io/file.h"
#include "io/json.h"

static const char added_name[] = "added_tokens.json", config_name[] = "tokenizer_config.json",
                  map_name[] = "special_tokens_map.json", model_name[] = "tokenizer.model";

struct gather {
    struct mm_special_tokens *t;
    const struct mm_special_sources *s;
    const struct mm_spm *m;
    struct mm_error *err;
};

enum mm_code mm_special_parse(json_t **root, const char *text, size_t n, const char *what,
                              struct mm_error *err) {
    json_error_t e;
    *root = json_loadb(n > 0 ? text : "", n, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &e);
    if (!*root) {
        return mm_fail(err, mm_code_input, "%s: not valid JSON at line %d, column %d", what, e.line,
                       e.column);
    }
    if (json_is_object(*root)) return mm_code_ok;
    json_decref(*root);
    *root = NULL;
    return mm_fail(err, mm_code_input, "%s: must be a JSON object", what);
}

static enum mm_code load(json_t **root, const char *folder, const char *name,
                         struct mm_error *err) {
    char *path = mm_path_join(folder, name);
    struct mm_buf text = {0};
    enum mm_code code = mm_code_ok;
    if (mm_path_exists(path)) {
        code = mm_file_read(&text, path, 64 << 20, err);
        if (code == mm_code_ok) code = mm_special_parse(root, text.data, text.len, path, err);
    }
    mm_buf_free(&text);
    free(path);
    return code;
}

enum mm_code mm_special_sources_load(struct mm_special_sources *s, const char *folder,
                                     struct mm_error *err) {
    *s = (struct mm_special_sources){.where = folder};
    enum mm_code code = load(&s->added, folder, added_name, err);
    if (code == mm_code_ok) code = load(&s->config, folder, config_name, err);
    if (code == mm_code_ok) code = load(&s->map, folder, map_name, err);
    if (code != mm_code_ok) mm_special_sources_deinit(s);
    return code;
}

void mm_special_sources_deinit(struct mm_special_sources *s) {
    json_decref(s->added);
    json_decref(s->config);
    json_decref(s->map);
    s->added = s->config = s->map = NULL;
}

// While gathering, the items are in no order and there is no dictionary yet.
static struct mm_special *find(const struct mm_special_tokens *t, const char *text, size_t len) {
    for (int32_t i = 0; i < t->n; i++) {
        if (t->items[i].len == len && memcmp(t->items[i].text, text, len) == 0) return t->items + i;
    }
    return NULL;
}

static bool id_taken(const struct mm_special_tokens *t, int32_t id) {
    for (int32_t i = 0; i < t->n; i++) {
        if (t->items[i].id == id) return true;
    }
    return false;
}

// Whether text may stand at id as far as the model's own pieces go. A piece whose id the folder
// reuses gives way (InternLM2 does so with its [UNUSED_TOKEN_..]), but not the ones that encoding
// itself needs.
static enum mm_code check_against_model(const struct gather *g, const char *text, size_t len,
                                        int64_t id, const char *source) {
    const int32_t own = mm_spm_find(g->m, text, len);
    if (own >= 0 && own != id) {
        return mm_fail(g->err, mm_code_input, "%s/%s: id of '%s' is %lld, but %s has it at %d",
                       g->s->where, source, text, (long long)id, model_name, own);
    }
    if (id >= g->m->n) return mm_code_ok;
    const enum mm_spm_type type = g->m->pieces[id].type;
    if (type == mm_spm_type_byte || (type == mm_spm_type_unknown && own < 0)) {
        return mm_fail(g->err, mm_code_input,
                       "%s/%s: id of '%s' is %lld, which %s needs for its %s piece", g->s->where,
                       source, text, (long long)id, model_name,
                       type == mm_spm_type_byte ? "byte" : "unknown");
    }
    return mm_code_ok;
}

// Adds a token, or finds it there already with the same id.
static enum mm_code add(const struct gather *g, const char *text, size_t len, double number,
                        const char *source, int32_t *index) {
    struct mm_special_tokens *t = g->t;
    if (len == 0 || len > mm_special_max_bytes) {
        return mm_fail(g->err, mm_code_input,
                       "%s/%s: a token has %zu bytes of text, must have 1 to %d", g->s->where,
                       source, len, mm_special_max_bytes);
    }
    if (!(number >= 0 && number <= mm_special_max_id) || number != floor(number)) {
        return mm_fail(g->err, mm_code_input, "%s/%s: id of '%s' is %.15g, must be 0 to %d",
                       g->s->where, source, text, number, mm_special_max_id);
    }
    const int32_t id = (int32_t)number;
    for (int32_t i = 0; i < t->n; i++) {
        const struct mm_special *o = t->items + i;
        const bool same_text = o->len == len && memcmp(o->text, text, len) == 0;
        if (same_text != (o->id == id)) {
            return mm_fail(g->err, mm_code_input, "%s/%s: '%s' has id %d, but in %s '%s' has id %d",
                           g->s->where, source, text, id, o->source, o->text, o->id);
        }
        if (same_text) {
            *index = i;
            return mm_code_ok;
        }
    }
    MM_TRY(check_against_model(g, text, len, id, source));
    if (t->n == mm_special_max) {
        return mm_fail(g->err, mm_code_input, "%s/%s: more than %d added tokens", g->s->where,
                       source, mm_special_max);
    }
    if (t->n == t->cap) {
        t->cap = t->cap ? 2 * t->cap : 16;
        t->items = mm_xrealloc(t->items, (size_t)t->cap * sizeof *t->items);
    }
    char *copy = mm_xmalloc(len + 1);
    memcpy(copy, text, len);
    copy[len] = 0;
    *index = t->n;
    t->items[t->n++] = (struct mm_special){
        .text = copy, .len = (uint32_t)len, .id = id, .special = false, .source = source};
    return mm_code_ok;
}

static enum mm_code add_added(const struct gather *g) {
    const char *text;
    json_t *value;
    json_object_foreach(g->s->added, text, value) {
        int32_t at;
        if (!json_is_number(value)) {
            return mm_fail(g->err, mm_code_input, "%s/%s: id of '%s' is not a number", g->s->where,
                           added_name, text);
        }
        MM_TRY(add(g, text, strlen(text), json_number_value(value), added_name, &at));
    }
    return mm_code_ok;
}

static enum mm_code flag(const struct gather *g, const json_t *o, const char *key,
                         const char *inside, bool *out) {
    const json_t *v = json_object_get(o, key);
    if (!v || json_is_null(v)) return mm_code_ok;
    if (!json_is_boolean(v)) {
        return mm_fail(g->err, mm_code_input, "%s/%s: '%s'%s must be true or false", g->s->where,
                       config_name, key, inside);
    }
    *out = json_is_true(v);
    return mm_code_ok;
}

static enum mm_code add_decoder(const struct gather *g) {
    const json_t *decoder = json_object_get(g->s->config, "added_tokens_decoder");
    if (!decoder || json_is_null(decoder)) return mm_code_ok;
    if (!json_is_object(decoder)) {
        return mm_fail(g->err, mm_code_input, "%s/%s: 'added_tokens_decoder' must be an object",
                       g->s->where, config_name);
    }
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)decoder, key, value) {
        char *end;
        const double id = strspn(key, "0123456789") == strlen(key) ? strtod(key, &end) : -1;
        const json_t *content = json_object_get(value, "content");
        if (*key == 0 || id < 0 || !json_is_string(content)) {
            return mm_fail(g->err, mm_code_input,
                           "%s/%s: entry '%.60s' of added_tokens_decoder must be an id with an "
                           "object that has 'content'",
                           g->s->where, config_name, key);
        }
        const char *text = json_string_value(content);
        int32_t at;
        MM_TRY(add(g, text, strlen(text), id, config_name, &at));
        struct mm_special *item = g->t->items + at;
        bool single_word = false;
        const char *const inside = " in added_tokens_decoder";
        MM_TRY(flag(g, value, "special", inside, &item->special));
        MM_TRY(flag(g, value, "lstrip", inside, &item->lstrip));
        MM_TRY(flag(g, value, "rstrip", inside, &item->rstrip));
        MM_TRY(flag(g, value, "single_word", inside, &single_word));
        if (single_word) {
            return mm_fail(g->err, mm_code_unsupported,
                           "%s/%s: token '%s' has single_word true, only false is supported",
                           g->s->where, config_name, text);
        }
    }
    return mm_code_ok;
}

// A token that is called by its text: it must be known by now, or be a piece of the model.
static enum mm_code name_one(const struct gather *g, const json_t *v, const char *key,
                             const char *source, int32_t *id) {
    const json_t *content = json_is_object(v) ? json_object_get(v, "content") : v;
    if (!json_is_string(content)) {
        return mm_fail(g->err, mm_code_input,
                       "%s/%s: '%s' must be a text or an object with 'content'", g->s->where,
                       source, key);
    }
    const char *text = json_string_value(content);
    const size_t len = strlen(text);
    if (!find(g->t, text, len)) {
        const int32_t own = mm_spm_find(g->m, text, len);
        if (own < 0) {
            return mm_fail(g->err, mm_code_input,
                           "%s/%s: '%s' names '%.200s', which has an id neither in %s nor in %s",
                           g->s->where, source, key, text, added_name, model_name);
        }
        int32_t at;
        MM_TRY(add(g, text, len, own, source, &at));
    }
    struct mm_special *item = find(g->t, text, len);
    item->special = true;
    *id = item->id;
    return mm_code_ok;
}

static enum mm_code name_role(const struct gather *g, const json_t *file, const char *source,
                              const char *key, int32_t *role, const char **given_by) {
    const json_t *v = json_object_get(file, key);
    if (!v || json_is_null(v)) return mm_code_ok;
    int32_t id = -1;
    MM_TRY(name_one(g, v, key, source, &id));
    if (*given_by && *role != id) {
        mm_warn("%s: %s and %s differ about '%s'; the first is taken", g->s->where, *given_by,
                source, key);
        return mm_code_ok;
    }
    *role = id;
    *given_by = source;
    return mm_code_ok;
}

static enum mm_code name_all(const struct gather *g) {
    struct mm_special_tokens *t = g->t;
    int32_t other[4] = {-1, -1, -1, -1};
    const struct {
        const char *key;
        int32_t *role;
    } roles[] = {{"bos_token", &t->bos},   {"eos_token", &t->eos},   {"pad_token", &t->pad},
                 {"unk_token", &other[0]}, {"cls_token", &other[1]}, {"sep_token", &other[2]},
                 {"mask_token", &other[3]}};
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++) {
        const char *given_by = NULL;
        MM_TRY(name_role(g, g->s->config, config_name, roles[i].key, roles[i].role, &given_by));
        MM_TRY(name_role(g, g->s->map, map_name, roles[i].key, roles[i].role, &given_by));
    }
    const struct {
        const json_t *file;
        const char *name;
    } files[] = {{g->s->config, config_name}, {g->s->map, map_name}};
    for (int i = 0; i < 2; i++) {
        const char *const key = "additional_special_tokens";
        const json_t *list = json_object_get(files[i].file, key);
        if (!list || json_is_null(list)) continue;
        if (!json_is_array(list)) {
            return mm_fail(g->err, mm_code_input, "%s/%s: '%s' must be an array", g->s->where,
                           files[i].name, key);
        }
        size_t k;
        json_t *v;
        json_array_foreach(list, k, v) {
            int32_t id;
            MM_TRY(name_one(g, v, key, files[i].name, &id));
        }
    }
    return mm_code_ok;
}

// The model's own beginning, end, padding and unknown tokens split a text too: without any JSON
// file the tokenizer class of the model would name them.
static enum mm_code add_model_own(const struct gather *g) {
    const struct mm_spm *m = g->m;
    const struct {
        const char *text;
        uint32_t len;
        int32_t *role;
    } own[] = {{m->bos_text, m->bos_len, &g->t->bos},
               {m->eos_text, m->eos_len, &g->t->eos},
               {m->pad_text, m->pad_len, &g->t->pad},
               {m->pieces[m->unk].text, m->pieces[m->unk].len, NULL}};
    for (int i = 0; i < 4; i++) {
        const int32_t id = mm_spm_find(m, own[i].text, own[i].len);
        const bool fits = id >= 0 && (m->pieces[id].type == mm_spm_type_control || id == m->unk);
        // the folder may have given the id to another token
        if (!fits || id_taken(g->t, id)) continue;
        int32_t at;
        MM_TRY(add(g, own[i].text, own[i].len, id, model_name, &at));
        g->t->items[at].special = true;
        if (own[i].role && *own[i].role < 0) *own[i].role = id;
    }
    return mm_code_ok;
}

static enum mm_code read_options(const struct gather *g) {
    struct mm_special_tokens *t = g->t;
    MM_TRY(flag(g, g->s->config, "add_bos_token", "", &t->add_bos));
    const json_t *v = json_object_get(g->s->config, "model_max_length");
    if (v && !json_is_null(v)) {
        const double n = json_is_number(v) ? json_number_value(v) : -1;
        if (!(n >= 1)) {
            return mm_fail(g->err, mm_code_input,
                           "%s/%s: 'model_max_length' must be a number of at least 1", g->s->where,
                           config_name);
        }
        t->max_length = n < 1e15 ? (int64_t)n : 0;
    }
    if (t->bos < 0 && t->add_bos) {
        return mm_fail(g->err, mm_code_input,
                       "%s: no beginning-of-text token: neither %s nor %s names one", g->s->where,
                       config_name, model_name);
    }
    return mm_code_ok;
}

static int by_id(const void *pa, const void *pb) {
    const struct mm_special *a = pa, *b = pb;
    return (a->id > b->id) - (a->id < b->id);
}

enum mm_code mm_special_init(struct mm_special_tokens *t, const struct mm_special_sources *s,
                             const struct mm_spm *m, struct mm_error *err) {
    *t = (struct mm_special_tokens){.bos = -1, .eos = -1, .pad = -1, .add_bos = true};
    const struct gather g = {t, s, m, err};
    enum mm_code code = add_added(&g);
    if (code == mm_code_ok) code = add_decoder(&g);
    if (code == mm_code_ok) code = name_all(&g);
    if (code == mm_code_ok) code = add_model_own(&g);
    if (code == mm_code_ok) code = read_options(&g);
    if (code != mm_code_ok) {
        mm_special_deinit(t);
        return code;
    }
    qsort(t->items, (size_t)t->n, sizeof *t->items, by_id);
    struct mm_prefix_entry *entries = mm_xmalloc((size_t)t->n * sizeof *entries + 1);
    for (int32_t i = 0; i < t->n; i++) {
        entries[i] = (struct mm_prefix_entry){t->items[i].text, t->items[i].len, i};
    }
    mm_prefix_dict_init(&t->by_text, entries, t->n);
    return mm_code_ok;
}

void mm_special_deinit(struct mm_special_tokens *t) {
    for (int32_t i = 0; i < t->n; i++) {
        free(t->items[i].text);
    }
    free(t->items);
    mm_prefix_dict_deinit(&t->by_text);
    memset(t, 0, sizeof *t);
}

const struct mm_special *mm_special_by_id(const struct mm_special_tokens *t, int32_t id) {
    const struct mm_special key = {.id = id};
    return t->n > 0 ? bsearch(&key, t->items, (size_t)t->n, sizeof key, by_id) : NULL;
}

const struct mm_special *mm_special_by_text(const struct mm_special_tokens *t, const char *text,
                                            size_t len) {
    size_t found = 0;
    const int32_t at = mm_prefix_longest(&t->by_text, text, len, &found);
    return at >= 0 && found == len ? t->items + at : NULL;
}

const struct mm_special *mm_special_next(const struct mm_special_tokens *t, const char *text,
                                         size_t n, size_t at, size_t *start) {
    for (; at < n; at++) {
        const unsigned char c = (unsigned char)text[at];
        if (t->by_text.first[c] == t->by_text.first[c + 1]) continue;
        size_t len;
        const int32_t found = mm_prefix_longest(&t->by_text, text + at, n - at, &len);
        if (found >= 0) {
            *start = at;
            return t->items + found;
        }
    }
    return NULL;
}
