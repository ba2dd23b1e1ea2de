// The verb `probe tokens`: the ids of a text, or the text of ids.
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "cli/cli.h"
#include "io/tokenizer.h"

static const struct mm_opt opts[] = {
    {"--model", mm_opt_kind_string, "FOLDER", "where the tokenizer's files are", NULL, 0, 0, false},
    {"--text", mm_opt_kind_string, "TEXT", "print this text's ids as a JSON list, BOS in front",
     NULL, 0, 0, false},
    {"--ids", mm_opt_kind_string, "1,2,3", "print the text of these ids", NULL, 0, 0, false},
    MM_CLI_COMMON,
};

static enum mm_code parse_ids(struct mm_ids *ids, const char *list, struct mm_error *err) {
    const char *p = list;
    for (;;) {
        char *end;
        errno = 0;
        const long long id = strtoll(p, &end, 10);
        if (end == p || errno != 0 || id < 0 || id > INT32_MAX || (*end != ',' && *end != 0)) {
            return mm_fail(err, mm_code_usage,
                           "--ids: '%s' is not a list of ids with commas between, as in 1,2,3",
                           list);
        }
        mm_ids_add(ids, (int32_t)id);
        if (*end == 0) return mm_code_ok;
        p = end + 1;
    }
}

static void print_ids(const struct mm_ids *ids, bool json) {
    fputs(json ? "{\"ids\": [" : "[", stdout);
    for (int64_t i = 0; i < ids->n; i++) {
        printf("%s%" PRId32, i > 0 ? ", " : "", ids->data[i]);
    }
    puts(json ? "]}" : "]");
}

static enum mm_code print_text(const struct mm_buf *text, bool json, struct mm_error *err) {
    if (!json) {
        if (text->len > 0) fwrite(text->data, 1, text->len, stdout);
        putchar('\n');
        return mm_code_ok;
    }
    json_t *o = json_pack("{s:s%}", "text", text->data ? text->data : "", text->len);
    char *line = o ? json_dumps(o, 0) : NULL;
    json_decref(o);
    if (!line) {
        return mm_fail(err, mm_code_input,
                       "the text of these ids is not UTF-8, and --json wants it");
    }
    puts(line);
    free(line);
    return mm_code_ok;
}

static enum mm_code run(const struct mm_args *args, struct mm_error *err) {
    const char *folder = mm_args_string(args, "--model"), *text = mm_args_string(args, "--text"),
               *list = mm_args_string(args, "--ids");
    const bool json = mm_args_flag(args, "--json");
    const char *const why = "nothing is computed here";
    MM_TRY(mm_args_refuse(args, "--backend", why, err));
    MM_TRY(mm_args_refuse(args, "--threads", why, err));
    if (mm_args_n_positional(args) > 0) {
        return mm_fail(err, mm_code_usage, "probe tokens: '%s' is not expected here",
                       mm_args_positional(args, 0));
    }
    if (!folder) return mm_fail(err, mm_code_usage, "probe tokens: --model FOLDER is missing");
    if (!text == !list) {
        return mm_fail(err, mm_code_usage,
                       "probe tokens: exactly one of --text and --ids is wanted");
    }
    struct mm_tokenizer *t = NULL;
    struct mm_ids ids = {NULL, 0, 0};
    struct mm_buf out = {NULL, 0, 0};
    enum mm_code code = list ? parse_ids(&ids, list, err) : mm_code_ok;
    if (code == mm_code_ok) code = mm_tokenizer_open(&t, folder, err);
    if (code == mm_code_ok && text) {
        mm_tokenizer_encode(t, text, strlen(text), true, &ids);
        print_ids(&ids, json);
    } else if (code == mm_code_ok) {
        code = mm_tokenizer_decode(t, ids.data, ids.n, false, &out, err);
        if (code == mm_code_ok) code = print_text(&out, json, err);
    }
    mm_tokenizer_close(t);
    mm_ids_free(&ids);
    mm_buf_free(&out);
    return code;
}

int mm_cmd_probe_tokens(int argc, char **argv) {
    struct mm_args *args = NULL;
    struct mm_error err = {mm_code_ok, ""};
    bool done = false;
    enum mm_code code = mm_cli_parse(
        &args, opts, "mmamba probe tokens --model FOLDER --text TEXT | --ids 1,2,3",
        "Prints the ids of a text as a JSON list, BOS in front; or the text of ids. The folder\n"
        "needs only the tokenizer's files.",
        argc, argv, &done, &err);
    if (code == mm_code_ok && !done) code = run(args, &err);
    mm_args_free(args);
    return mm_cli_exit(&err);
}
