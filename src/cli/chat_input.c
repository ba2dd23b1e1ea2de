#include "cli/chat_input.h"

#include <errno.h>
#include <histedit.h>
#include <langinfo.h>
#include <locale.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "base/log.h"

struct mm_chat_input {
    EditLine *el;  // NULL: plain lines
    History *history;
    const char *prompt;
};

// ---- signals ------------------------------------------------------------------------------------

static volatile sig_atomic_t stopped, waiting, leaving, have_terminal;
static struct termios terminal;  // as it was found

static void on_signal(int number) {
    if (waiting || stopped) {
        if (have_terminal) tcsetattr(STDIN_FILENO, TCSANOW, &terminal);
        if (have_terminal && write(STDERR_FILENO, "\n", 1) < 0) _exit(130);
        _exit(130);
    }
    if (number == SIGTERM || !have_terminal) leaving = 1;
    stopped = 1;
}

void mm_chat_catch(void) {
    have_terminal = isatty(STDIN_FILENO) && tcgetattr(STDIN_FILENO, &terminal) == 0;
    mm_signal_catch(on_signal, SA_RESTART);
}

bool mm_chat_leaving(void) {
    return leaving != 0;
}

bool mm_chat_stopped(void) {
    return stopped != 0;
}

// ---- lines --------------------------------------------------------------------------------------

static char *prompt_of(EditLine *el) {
    struct mm_chat_input *in = NULL;
    el_get(el, EL_CLIENTDATA, &in);
    return (char *)(uintptr_t)in->prompt;
}

struct mm_chat_input *mm_chat_input_open(void) {
    struct mm_chat_input *in = mm_xcalloc(1, sizeof *in);
    in->prompt = "";
    FILE *screen = isatty(STDOUT_FILENO) ? stdout : isatty(STDERR_FILENO) ? stderr : NULL;
    if (!isatty(STDIN_FILENO) || screen == NULL) return in;
    // the editor counts columns in characters of the locale, and our text is UTF-8
    setlocale(LC_CTYPE, "");
    if (strcmp(nl_langinfo(CODESET), "UTF-8") != 0) setlocale(LC_CTYPE, "C.UTF-8");
    in->el = el_init("mmamba", stdin, screen, stderr);
    in->history = history_init();
    if (in->el == NULL || in->history == NULL) return in;
    HistEvent event;
    history(in->history, &event, H_SETSIZE, 1000);
    history(in->history, &event, H_SETUNIQUE, 1);
    el_set(in->el, EL_CLIENTDATA, in);
    el_set(in->el, EL_PROMPT, prompt_of);
    el_set(in->el, EL_EDITOR, "emacs");
    el_set(in->el, EL_HIST, history, in->history);
    el_set(in->el, EL_SIGNAL, 0);
    return in;
}

void mm_chat_input_close(struct mm_chat_input *in) {
    if (in->el) el_end(in->el);
    if (in->history) history_end(in->history);
    free(in);
}

bool mm_chat_input_terminal(const struct mm_chat_input *in) {
    return in->el != NULL;
}

static void add_line(struct mm_buf *line, const char *text, size_t n) {
    while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == '\r'))
        n--;
    mm_buf_add(line, text, n);
}

static bool edited_line(struct mm_chat_input *in, struct mm_buf *line) {
    int n = 0;
    const char *text = el_gets(in->el, &n);
    if (text == NULL || n <= 0) return false;
    add_line(line, text, strlen(text));
    HistEvent event;
    if (line->len > 0) history(in->history, &event, H_ENTER, line->data);
    return true;
}

bool mm_chat_input_line(struct mm_chat_input *in, const char *prompt, struct mm_buf *line) {
    mm_buf_reset(line);
    in->prompt = prompt;
    fflush(stdout);
    stopped = leaving;  // from here on: a signal between a line and its answer still stops it
    waiting = 1;
    bool got;
    if (in->el) {
        got = edited_line(in, line);
    } else {
        char *text = NULL;
        size_t cap = 0;
        const ssize_t n = getline(&text, &cap, stdin);
        got = n >= 0;
        if (got) add_line(line, text, (size_t)n);
        free(text);
    }
    waiting = 0;
    return got;
}
