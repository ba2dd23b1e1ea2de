// Choosing and ordering questions.
#include "eval/plan.h"

#include <stdlib.h>
#include "eval/prompt.h"

enum { max_parts = 1000000 };

enum mm_code mm_shard_parse(struct mm_shard *s, const char *text, struct mm_error *err) {
    char *end = NULL, *last = NULL;
    const bool digit = text[0] >= '0' && text[0] <= '9';
    const long long part = digit ? strtoll(text, &end, 10) : 0;
    const bool second = digit && *end == '/' && end[1] >= '0' && end[1] <= '9';
    const long long parts = second ? strtoll(end + 1, &last, 10) : 0;
    if (!second || *last || part < 1 || parts > max_parts || part > parts) {
        return mm_fail(err, mm_code_usage,
                       "--shard is '%s', must be I/N with 1 <= I <= N: part I of N parts", text);
    }
    *s = (struct mm_shard){part, parts};
    return mm_code_ok;
}

static int by_picture(const void *a, const void *b) {
    const struct mm_plan_item *x = a, *y = b;
    if (x->picture != y->picture) return x->picture < y->picture ? -1 : 1;
    return (x->place.number > y->place.number) - (x->place.number < y->place.number);
}

static enum mm_code add_all(struct mm_plan *plan, struct mm_names *shown, struct mm_buf *key,
                            struct mm_questions *questions, struct mm_pictures *pictures,
                            int64_t limit, struct mm_shard shard, struct mm_error *err) {
    int64_t cap = 0, chosen_cap = 0;
    for (;;) {
        struct mm_question q;
        bool end;
        MM_TRY(mm_questions_next(questions, &q, &end, err));
        if (end) return mm_code_ok;
        if (mm_names_add(&plan->index, q.index) != plan->n_questions) {
            return mm_questions_wrong(questions, questions->kit ? "question_id" : "index", err,
                                      "has been there before");
        }
        const char *wrong = mm_prompt_wrong(questions->bench, &q, questions->kit);
        plan->n_doubled += mm_prompt_is_doubled(questions->bench, &q);
        if (wrong) return mm_questions_wrong(questions, "text", err, wrong);
        if (plan->n_questions == chosen_cap) {
            chosen_cap = chosen_cap ? 2 * chosen_cap : 1024;
            plan->chosen = mm_xrealloc(plan->chosen, (size_t)chosen_cap);
        }
        const int64_t number = plan->n_questions++;
        plan->chosen[number] = 0;
        if (limit && number >= limit) continue;
        MM_TRY(mm_pictures_key(pictures, key, err));
        const struct mm_str seen = {key->data ? key->data : "", key->len};
        const int64_t picture = mm_names_add(shown, seen);
        if (shard.parts && picture % shard.parts != shard.part - 1) continue;
        if (plan->n == cap) {
            cap = cap ? 2 * cap : 1024;
            plan->item = mm_xrealloc(plan->item, (size_t)cap * sizeof *plan->item);
        }
        plan->chosen[number] = 1;
        plan->item[plan->n++] = (struct mm_plan_item){mm_questions_tell(questions), picture};
    }
}

enum mm_code mm_plan_make(struct mm_plan *plan, struct mm_questions *questions,
                          struct mm_pictures *pictures, int64_t limit, struct mm_shard shard,
                          struct mm_error *err) {
    struct mm_names shown = {0};
    struct mm_buf key = {0};
    *plan = (struct mm_plan){0};
    const enum mm_code code = add_all(plan, &shown, &key, questions, pictures, limit, shard, err);
    mm_names_free(&shown);
    mm_buf_free(&key);
    if (code != mm_code_ok) {
        mm_plan_free(plan);
        return code;
    }
    if (plan->n) qsort(plan->item, (size_t)plan->n, sizeof *plan->item, by_picture);
    return mm_code_ok;
}

void mm_plan_free(struct mm_plan *plan) {
    mm_names_free(&plan->index);
    free(plan->item);
    free(plan->chosen);
    *plan = (struct mm_plan){0};
}
