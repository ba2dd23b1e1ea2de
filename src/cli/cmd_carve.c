// The verb `carve`: the student as it starts, in the released layout.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/model_out.h"
#include "model/model.h"

static const struct mm_opt opts[] = {
    {"--keep", mm_opt_kind_string, "KEEP",
     "blocks that stay attention: none, all, 0,4,8, or head-interleaved:8, tail-interleaved:8, "
     "head-stacked:8, tail-stacked:8",
     "none", 0, 0, false},
    {"--init", mm_opt_kind_string, "scratch|inherit|mimic",
     "how the mixers start: afresh, with the teacher's q, k and v, or with those and everything "
     "else as close to attention as it gets",
     "mimic", 0, 0, false},
    {"--seed", mm_opt_kind_int, "N", "of what starts at random", "1", 0, 9e15, false},
    MM_CLI_COMMON,
};

struct carving {
    struct mm_model teacher, student;
    bool keep[mm_max_blocks];
    int64_t n_kept;
    enum mm_init init;
};

static enum mm_code check_options(struct carving *c, const struct mm_args *args,
                                  struct mm_error *err) {
    const char *init = mm_args_string(args, "--init");
    const int parsed = mm_init_parse(init);
    if (mm_args_n_positional(args) != 2) {
        return mm_fail(err, mm_code_usage, "carve: wanted TEACHER and OUT, got %d arguments",
                       mm_args_n_positional(args));
    }
    if (parsed < 0) {
        return mm_fail(err, mm_code_usage,
                       "carve: --init is '%s', wanted scratch, inherit or mimic", init);
    }
    c->init = (enum mm_init)parsed;
    return mm_code_ok;
}

static enum mm_code carve(struct carving *c, struct mm_backend *be, const struct mm_args *args,
                          struct mm_error *err) {
    const char *from = mm_args_positional(args, 0);
    MM_TRY(mm_model_load(&c->teacher, be, from, -1, err));
    MM_TRY(mm_keep_parse(mm_args_string(args, "--keep"), c->teacher.n_blocks, c->keep, err));
    for (int64_t i = 0; i < c->teacher.n_blocks; i++)
        c->n_kept += c->keep[i];
    if (c->n_kept == c->teacher.n_blocks) {
        MM_TRY(mm_args_refuse(args, "--init", "every block is kept, so no mixer starts", err));
        MM_TRY(mm_args_refuse(args, "--seed", "every block is kept, so no mixer starts", err));
    }
    return mm_model_carve(&c->student, &c->teacher, c->keep, c->init,
                          (uint64_t)mm_args_int(args, "--seed"), err);
}

static enum mm_code write_student(const struct carving *c, const struct mm_args *args,
                                  struct mm_error *err) {
    const char *from = mm_args_positional(args, 0);
    struct mm_model_out out;
    MM_TRY(mm_model_out_begin(&out, mm_args_positional(args, 1), from, err));
    char *assets = mm_model_folder(from);
    const enum mm_code code = mm_model_save(&c->student, out.stage, c->teacher.dtype, assets, err);
    free(assets);
    return mm_model_out_end(&out, code, err);
}

static void report(const struct carving *c, const struct mm_args *args) {
    const long long kept = (long long)c->n_kept;
    const long long carved = (long long)(c->student.n_blocks - c->n_kept);
    const char *out = mm_args_positional(args, 1);
    const long long parameters = (long long)mm_model_n_parameters(&c->student);
    if (!mm_args_flag(args, "--json")) {
        mm_info("%s: %lld blocks carved, %lld kept; %lld parameters, %s", out, carved, kept,
                parameters, mm_dtype_name(c->teacher.dtype));
        return;
    }
    struct mm_buf text = {0};
    mm_buf_addf(&text,
                "{\"carved\": %lld, \"kept\": %lld, \"parameters\": %lld, \"dtype\": \"%s\"}",
                carved, kept, parameters, mm_dtype_name(c->teacher.dtype));
    puts(text.data);
    mm_buf_free(&text);
}

static enum mm_code run(const struct mm_args *args, struct mm_error *err) {
    struct carving c = {0};
    struct mm_backend *be;
    MM_TRY(check_options(&c, args, err));
    MM_TRY(mm_cli_backend(&be, args, err));
    enum mm_code code = carve(&c, be, args, err);
    if (!code) code = write_student(&c, args, err);
    if (!code) report(&c, args);
    if (c.student.be) mm_model_deinit(&c.student);
    if (c.teacher.be) mm_model_deinit(&c.teacher);
    mm_backend_close(be);
    return code;
}

int mm_cmd_carve(int argc, char **argv) {
    struct mm_args *args = NULL;
    struct mm_error err = {0};
    bool done = false;
    enum mm_code code =
        mm_cli_parse(&args, opts, "mmamba carve TEACHER OUT [OPTION]...",
                     "Writes the Mamba-2 student of a trained Transformer, as it starts.", argc,
                     argv, &done, &err);
    if (!code && !done) code = run(args, &err);
    mm_args_free(args);
    return code ? mm_cli_exit(&err) : 0;
}
