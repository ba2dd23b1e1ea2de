#include "cli/chat_talk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "cli/chat_input.h"
#include "io/file.h"

// ---- listening ----------------------------------------------------------------------------------

static bool on_read(void *arg, int64_t n_read, int64_t n_all) {
    (void)arg;
    return !mm_chat_stopped() || n_read == n_all;
}

static bool on_text(void *arg, const char *text, size_t n) {
    (void)arg;
    if (n > 0) {
        fwrite(text, 1, n, stdout);
        fflush(stdout);
    }
    return !mm_chat_stopped();
}

static bool on_silence(void *arg, const char *text, size_t n) {
    (void)arg, (void)text, (void)n;
    return !mm_chat_stopped();
}

const struct mm_listener mm_chat_to_stdout = {on_read, on_text, NULL};
const struct mm_listener mm_chat_to_nowhere = {on_read, on_silence, NULL};

// ---- the conversation ---------------------------------------------------------------------------

struct talk {
    struct mm_engine *e;
    const struct mm_session_options *options;
    const struct mm_generation *g;
    struct mm_session **branches;  // (n_branches)
    int n_branches, at;
    char **pictures;  // (n_pictures) for the next turn
    int n_pictures;
    struct mm_answer last;
    bool quit;
};

static struct mm_session *here(const struct talk *t) {
    return t->branches[t->at];
}

static void add_picture(struct talk *t, const char *path) {
    t->pictures = mm_xrealloc(t->pictures, (size_t)(t->n_pictures + 1) * sizeof *t->pictures);
    t->pictures[t->n_pictures++] = mm_xstrdup(path);
}

static void forget_pictures(struct talk *t) {
    for (int i = 0; i < t->n_pictures; i++)
        free(t->pictures[i]);
    t->n_pictures = 0;
}

static enum mm_code say(struct talk *t, const char *text, struct mm_error *err) {
    struct mm_picture *p = mm_xcalloc((size_t)t->n_pictures, sizeof *p);
    for (int i = 0; i < t->n_pictures; i++)
        p[i].path = t->pictures[i];
    enum mm_code code = mm_session_add_turn(here(t), text, p, t->n_pictures, err);
    free(p);
    forget_pictures(t);
    if (!code) {
        code = mm_session_generate(here(t), t->g, &mm_chat_to_stdout, &t->last, err);
        putchar('\n');
        fflush(stdout);
    }
    if (!code && t->last.finish == mm_finish_length) {
        mm_info("cut after %lld tokens (--max-new-tokens)", (long long)t->last.new_tokens);
    }
    return code;
}

// ---- commands -----------------------------------------------------------------------------------

static enum mm_code do_image(struct talk *t, const char *path, struct mm_error *err) {
    struct mm_buf bytes = {NULL, 0, 0};
    struct mm_image_info info;
    enum mm_code code = mm_file_read(&bytes, path, mm_image_max_file_bytes, err);
    if (!code) code = mm_image_peek(&info, bytes.data, bytes.len, path, err);
    mm_buf_free(&bytes);
    if (code) return code;
    add_picture(t, path);
    mm_info("%s: %d x %d pixels, goes with the next turn", path, info.width, info.height);
    return mm_code_ok;
}

static enum mm_code do_save(struct talk *t, const char *path, struct mm_error *err) {
    MM_TRY(mm_session_save(here(t), path, err));
    struct stat st;
    const long long bytes = stat(path, &st) == 0 ? (long long)st.st_size : 0;
    mm_info("%s: %lld tokens in %lld bytes", path, (long long)here(t)->ids.n, bytes);
    return mm_code_ok;
}

static enum mm_code do_load(struct talk *t, const char *path, struct mm_error *err) {
    struct mm_session *s;
    MM_TRY(mm_session_load(&s, t->e, t->options, path, err));
    mm_session_free(here(t));
    t->branches[t->at] = s;
    forget_pictures(t);
    mm_info("%s: %lld turns, %lld tokens", path, (long long)s->n_turns, (long long)s->ids.n);
    return mm_code_ok;
}

