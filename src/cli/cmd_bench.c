// The verb `bench`: how fast a model reads and writes here, how much memory that takes, and how
// close it comes to what the machine can do at all.
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/counts.h"
#include "bench/models.h"
#include "bench/report.h"
#include "bench/train.h"
#include "cli/cli.h"

static const struct mm_opt opts[] = {
    {"--config", mm_opt_kind_string, "CONFIG",
     "a config.json or a folder with one, for --random-weights", NULL, 0, 0, false},
    {"--random-weights", mm_opt_kind_flag, NULL, "make weights up, of the sizes of --config", NULL,
     0, 0, false},
    {"--mixers", mm_opt_kind_string, "linear,hybrid,attention",
     "of a teacher: which forms to measure, one after the other (default: the teacher itself, or "
     "what --keep makes of it)",
     NULL, 0, 0, false},
    {"--keep", mm_opt_kind_string, "KEEP",
     "of a teacher: the blocks that stay attention (none, 0,4,8, head-interleaved:8, ...; a hybrid "
     "keeps a quarter by default)",
     NULL, 0, 0, false},
    {"--dtype", mm_opt_kind_string, "f32|bf16|q8|q4", "of the weights (default: as stored)", NULL,
     0, 0, false},
    {"--prompt", mm_opt_kind_string, "N,N,...",
     "lengths of the prompt in text tokens; 2k and 1M are 2000 and 1000000 (default 512)", NULL, 0,
     0, false},
    {"--lengths", mm_opt_kind_string, "A:B[:F]",
     "in place of --prompt: from A to B, each F times the one before (4)", NULL, 0, 0, false},
    {"--new", mm_opt_kind_int, "N", "tokens to decode", "64", 1, 1 << 20, false},
    {"--batch", mm_opt_kind_string, "N,N,...",
     "sequences that decode side by side, 1 to 1024; each number makes rows of its own", "1", 0, 0,
     false},
    {"--tiles", mm_opt_kind_int, "N", "tiles of pictures before the text", "0", 0, 100000, false},
    {"--piece", mm_opt_kind_int, "N",
     "tokens of the prompt that are read at a time (0: as many as suit the backend)", "0", 0,
     1 << 20, false},
    {"--repeat", mm_opt_kind_int, "N", "measure a row so often, at most, if that takes seconds",
     "3", 1, 64, false},
    {"--max-seconds", mm_opt_kind_float, "S",
     "leave out rows whose prompt would take longer to read (0: none)", "600", 0, 1e9, false},
    {"--skip-prefill", mm_opt_kind_flag, NULL,
     "decode from a made-up state, as if the prompt had been read; the rows say so", NULL, 0, 0,
     false},
    {"--train", mm_opt_kind_string, "1,2,3",
     "of a teacher: steps of these stages of distillation in place of reading and decoding, with "
     "one sample of --prompt tokens each",
     NULL, 0, 0, false},
    {"--plot", mm_opt_kind_string, "FILE.png", "draw time and memory against length", NULL, 0, 0,
     false},
    {"--seed", mm_opt_kind_int, "N", "of made-up weights and prompts", "0", 0, 9e15, false},
    MM_CLI_COMMON,
};

enum { most_rows = 64 };

struct bench {
    const struct mm_args *args;
    struct mm_bench_source source;
    struct mm_bench_plan plan;  // what all rows share
    int64_t prompts[most_rows];
    int n_prompts;
    int64_t batches[most_rows];
    int n_batches;
    enum mm_bench_form forms[mm_bench_form_count];
    int n_forms;
    struct mm_bench_report report;
    double ceilings_at;  // when they were measured last
    int n_rows_held;     // rows of the report that know their read_after
};

// ---- options ------------------------------------------------------------------------------------

// "512", "2k", "1M"; 0: no such number. *at is left behind it.
static int64_t length(const char **at) {
    char *end;
    if (**at < '0' || **at > '9') return 0;
    const unsigned long long n = strtoull(*at, &end, 10);
    unsigned long long times = 1;
    if (*end == 'k') times = 1000, end++;
    if (times == 1 && *end == 'M') times = 1000000, end++;
    *at = end;
    return n > mm_bench_prompt_max || n * times > mm_bench_prompt_max ? 0 : (int64_t)(n * times);
}

static enum mm_code add_length(struct bench *b, int64_t n, const char *text, struct mm_error *err) {
    if (b->n_prompts == most_rows) {
        return mm_fail(err, mm_code_usage, "bench: '%s' are more than %d lengths", text, most_rows);
    }
    b->prompts[b->n_prompts++] = n;
    return mm_code_ok;
}

