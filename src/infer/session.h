// A conversation: the state of the model after the tokens so far, those tokens, and what is needed
// to go on exactly. Turns are appended to the state; nothing is ever processed again.
//
// A benchmark that asks several questions about one picture:
//     mm_session_new(&base, e, &options, err);          // options.n_marks = 0: nothing is rewound
//     mm_session_add_text(base, "<|im_start|>system\n...<|im_start|>user\n<image>", &pic, 1, err);
//     mm_session_prefill(base, NULL, err);
//     for each question:
//         mm_session_fork(&s, base, err);
//         mm_session_add_text(s, "\nquestion<|im_end|><|im_start|>assistant\n", NULL, 0, err);
//         mm_session_generate(s, &generation, NULL, &answer, err);   // answer.text
//         mm_session_free(s);
// Cut the text only beside a special token (here </img>, which closes a picture): elsewhere two
// pieces may get other ids than the whole.
#ifndef MM_INFER_SESSION_H
#define MM_INFER_SESSION_H

#include "infer/answer.h"
#include "infer/engine.h"
#include "infer/picture.h"

struct mm_session_options {
    const char *system;    // the system message; NULL: InternVL's
    int32_t min_tiles;     // of a picture; 0: the config's
    int32_t max_tiles;     // 0: the config's
    int64_t piece_tokens;  // read at a time; 0: as many as suit the backend
    int n_marks;           // turns that can be taken back; each costs one fixed state
};
enum { mm_session_default_marks = 8, mm_session_max_marks = 1024 };
#define MM_SESSION_OPTIONS ((struct mm_session_options){NULL, 0, 0, 0, mm_session_default_marks})

// The state at the start of a turn. Keys and values of kept attention are not in it: rows are only
// ever appended, so going back means forgetting the last of them. Shared by forks.
struct mm_mark {
    int n_refs;
    void *fixed;  // device memory, NULL for the empty state
    int64_t n_embed, n_llm, n_ids, n_fed, n_answered, answer_from;
    float *logits;  // (V), NULL when there were none
    struct mm_rng rng;
    bool finished;
    int64_t n_turns;
};

// Steps that were taken before the host looked at what they drew. The state has read all tokens
// drawn but the last, and ids, n_fed and rng those only that were taken from here: what a session
// is stays as if each step had waited for the host (mm_session_settle makes it so).
struct mm_ahead {
    int n, at;      // tokens drawn; of them, taken
    int64_t n_fed;  // of ids, before the first of these steps
    int64_t n_embed, n_llm;
    int32_t ids[mm_stepper_ahead];
    struct mm_rng rng[mm_stepper_ahead];  // after each draw
    void *fixed;  // device memory: the state before the first of several steps; NULL: never were
};

struct mm_session {
    struct mm_engine *e;
    struct mm_state state;
    struct mm_ids ids;    // everything said, pictures as their tokens
    int64_t n_fed;        // of ids, those that are in the state; the rest waits
    int64_t n_answered;   // of ids, up to the end of the last answer
    int64_t answer_from;  // of ids, where the last answer begins
    int64_t n_turns;
    float *logits;  // (V) after ids[n_fed - 1], but for `row`
    int64_t row;    // of the engine's stepper that still has them; -1: none. Within answers only
    struct mm_ahead ahead;
    bool have_logits;  // false only before the first token
    bool finished;     // the last answer ended with <|im_end|>, and nothing was added since
    bool marked;       // nothing but turns was added since the last mark
    bool broken;       // a failure left the state inside a turn
    struct mm_sampling sampling;
    struct mm_rng rng;
    struct mm_queued_picture *pictures;  // (n_pictures) waiting, in order
    int n_pictures;
    struct mm_mark **marks;  // (n_marks) the oldest first
    int n_marks, max_marks;
    struct mm_tile_rule tiles;
    int64_t piece_tokens;
    char *system;
    struct mm_answer_text answer;
    double asked_at;  // mm_now() when the waiting turn was added
};

// Sampling starts as the engine's (generation_config.json, else greedy), the seed as 0.
enum mm_code mm_session_new(struct mm_session **s, struct mm_engine *e,
                            const struct mm_session_options *options, struct mm_error *err);
