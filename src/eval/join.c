// Entries found for questions.
#include "eval/join.h"

#include <stdlib.h>

void mm_join_free(struct mm_join *j) {
    mm_sorter_free(j->given);
    mm_sorter_free(j->found);
    free(j->twice.key);
    free(j->stray.key);
    *j = (struct mm_join){0};
}

enum mm_code mm_join_add(struct mm_join *j, struct mm_str key, struct mm_join_place place,
                         struct mm_str value, struct mm_error *err) {
    if (!j->given) j->given = mm_sorter_new(j->room);
    return mm_sorter_add_two(j->given, key, MM_SORTER_VALUE(place), value, err);
}

static bool before(struct mm_join_place a, struct mm_join_place b) {
    return a.file != b.file ? a.file < b.file : a.line < b.line;
}

static void note(struct mm_join_trouble *t, struct mm_str key, struct mm_join_place place,
                 struct mm_join_place first) {
    if (t->key && !before(place, t->place)) return;
    free(t->key);
    t->key = mm_xasprintf("%.*s", (int)(key.n < 200 ? key.n : 200), key.s);
    t->place = place;
    t->first = first;
}

static enum mm_code read_questions(struct mm_sorter *s, const struct mm_questions *all,
                                   struct mm_error *err) {
    struct mm_questions again;
    mm_questions_share(&again, all);
    enum mm_code code = mm_code_ok;
    while (code == mm_code_ok) {
        struct mm_question q;
        bool end;
        code = mm_questions_next(&again, &q, &end, err);
        if (code != mm_code_ok || end) break;
        code = mm_sorter_add(s, q.index, MM_SORTER_VALUE(q.number), err);
    }
    mm_questions_unshare(&again);
    return code == mm_code_ok ? mm_sorter_sort(s, err) : code;
}

// The indexes of all questions with their numbers. Several files may be joined to one data set: it
// is read once.
static enum mm_code sort_questions(struct mm_join *j, const struct mm_questions *all,
                                   struct mm_error *err) {
    if (*j->keys) return mm_sorter_rewind(*j->keys, err);
    *j->keys = mm_sorter_new(j->room);
    return read_questions(*j->keys, all, err);
}

struct question {
    struct mm_str key;
    int64_t number;
};

static enum mm_code next_question(struct mm_sorter *s, struct question *q, struct mm_error *err) {
    struct mm_str value;
    MM_TRY(mm_sorter_next(s, &q->key, &value, err));
    if (q->key.s) memcpy(&q->number, value.s, sizeof q->number);
    return mm_code_ok;
}

// Both sides go forward together. A second entry of one key is only noted.
static enum mm_code match(struct mm_join *j, struct mm_sorter *questions, struct mm_error *err) {
    struct question q;
    struct mm_str key, value;
    struct mm_join_place place, first = {0};
    struct mm_buf last = {0};
    bool any = false;
    enum mm_code code = next_question(questions, &q, err);
    while (code == mm_code_ok) {
        code = mm_sorter_next(j->given, &key, &value, err);
        if (code != mm_code_ok || !key.s) break;
        memcpy(&place, value.s, sizeof place);
        value = (struct mm_str){value.s + sizeof place, value.n - sizeof place};
        if (any && mm_str_equal(key, (struct mm_str){last.data, last.len})) {
            note(&j->twice, key, place, first);
            continue;
        }
        any = true;
        mm_buf_reset(&last);
        mm_buf_add(&last, key.s, key.n);
        first = place;
        while (code == mm_code_ok && q.key.s && mm_str_compare(q.key, key) < 0) {
            code = next_question(questions, &q, err);
        }
        bool found = false;
        while (code == mm_code_ok && q.key.s && mm_str_equal(q.key, key)) {
            char room[8];
            found = true;
            code = mm_sorter_add(j->found, mm_sorter_number(q.number, room), value, err);
            if (code == mm_code_ok) code = next_question(questions, &q, err);
        }
        if (!found && place.wanted) note(&j->stray, key, place, place);
    }
    mm_buf_free(&last);
    return code;
}

enum mm_code mm_join_run(struct mm_join *j, const struct mm_questions *all, struct mm_error *err) {
    if (!j->given) j->given = mm_sorter_new(j->room);
    j->found = mm_sorter_new(j->room);
    j->keys = all->keys ? all->keys : &j->own_keys;
    enum mm_code code = mm_sorter_sort(j->given, err);
    if (code == mm_code_ok) code = sort_questions(j, all, err);
    if (code == mm_code_ok) code = match(j, *j->keys, err);
    mm_sorter_free(j->own_keys);
    j->keys = NULL;
    j->own_keys = NULL;
    mm_sorter_free(j->given);
    j->given = NULL;
    return code == mm_code_ok ? mm_sorter_sort(j->found, err) : code;
}

enum mm_code mm_join_get(struct mm_join *j, int64_t number, struct mm_str *value,
                         struct mm_error *err) {
    *value = (struct mm_str){NULL, 0};
    while (j->found && !j->over && (!j->open || j->next < number)) {
        struct mm_str key;
        MM_TRY(mm_sorter_next(j->found, &key, &j->value, err));
        j->open = true;
        j->over = !key.s;
        if (key.s) j->next = mm_sorter_number_of(key);
    }
    if (j->open && !j->over && j->next == number) *value = j->value;
    return mm_code_ok;
}
