// The program's verb `chat`, run as a user runs it: one answer, a conversation through a pipe and
// on a terminal, interruption, wrong calls. The program stands beside the tests' folder.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "infer/infer_fixture.h"

static char program[4096];
static char *model;

static int begin(void **state) {
    if (fixture_begin(state) != 0) return -1;
    char self[4000];
    const ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n <= 0) return -1;
    self[n] = '\0';
    *strrchr(self, '/') = '\0';
    // behind an emulator it is a script that starts it
    const char *given = getenv("MMAMBA_PROGRAM");
    snprintf(program, sizeof program, given ? "%s" : "%s/../mmamba", given ? given : self);
    model = fixture_model("model", "pre_hybrid", "0,4", 7);
    return 0;
}

static int end(void **state) {
    free(model);
    return fixture_end(state);
}

struct run {
    int status;
    struct mm_buf out, err;
};

static void read_file(struct mm_buf *b, const char *path) {
    mm_buf_free(b);
    OK(mm_file_read(b, path, 1 << 24, &err));
    mm_buf_add(b, "", 0);
}

// `arguments` goes through the shell after "mmamba chat"; input becomes standard input.
static void chat(struct run *r, const char *input, const char *arguments) {
    char *in = fixture_path("in"), *out = fixture_path("out"), *e = fixture_path("err");
    OK(mm_file_write(in, input, strlen(input), &err));
    char *command = mm_xasprintf("cd '%s' && timeout 100 '%s' chat %s <in >out 2>err", fixture_dir,
                                 program, arguments);
    const int status = system(command);
    r->status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    read_file(&r->out, out);
    read_file(&r->err, e);
    free(command);
    free(in);
    free(out);
    free(e);
}

static void run_end(struct run *r) {
    mm_buf_free(&r->out);
    mm_buf_free(&r->err);
}

static const char *photo(void) {
    static char path[4200];
    char cwd[4000];
    snprintf(path, sizeof path, "%s/tests/golden/images/photo.jpg", getcwd(cwd, sizeof cwd));
    return path;
}

static void one_answer_as_json(void **state) {
    (void)state;
    struct run r = {0}, s = {0};
    char *call =
        mm_xasprintf("model -i '%s' -p 'What is this?' --max-new-tokens 9 --quiet", photo());
    char *json = mm_xasprintf("%s --json", call);
    chat(&r, "", json);
    assert_int_equal(r.status, 0);
    assert_string_equal(r.err.data, "");
    json_t *o = json_loads(r.out.data, 0, NULL);
    assert_non_null(o);
    assert_int_equal(json_object_size(o), 6);
    assert_true(json_is_string(json_object_get(o, "text")));
    assert_string_equal(json_string_value(json_object_get(o, "finish")), "length");
    assert_int_equal(json_integer_value(json_object_get(o, "new_tokens")), 9);
    assert_true(json_integer_value(json_object_get(o, "prompt_tokens")) > 20);
    assert_true(json_real_value(json_object_get(o, "ttft_s")) > 0.0);
    assert_true(json_real_value(json_object_get(o, "decode_tok_s")) > 0.0);
    // without --json the same text streams
    chat(&s, "", call);
    assert_int_equal(s.status, 0);
    assert_string_equal(s.err.data, "");
    char *line = mm_xasprintf("%s\n", json_string_value(json_object_get(o, "text")));
    assert_string_equal(s.out.data, line);
    // weights copied into memory of its own: the same answer
    char *copied = mm_xasprintf("%s --huge-pages", call);
    chat(&s, "", copied);
    assert_int_equal(s.status, 0);
    assert_string_equal(s.out.data, line);
    free(copied);
    // bf16 weights, drawing, a seed
    char *drawn = mm_xasprintf(
        "model -p hello --temperature 2 --seed 5 --top-k 50 --top-p 0.9 "
        "--min-p 0.01 --repetition-penalty 1.1 --dtype bf16 --threads 1 "
        "--max-new-tokens 20 --system 'Be kind.' --quiet");
    chat(&r, "", drawn);
    chat(&s, "", drawn);
    assert_int_equal(r.status, 0);
    assert_string_equal(r.out.data, s.out.data);
    free(line);
    free(drawn);
    free(call);
    free(json);
    json_decref(o);
    run_end(&r);
    run_end(&s);
}

