// Messages for people, on standard error; progress of long work; interruption.
#ifndef MM_BASE_LOG_H
#define MM_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum mm_log_level { mm_log_level_error, mm_log_level_warn, mm_log_level_info, mm_log_level_debug };

void mm_log_set_level(enum mm_log_level level);  // --quiet is mm_log_level_warn
enum mm_log_level mm_log_get_level(void);
void mm_log(enum mm_log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));
#define mm_info(...) mm_log(mm_log_level_info, __VA_ARGS__)
#define mm_warn(...) mm_log(mm_log_level_warn, __VA_ARGS__)

double mm_now(void);  // seconds, monotonic

// A bar with rate and time to go. On a terminal one line that is redrawn; otherwise a plain line
// every ten seconds. Nothing under --quiet. `note` is shown at the end of the line (a loss, say).
struct mm_progress {
    const char *what, *unit;
    int64_t total, done;    // total 0: unknown
    int64_t done_at_start;  // resumed work counts from here for the rate
    double started, drawn;  // mm_now()
    bool terminal;
};
void mm_progress_begin(struct mm_progress *p, const char *what, const char *unit, int64_t total,
                       int64_t done);
void mm_progress_update(struct mm_progress *p, int64_t done, const char *note);
void mm_progress_end(struct mm_progress *p);

// Has SIGINT and SIGTERM handled on a stack of their own, in the thread that calls this: oneDNN's
// products may put the stack's pointer into a small buffer of the heap, which a handler's frame
// would write below. flags: of sigaction.
void mm_signal_catch(void (*handler)(int), int flags);
// SIGINT and SIGTERM set a flag that long loops poll; a second SIGINT ends the process at once.
void mm_interrupt_catch(void);
bool mm_interrupted(void);

#endif
