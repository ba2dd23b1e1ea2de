#include "infer/batch.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "infer/writing.h"

struct seat {
    struct mm_writing w;
    void *tag;
    enum mm_code code;
    struct mm_error error;
};

struct mm_batch {
    struct mm_engine *e;
    int max, n;
    struct seat *seats;            // (max) the first n are taken, in the order of joining
    struct mm_writing **stepping;  // (max) of this step
    int64_t n_taken, n_tokens;     // answers taken out, and their tokens
};

enum mm_code mm_batch_new(struct mm_batch **out, struct mm_engine *e, int max,
                          struct mm_error *err) {
    *out = NULL;
    if (max < 1 || max > mm_batch_max) {
        return mm_fail(err, mm_code_input, "a batch of %d, wanted 1 to %d", max, mm_batch_max);
    }
    MM_TRY(mm_engine_reserve_steps(e, max, err));
    struct mm_batch *b = mm_xcalloc(1, sizeof *b);
    b->e = e;
    b->max = max;
    b->seats = mm_xcalloc((size_t)max, sizeof *b->seats);
    b->stepping = mm_xcalloc((size_t)max, sizeof(struct mm_writing *));
    *out = b;
    return mm_code_ok;
}

void mm_batch_free(struct mm_batch *b) {
    if (b == NULL) return;
    free(b->seats);
    free(b->stepping);
    free(b);
}

int mm_batch_count(const struct mm_batch *b) {
    return b->n;
}

enum mm_code mm_batch_join(struct mm_batch *b, struct mm_session *s, const struct mm_generation *g,
                           const struct mm_listener *listener, void *tag, struct mm_error *err) {
    assert(b->n < b->max && s->e == b->e);
    for (int i = 0; i < b->n; i++)
        assert(b->seats[i].w.s != s);
    struct seat *seat = &b->seats[b->n];
    *seat = (struct seat){.tag = tag};
    MM_TRY(mm_writing_begin(&seat->w, s, g, listener, err));
    b->n++;
    return mm_code_ok;
}

static bool is_over(const struct seat *seat) {
    return seat->code != mm_code_ok || seat->w.over;
}

// Steps to take before the host looks. The seat of an answer that ends among them stays empty for
// half of them on average. Where nobody waits for a seat that costs nothing; of a full batch it is
// to be less than a hundredth of what the answers so far took.
static int most_steps(const struct mm_batch *b) {
    if (b->n < b->max) return mm_stepper_ahead;
    const int64_t steps = b->n_taken > 0 ? b->n_tokens / b->n_taken / 50 : 1;
    return steps < mm_stepper_ahead ? (int)steps : mm_stepper_ahead;
}

enum mm_code mm_batch_step(struct mm_batch *b, struct mm_error *err) {
    int n = 0;
    bool ahead = false;
    for (int i = 0; i < b->n; i++) {
        struct seat *seat = &b->seats[i];
        if (is_over(seat)) continue;
        // who joined while others are ahead waits with the first token, to go on with them
        if (!mm_writing_waits(&seat->w)) seat->code = mm_writing_draw(&seat->w, &seat->error);
        if (is_over(seat)) continue;
        if (mm_writing_go_on(&seat->w)) ahead = true;
        b->stepping[n++] = &seat->w;
    }
    if (n == 0 || ahead) return mm_code_ok;
    const enum mm_code code = mm_writings_read_token(b->stepping, n, most_steps(b), err);
    for (int i = 0; code && i < b->n; i++) {
        struct seat *seat = &b->seats[i];
        if (is_over(seat)) continue;
        mm_writing_fail(&seat->w);
        seat->code = code;
        if (err) seat->error = *err;
    }
    return code;
}

static void take(struct mm_batch *b, int i, struct mm_batch_done *done) {
    const struct seat *seat = &b->seats[i];
    *done = (struct mm_batch_done){seat->w.s, seat->tag, seat->code, seat->w.answer, seat->error};
    b->n--;
    b->n_taken++;
    b->n_tokens += seat->w.answer.new_tokens;
    memmove(&b->seats[i], &b->seats[i + 1], (size_t)(b->n - i) * sizeof *b->seats);
}

bool mm_batch_take(struct mm_batch *b, struct mm_batch_done *done) {
    for (int i = 0; i < b->n; i++) {
        if (!is_over(&b->seats[i])) continue;
        take(b, i, done);
        return true;
    }
    return false;
}

void mm_batch_leave(struct mm_batch *b, struct mm_session *s, struct mm_batch_done *done) {
    int i = 0;
    while (i < b->n && b->seats[i].w.s != s)
        i++;
    assert(i < b->n);
    if (!is_over(&b->seats[i])) mm_writing_cancel(&b->seats[i].w);
    take(b, i, done);
}
