// Owns: the texts of the template "internlm2-chat" and the expansion of pictures.
#include "io/chat.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

const char mm_chat_default_system[] =
    "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, "
    "是一个有用无害的人工智能助手。";

static const char im_start[] = "<|im_start|>", im_end[] = "<|im_end|>", img[] = "<img>",
                  img_end[] = "</img>", img_context[] = "<IMG_CONTEXT>", picture[] = "<image>";

enum mm_code mm_chat_special_find(struct mm_chat_special *s, const struct mm_tokenizer *t,
                                  const char *folder, struct mm_error *err) {
    const struct {
        const char *text;
        int32_t *id;
    } wanted[] = {{im_start, &s->im_start},
                  {im_end, &s->im_end},
                  {img, &s->img},
                  {img_end, &s->img_end},
                  {img_context, &s->img_context}};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        *wanted[i].id = mm_tokenizer_special(t, wanted[i].text);
        if (*wanted[i].id < 0) {
            return mm_fail(err, mm_code_input,
                           "%s: the tokenizer has no special token '%s', which conversations need; "
                           "added_tokens.json must give its id",
                           folder, wanted[i].text);
        }
    }
    return mm_code_ok;
}

static void open_turn(struct mm_buf *out, enum mm_chat_role role) {
    static const char *const names[] = {"system", "user", "assistant"};
    mm_buf_adds(out, im_start);
    mm_buf_adds(out, names[role]);
    mm_buf_adds(out, "\n");
}

// The template leaves an empty message open, but never the system's.
static bool closes(enum mm_chat_role role, const char *text, bool closed) {
    return closed && ((text && *text) || role == mm_chat_role_system);
}

void mm_chat_add_turn(struct mm_buf *out, enum mm_chat_role role, const char *text, bool closed) {
    open_turn(out, role);
    if (text) mm_buf_adds(out, text);
    if (closes(role, text, closed)) mm_buf_adds(out, im_end);
}

static int count_pictures(const char *text) {
    int found = 0;
    for (const char *p = text; (p = strstr(p, picture)) != NULL; p += sizeof picture - 1) {
        found++;
    }
    return found;
}

static enum mm_code check_pictures(int found, int n_pictures, const char *what,
                                   struct mm_error *err) {
    if (found == n_pictures) return mm_code_ok;
    return mm_fail(err, mm_code_input, "%s: the text has %d %s, with %d picture%s given", what,
                   found, picture, n_pictures, n_pictures == 1 ? "" : "s");
}

static void add_picture(struct mm_buf *out, int32_t tiles, int32_t tokens_per_tile) {
    assert(tiles >= 1 && tokens_per_tile >= 1);
    mm_buf_adds(out, img);
    for (int64_t k = 0; k < (int64_t)tiles * tokens_per_tile; k++) {
        mm_buf_add(out, img_context, sizeof img_context - 1);
    }
    mm_buf_adds(out, img_end);
}

enum mm_code mm_chat_expand_images(struct mm_buf *out, const char *text, const int32_t *tiles,
                                   int n_pictures, int32_t tokens_per_tile, const char *what,
                                   struct mm_error *err) {
    MM_TRY(check_pictures(count_pictures(text), n_pictures, what, err));
    for (int i = 0; i < n_pictures; i++) {
        const char *at = strstr(text, picture);
        mm_buf_add(out, text, (size_t)(at - text));
        add_picture(out, tiles[i], tokens_per_tile);
        text = at + sizeof picture - 1;
    }
    mm_buf_adds(out, text);
    return mm_code_ok;
}

// Text in a buffer that still grows, marked by where each part ends.
struct builder {
    struct mm_buf text;
    struct mm_text_part *parts;
    int n, cap;
    size_t start;  // of the part being written
};

static void end_part(struct builder *b, bool plain) {
    if (b->n == b->cap) {
        b->cap = b->cap ? 2 * b->cap : 16;
        b->parts = mm_xrealloc(b->parts, (size_t)b->cap * sizeof *b->parts);
    }
    b->parts[b->n++] = (struct mm_text_part){NULL, b->text.len - b->start, plain};
    b->start = b->text.len;
}

enum mm_code mm_chat_encode(const struct mm_tokenizer *t, const struct mm_chat_turn *turns,
                            int n_turns, const int32_t *tiles, int n_pictures,
                            int32_t tokens_per_tile, bool with_bos, const char *what,
                            struct mm_ids *ids, struct mm_error *err) {
    int found = 0, next = 0;
    for (int i = 0; i < n_turns; i++) {
        found += turns[i].text ? count_pictures(turns[i].text) : 0;
    }
    MM_TRY(check_pictures(found, n_pictures, what, err));
    struct builder b = {.text = {NULL, 0, 0}};
    for (int i = 0; i < n_turns; i++) {
        open_turn(&b.text, turns[i].role);
        end_part(&b, false);
        const char *text = turns[i].text ? turns[i].text : "";
        for (const char *at; (at = strstr(text, picture)); text = at + sizeof picture - 1) {
            mm_buf_add(&b.text, text, (size_t)(at - text));
            end_part(&b, true);
            add_picture(&b.text, tiles[next++], tokens_per_tile);
            end_part(&b, false);
        }
        mm_buf_adds(&b.text, text);
        end_part(&b, true);
        if (closes(turns[i].role, turns[i].text, turns[i].closed)) mm_buf_adds(&b.text, im_end);
        end_part(&b, false);
    }
    size_t at = 0;
    for (int i = 0; i < b.n; i++) {
        b.parts[i].text = b.text.data + at;
        at += b.parts[i].n;
    }
    mm_tokenizer_encode_parts(t, b.parts, b.n, with_bos, ids);
    free(b.parts);
    mm_buf_free(&b.text);
    return mm_code_ok;
}
