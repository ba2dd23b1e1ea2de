// One sample of InternVL's jsonl format. Owns the rules of the format: which pictures, where
// "<image>" stands, how a conversation becomes tokens, and which of them carry loss.
#include "train/sample.h"

#include <stdlib.h>
#include <string.h>
#include "io/file.h"
#include "io/json.h"
#include "train/degrade.h"

static const char image_mark[] = "<image>";

// A text that holds one of these would forge a turn's end or a picture's place.
static const char *const forbidden[] = {"<|im_start|>", "<|im_end|>", "<img>", "</img>",
                                        "<IMG_CONTEXT>"};

static const char *forbidden_in(const char *text) {
    for (size_t i = 0; i < sizeof forbidden / sizeof forbidden[0]; i++) {
        if (strstr(text, forbidden[i])) return forbidden[i];
    }
    return NULL;
}

static enum mm_code options_check(const struct mm_data_options *o, struct mm_error *err) {
    if (o->image_size < 1 || o->image_size > 4096) {
        return mm_fail(err, mm_code_input, "data: a tile of %d pixels, must be 1..4096",
                       o->image_size);
    }
    if (o->tokens_per_tile < 1 || o->tokens_per_tile > 1 << 20) {
        return mm_fail(err, mm_code_input, "data: %d tokens a tile, must be 1..1048576",
                       o->tokens_per_tile);
    }
    if (o->min_tiles < 1 || o->max_tiles < o->min_tiles || o->max_tiles > 1024) {
        return mm_fail(err, mm_code_input,
                       "data: %d..%d tiles a picture, must be 1 <= smallest <= largest <= 1024",
                       o->min_tiles, o->max_tiles);
    }
    if (o->max_length < 2 || o->max_length > 1 << 24) {
        return mm_fail(err, mm_code_input, "data: samples of %lld tokens, must be 2..16777216",
                       (long long)o->max_length);
    }
    if (o->micro_batch < 1 || o->micro_batch > INT32_MAX / o->max_length) {
        return mm_fail(err, mm_code_input,
                       "data: a micro-batch of %d samples of up to %lld tokens, must be at least "
                       "1 sample and less than 2^31 tokens",
                       o->micro_batch, (long long)o->max_length);
    }
    if (o->n_workers < 0 || o->n_workers > 256) {
        return mm_fail(err, mm_code_input, "data: %d loader threads, must be 0..256", o->n_workers);
    }
    const char *mark = o->system ? forbidden_in(o->system) : NULL;
    if (o->system && !mark && strstr(o->system, image_mark)) mark = image_mark;
    if (mark) {
        return mm_fail(err, mm_code_input, "data: the system message holds '%s'", mark);
    }
    return mm_code_ok;
}

enum mm_code mm_sample_env_init(struct mm_sample_env *env, const struct mm_tokenizer *tokenizer,
                                const char *tokenizer_folder, const struct mm_data_options *options,
                                struct mm_error *err) {
    memset(env, 0, sizeof *env);
    MM_TRY(options_check(options, err));
    MM_TRY(mm_chat_special_find(&env->special, tokenizer, tokenizer_folder, err));
    env->tokenizer = tokenizer;
    env->options = *options;
    env->picture = mm_image_open;

    struct mm_buf text = {0};
    const char *system = options->system ? options->system : mm_chat_default_system;
    mm_chat_add_turn(&text, mm_chat_role_system, system, true);
    mm_tokenizer_encode(tokenizer, text.data, text.len, true, &env->opening);
    mm_buf_reset(&text);
    mm_chat_add_turn(&text, mm_chat_role_assistant, NULL, false);
    mm_tokenizer_encode(tokenizer, text.data, text.len, false, &env->answer_marker);
    env->answer_marker_bytes = text.len - strlen("<|im_start|>");
    mm_buf_free(&text);
    return mm_code_ok;
}

void mm_sample_env_deinit(struct mm_sample_env *env) {
    mm_ids_free(&env->opening);
    mm_ids_free(&env->answer_marker);
    memset(env, 0, sizeof *env);
}

void mm_sample_free(struct mm_sample *s) {
    mm_ids_free(&s->ids);
    mm_buf_free(&s->learn);
    mm_buf_free(&s->turn);
    free(s->tiles);
    memset(s, 0, sizeof *s);
}

// ---- pictures ----

// The samples' pictures as the JSON has them.
struct pictures {
    const json_t *image;  // a string or a list of strings
    int64_t n;
    int32_t *tiles;  // (n), tiles of each
};