static void wrong_calls(void **state) {
    (void)state;
    static const struct {
        const char *arguments;
        int status;
        const char *says;
    } wrong[] = {
        {"", 2, "MODEL, a model folder, is missing"},
        {"model other -p a", 2, "'other' is too many"},
        {"nothing -p a", 1, "nothing: not a model folder"},
        {"model -p ''", 2, "empty"},
        {"model --json", 2, "--json"},
        {"model -p a --top-p 0.5", 2, "--top-p has no effect here: nothing is drawn"},
        {"model -p a --top-k 5 --temperature 0", 2, "--top-k"},
        {"model -p a --seed 5", 2, "--seed"},
        {"model -p a --max-tiles 2", 2, "--max-tiles"},
        {"model -p a --dtype q4", 2, "'q4'"},
        {"model -p a --temperature -1", 2, "--temperature"},
        {"model -p a --max-new-tokens 0", 2, "--max-new-tokens"},
        {"model -p a --backend cuda", 1, "--backend cuda: "},
        {"model -p a -i none.png", 1, "none.png"},
        {"model -p a -i model/config.json", 1, "config.json"},
        {"model -p '<image>'", 1, "<image>"},
        {"model -p a --what", 2, "--what"},
    };
    struct run r = {0};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        chat(&r, "", wrong[i].arguments);
        if (r.status != wrong[i].status || !strstr(r.err.data, wrong[i].says) ||
            strchr(r.err.data, '\n') != r.err.data + r.err.len - 1 || r.out.len > 0) {
            fail_msg("chat %s: status %d, says '%s' and '%s'", wrong[i].arguments, r.status,
                     r.out.data, r.err.data);
        }
    }
    run_end(&r);
}

static int count(const char *text, const char *what) {
    int n = 0;
    for (const char *p = text; (p = strstr(p, what)); p += strlen(what))
        n++;
    return n;
}

static void a_conversation_through_a_pipe(void **state) {
    (void)state;
    struct run r = {0}, s = {0};
    char *input = mm_xasprintf(
        "%s\nWhat is this?\n/save one\nAnd why?\n/rewind\nAnd why?\n/fork\nOnly here\n/fork 1\n"
        "/load one\nAnd why?\n/stats\n/quit\nnever said\n",
        photo());
    chat(&r, input, "model --max-new-tokens 8");
    assert_int_equal(r.status, 0);
    // the answer to "And why?" comes three times: said, said again, after loading
    char *lines[10] = {0};
    int n = 0;
    for (char *line = strtok(r.out.data, "\n"); line && n < 10; line = strtok(NULL, "\n"))
        lines[n++] = line;
    assert_int_equal(n, 8);
    assert_string_equal(lines[1], lines[2]);
    assert_string_equal(lines[1], lines[4]);
    assert_non_null(strstr(lines[5], "turns 2 "));
    assert_non_null(strstr(lines[6], "state "));
    assert_null(strstr(r.err.data, "error"));
    free(input);
    // failures are said and the conversation goes on; the status tells
    chat(&s,
         "/load nothing\n/image none.png\n/foo\n/save\n/rewind 7\n/rewind x\n/fork 9\n/stats 1\n"
         "\n   \nHello\n",
         "model --max-new-tokens 3 --quiet");
    assert_int_equal(s.status, 1);
    assert_int_equal(count(s.out.data, "\n"), 1);
    assert_int_equal(count(s.err.data, "\n"), 9);
    assert_non_null(strstr(s.err.data, "there is no command '/foo'"));
    assert_non_null(strstr(s.err.data, "/save: FILE is missing"));
    // nothing said is no failure, and /help lists
    chat(&s, "/help\n", "model --quiet");
    assert_int_equal(s.status, 0);
    assert_non_null(strstr(s.out.data, "/rewind"));
    run_end(&r);
    run_end(&s);
}

// ---- on a terminal ------------------------------------------------------------------------------

struct screen {
    int fd;
    pid_t pid;
    struct mm_buf seen;
    size_t from;  // of seen, what was not waited for yet
};

static void screen_open(struct screen *s, const char *const *extra) {
    *s = (struct screen){0};
    s->pid = forkpty(&s->fd, NULL, NULL, NULL);
    assert_true(s->pid >= 0);
    if (s->pid == 0) {
        const char *args[16] = {program, "chat", model};
        for (int i = 0; extra[i]; i++)
            args[3 + i] = extra[i];
        setenv("TERM", "vt100", 1);
        execv(program, (char *const *)args);
        _exit(99);
    }
}