static enum mm_code parse_prompts(struct bench *b, const char *text, struct mm_error *err) {
    for (const char *at = text;; at++) {
        const int64_t n = length(&at);
        if (n < 1 || (*at != ',' && *at != '\0')) {
            return mm_fail(err, mm_code_usage,
                           "bench: --prompt is '%s', wanted lengths such as 512,2k,100k, each from "
                           "1 to %d",
                           text, mm_bench_prompt_max);
        }
        MM_TRY(add_length(b, n, text, err));
        if (*at == '\0') return mm_code_ok;
    }
}

static enum mm_code parse_batches(struct bench *b, const char *text, struct mm_error *err) {
    for (const char *at = text;; at++) {
        const int64_t n = length(&at);
        if (n < 1 || n > 1024 || (*at != ',' && *at != '\0')) {
            return mm_fail(err, mm_code_usage,
                           "bench: --batch is '%s', wanted numbers such as 1,8,64, each from 1 to "
                           "1024",
                           text);
        }
        if (b->n_batches == most_rows) {
            return mm_fail(err, mm_code_usage, "bench: '%s' are more than %d numbers", text,
                           most_rows);
        }
        b->batches[b->n_batches++] = n;
        if (*at == '\0') return mm_code_ok;
    }
}

static enum mm_code parse_lengths(struct bench *b, const char *text, struct mm_error *err) {
    const char *at = text;
    const int64_t from = length(&at);
    const bool colon = *at == ':';
    if (colon) at++;
    const int64_t to = length(&at);
    int64_t factor = 4;
    if (*at == ':') {
        at++;
        factor = length(&at);
    }
    if (!colon || from < 1 || to < from || factor < 2 || *at != '\0') {
        return mm_fail(err, mm_code_usage,
                       "bench: --lengths is '%s', wanted A:B or A:B:F such as 500:1M:4, with A at "
                       "least 1, B not below A and F at least 2",
                       text);
    }
    for (int64_t n = from; n <= to; n *= factor)
        MM_TRY(add_length(b, n, text, err));
    return mm_code_ok;
}

static enum mm_code parse_mixers(struct bench *b, const char *text, struct mm_error *err) {
    for (const char *at = text;; at++) {
        const size_t n = strcspn(at, ",");
        int form = 0;
        while (form < mm_bench_form_count && (strlen(mm_bench_form_names[form]) != n ||
                                              strncmp(mm_bench_form_names[form], at, n) != 0))
            form++;
        for (int i = 0; i < b->n_forms; i++) {
            if ((int)b->forms[i] == form) form = mm_bench_form_count;  // twice
        }
        if (form == mm_bench_form_count) {
            return mm_fail(err, mm_code_usage,
                           "bench: --mixers is '%s', wanted some of linear, hybrid and attention, "
                           "each once",
                           text);
        }
        b->forms[b->n_forms++] = (enum mm_bench_form)form;
        at += n;
        if (*at == '\0') return mm_code_ok;
    }
}

static enum mm_code parse_dtype(struct bench *b, struct mm_error *err) {
    const char *text = mm_args_string(b->args, "--dtype");
    b->source.dtype = !text                 ? -1
                      : !strcmp(text, "q8") ? mm_dtype_q8
                      : !strcmp(text, "q4") ? mm_dtype_q4
                                            : mm_dtype_parse(text);
    const int t = b->source.dtype;
    if (text && t != mm_dtype_f32 && t != mm_dtype_bf16 && t != mm_dtype_q8 && t != mm_dtype_q4) {
        return mm_fail(err, mm_code_usage, "bench: --dtype is '%s', wanted f32, bf16, q8 or q4",
                       text);
    }
    return mm_code_ok;
}

static enum mm_code parse_source(struct bench *b, struct mm_error *err) {
    const struct mm_args *a = b->args;
    const char *config = mm_args_string(a, "--config");
    const int n = mm_args_n_positional(a);
    b->source.random = mm_args_flag(a, "--random-weights");
    if (n > 1 || (n == 1) == (config != NULL)) {
        return mm_fail(err, mm_code_usage,
                       "bench: wanted one MODEL, or --config CONFIG with --random-weights");
    }
    if (b->source.random != (config != NULL)) {
        return mm_fail(err, mm_code_usage,
                       config ? "bench: --config has no weights to measure with; add "
                                "--random-weights"
                              : "bench: --random-weights needs the sizes: --config CONFIG in place "
                                "of MODEL");
    }
    b->source.path = config ? config : mm_args_positional(a, 0);
    b->source.keep = mm_args_string(a, "--keep");
    b->source.seed = (uint64_t)mm_args_int(a, "--seed");
    return parse_dtype(b, err);
}