static const char *picture_path(const struct pictures *p, int64_t i) {
    return json_is_array(p->image) ? json_string_value(json_array_get(p->image, (size_t)i))
                                   : json_string_value(p->image);
}

// image: absent, null, "" or [] is a text-only sample.
static enum mm_code pictures_find(struct pictures *p, const json_t *sample, struct mm_error *err) {
    *p = (struct pictures){.image = json_object_get(sample, "image")};
    if (json_is_string(p->image)) {
        p->n = json_string_length(p->image) > 0;
    } else if (json_is_array(p->image)) {
        p->n = (int64_t)json_array_size(p->image);
        for (int64_t i = 0; i < p->n; i++) {
            const char *path = picture_path(p, i);
            if (!path || !path[0]) {
                return mm_fail(err, mm_code_input,
                               "'image' entry %lld is not a path, must be a non-empty string",
                               (long long)i);
            }
        }
    } else if (p->image && !json_is_null(p->image)) {
        return mm_fail(err, mm_code_input, "'image' must be a string or a list of strings");
    }
    const json_t *video = json_object_get(sample, "video");
    if (p->n == 0 && video && !json_is_null(video) &&
        !(json_is_string(video) && json_string_length(video) == 0)) {
        return mm_fail(err, mm_code_unsupported, "'video' samples are not supported");
    }
    return mm_code_ok;
}

static enum mm_code tiles_reserve(struct mm_sample *s, const struct mm_sample_env *env,
                                  int64_t n_tiles, struct mm_error *err) {
    const struct mm_data_options *o = &env->options;
    const size_t tile = (size_t)o->image_size * (size_t)o->image_size * 3;
    const size_t need = (size_t)n_tiles * tile;
    if (need <= s->tiles_cap) return mm_code_ok;
    // Twice what there was, but never more than the longest sample can have.
    const size_t most = (size_t)(o->max_length / o->tokens_per_tile) * tile;
    size_t cap = s->tiles_cap * 2 < most ? s->tiles_cap * 2 : most;
    if (cap < need) cap = need;
    uint8_t *tiles = realloc(s->tiles, cap);
    if (!tiles) {
        return mm_fail(err, mm_code_memory, "data: no memory for the %zu bytes of a sample's tiles",
                       cap);
    }
    s->tiles = tiles;
    s->tiles_cap = cap;
    return mm_code_ok;
}

static enum mm_code too_long(const struct mm_sample_env *env, int64_t n, struct mm_error *err) {
    return mm_fail(err, mm_code_input, "has %lld tokens or more, must be at most %lld",
                   (long long)n, (long long)env->options.max_length);
}

// One picture's tiles behind those the sample has. *n_tokens counts the pictures' tokens, so that
// a sample that will be too long is left before its pixels are worked on.
static enum mm_code picture_add(struct mm_sample *s, const struct mm_sample_env *env,
                                const struct mm_sample_source *source, int32_t max_tiles,
                                const char *name, int64_t *n_tokens, int32_t *n_tiles,
                                struct mm_error *err) {
    const struct mm_data_options *o = &env->options;
    if (strncmp(name, "s3://", 5) == 0 || strncmp(source->root, "s3://", 5) == 0) {
        return mm_fail(err, mm_code_unsupported, "'image' %s lies behind s3://, must be a file",
                       name);
    }
    const int32_t most = o->dynamic_tiling ? max_tiles : 1;
    const int32_t least = o->dynamic_tiling && o->min_tiles < most ? o->min_tiles : most;
    char *path = mm_path_join(source->root, name);
    struct mm_image im = {0};
    enum mm_code code = env->picture(&im, path, err);
    free(path);
    if (code != mm_code_ok) return code;

    struct mm_tiles t = {0};
    int32_t cols, rows;
    mm_tiles_grid(im.width, im.height, o->image_size, least, most, &cols, &rows);
    const int64_t expected = (int64_t)cols * rows + (o->thumbnail && cols * rows > 1);
    *n_tokens += expected * o->tokens_per_tile + 2;
    if (*n_tokens > o->max_length) {
        code = too_long(env, *n_tokens, err);
    } else {
        code = mm_tiles_make(&t, &im, o->image_size, least, most, o->thumbnail, err);
    }
    mm_image_free(&im);
    if (code == mm_code_ok && t.n != expected) {
        code = mm_fail(err, mm_code_input, "'image' %s: %d tiles where the grid has %lld", name,
                       t.n, (long long)expected);
    }
    if (code == mm_code_ok) code = tiles_reserve(s, env, s->n_tiles + (int64_t)t.n, err);
    if (code == mm_code_ok) {
        const size_t tile = (size_t)o->image_size * (size_t)o->image_size * 3;
        memcpy(s->tiles + (size_t)s->n_tiles * tile, t.rgb, (size_t)t.n * tile);
        s->n_tiles += t.n;
        *n_tiles = t.n;
    }
    mm_tiles_free(&t);
    return code;
}

