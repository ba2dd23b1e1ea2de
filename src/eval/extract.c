// From what a model said to the answer that is scored.
#include "eval/extract.h"

static bool has_letter(const struct mm_choices *c, int k) {
    return c->text[k].s != NULL;
}

// The option stage: whole tokens that are letters. 0: none, or more than one.
static char infer_option(struct mm_buf *room, struct mm_str answer, const struct mm_choices *c) {
    static const char *const refusals[] = {
        "Sorry, I can't help with images of people yet.", "I can't process this file.",
        "I'm sorry, but without the image provided", "Cannot determine the answer"};
    if (mm_str_contains(answer, mm_str_of("Failed to obtain answer via API"))) return 0;
    for (int i = 0; i < 4; i++) {
        if (mm_str_contains(answer, mm_str_of(refusals[i]))) return 'Z';
    }
    mm_buf_reset(room);
    mm_buf_add(room, answer.n ? answer.s : "", answer.n);
    for (size_t i = 0; i < room->len; i++) {
        if (room->data[i] && strchr(".()[],:;!*#{}", room->data[i])) room->data[i] = ' ';
    }
    bool seen[26] = {0};
    const struct mm_str text = {room->data ? room->data : "", room->len};
    size_t at = 0;
    struct mm_str word;
    while (mm_text_word(text, &at, &word)) {
        if (word.n == 1 && word.s[0] >= 'A' && word.s[0] <= 'Z') seen[word.s[0] - 'A'] = true;
    }
    int n = 0;
    char found = 0;
    for (int k = 0; k < 26; k++) {
        if (!has_letter(c, k) || !seen[k]) continue;
        n++;
        found = (char)('A' + k);
    }
    if (n == 1) return found;
    return n == 0 && seen['Z' - 'A'] ? 'Z' : 0;
}

char mm_can_infer(struct mm_normalizer *room, struct mm_str answer, const struct mm_choices *c) {
    const char option = infer_option(&room->a, answer, c);
    if (option) return option;
    const struct mm_str said = mm_text_lower(&room->a, answer);
    int n = 0;
    char found = 0;
    for (int k = 0; k < 26; k++) {
        if (!has_letter(c, k)) continue;
        if (mm_str_contains(said, mm_text_lower(&room->b, c->text[k]))) {
            n++;
            found = (char)('A' + k);
        }
    }
    return n == 1 ? found : 0;
}

enum mm_yes_no mm_yorn_extract(struct mm_normalizer *room, struct mm_str answer) {
    const struct mm_str text = mm_process_punctuation(room, mm_text_lower(&room->b, answer));
    bool yes = false, no = false;
    size_t at = 0;
    struct mm_str word;
    while (mm_text_word(text, &at, &word)) {
        yes = yes || mm_str_is(word, "yes");
        no = no || mm_str_is(word, "no");
    }
    if (yes == no) return mm_yes_no_unknown;
    return yes ? mm_yes_no_yes : mm_yes_no_no;
}

enum mm_yes_no mm_pope_extract(struct mm_str answer) {
    const char *stop = answer.n ? memchr(answer.s, '.', answer.n) : NULL;
    const size_t n = stop ? (size_t)(stop - answer.s) : answer.n;
    // Words between single spaces, commas not counted: "n,o" is "no". 4 bytes tell all there is.
    char word[4];
    size_t len = 0;
    for (size_t i = 0; i <= n; i++) {
        const char c = i < n ? answer.s[i] : ' ';
        if (c == ',') continue;
        if (c != ' ') {
            if (len < sizeof word) word[len] = c;
            len++;
            continue;
        }
        if ((len == 2 && (word[0] == 'N' || word[0] == 'n') && word[1] == 'o') ||
            (len == 3 && !memcmp(word, "not", 3))) {
            return mm_yes_no_no;
        }
        len = 0;
    }
    return mm_yes_no_yes;
}

struct mm_str mm_gqa_convert(struct mm_buf *out, struct mm_str answer) {
    while (answer.n && answer.s[answer.n - 1] == '.')
        answer.n--;
    return mm_text_lower(out, answer);
}