static enum mm_code parse_rows(struct bench *b, struct mm_error *err) {
    const struct mm_args *a = b->args;
    const char *prompts = mm_args_string(a, "--prompt"), *lengths = mm_args_string(a, "--lengths");
    const char *mixers = mm_args_string(a, "--mixers");
    if (prompts && lengths) {
        return mm_fail(err, mm_code_usage,
                       "bench: --prompt and --lengths both say how long; give one");
    }
    MM_TRY(lengths ? parse_lengths(b, lengths, err)
                   : parse_prompts(b, prompts ? prompts : "512", err));
    MM_TRY(parse_batches(b, mm_args_string(a, "--batch"), err));
    if (mixers) MM_TRY(parse_mixers(b, mixers, err));
    b->plan = (struct mm_bench_plan){
        .tiles = mm_args_int(a, "--tiles"),
        .new_tokens = mm_args_int(a, "--new"),
        .batch = b->batches[0],
        .piece = mm_args_int(a, "--piece"),
        .repeats = (int)mm_args_int(a, "--repeat"),
        .max_seconds = mm_args_float(a, "--max-seconds"),
        .skip_prefill = mm_args_flag(a, "--skip-prefill"),
        .seed = b->source.seed,
    };
    if (b->plan.skip_prefill) {
        static const char why[] = "with --skip-prefill nothing is read";
        MM_TRY(mm_args_refuse(a, "--tiles", why, err));
        MM_TRY(mm_args_refuse(a, "--piece", why, err));
        MM_TRY(mm_args_refuse(a, "--max-seconds", why, err));
    }
    return mm_code_ok;
}

// What --keep makes of a teacher.
static enum mm_code form_of_keep(struct bench *b, enum mm_bench_form *form, struct mm_error *err) {
    bool keep[mm_max_blocks] = {false};
    const int64_t n = mm_config_blocks(&b->source.config);
    int64_t kept = 0;
    MM_TRY(mm_keep_parse(b->source.keep, n, keep, err));
    for (int64_t i = 0; i < n; i++)
        kept += keep[i];
    *form = kept == 0   ? mm_bench_form_linear
            : kept == n ? mm_bench_form_attention
                        : mm_bench_form_hybrid;
    return mm_code_ok;
}

// Which forms, where --mixers does not say; and whether they can be.
static enum mm_code choose_forms(struct bench *b, struct mm_error *err) {
    struct mm_bench_source *s = &b->source;
    if (s->keep && mm_bench_source_form(s) != mm_bench_form_attention) {
        return mm_fail(err, mm_code_usage, "bench: --keep has no effect here: %s is carved already",
                       s->path);
    }
    bool hybrid = false;
    for (int i = 0; i < b->n_forms; i++) {
        hybrid |= b->forms[i] == mm_bench_form_hybrid;
        MM_TRY(mm_bench_form_check(s, b->forms[i], err));
    }
    if (b->n_forms > 0 && s->keep && !hybrid) {
        return mm_fail(err, mm_code_usage,
                       "bench: --keep has no effect here: --mixers asks for no hybrid");
    }
    if (b->n_forms > 0) return mm_code_ok;
    b->n_forms = 1;
    b->forms[0] = mm_bench_source_form(s);
    return s->keep ? form_of_keep(b, &b->forms[0], err) : mm_code_ok;
}

// ---- measuring ----------------------------------------------------------------------------------

// A row that cannot be is left out with its reason; other failures end the run.
static bool can_go_on(struct bench *b, enum mm_code code, enum mm_bench_form form, int64_t prompt,
                      const struct mm_error *err) {
    if (code != mm_code_memory && code != mm_code_unsupported) return false;
    mm_bench_report_skip(&b->report, mm_bench_form_names[form], prompt, err->text);
    mm_info("%s, %lld tokens: left out: %s", mm_bench_form_names[form], (long long)prompt,
            err->text);
    return true;
}

// What a long row is compared with: the shortest of the run, if that is short.
static int64_t pair_of(const struct bench *b, int64_t prompt) {
    int64_t least = prompt;
    for (int i = 0; i < b->n_prompts; i++)
        least = b->prompts[i] < least ? b->prompts[i] : least;
    return b->n_batches == 1 && b->plan.batch == 1 && least <= 4096 && prompt >= 8 * least ? least
                                                                                           : 0;
}

