// A soak: reading, decoding, distilling and talking in turns, as a process that lives long does it,
// and whether memory grows: what the backend holds, what of the device is used (everybody's: others
// who use it must come after the line "warm" and go at most 12 minutes after the end), what malloc
// gave, the resident size. What is computed again must come out the same, too.
//     build/bench/bench_soak MODEL [SECONDS [BACKEND]]     a folder (a teacher); 600 s; cpu, cuda
// A line every ten seconds or so; the last says "ok", or what grew and exit 1. A fourth argument
// "leak" forgets some memory in every round: to see that this is told.
#include <malloc.h>
#include <mmamba.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/log.h"
#include "bench/models.h"
#include "bench/run.h"
#include "bench/train.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { own_malloc = 0 };  // freed memory is kept for a while; the sanitizer finds leaks itself
#else
enum { own_malloc = 1 };
#endif

enum { n_prompts = 5, n_stages = 3, leaked_bytes = 1 << 20 };
// Others who use the device may need a while to go: a sanitizer beside this, ten minutes.
enum { patience_s = 720 };
// All kinds of rounds have come by after 30; on a device kernels are loaded when they are first
// used.
enum { warm_host = 4, warm_device = 32 };
enum {
    mib = 1 << 20,
    held_slack = mib,        // the last model's plan of a token step
    device_slack = 4 * mib,  // a driver takes memory two at a time
    heap_slack = mib,        // lists of the driver and of libraries that grow to their size
    resident_slack = 48 * mib,
};

