// Sorting by pieces and merging them.
#include "eval/sorter.h"

#include <stdbool.h>
#include <stdlib.h>
#include "eval/spool.h"

enum {
    fan_in = 16,         // pieces merged at once
    least_window = 4096  // of each piece in memory meanwhile; together they take the room
};

struct head {  // in front of each record's key and value
    uint32_t key, value;
};

struct entry {  // of a record in memory
    uint64_t prefix;
    size_t at;
};

// A sorted piece in the temporary file.
struct run {
    int64_t begin, end;
    int level;  // how often its records were merged
};

// A piece being read.
struct source {
    int64_t at, end;  // what is not in the window yet
    char *window;
    size_t cap, have, next;
    struct mm_str key, value;
    uint64_t prefix;
    bool over;
};

struct mm_sorter {
    // Records from the front, their entries from the back.
    char *room;
    size_t bytes, used;
    int64_t n;
    int64_t given;  // in memory: how many were handed out
    struct mm_spool spool;
    struct run *runs;  // (n_runs) in the order in which their records came
    int64_t n_runs, runs_cap;
    struct source source[fan_in];
    int n_sources;
    struct source *last;  // whose record was handed out
    bool sorted;
};

// The first eight bytes as a number that sorts as they do: most comparisons end there.
static uint64_t prefix_of(struct mm_str key) {
    uint64_t v = 0;
    for (size_t i = 0; i < 8; i++) {
        v = v << 8 | (i < key.n ? (unsigned char)key.s[i] : 0u);
    }
    return v;
}

static void take_apart(const char *record, struct mm_str *key, struct mm_str *value) {
    struct head h;
    memcpy(&h, record, sizeof h);
    *key = (struct mm_str){record + sizeof h, h.key};
    *value = (struct mm_str){record + sizeof h + h.key, h.value};
}

struct mm_sorter *mm_sorter_new(size_t room) {
    struct mm_sorter *s = mm_xcalloc(1, sizeof *s);
    s->bytes = (room ? room : mm_sorter_room) / sizeof(struct entry) * sizeof(struct entry);
    return s;
}

void mm_sorter_free(struct mm_sorter *s) {
    if (!s) return;
    for (int i = 0; i < s->n_sources; i++) {
        free(s->source[i].window);
    }
    mm_spool_close(&s->spool);
    free(s->room);
    free(s->runs);
    free(s);
}

// ---- in memory ----

static struct entry *entries(const struct mm_sorter *s) {
    return (struct entry *)(void *)(s->room + s->bytes) - s->n;
}

static int by_key(const void *x, const void *y, void *arg) {
    const struct entry *a = x, *b = y;
    const struct mm_sorter *s = arg;
    if (a->prefix != b->prefix) return a->prefix < b->prefix ? -1 : 1;
    struct mm_str key[2], value;
    take_apart(s->room + a->at, &key[0], &value);
    take_apart(s->room + b->at, &key[1], &value);
    const int order = mm_str_compare(key[0], key[1]);
    return order ? order : (a->at > b->at) - (a->at < b->at);
}

static void sort_memory(struct mm_sorter *s) {
    if (s->n) qsort_r(entries(s), (size_t)s->n, sizeof(struct entry), by_key, s);
}

// ---- pieces ----

static void add_run(struct mm_sorter *s, struct run r) {
    if (s->n_runs == s->runs_cap) {
        s->runs_cap = s->runs_cap ? 2 * s->runs_cap : 64;
        s->runs = mm_xrealloc(s->runs, (size_t)s->runs_cap * sizeof *s->runs);
    }
    s->runs[s->n_runs++] = r;
}

static enum mm_code write_record(struct mm_sorter *s, struct mm_str key, struct mm_str value,
                                 struct mm_error *err) {
    const struct head h = {(uint32_t)key.n, (uint32_t)value.n};
    MM_TRY(mm_spool_add(&s->spool, &h, sizeof h, err));
    MM_TRY(mm_spool_add(&s->spool, key.s, key.n, err));
    return mm_spool_add(&s->spool, value.s, value.n, err);
}

// Makes the window hold n bytes from where it stands.
static enum mm_code fill(const struct mm_sorter *s, struct source *f, size_t n,
                         struct mm_error *err) {
    if (f->have - f->next >= n) return mm_code_ok;
    memmove(f->window, f->window + f->next, f->have - f->next);
    f->have -= f->next;
    f->next = 0;
    if (f->cap < n) {
        f->cap = n;
        f->window = mm_xrealloc(f->window, f->cap);
    }
    const size_t left = (size_t)(f->end - f->at), room = f->cap - f->have;
    const size_t more = left < room ? left : room;
    MM_TRY(mm_spool_read(&s->spool, f->at, f->window + f->have, more, err));
    f->at += (int64_t)more;
    f->have += more;
    return mm_code_ok;
}

static enum mm_code advance(const struct mm_sorter *s, struct source *f, struct mm_error *err) {
    struct head h;
    f->over = f->at == f->end && f->have == f->next;
    if (f->over) return mm_code_ok;
    MM_TRY(fill(s, f, sizeof h, err));
    memcpy(&h, f->window + f->next, sizeof h);
    const size_t n = sizeof h + h.key + h.value;
    MM_TRY(fill(s, f, n, err));
    take_apart(f->window + f->next, &f->key, &f->value);
    f->prefix = prefix_of(f->key);
    f->next += n;
    return mm_code_ok;
}