static enum mm_code pictures_add(struct mm_sample *s, const struct mm_sample_env *env,
                                 const struct mm_sample_source *source, struct pictures *p,
                                 struct mm_rng rng, struct mm_error *err) {
    const struct mm_data_options *o = &env->options;
    if (p->n == 0) return mm_code_ok;
    const int64_t least_tokens = p->n * (o->tokens_per_tile + 2);
    if (least_tokens > o->max_length) return too_long(env, least_tokens, err);

    int32_t max_tiles = source->max_tiles;
    if (json_is_array(p->image)) {
        max_tiles = p->n < max_tiles ? (int32_t)(max_tiles / p->n) : 1;
    }
    int64_t n_tokens = env->opening.n;
    p->tiles = mm_xcalloc((size_t)p->n, sizeof *p->tiles);
    for (int64_t i = 0; i < p->n; i++) {
        MM_TRY(picture_add(s, env, source, max_tiles, picture_path(p, i), &n_tokens, &p->tiles[i],
                           err));
    }
    if (source->augment) {
        MM_TRY(mm_degrade_tiles(s->tiles, s->n_tiles, o->image_size, &rng, err));
    }
    return mm_code_ok;
}

// ---- text ----

static void learn_up_to_end(struct mm_sample *s, char learn) {
    while ((int64_t)s->learn.len < s->ids.n)
        mm_buf_add(&s->learn, &learn, 1);
}

static void add_text(struct mm_sample *s, const struct mm_sample_env *env, const char *text,
                     size_t n, char learn) {
    if (n > 0) mm_tokenizer_encode(env->tokenizer, text, n, false, &s->ids);
    learn_up_to_end(s, learn);
}

static void add_picture_tokens(struct mm_sample *s, const struct mm_sample_env *env,
                               int32_t tiles) {
    mm_ids_add(&s->ids, env->special.img);
    for (int64_t i = 0; i < (int64_t)tiles * env->options.tokens_per_tile; i++) {
        mm_ids_add(&s->ids, env->special.img_context);
    }
    mm_ids_add(&s->ids, env->special.img_end);
    learn_up_to_end(s, 0);
}

// The piece that opens an assistant's turn: its marker is not learned. The marker's line feed and
// the answer are encoded as one text, so a token may reach over the border between them; it is
// not learned either, as it can never be asked for behind the marker.
static void add_answer_opening(struct mm_sample *s, const struct mm_sample_env *env,
                               const char *text, size_t n) {
    const struct mm_ids *marker = &env->answer_marker;
    const int64_t begin = s->ids.n;
    mm_tokenizer_encode(env->tokenizer, text, n, false, &s->ids);
    int64_t border = begin + marker->n;
    if (s->ids.n < border ||
        memcmp(s->ids.data + begin, marker->data, (size_t)marker->n * sizeof(int32_t)) != 0) {
        struct mm_buf bytes = {0};
        for (border = begin + 1; border < s->ids.n && bytes.len < env->answer_marker_bytes;
             border++) {
            mm_tokenizer_piece(env->tokenizer, s->ids.data[border], border == begin + 1, &bytes);
        }
        mm_buf_free(&bytes);
    }
    while ((int64_t)s->learn.len < border)
        mm_buf_add(&s->learn, "", 1);
    learn_up_to_end(s, 1);
}

// One turn; the first `pictures left` occurrences of "<image>" become their tokens, later ones
// stay text, as in the original.
static void add_turn(struct mm_sample *s, const struct mm_sample_env *env, bool assistant,
                     const char *value, const struct pictures *p, int64_t *next_picture) {
    // An empty message leaves only its marker, without <|im_end|>.
    const bool empty = value[0] == 0;
    mm_buf_reset(&s->turn);
    mm_chat_add_turn(&s->turn, assistant ? mm_chat_role_assistant : mm_chat_role_user,
                     empty ? NULL : value, !empty);
    const char *text = s->turn.data;
    for (bool first = true;; first = false) {
        const char *mark = *next_picture < p->n ? strstr(text, image_mark) : NULL;
        const size_t n = mark ? (size_t)(mark - text) : strlen(text);
        if (assistant && first) {
            add_answer_opening(s, env, text, n);
        } else {
            add_text(s, env, text, n, assistant);
        }
        if (!mark) return;
        add_picture_tokens(s, env, p->tiles[(*next_picture)++]);
        text = mark + strlen(image_mark);
    }
}

