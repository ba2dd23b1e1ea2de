// Tokenizers from bytes: a tokenizer.model and an added_tokens.json, each behind its length (two
// bytes, little-endian), and the rest a text that is encoded and decoded.
#include <stdlib.h>
#include <string.h>
#include "io/spm.h"
#include "io/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

// Cuts a part off the front whose length its first two bytes give.
static struct mm_text_part split(const uint8_t **data, size_t *n) {
    struct mm_text_part part = {"", 0, false};
    if (*n < 2) return part;
    const size_t want = (size_t)(*data)[0] | (size_t)(*data)[1] << 8;
    part.n = want < *n - 2 ? want : *n - 2;
    part.text = (const char *)*data + 2;
    *data += 2 + part.n;
    *n -= 2 + part.n;
    return part;
}

// In a plain text no special token may come out but the unknown one, for a character.
static void check_ids(const struct mm_tokenizer *t, const struct mm_ids *ids, bool plain,
                      int32_t unknown) {
    for (int64_t i = 0; i < ids->n; i++) {
        const int32_t id = ids->data[i];
        if (id < 0 || id >= mm_tokenizer_size(t)) abort();
        if (plain && id != unknown && mm_tokenizer_is_special(t, id)) abort();
    }
}

static int32_t unknown_of(const struct mm_text_part *model) {
    struct mm_spm m;
    if (mm_spm_init(&m, model->text, model->n, "fuzz", NULL) != mm_code_ok) abort();
    const int32_t unknown = m.unk;
    mm_spm_deinit(&m);
    return unknown;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    const struct mm_text_part model = split(&data, &n), added = split(&data, &n);
    struct mm_tokenizer *t;
    struct mm_error err = {mm_code_ok, ""};
    if (mm_tokenizer_open_memory(&t, model.text, model.n, added.n > 0 ? added.text : NULL, added.n,
                                 "fuzz", &err) != mm_code_ok) {
        if (err.code == mm_code_ok || strlen(err.text) == 0) abort();
        return 0;
    }
    const char *text = n > 0 ? (const char *)data : "";
    struct mm_ids ids = {NULL, 0, 0};
    struct mm_buf out = {NULL, 0, 0};
    mm_tokenizer_encode(t, text, n, true, &ids);
    check_ids(t, &ids, false, -1);
    if (mm_tokenizer_decode(t, ids.data, ids.n, false, &out, &err) != mm_code_ok) abort();
    mm_tokenizer_decode(t, ids.data, ids.n, true, &out, &err);
    ids.n = 0;
    const struct mm_text_part parts[] = {{text, n / 3, false},
                                         {text + n / 3, n / 3, true},
                                         {text + 2 * (n / 3), n - 2 * (n / 3), false}};
    mm_tokenizer_encode_parts(t, parts, 3, false, &ids);
    check_ids(t, &ids, false, -1);
    ids.n = 0;
    mm_tokenizer_encode_plain(t, text, n, &ids);
    check_ids(t, &ids, true, unknown_of(&model));
    mm_buf_free(&out);
    mm_ids_free(&ids);
    mm_tokenizer_close(t);
    return 0;
}
