// Messages, progress and interruption. Whatever is said here goes to standard error as one write
// a line, so that lines of several threads do not mix.
#include "base/log.h"

#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

static _Atomic int level = mm_log_level_info;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool bar_shown;  // under lock: the cursor stands at the end of a progress bar

void mm_log_set_level(enum mm_log_level l) {
    atomic_store_explicit(&level, (int)l, memory_order_relaxed);
}

enum mm_log_level mm_log_get_level(void) {
    return (enum mm_log_level)atomic_load_explicit(&level, memory_order_relaxed);
}

double mm_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

// Writes text under the lock; a bar in the way is erased first (it is redrawn at its next update).
static void emit(const char *text, bool is_bar) {
    pthread_mutex_lock(&lock);
    fprintf(stderr, "%s%s", bar_shown ? "\r\033[K" : "", text);
    fflush(stderr);
    bar_shown = is_bar;
    pthread_mutex_unlock(&lock);
}

void mm_log(enum mm_log_level l, const char *format, ...) {
    if (l > mm_log_get_level()) return;
    static const char *const prefix[] = {"mmamba: ", "mmamba: warning: ", "", "debug: "};
    char text[4096];
    int n = snprintf(text, sizeof text, "%s", prefix[l]);
    va_list args;
    va_start(args, format);
    const int m = vsnprintf(text + n, sizeof text - (size_t)n - 1, format, args);
    va_end(args);
    n = m < 0 ? n : n + m < (int)sizeof text - 1 ? n + m : (int)sizeof text - 2;
    memcpy(text + n, "\n", 2);
    emit(text, false);
}

// 75 -> "1:15", 3700 -> "1:01:40".
static void format_time(char *out, size_t cap, double seconds) {
    const long s = seconds < 0 ? 0 : seconds > 3.6e8 ? 360000000 : (long)(seconds + 0.5);
    if (s >= 3600) {
        snprintf(out, cap, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    } else {
        snprintf(out, cap, "%ld:%02ld", s / 60, s % 60);
    }
}

static int terminal_width(void) {
    struct winsize w;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 20 ? w.ws_col : 80;
}

// "what  [####....] 120/300 steps  3.2/s  1:15 left  note"
static void format_line(const struct mm_progress *p, double now, const char *note, bool last,
                        char *out, size_t cap) {
    const double elapsed = now - p->started;
    const double fresh = (double)(p->done - p->done_at_start);
    const double rate = elapsed > 0 ? fresh / elapsed : 0;
    char count[96], time[48], bar[32] = "", left[64] = "";
    if (p->total > 0) {
        snprintf(count, sizeof count, "%lld/%lld %s", (long long)p->done, (long long)p->total,
                 p->unit);
    } else {
        snprintf(count, sizeof count, "%lld %s", (long long)p->done, p->unit);
    }
    if (p->terminal && p->total > 0 && !last) {
        const int full = (int)(20.0 * (double)p->done / (double)p->total);
        for (int i = 0; i < 20; i++) {
            bar[i + 1] = i < full ? '#' : '.';
        }
        bar[0] = '[';
        memcpy(bar + 21, "] ", 3);
    }
    if (last) {
        format_time(time, sizeof time, elapsed);
        snprintf(left, sizeof left, "  in %s", time);
    } else if (p->total > 0 && rate > 0) {
        format_time(time, sizeof time, (double)(p->total - p->done) / rate);
        snprintf(left, sizeof left, "  %s left", time);
    }
    snprintf(out, cap, "%s  %s%s  %.*f/s%s%s%s", p->what, bar, count, rate < 10 ? 2 : rate < 100,
             rate, left, note && *note ? "  " : "", note ? note : "");
}

static void draw(struct mm_progress *p, double now, const char *note, bool last) {
    char line[1024];
    format_line(p, now, note, last, line, sizeof line - 2);
    size_t n = strlen(line);
    if (p->terminal && !last) {
        // A line that wraps cannot be erased. Cutting counts bytes, which is never too wide.
        const size_t width = (size_t)terminal_width() - 1;
        if (n > width) n = width;
        while (n > 0 && n < strlen(line) && ((unsigned char)line[n] & 0xc0u) == 0x80u) {
            n--;
        }
        line[n] = '\0';
    } else {
        memcpy(line + n, "\n", 2);
    }
    emit(line, p->terminal && !last);
    p->drawn = now;
}

void mm_progress_begin(struct mm_progress *p, const char *what, const char *unit, int64_t total,
                       int64_t done) {
    const char *term = getenv("TERM");
    const double now = mm_now();
    *p = (struct mm_progress){
        .what = what,
        .unit = unit,
        .total = total,
        .done = done,
        .done_at_start = done,
        .started = now,
        .drawn = now,
        .terminal = isatty(STDERR_FILENO) && term && *term && strcmp(term, "dumb") != 0,
    };
}

void mm_progress_update(struct mm_progress *p, int64_t done, const char *note) {
    p->done = done;
    if (mm_log_get_level() < mm_log_level_info) return;
    const double now = mm_now();
    if (now - p->drawn < (p->terminal ? 0.1 : 10.0)) return;
    draw(p, now, note, false);
}

void mm_progress_end(struct mm_progress *p) {
    if (mm_log_get_level() < mm_log_level_info) return;
    draw(p, mm_now(), NULL, true);
}

static volatile sig_atomic_t interrupted;

static void on_signal(int number) {
    if (interrupted && number == SIGINT) _exit(130);
    interrupted = 1;
}

void mm_signal_catch(void (*handler)(int), int flags) {
    // with AMX's registers a frame takes 11 KiB
    static char room[64 << 10];
    const stack_t stack = {.ss_sp = room, .ss_size = sizeof room};
    sigaltstack(&stack, NULL);
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags | SA_ONSTACK};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

void mm_interrupt_catch(void) {
    // No SA_RESTART: somebody who waits for a line of input must hear of it.
    mm_signal_catch(on_signal, 0);
}

bool mm_interrupted(void) {
    return interrupted != 0;
}
