// An answer while it is written, a token at a time: what mm_session_generate (one session) and
// mm_batch_step (several side by side) have in common.
#ifndef MM_INFER_WRITING_H
#define MM_INFER_WRITING_H

#include "infer/session.h"

struct mm_writing {
    struct mm_session *s;
    struct mm_generation how;
    struct mm_listener listener;  // both functions may be NULL
    struct mm_answer answer;      // whole when `over`
    double asked, first, last;    // mm_now() of the question, the first token, the last
    bool over;
    uint64_t number;  // of the engine's answers
    int steps;        // that were taken together the last time; 0: none were yet
    double step_s;    // how long one of them took
};

// Checks what is asked, reads what waits in the session, and makes room, so that no step allocates.
// When it fails the turn is taken back, as mm_session_prefill says.
enum mm_code mm_writing_begin(struct mm_writing *w, struct mm_session *s,
                              const struct mm_generation *g, const struct mm_listener *l,
                              struct mm_error *err);
// Draws the next token from the session's logits and shows its text. Afterwards either the answer
// is over, or the token waits to be read (mm_writings_read_token). When it fails the turn is taken
// back.
enum mm_code mm_writing_draw(struct mm_writing *w, struct mm_error *err);
// Ends an answer that is not over where it is, as a listener that returns false would.
void mm_writing_cancel(struct mm_writing *w);
// After a failure of the step: the turn is taken back.
void mm_writing_fail(struct mm_writing *w);

// Whether a token waits to be read that no step has read yet.
bool mm_writing_waits(const struct mm_writing *w);
// Counts the token that was drawn last as read, if a step before has read it; false: none has.
bool mm_writing_go_on(struct mm_writing *w);
// Reads the token that waits in each of n different sessions of one engine, and draws the next ones
// where the logits are: nothing but those comes to the host. Up to `most` steps are taken before
// the host looks, where the backend computes beside it. When it fails the turns must be taken back.
enum mm_code mm_writings_read_token(struct mm_writing *const *w, int n, int most,
                                    struct mm_error *err);

// Room for steps of n sessions: to be called before, so that steps take none.
enum mm_code mm_engine_reserve_steps(struct mm_engine *e, int n, struct mm_error *err);
// Reads the first token that waits in each of n different sessions of one engine, none a picture's;
// each weight is read once for all of them.
enum mm_code mm_sessions_read_token(struct mm_session *const *s, int n, struct mm_error *err);

#endif