static enum mm_code number(const char *text, const char *what, int max, int *n,
                           struct mm_error *err) {
    char *end;
    const long v = strtol(text, &end, 10);
    if (end == text || *end || v < 1 || v > max) {
        return mm_fail(err, mm_code_input, "%s '%.40s': wanted a number, 1 to %d", what, text, max);
    }
    *n = (int)v;
    return mm_code_ok;
}

// Without a number: a copy of the present branch, and on in the copy. With one: on in that branch.
static enum mm_code do_fork(struct talk *t, const char *which, struct mm_error *err) {
    int n = 0;
    if (*which) {
        MM_TRY(number(which, "/fork", t->n_branches, &n, err));
        t->at = n - 1;
    } else {
        struct mm_session *s;
        MM_TRY(mm_session_fork(&s, here(t), err));
        t->branches = mm_xrealloc(t->branches, (size_t)(t->n_branches + 1) * sizeof *t->branches);
        t->at = t->n_branches;
        t->branches[t->n_branches++] = s;
    }
    mm_info("branch %d of %d, %lld turns", t->at + 1, t->n_branches, (long long)here(t)->n_turns);
    return mm_code_ok;
}

static enum mm_code do_rewind(struct talk *t, const char *how_far, struct mm_error *err) {
    int n = 1;
    if (*how_far) MM_TRY(number(how_far, "/rewind", mm_session_max_marks, &n, err));
    MM_TRY(mm_session_rewind(here(t), n, err));
    mm_info("%lld turns, %lld tokens", (long long)here(t)->n_turns, (long long)here(t)->ids.n);
    return mm_code_ok;
}

static enum mm_code do_stats(struct talk *t, const char *rest, struct mm_error *err) {
    (void)rest, (void)err;
    const struct mm_session *s = here(t);
    printf("turns %lld (%d can be taken back), tokens %lld\n", (long long)s->n_turns, s->n_marks,
           (long long)s->ids.n);
    printf("state %zu bytes, keys and values of kept attention %lld bytes\n", s->state.fixed_bytes,
           (long long)mm_session_cache_bytes(s));
    if (t->last.new_tokens > 0) {
        printf(
            "last answer: %lld tokens read, %lld written, the first after %.3f s, then %.1f "
            "tokens/s\n",
            (long long)t->last.prompt_tokens, (long long)t->last.new_tokens, t->last.ttft_s,
            t->last.decode_tok_s);
    }
    return mm_code_ok;
}

static enum mm_code do_quit(struct talk *t, const char *rest, struct mm_error *err) {
    (void)rest, (void)err;
    t->quit = true;
    return mm_code_ok;
}

static enum mm_code do_help(struct talk *t, const char *rest, struct mm_error *err);

static const struct command {
    const char *name, *value;
    enum { value_none, value_may, value_must } wants;
    enum mm_code (*run)(struct talk *t, const char *rest, struct mm_error *err);
    const char *help;
} commands[] = {
    {"/image", "PATH", value_must, do_image,
     "a picture for the next turn; a line that is a picture's path does the same"},
    {"/save", "FILE", value_must, do_save, "write this conversation to a file, exactly"},
    {"/load", "FILE", value_must, do_load, "go on with a saved conversation instead of this one"},
    {"/fork", "[N]", value_may, do_fork, "go on in a copy; with a number, in that branch"},
    {"/rewind", "[N]", value_may, do_rewind, "take back the last turn, or the last N"},
    {"/stats", "", value_none, do_stats, "tokens, memory, speed"},
    {"/help", "", value_none, do_help, "this list"},
    {"/quit", "", value_none, do_quit, "leave, as the end of input does"},
};
enum { n_commands = sizeof commands / sizeof commands[0] };