void mm_session_free(struct mm_session *s);  // NULL is allowed
enum mm_code mm_session_set_sampling(struct mm_session *s, const struct mm_sampling *how,
                                     struct mm_error *err);
void mm_session_set_seed(struct mm_session *s, uint64_t seed);  // the numbers start again
// Fails for a session that an earlier failure left inside a turn with no mark to go back to.
enum mm_code mm_session_check(const struct mm_session *s, struct mm_error *err);

// Appends a user's turn and opens the answer; the system message comes first in an empty session,
// and an answer that was cut short is closed. What the user wrote cannot become special tokens.
// Pictures go where the text says "<image>"; where it does not, "<image>\n" comes in front, or
// "Image-1: <image>\nImage-2: <image>\n" for several. Nothing is computed yet, but picture headers
// are read, so bad files fail here and leave the session as it was.
enum mm_code mm_session_add_turn(struct mm_session *s, const char *text,
                                 const struct mm_picture *pictures, int n_pictures,
                                 struct mm_error *err);
// Appends text in which special tokens count and each "<image>" is a picture (without pictures it
// is text, as the published chat() leaves it); BOS comes first in an empty session. Turns are the
// caller's own affair, and cannot be rewound to.
enum mm_code mm_session_add_text(struct mm_session *s, const char *text,
                                 const struct mm_picture *pictures, int n_pictures,
                                 struct mm_error *err);

// Hears of progress; both may be NULL, either returning false stops the work.
struct mm_listener {
    bool (*read)(void *arg, int64_t n_read, int64_t n_all);     // after each piece of the prompt
    bool (*text)(void *arg, const char *text, size_t n_bytes);  // whole characters of the answer
    void *arg;
};
// Reads what waits, in pieces of constant memory. When it fails, or the listener stops it
// (mm_code_interrupted), the turn is taken back; without a mark the session is unusable after.
enum mm_code mm_session_prefill(struct mm_session *s, const struct mm_listener *l,
                                struct mm_error *err);

enum mm_finish { mm_finish_stop, mm_finish_length, mm_finish_cancelled };
const char *mm_finish_name(enum mm_finish f);  // "stop", "length", "cancelled"

struct mm_answer {
    const char *text;  // UTF-8 without special tokens and outer white space; the session's, until
    size_t n_bytes;    // the next answer
    enum mm_finish finish;
    int64_t prompt_tokens;  // since the last answer, pictures included
    int64_t new_tokens;     // drawn, <|im_end|> included
    double ttft_s;          // from adding the turn to the first token
    double decode_s;        // from the first token to the last
    double decode_tok_s;    // (new_tokens - 1) / decode_s; 0 when there was only one
};
// Reads what waits and writes the answer. After "length" or "cancelled" another call continues the
// answer; after "stop" a turn must come first. Inside, no step allocates.
enum mm_code mm_session_generate(struct mm_session *s, const struct mm_generation *g,
                                 const struct mm_listener *l, struct mm_answer *a,
                                 struct mm_error *err);

// An independent copy: the fixed state, the rows used of kept attention, everything else. Both go
// on exactly as the one would have.
enum mm_code mm_session_fork(struct mm_session **to, const struct mm_session *from,
                             struct mm_error *err);
// Takes back the last n turns, exactly: state, tokens, random numbers. At most s->n_marks.
enum mm_code mm_session_rewind(struct mm_session *s, int n, struct mm_error *err);
// For those who look at the state or at s->logits: takes back the steps that are ahead of n_fed,
// and brings logits that are still in the stepper's memory (`row`) to the host. What was drawn and
// not taken is forgotten: it will be drawn again.
enum mm_code mm_session_settle(const struct mm_session *s, struct mm_error *err);
// Bytes of keys and values of kept attention that are in use.
int64_t mm_session_cache_bytes(const struct mm_session *s);
// Appends everything said: markers in place, pictures as "<image>".
void mm_session_text(const struct mm_session *s, struct mm_buf *out);

#endif