static enum mm_code turns_check(const json_t *turns, struct mm_error *err) {
    if (!json_is_array(turns) || json_array_size(turns) == 0) {
        return mm_fail(err, mm_code_input, "'conversations' must be a list of at least one turn");
    }
    for (size_t i = 0; i < json_array_size(turns); i++) {
        const char *value = json_string_value(json_object_get(json_array_get(turns, i), "value"));
        if (!value) {
            return mm_fail(err, mm_code_input, "'conversations' entry %zu has no text 'value'", i);
        }
        const char *mark = forbidden_in(value);
        if (mark) {
            return mm_fail(err, mm_code_input, "'conversations' entry %zu holds the mark '%s'", i,
                           mark);
        }
    }
    return mm_code_ok;
}

static enum mm_code turns_add(struct mm_sample *s, const struct mm_sample_env *env,
                              const json_t *turns, const struct pictures *p, struct mm_error *err) {
    for (int64_t i = 0; i < env->opening.n; i++)
        mm_ids_add(&s->ids, env->opening.data[i]);
    learn_up_to_end(s, 0);
    int64_t next_picture = 0;
    struct mm_buf prefixed = {0};
    for (size_t i = 0; i < json_array_size(turns); i++) {
        const char *value = json_string_value(json_object_get(json_array_get(turns, i), "value"));
        if (i == 0 && p->n == 1 && json_is_string(p->image) && !strstr(value, image_mark)) {
            mm_buf_addf(&prefixed, "%s\n%s", image_mark, value);
            value = prefixed.data;
        }
        add_turn(s, env, i % 2 == 1, value, p, &next_picture);
        if (s->ids.n > env->options.max_length) break;
    }
    mm_buf_free(&prefixed);
    if (s->ids.n > env->options.max_length) return too_long(env, s->ids.n, err);
    if (next_picture < p->n) {
        return mm_fail(err, mm_code_input, "has %lld pictures but '%s' %lld times", (long long)p->n,
                       image_mark, (long long)next_picture);
    }
    return mm_code_ok;
}

static enum mm_code sample_fill(struct mm_sample *s, const struct mm_sample_env *env,
                                const struct mm_sample_source *source, struct mm_rng rng,
                                const json_t *root, struct mm_error *err) {
    if (!json_is_object(root)) {
        return mm_fail(err, mm_code_input, "a sample must be a JSON object");
    }
    const json_t *turns = json_object_get(root, "conversations");
    MM_TRY(turns_check(turns, err));
    struct pictures p;
    MM_TRY(pictures_find(&p, root, err));
    enum mm_code code = pictures_add(s, env, source, &p, rng, err);
    if (code == mm_code_ok) code = turns_add(s, env, turns, &p, err);
    free(p.tiles);
    return code;
}

// Keeps a sample's buffers for the next one, except those that one long text has blown up.
static void sample_reset(struct mm_sample *s, const struct mm_sample_env *env) {
    if (s->ids.cap > 4 * env->options.max_length + 4096) {
        mm_ids_free(&s->ids);
        mm_buf_free(&s->learn);
        mm_buf_free(&s->turn);
        s->ids = (struct mm_ids){0};
        s->learn = s->turn = (struct mm_buf){0};
    }
    s->ids.n = 0;
    s->n_tiles = 0;
    mm_buf_reset(&s->learn);
}

enum mm_code mm_sample_read(struct mm_sample *s, const struct mm_sample_env *env,
                            const struct mm_sample_source *source, struct mm_rng rng,
                            const char *line, size_t n, struct mm_error *err) {
    sample_reset(s, env);
    if (n > mm_sample_max_line) {
        return mm_fail(err, mm_code_input, "a line of %zu bytes, must be at most %d", n,
                       mm_sample_max_line);
    }
    json_t *root = NULL;
    MM_TRY(mm_json_parse(&root, line, n, "not valid JSON", err));
    const enum mm_code code = sample_fill(s, env, source, rng, root, err);
    json_decref(root);
    return code;
}