static void wait_for(struct screen *s, const char *what) {
    for (int idle = 0; idle < 600;) {
        if (s->seen.data && strstr(s->seen.data + s->from, what)) {
            s->from = (size_t)(strstr(s->seen.data + s->from, what) - s->seen.data) + strlen(what);
            return;
        }
        struct pollfd p = {s->fd, POLLIN, 0};
        char bytes[4096];
        if (poll(&p, 1, 100) <= 0) {
            idle++;
            continue;
        }
        const ssize_t n = read(s->fd, bytes, sizeof bytes);
        if (n <= 0) break;
        for (ssize_t i = 0; i < n; i++)
            if (bytes[i] == '\0') bytes[i] = ' ';
        mm_buf_add(&s->seen, bytes, (size_t)n);
    }
    fail_msg("'%s' did not come; the screen shows: %s", what,
             s->seen.data ? s->seen.data + (s->seen.len > 2000 ? s->seen.len - 2000 : 0) : "");
}

static void type(struct screen *s, const char *text) {
    assert_int_equal(write(s->fd, text, strlen(text)), strlen(text));
}

// Types a key that leaves until the program has left: one that comes just before the line editor
// has taken the terminal is eaten by the terminal (and Ctrl-D then leaves a mark in the line, which
// Ctrl-U in front removes), as it would be for a person.
static int screen_leave(struct screen *s, const char *key) {
    int status;
    char bytes[4096];
    type(s, key);
    for (int idle = 0; idle < 60;) {
        struct pollfd p = {s->fd, POLLIN, 0};
        if (poll(&p, 1, 1000) == 0) {
            idle++;
            type(s, key);
        } else if (read(s->fd, bytes, sizeof bytes) <= 0) {
            break;
        }
    }
    assert_int_equal(waitpid(s->pid, &status, 0), s->pid);
    close(s->fd);
    mm_buf_free(&s->seen);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void a_conversation_on_a_terminal(void **state) {
    (void)state;
    struct screen s;
    // an answer without end is stopped, the conversation is still there, the end of input leaves
    screen_open(&s, (const char *const[]){"--max-new-tokens", "1000000000", NULL});
    wait_for(&s, "/help");
    wait_for(&s, "> ");
    type(&s, "Hello\n");
    wait_for(&s, "Hello");
    wait_for(&s, "\n");
    char bytes[200];
    for (ssize_t got = 0, n; got < 100; got += n) {  // the answer has begun: more than an echo
        n = read(s.fd, bytes, sizeof bytes);
        assert_true(n > 0);
    }
    kill(s.pid, SIGINT);
    wait_for(&s, "> ");
    type(&s, "/stats\n");
    wait_for(&s, "turns 1 ");
    wait_for(&s, "> ");
    type(&s, "/fork\n");
    wait_for(&s, "2> ");
    assert_int_equal(screen_leave(&s, "\x15\x04"), 0);
    // Ctrl-C at the prompt leaves
    screen_open(&s, (const char *const[]){"--max-new-tokens", "5", NULL});
    wait_for(&s, "> ");
    type(&s, "half a li");
    wait_for(&s, "half a li");
    assert_int_equal(screen_leave(&s, "\x03"), 130);
}

// Starts an answer without end, signals it, and gives the exit status.
static int interrupted(const char *input, const char *option, const char *value, int number) {
    char *in = fixture_path("lines"), *out = fixture_path("stream");
    OK(mm_file_write(in, input, strlen(input), &err));
    unlink(out);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        dup2(open(in, O_RDONLY), 0);
        dup2(open(out, O_RDWR | O_CREAT, 0600), 1);
        dup2(open("/dev/null", O_RDWR), 2);
        execl(program, program, "chat", model, "--max-new-tokens", "1000000000", option, value,
              (char *)NULL);
        _exit(99);
    }
    for (int i = 0; i < 600; i++) {  // until the answer has begun
        struct stat st;
        if (stat(out, &st) == 0 && st.st_size > 0) break;
        usleep(100000);
    }
    kill(pid, number);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    free(in);
    free(out);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void interrupted_answers_say_so(void **state) {
    (void)state;
    assert_int_equal(interrupted("", "-p", "Hello", SIGINT), 130);
    assert_int_equal(interrupted("", "-p", "Hello", SIGTERM), 130);
    assert_int_equal(interrupted("Hello\nnever said\n", "--threads", "1", SIGINT), 130);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_answer_as_json),
        cmocka_unit_test(wrong_calls),
        cmocka_unit_test(a_conversation_through_a_pipe),
        cmocka_unit_test(a_conversation_on_a_terminal),
        cmocka_unit_test(interrupted_answers_say_so),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
