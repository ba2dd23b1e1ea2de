// Owns: the texts of the template "internlm2-chat" and the expansion of pictures.
#include "io/chat.h"

#include <assert.h>
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

void mm_chat_add_turn(struct mm_buf *out, enum mm_chat_role role, const char *text, bool closed) {
    static const char *const names[] = {"system", "user", "assistant"};
    mm_buf_adds(out, im_start);
    mm_buf_adds(out, names[role]);
    mm_buf_adds(out, "\n");
    const bool empty = !text || !*text;
    if (!empty) mm_buf_adds(out, text);
    // the template leaves an empty message open, but never the system's
    if (closed && (!empty || role == mm_chat_role_system)) mm_buf_adds(out, im_end);
}

enum mm_code mm_chat_expand_images(struct mm_buf *out, const char *text, const int32_t *tiles,
                                   int n_pictures, int32_t tokens_per_tile, const char *what,
                                   struct mm_error *err) {
    int found = 0;
    for (const char *p = text; (p = strstr(p, picture)) != NULL; p += sizeof picture - 1) {
        found++;
    }
    if (found != n_pictures) {
        return mm_fail(err, mm_code_input, "%s: the text has %d %s, with %d picture%s given", what,
                       found, picture, n_pictures, n_pictures == 1 ? "" : "s");
    }
    for (int i = 0; i < n_pictures; i++) {
        assert(tiles[i] >= 1 && tokens_per_tile >= 1);
        const char *at = strstr(text, picture);
        mm_buf_add(out, text, (size_t)(at - text));
        mm_buf_adds(out, img);
        for (int64_t k = 0; k < (int64_t)tiles[i] * tokens_per_tile; k++) {
            mm_buf_add(out, img_context, sizeof img_context - 1);
        }
        mm_buf_adds(out, img_end);
        text = at + sizeof picture - 1;
    }
    mm_buf_adds(out, text);
    return mm_code_ok;
}