// The ceilings once more, for the rows since the last time and those that follow. Short rows share
// one: `due` says whether it must be now.
static enum mm_code measure_ceilings(struct bench *b, enum mm_dtype dtype, bool due,
                                     struct mm_error *err) {
    const double often_enough_s = 5.0;
    struct mm_bench_ceilings *c = &b->report.ceilings;
    if (!due && mm_now() - b->ceilings_at < often_enough_s) return mm_code_ok;
    MM_TRY(mm_bench_ceilings_again(c, b->source.be, mm_bench_product_of(dtype), err));
    for (; b->n_rows_held < b->report.n_rows; b->n_rows_held++)
        b->report.rows[b->n_rows_held].read_after = mm_bench_last(&c->of[mm_ceiling_read]);
    b->ceilings_at = mm_now();
    return mm_code_ok;
}

static enum mm_code run_rows(struct bench *b, struct mm_model *m, enum mm_bench_form form,
                             struct mm_error *err) {
    const struct mm_bench_rate *read = &b->report.ceilings.of[mm_ceiling_read];
    const enum mm_dtype dtype = mm_bench_dtype(m);
    MM_TRY(measure_ceilings(b, dtype, false, err));
    for (int i = 0; i < b->n_prompts * b->n_batches; i++) {
        struct mm_bench_plan plan = b->plan;
        struct mm_bench_row row = {.read_before = mm_bench_last(read)};
        plan.prompt = b->prompts[i / b->n_batches];
        plan.batch = b->batches[i % b->n_batches];
        plan.pair = pair_of(b, plan.prompt);
        const enum mm_code code = mm_bench_run(&row, m, &plan, err);
        if (code && !can_go_on(b, code, form, plan.prompt, err)) return code;
        if (!code) mm_bench_report_add(&b->report, &row);
        MM_TRY(measure_ceilings(b, dtype, false, err));
    }
    return measure_ceilings(b, dtype, b->n_rows_held < b->report.n_rows, err);
}

static enum mm_code run_forms(struct bench *b, struct mm_error *err) {
    MM_TRY(mm_bench_ceilings_all(&b->report.ceilings, b->source.be, err));
    b->ceilings_at = mm_now();
    for (int i = 0; i < b->n_forms; i++) {
        const enum mm_bench_form form = b->forms[i];
        struct mm_model *m;
        enum mm_code code = mm_interrupted() ? mm_fail(err, mm_code_interrupted, "interrupted")
                                             : mm_bench_model_open(&m, &b->source, form, err);
        if (!code) {
            code = run_rows(b, m, form, err);
            mm_bench_model_close(&b->source, m);
        } else if (can_go_on(b, code, form, b->prompts[0], err)) {
            code = mm_code_ok;
        }
        if (code) return code;
    }
    return mm_code_ok;
}

static void print(const struct bench *b) {
    if (mm_args_flag(b->args, "--json")) {
        json_t *o = mm_bench_report_json(&b->report);
        char *text = json_dumps(o, JSON_REAL_PRECISION(10));
        puts(text);
        free(text);
        json_decref(o);
        return;
    }
    struct mm_buf text = {0};
    mm_bench_report_table(&b->report, &text);
    fputs(text.data, stdout);
    mm_buf_free(&text);
}

static enum mm_code report(struct bench *b, enum mm_code code, struct mm_error *err) {
    b->report.interrupted = code == mm_code_interrupted;
    if (code && (!b->report.interrupted || b->report.n_rows == 0)) return code;
    if (b->report.n_rows == 0) {
        return mm_fail(err, mm_code_unsupported, "bench: no row could be measured: %s",
                       b->report.skipped[0].why);
    }
    print(b);
    const char *picture = mm_args_string(b->args, "--plot");
    struct mm_error ignored;
    if (picture) {
        const enum mm_code drawn = mm_bench_report_plot(&b->report, picture, code ? &ignored : err);
        if (!code) code = drawn;
    }
    return code;
}

// ---- training -----------------------------------------------------------------------------------

static enum mm_code parse_stages(const char *text, int stages[3], int *n, struct mm_error *err) {
    bool seen[4] = {false};
    *n = 0;
    for (const char *at = text;; at += 2) {
        if (*at < '1' || *at > '3' || (at[1] != ',' && at[1] != '\0') || seen[*at - '0']) {
            return mm_fail(err, mm_code_usage,
                           "bench: --train is '%s', wanted some of 1, 2 and 3, each once", text);
        }
        seen[*at - '0'] = true;
        stages[(*n)++] = *at - '0';
        if (at[1] == '\0') return mm_code_ok;
    }
}

