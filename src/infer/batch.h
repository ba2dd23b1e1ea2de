// Several sessions of one engine that answer side by side: a step draws and reads one token of
// each, and reads each weight once for all of them. Sessions join and leave between steps, and each
// gets the tokens that it would have got from mm_session_generate alone (on a GPU as long as there
// are few: see ops/step.h).
//
//     mm_batch_new(&b, e, 8, err);
//     while (more questions || mm_batch_count(b) > 0) {
//         while (more questions && mm_batch_count(b) < 8) {
//             ... a session with the question added ...
//             mm_batch_join(b, session, &generation, NULL, tag, err);    // reads the question
//         }
//         mm_batch_step(b, err);
//         struct mm_batch_done done;
//         while (mm_batch_take(b, &done)) ... done.session, done.tag, done.answer.text ...
//     }
//     mm_batch_free(b);
#ifndef MM_INFER_BATCH_H
#define MM_INFER_BATCH_H

#include "infer/session.h"

struct mm_batch;

enum { mm_batch_max = 1024 };
// Room for `max` sessions, 1 to mm_batch_max. Working memory for them is taken here: steps take
// none.
enum mm_code mm_batch_new(struct mm_batch **b, struct mm_engine *e, int max, struct mm_error *err);
void mm_batch_free(struct mm_batch *b);  // sessions that are still in stay the caller's; NULL: none
int mm_batch_count(const struct mm_batch *b);  // sessions that are in, answers to take included

// Reads what waits in the session and begins its answer. The session must be of the batch's engine
// and not be in already; until it is taken out nobody else may touch it. The batch must have room
// (a full one is the caller's bug). `tag` is the caller's own. Fails as mm_session_generate does;
// the session is then not in. listener NULL: nobody listens.
enum mm_code mm_batch_join(struct mm_batch *b, struct mm_session *s, const struct mm_generation *g,
                           const struct mm_listener *listener, void *tag, struct mm_error *err);
// One token of each session whose answer is not over; on a GPU, who joins when others are some
// tokens ahead of what was handed out has to wait for these after its first token. What goes wrong
// in one session ends its answer only; a failure that is returned is one of the device, and took
// back every turn.
enum mm_code mm_batch_step(struct mm_batch *b, struct mm_error *err);

struct mm_batch_done {
    struct mm_session *session;
    void *tag;
    enum mm_code code;        // of this answer; when it is not mm_code_ok, `error` says why
    struct mm_answer answer;  // its text is the session's, until its next answer
    struct mm_error error;
};
// Takes out a session whose answer is over, in the order in which they joined; false: there is
// none.
bool mm_batch_take(struct mm_batch *b, struct mm_batch_done *done);
// Takes out a session before its answer is over: the answer is "cancelled". It must be in.
void mm_batch_leave(struct mm_batch *b, struct mm_session *s, struct mm_batch_done *done);

#endif