static struct mm_error err;
static _Noreturn void stop(const char *what, const char *why) {
    fprintf(stderr, "bench_soak: %s: %s\n", what, why);
    exit(1);
}
#define OK(call)                         \
    do {                                 \
        if (call) stop(#call, err.text); \
    } while (0)

struct sample {
    int64_t held;      // by the backend, exactly
    int64_t used;      // of the device, by everybody
    int64_t heap;      // of malloc, that was not freed
    int64_t resident;  // of the process
};

struct soak {
    const char *model, *backend;
    bool leak;
    struct mm_backend *be;
    struct mm_bench_source source;
    int64_t device_bytes;
    double losses[n_stages];
    char *answer;  // of the first conversation
    char file[64];
};

// ---- memory -------------------------------------------------------------------------------------

static int64_t resident(void) {
    long long pages = 0, all;
    FILE *f = fopen("/proc/self/statm", "r");
    if (!f || fscanf(f, "%lld %lld", &all, &pages) != 2) stop("/proc/self/statm", "cannot be read");
    fclose(f);
    return (int64_t)pages * sysconf(_SC_PAGESIZE);
}

static struct sample look(const struct soak *s) {
    struct mm_backend *be = s->be;
    const struct mallinfo2 m = mallinfo2();
    struct sample x = {.heap = (int64_t)(m.uordblks + m.hblkhd), .resident = resident()};
    if (be->host_memory) return x;
    be->gauges->peak_reset(be);  // gives scratch back; the peak is then what is held
    x.held = be->gauges->peak(be);
    x.used = s->device_bytes - be->available(be);
    return x;
}

static void least(struct sample *a, const struct sample *b) {
    if (b->held < a->held) a->held = b->held;
    if (b->used < a->used) a->used = b->used;
    if (b->heap < a->heap) a->heap = b->heap;
    if (b->resident < a->resident) a->resident = b->resident;
}

// ---- a round ------------------------------------------------------------------------------------

static const struct {
    enum mm_bench_form form;
    int dtype;
} forms[] = {{mm_bench_form_linear, -1},
             {mm_bench_form_hybrid, -1},
             {mm_bench_form_attention, -1},
             {mm_bench_form_linear, mm_dtype_q8},
             {mm_bench_form_linear, mm_dtype_q4}};
enum { n_forms = sizeof forms / sizeof *forms };

// Reads and decodes, one or several sequences, with and without pictures.
static void read_and_decode(struct soak *s, int round) {
    static const int64_t prompts[n_prompts] = {700, 33, 2100, 1, 260};
    static const int64_t batches[3] = {1, 8, 19};
    const int f = round % n_forms;
    struct mm_bench_source source = s->source;
    struct mm_model *m;
    struct mm_bench_row row = {0};
    const struct mm_bench_plan plan = {.prompt = prompts[round % n_prompts],
                                       .tiles = round % 3,
                                       .new_tokens = 24,
                                       .batch = batches[round % 3],
                                       .piece = round % 2 ? 512 : 97,
                                       .repeats = 1};
    if (forms[f].dtype >= 0) {
        source = (struct mm_bench_source){
            .be = s->be, .path = s->model, .dtype = forms[f].dtype, .seed = 1};
        OK(mm_bench_source_open(&source, &err));
    }
    OK(mm_bench_model_open(&m, &source, forms[f].form, &err));
    OK(mm_bench_run(&row, m, &plan, &err));
    mm_bench_model_close(&source, m);
    if (forms[f].dtype >= 0) mm_bench_source_close(&source);
}

// The same steps of a stage as ever must lose the same.
static void distil(struct soak *s, int round) {
    const int stage = 1 + round % n_stages;
    struct mm_model *teacher;
    struct mm_bench_training row;
    OK(mm_bench_model_open(&teacher, &s->source, mm_bench_form_attention, &err));
    OK(mm_bench_train(&row, teacher, stage, 200 + 56 * stage, 2, 1, &err));
    mm_bench_model_close(&s->source, teacher);
    double *was = &s->losses[stage - 1];
    if (round < n_stages) *was = row.last_loss;
    if (memcmp(was, &row.last_loss, sizeof *was) != 0) {
        char text[128];
        snprintf(text, sizeof text, "the loss is %.17g, the first time it was %.17g", row.last_loss,
                 *was);
        stop(stage == 3 ? "stage 3" : stage == 2 ? "stage 2" : "stage 1", text);
    }
}

#define FINE(call)                     \
    do {                               \
        if (call) stop(#call, e.text); \
    } while (0)

// An engine of its own, from the files: a backend is opened and closed. A session is saved, copied,
// taken back and loaded; the answer is the same as ever.
static void talk(struct soak *s) {
    struct mmamba_engine *engine;
    struct mmamba_session *a, *b, *c;
    struct mmamba_answer answer;
    struct mmamba_error e;
    const struct mmamba_engine_options where = {.backend = s->backend};
    const struct mmamba_generation some = {.max_new_tokens = 12, .min_new_tokens = 12};
    FINE(mmamba_engine_open(&engine, s->model, &where, &e));
    FINE(mmamba_session_new(&a, engine, NULL, &e));
    FINE(mmamba_session_add_turn(a, "What is there?", NULL, 0, &e));
    FINE(mmamba_session_generate(a, &some, NULL, &answer, &e));
    FINE(mmamba_session_fork(&b, a, &e));
    FINE(mmamba_session_save(a, s->file, &e));
    FINE(mmamba_session_rewind(b, 1, &e));
    FINE(mmamba_session_add_turn(b, "Where is it?", NULL, 0, &e));
    FINE(mmamba_session_generate(b, &some, NULL, &answer, &e));
    FINE(mmamba_session_load(&c, engine, NULL, s->file, &e));
    FINE(mmamba_session_add_turn(c, "And the other?", NULL, 0, &e));
    FINE(mmamba_session_generate(c, &some, NULL, &answer, &e));
    if (!s->answer) s->answer = mm_xstrdup(answer.text);
    if (strcmp(s->answer, answer.text) != 0) stop("the answer is another", answer.text);
    mmamba_session_free(a);
    mmamba_session_free(b);
    mmamba_session_free(c);
    mmamba_engine_close(engine);
}

static void one_round(struct soak *s, int round) {
    read_and_decode(s, round);
    distil(s, round);
    talk(s);
    if (!s->leak) return;
    static void *forgotten[2];
    forgotten[0] = memset(mm_xmalloc(leaked_bytes), 1, leaked_bytes);
    OK(s->be->alloc(s->be, leaked_bytes, (void **)&forgotten[1], &err));
}

// ---- judging ------------------------------------------------------------------------------------

static void say(double seconds, int rounds, const struct sample *x) {
    printf("%6.0f s %5d rounds   MiB: held %.1f, device %.1f, heap %.2f, resident %.0f\n", seconds,
           rounds, (double)x->held / mib, (double)x->used / mib, (double)x->heap / mib,
           (double)x->resident / mib);
    fflush(stdout);
}

static bool grew(const char *what, int64_t from, int64_t to, int64_t slack) {
    const double more = (double)(to - from) / mib;
    printf("%s %+.2f MiB%s; ", what, more, to - from > slack ? " (GROWS)" : "");
    return to - from > slack;
}

static void wait_for_others(const struct soak *s, int64_t wanted, struct sample *last) {
    if (last->used > wanted) {
        printf("%.1f MiB more of the device are used: waiting for others to go, %d s at most\n",
               (double)(last->used - wanted) / mib, patience_s);
        fflush(stdout);
    }
    for (int i = 0; i < patience_s && last->used > wanted; i++) {
        sleep(1);
        const struct sample now = look(s);
        least(last, &now);
    }
}

// The least of the first rounds after `warm` against the least of as many last ones.
static bool judge(const struct soak *s, const struct sample *x, int n, int warm, double seconds) {
    const int some = (n - warm + 3) / 4;
    struct sample first = x[warm], last = x[n - 1];
    for (int i = 0; i < some; i++) {
        least(&first, &x[warm + i]);
        least(&last, &x[n - 1 - i]);
    }
    first.used = x[warm].used;  // others come after that
    if (!s->be->host_memory) wait_for_others(s, first.used + device_slack, &last);
    bool bad = false;
    printf("soak: %.0f s, %d rounds: ", seconds, n);
    if (!s->be->host_memory) {
        bad |= grew("held", first.held, last.held, held_slack);
        bad |= grew("device", first.used, last.used, device_slack);
    }
    if (own_malloc) {
        bad |= grew("heap", first.heap, last.heap, heap_slack);
        bad |= grew("resident", first.resident, last.resident, resident_slack);
    }
    printf("%s\n", bad ? "FAILED" : "ok");
    return !bad;
}

static void begin(struct soak *s) {
    mm_log_set_level(mm_log_level_error);
    OK(mm_backend_open(&s->be, s->backend, 0, &err));
    s->source = (struct mm_bench_source){.be = s->be, .path = s->model, .dtype = -1, .seed = 1};
    OK(mm_bench_source_open(&s->source, &err));
    if (mm_bench_source_form(&s->source) != mm_bench_form_attention)
        stop(s->model, "is carved already; wanted a teacher");
    s->device_bytes = s->be->host_memory ? 0 : s->be->available(s->be);
    snprintf(s->file, sizeof s->file, "/tmp/mmamba-soak-%ld", (long)getpid());
}

int main(int argc, char **argv) {
    struct soak s = {.model = argc > 1 ? argv[1] : "models/pico",
                     .backend = argc > 3 ? argv[3] : "cpu",
                     .leak = argc > 4 && strcmp(argv[4], "leak") == 0};
    const double length = argc > 2 ? strtod(argv[2], NULL) : 600.0;
    if (!(length > 0.0)) stop(argv[2], "is no number of seconds");
    begin(&s);
    const double from = mm_now();
    double said = 0.0;
    int n = 0, cap = 0;
    struct sample *x = NULL;
    const int warm = s.be->host_memory ? warm_host : warm_device;
    while (mm_now() - from < length || n < 2 * warm) {
        one_round(&s, n);
        if (n == cap) x = mm_xrealloc(x, (size_t)(cap = 2 * cap + 4096) * sizeof *x);
        x[n++] = look(&s);
        if (n == warm + 1) printf("warm\n");
        if (n == warm + 1 || mm_now() - said >= 10.0) {
            said = mm_now();
            say(said - from, n, &x[n - 1]);
        }
    }
    const bool ok = judge(&s, x, n, warm, mm_now() - from);
    unlink(s.file);
    mm_bench_source_close(&s.source);
    mm_backend_close(s.be);
    free(s.answer);
    free(x);
    return ok ? 0 : 1;
}