static enum mm_code open_sources(struct mm_sorter *s, const struct run *runs, int n,
                                 struct mm_error *err) {
    const size_t share = s->bytes / fan_in,
                 window_bytes = share > least_window ? share : least_window;
    for (int i = 0; i < n; i++) {
        struct source *f = &s->source[i];
        char *window = i < s->n_sources ? f->window : mm_xmalloc(window_bytes);
        const size_t cap = i < s->n_sources ? f->cap : window_bytes;
        *f = (struct source){.at = runs[i].begin, .end = runs[i].end, .window = window, .cap = cap};
        if (i == s->n_sources) s->n_sources++;
        MM_TRY(advance(s, f, err));
    }
    for (int i = n; i < s->n_sources; i++) {
        s->source[i].over = true;
    }
    return mm_code_ok;
}

// The source with the least key, the oldest of equal ones; NULL when all are over.
static struct source *least(struct mm_sorter *s) {
    struct source *best = NULL;
    for (int i = 0; i < s->n_sources; i++) {
        struct source *f = &s->source[i];
        if (f->over || (best && f->prefix > best->prefix)) continue;
        if (!best || f->prefix < best->prefix || mm_str_compare(f->key, best->key) < 0) best = f;
    }
    return best;
}

// The last n pieces become one.
static enum mm_code merge_last(struct mm_sorter *s, int n, struct mm_error *err) {
    const struct run *from = &s->runs[s->n_runs - n];
    const int64_t first = from->begin, begin = s->spool.bytes;
    const int level = from->level;
    MM_TRY(open_sources(s, from, n, err));
    for (struct source *f; (f = least(s)) != NULL;) {
        MM_TRY(write_record(s, f->key, f->value, err));
        MM_TRY(advance(s, f, err));
    }
    mm_spool_drop(&s->spool, first, from[n - 1].end);
    s->n_runs -= n;
    add_run(s, (struct run){begin, s->spool.bytes, level + 1});
    return mm_code_ok;
}

static enum mm_code spill(struct mm_sorter *s, struct mm_error *err) {
    const int64_t begin = s->spool.bytes;
    sort_memory(s);
    const struct entry *e = entries(s);
    for (int64_t i = 0; i < s->n; i++) {
        struct mm_str key, value;
        take_apart(s->room + e[i].at, &key, &value);
        MM_TRY(write_record(s, key, value, err));
    }
    s->n = 0;
    s->used = 0;
    add_run(s, (struct run){begin, s->spool.bytes, 0});
    while (s->n_runs >= fan_in &&
           s->runs[s->n_runs - fan_in].level == s->runs[s->n_runs - 1].level) {
        MM_TRY(merge_last(s, fan_in, err));
    }
    return mm_code_ok;
}

// ---- what is called ----

enum mm_code mm_sorter_add(struct mm_sorter *s, struct mm_str key, struct mm_str value,
                           struct mm_error *err) {
    return mm_sorter_add_two(s, key, value, (struct mm_str){NULL, 0}, err);
}

static char *append(char *to, struct mm_str s) {
    if (s.n) memcpy(to, s.s, s.n);
    return to + s.n;
}

enum mm_code mm_sorter_add_two(struct mm_sorter *s, struct mm_str key, struct mm_str value,
                               struct mm_str more, struct mm_error *err) {
    if (key.n > UINT32_MAX || value.n > UINT32_MAX / 2 || more.n > UINT32_MAX / 2) {
        return mm_fail(err, mm_code_input, "a text is longer than 2 GiB: it cannot be sorted");
    }
    const struct head h = {(uint32_t)key.n, (uint32_t)(value.n + more.n)};
    const size_t bytes = sizeof h + key.n + value.n + more.n;
    const size_t wanted = bytes + (size_t)(s->n + 1) * sizeof(struct entry);
    if (s->n && s->used + wanted > s->bytes) MM_TRY(spill(s, err));
    if (bytes + sizeof(struct entry) > s->bytes) {  // one record is larger than the room
        const size_t unit = sizeof(struct entry);
        s->bytes = (bytes + unit + unit - 1) / unit * unit;
        free(s->room);
        s->room = NULL;
    }
    if (!s->room) s->room = mm_xmalloc(s->bytes);
    char *to = append(s->room + s->used, MM_SORTER_VALUE(h));
    append(append(append(to, key), value), more);
    s->n++;
    *entries(s) = (struct entry){prefix_of(key), s->used};
    s->used += bytes;
    return mm_code_ok;
}

enum mm_code mm_sorter_sort(struct mm_sorter *s, struct mm_error *err) {
    s->sorted = true;
    if (s->n_runs == 0) {
        sort_memory(s);
        return mm_code_ok;
    }
    if (s->n) MM_TRY(spill(s, err));
    free(s->room);
    s->room = NULL;
    while (s->n_runs > fan_in) {
        MM_TRY(merge_last(s, fan_in, err));
    }
    return mm_sorter_rewind(s, err);
}

enum mm_code mm_sorter_rewind(struct mm_sorter *s, struct mm_error *err) {
    s->given = 0;
    s->last = NULL;
    return s->n_runs ? open_sources(s, s->runs, (int)s->n_runs, err) : mm_code_ok;
}

enum mm_code mm_sorter_next(struct mm_sorter *s, struct mm_str *key, struct mm_str *value,
                            struct mm_error *err) {
    *key = *value = (struct mm_str){NULL, 0};
    if (s->n_runs == 0) {
        if (s->given == s->n) return mm_code_ok;
        take_apart(s->room + entries(s)[s->given++].at, key, value);
        return mm_code_ok;
    }
    if (s->last) MM_TRY(advance(s, s->last, err));
    s->last = least(s);
    if (!s->last) return mm_code_ok;
    *key = s->last->key;
    *value = s->last->value;
    return mm_code_ok;
}