static void print_training(const struct bench *b, const struct mm_bench_training *rows, int n,
                           double product) {
    if (mm_args_flag(b->args, "--json")) {
        json_t *o = mm_bench_report_json(&b->report);
        json_object_set_new(o, "training", mm_bench_training_json(rows, n, product));
        char *text = json_dumps(o, JSON_REAL_PRECISION(10));
        puts(text);
        free(text);
        json_decref(o);
        return;
    }
    struct mm_buf text = {0};
    mm_buf_addf(&text, "%s; products reach %.0f GFLOP/s in this run\n", b->source.be->device,
                product * 1e-9);
    mm_bench_training_table(rows, n, product, &text);
    fputs(text.data, stdout);
    mm_buf_free(&text);
}

static enum mm_code run_training(struct bench *b, struct mm_error *err) {
    static const char *const without[] = {"--mixers", "--keep",        "--new",
                                          "--batch",  "--tiles",       "--piece",
                                          "--plot",   "--max-seconds", "--skip-prefill"};
    struct mm_bench_training rows[most_rows];
    struct mm_model *teacher = NULL;
    int stages[3], n_stages, n = 0;
    for (size_t i = 0; i < sizeof without / sizeof *without; i++)
        MM_TRY(mm_args_refuse(b->args, without[i], "it is not for --train", err));
    MM_TRY(parse_stages(mm_args_string(b->args, "--train"), stages, &n_stages, err));
    if (mm_bench_source_form(&b->source) != mm_bench_form_attention) {
        return mm_fail(err, mm_code_usage,
                       "bench: --train needs a teacher, and %s is carved already", b->source.path);
    }
    MM_TRY(mm_bench_ceilings_all(&b->report.ceilings, b->source.be, err));
    MM_TRY(mm_bench_model_open(&teacher, &b->source, mm_bench_form_attention, err));
    enum mm_code code = mm_code_ok;
    for (int i = 0; i < n_stages * b->n_prompts && n < most_rows && !code; i++) {
        const int64_t T = b->prompts[i % b->n_prompts];
        code = mm_bench_train(&rows[n], teacher, stages[i / b->n_prompts], T, b->plan.repeats,
                              b->source.seed, err);
        if (!code) n++;
        if (can_go_on(b, code, mm_bench_form_attention, T, err)) code = mm_code_ok;
    }
    const enum mm_ceiling which = mm_bench_product_of(mm_bench_dtype(teacher));
    if (n > 0) print_training(b, rows, n, b->report.ceilings.of[which].best);
    mm_bench_model_close(&b->source, teacher);
    return code;
}

static enum mm_code run(struct bench *b, struct mm_error *err) {
    MM_TRY(parse_source(b, err));
    MM_TRY(parse_rows(b, err));
    MM_TRY(mm_cli_backend(&b->source.be, b->args, err));
    mm_interrupt_catch();
    b->report.be = b->source.be;
    if (b->plan.piece == 0) b->plan.piece = b->source.be->piece_tokens;
    enum mm_code code = mm_code_ok;
    if (b->source.be->gauges == NULL) {
        code =
            mm_fail(err, mm_code_unsupported,
                    "bench: the backend %s does not measure its ceilings yet", b->source.be->name);
    }
    if (!code) code = mm_bench_source_open(&b->source, err);
    if (!code) {
        if (mm_args_given(b->args, "--train")) {
            code = run_training(b, err);
        } else {
            code = choose_forms(b, err);
            if (!code) code = report(b, run_forms(b, err), err);
        }
        mm_bench_source_close(&b->source);
    }
    mm_bench_report_deinit(&b->report);
    mm_backend_close(b->source.be);
    return code;
}

int mm_cmd_bench(int argc, char **argv) {
    struct mm_error err = {0};
    bool done = false;
    struct mm_args *args = NULL;
    enum mm_code code = mm_cli_parse(
        &args, opts, "mmamba bench MODEL|--config CONFIG --random-weights [OPTION]...",
        "Measures reading and decoding at one or more lengths of the prompt, and in the same run "
        "what the memory and the adders of this machine can do: tokens a second, time to the first "
        "token, peak memory, and the fraction of the ceilings that is reached.",
        argc, argv, &done, &err);
    struct bench b = {.args = args};
    if (!code && !done) code = run(&b, &err);
    mm_args_free(args);
    return code ? mm_cli_exit(&err) : 0;
}
