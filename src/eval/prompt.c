// Prompts.
#include "eval/prompt.h"

#define SINGLE_WORD "Answer the question using a single word or phrase."
static const char single_word[] = SINGLE_WORD;

static void add(struct mm_buf *out, struct mm_str s) {
    mm_buf_add(out, s.n ? s.s : "", s.n);
}

void mm_prompt_mme(const struct mm_question *q, bool kit, struct mm_buf *out) {
    (void)kit;
    add(out, q->text);
    mm_buf_adds(out, single_word);  // nothing between, as the adapter has it
}

void mm_prompt_vqa(const struct mm_question *q, bool kit, struct mm_buf *out) {
    (void)kit;
    add(out, q->text);
    mm_buf_adds(out, "\n");
    mm_buf_adds(out, single_word);
}

void mm_prompt_bare(const struct mm_question *q, bool kit, struct mm_buf *out) {
    (void)kit;
    add(out, q->text);
}

void mm_prompt_gqa(const struct mm_question *q, bool kit, struct mm_buf *out) {
    (void)kit;
    add(out, q->text);
    mm_buf_adds(out, " ");
    mm_buf_adds(out, single_word);
}

void mm_prompt_pope(const struct mm_question *q, bool kit, struct mm_buf *out) {
    if (kit) {  // its text has the instruction already
        add(out, mm_text_strip(q->text));
        return;
    }
    static const char spare[] = " Please answer yes or no.";
    struct mm_str rest = q->text;
    while (rest.n) {
        const char *found = memmem(rest.s, rest.n, spare, sizeof spare - 1);
        const size_t n = found ? (size_t)(found - rest.s) : rest.n;
        mm_buf_add(out, rest.s, n);
        const size_t skip = found ? n + sizeof spare - 1 : n;
        rest = (struct mm_str){rest.s + skip, rest.n - skip};
    }
    mm_buf_adds(out, "\n");
    mm_buf_adds(out, single_word);
}

static bool has_chinese(struct mm_str s) {
    for (size_t at = 0; at < s.n;) {
        const int32_t c = mm_text_next(s, &at);
        if (c >= 0x4e00 && c <= 0x9fff) return true;
    }
    return false;
}

void mm_prompt_choice(const struct mm_question *q, bool kit, struct mm_buf *out) {
    (void)kit;
    const size_t begin = out->len;
    bool any = false;
    if (q->hint.s) {
        add(out, q->hint);
        mm_buf_adds(out, "\n");
    }
    add(out, q->text);
    for (int k = 0; k < 26; k++) {
        if (!q->options.text[k].s) continue;
        mm_buf_addf(out, "\n%c. ", 'A' + k);
        add(out, q->options.text[k]);
        any = true;
    }
    const bool chinese = has_chinese((struct mm_str){out->data + begin, out->len - begin});
    if (any) {
        mm_buf_adds(out,
                    chinese ? "\n请直接回答选项字母。"
                            : "\nAnswer with the option's letter from the given choices directly.");
    } else {
        mm_buf_adds(out, chinese ? "\n请直接回答问题。" : "\nAnswer the question directly.");
    }
}

void mm_prompt_message(const struct mm_bench *bench, const struct mm_question *q, bool kit,
                       int n_pictures, struct mm_buf *out) {
    if (n_pictures == 1) {
        mm_buf_adds(out, "<image>\n");
        bench->prompt(q, kit, out);
        return;
    }
    for (int i = 1; i <= n_pictures; i++) {
        mm_buf_addf(out, "%sImage-%d: <image>", i > 1 ? "\n" : "", i);
    }
    mm_buf_adds(out, "\n");
    bench->prompt(q, kit, out);
    for (int i = 1; i <= n_pictures; i++) {
        mm_buf_addf(out, "<Image-%d>", i);
    }
}

bool mm_prompt_is_doubled(const struct mm_bench *bench, const struct mm_question *q) {
    return bench->prompt == mm_prompt_gqa && mm_str_contains(q->text, mm_str_of(single_word));
}

const char *mm_prompt_wrong(const struct mm_bench *bench, const struct mm_question *q, bool kit) {
    const bool wrong =
        kit && bench == &mm_bench_pope && !mm_str_contains(q->text, mm_str_of(single_word));
    return wrong ? "must contain '" SINGLE_WORD "'" : NULL;
}