static enum mm_code do_help(struct talk *t, const char *rest, struct mm_error *err) {
    (void)t, (void)rest, (void)err;
    for (int i = 0; i < n_commands; i++)
        printf("  %-8s %-5s %s\n", commands[i].name, commands[i].value, commands[i].help);
    printf("Anything else is said to the model; a space in front lets it begin with a slash.\n");
    return mm_code_ok;
}

// An existing file with a picture's ending: what a terminal pastes when a picture is dropped on it.
static bool is_picture_path(const char *line) {
    static const char *const endings[] = {".jpg", ".jpeg", ".png", ".webp"};
    const size_t n = strlen(line);
    struct stat st;
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        const size_t m = strlen(endings[i]);
        if (n > m && strcasecmp(line + n - m, endings[i]) == 0) {
            return stat(line, &st) == 0 && S_ISREG(st.st_mode);
        }
    }
    return false;
}

static enum mm_code one_line(struct talk *t, char *line, struct mm_error *err) {
    size_t n = strlen(line);
    while (n > 0 && (line[n - 1] == ' ' || line[n - 1] == '\t'))
        line[--n] = '\0';
    if (n == 0) return mm_code_ok;
    if (is_picture_path(line)) return do_image(t, line, err);
    if (line[0] != '/') return say(t, line + strspn(line, " \t"), err);
    const size_t word = strcspn(line, " \t");
    char *rest = line + word + strspn(line + word, " \t");
    for (int i = 0; i < n_commands; i++) {
        const struct command *c = &commands[i];
        if (strlen(c->name) != word || strncmp(c->name, line, word) != 0) continue;
        if (c->wants == value_must && !*rest) {
            return mm_fail(err, mm_code_input, "%s: %s is missing", c->name, c->value);
        }
        if (c->wants == value_none && *rest) {
            return mm_fail(err, mm_code_input, "%s takes nothing, but '%.40s' stands there",
                           c->name, rest);
        }
        return c->run(t, rest, err);
    }
    return mm_fail(err, mm_code_input, "there is no command '%.*s'; /help lists them",
                   (int)(word < 40 ? word : 40), line);
}

enum mm_code mm_chat_talk(struct mm_engine *e, struct mm_session *first,
                          const struct mm_session_options *options, const struct mm_generation *g,
                          const char *const *pictures, int n_pictures, struct mm_error *err) {
    struct talk t = {.e = e, .options = options, .g = g, .n_branches = 1};
    t.branches = mm_xcalloc(1, sizeof *t.branches);
    t.branches[0] = first;
    for (int i = 0; i < n_pictures; i++)
        add_picture(&t, pictures[i]);
    struct mm_chat_input *in = mm_chat_input_open();
    const bool terminal = mm_chat_input_terminal(in);
    if (terminal) mm_info("/help lists the commands");
    struct mm_buf line = {NULL, 0, 0};
    enum mm_code result = mm_code_ok;
    char prompt[32] = "> ";
    while (!t.quit && !mm_chat_leaving() && mm_chat_input_line(in, prompt, &line)) {
        struct mm_error e1 = {mm_code_ok, ""};
        const enum mm_code code = one_line(&t, line.data, &e1);
        if (code) mm_log(mm_log_level_error, "%s", e1.text);
        if (code && result == mm_code_ok && !terminal) {
            result = mm_fail(err, code, "the conversation had failures, the first: %s", e1.text);
        }
        if (t.n_branches > 1) snprintf(prompt, sizeof prompt, "%d> ", t.at + 1);
    }
    if (mm_chat_leaving()) result = mm_fail(err, mm_code_interrupted, "interrupted");
    if (terminal && !t.quit) putchar('\n');
    mm_chat_input_close(in);
    mm_buf_free(&line);
    forget_pictures(&t);
    free(t.pictures);
    for (int i = 0; i < t.n_branches; i++)
        mm_session_free(t.branches[i]);
    free(t.branches);
    return result;
}
