// The verb `chat`: one answer with -p, a conversation without.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/chat_input.h"
#include "cli/chat_talk.h"
#include "cli/cli.h"
#include "io/json.h"

static const struct mm_opt opts[] = {
    {"--image,-i", mm_opt_kind_string, "IMAGE", "a picture for the first turn; may be repeated",
     NULL, 0, 0, true},
    {"--prompt,-p", mm_opt_kind_string, "TEXT", "answer this and leave", NULL, 0, 0, false},
    {"--max-new-tokens", mm_opt_kind_int, "N",
     "most tokens of an answer (default: generation_config.json, else 1024)", NULL, 1, 1e9, false},
    {"--temperature", mm_opt_kind_float, "T",
     "0: always the likeliest token (default: generation_config.json, else 0)", NULL, 0, 100,
     false},
    {"--top-k", mm_opt_kind_int, "K", "draw among the K likeliest tokens; 0: all", NULL, 0, 1e9,
     false},
    {"--top-p", mm_opt_kind_float, "P", "draw among the likeliest tokens that make up P", NULL, 0,
     1, false},
    {"--min-p", mm_opt_kind_float, "P", "draw among tokens at least P times as likely as the first",
     NULL, 0, 1, false},
    {"--repetition-penalty", mm_opt_kind_float, "X",
     "divides the logits of tokens that the answer has already; 1: off", NULL, 0.01, 100, false},
    {"--seed", mm_opt_kind_int, "N", "of the draws (default: 0)", NULL, 0, 9e15, false},
    {"--system", mm_opt_kind_string, "TEXT", "system message (default: InternVL's)", NULL, 0, 0,
     false},
    {"--max-tiles", mm_opt_kind_int, "N", "most tiles of a picture (default: the config's)", NULL,
     1, mm_tiles_max, false},
    {"--dtype", mm_opt_kind_string, "f32|bf16|f16", "of the weights in memory (default: as stored)",
     NULL, 0, 0, false},
    {"--huge-pages", mm_opt_kind_flag, NULL,
     "copy the weights into huge pages first (where files are mapped in small ones)", NULL, 0, 0,
     false},
    MM_CLI_COMMON,
};

struct settings {
    struct mm_session_options session;
    struct mm_generation generation;
    struct mm_sampling sampling;
    uint64_t seed;
};

static enum mm_code check(const struct mm_args *args, int *dtype, struct mm_error *err) {
    if (mm_args_n_positional(args) != 1) {
        return mm_fail(err, mm_code_usage,
                       mm_args_n_positional(args) == 0
                           ? "chat: MODEL, a model folder, is missing"
                           : "chat: one MODEL is wanted, '%s' is too many",
                       mm_args_positional(args, 1));
    }
    const char *prompt = mm_args_string(args, "--prompt");
    if (prompt && !*prompt && mm_args_count(args, "--image") == 0) {
        return mm_fail(err, mm_code_usage, "chat: --prompt is empty, and there is no picture");
    }
    if (!prompt) {
        MM_TRY(mm_args_refuse(args, "--json", "a conversation is not one object; give -p", err));
    } else if (mm_args_count(args, "--image") == 0) {
        MM_TRY(mm_args_refuse(args, "--max-tiles", "there is no picture", err));
    }

    const char *name = mm_args_string(args, "--dtype");
    if (name) {
        *dtype = mm_dtype_parse(name);
        if (*dtype != mm_dtype_f32 && *dtype != mm_dtype_bf16 && *dtype != mm_dtype_f16) {
            return mm_fail(err, mm_code_usage, "--dtype is '%s', must be f32, bf16 or f16", name);
        }
    }
    return mm_code_ok;
}

// The command line over what the model's folder recommends.
static enum mm_code settle(struct settings *o, const struct mm_args *args,
                           const struct mm_engine *e, struct mm_error *err) {
    o->session = MM_SESSION_OPTIONS;
    o->session.system = mm_args_string(args, "--system");
    if (mm_args_given(args, "--max-tiles")) {
        o->session.max_tiles = (int32_t)mm_args_int(args, "--max-tiles");
        if (!e->model.config.dynamic_tiles) {
            MM_TRY(mm_args_refuse(args, "--max-tiles", "this model takes every picture as one tile",
                                  err));
        }
    }
    o->generation = e->answer;
    if (mm_args_given(args, "--max-new-tokens")) {
        o->generation.max_new_tokens = mm_args_int(args, "--max-new-tokens");
        if (o->generation.min_new_tokens > o->generation.max_new_tokens) {
            o->generation.min_new_tokens = o->generation.max_new_tokens;
        }
    }
    struct mm_sampling *how = &o->sampling;
    *how = e->sampling;
    if (mm_args_given(args, "--temperature"))
        how->temperature = mm_args_float(args, "--temperature");
    if (mm_args_given(args, "--repetition-penalty")) {
        how->repetition_penalty = mm_args_float(args, "--repetition-penalty");
    }
    if (how->temperature == 0.0) {
        static const char *const drawn[] = {"--top-k", "--top-p", "--min-p", "--seed"};
        for (size_t i = 0; i < sizeof drawn / sizeof *drawn; i++) {
            MM_TRY(mm_args_refuse(args, drawn[i],
                                  "nothing is drawn at temperature 0; give --temperature", err));
        }
    }
    if (mm_args_given(args, "--top-k")) how->top_k = mm_args_int(args, "--top-k");
    if (mm_args_given(args, "--top-p")) how->top_p = mm_args_float(args, "--top-p");
    if (mm_args_given(args, "--min-p")) how->min_p = mm_args_float(args, "--min-p");
    o->seed = mm_args_given(args, "--seed") ? (uint64_t)mm_args_int(args, "--seed") : 0;
    return mm_code_ok;
}

static enum mm_code print_json(const struct mm_answer *a, struct mm_error *err) {
    json_t *o = json_pack("{s:s%, s:s, s:I, s:I, s:f, s:f}", "text", a->text, a->n_bytes, "finish",
                          mm_finish_name(a->finish), "prompt_tokens", (json_int_t)a->prompt_tokens,
                          "new_tokens", (json_int_t)a->new_tokens, "ttft_s", a->ttft_s,
                          "decode_tok_s", a->decode_tok_s);
    char *line = o ? json_dumps(o, JSON_REAL_PRECISION(9)) : NULL;
    json_decref(o);
    if (line == NULL) return mm_fail(err, mm_code_memory, "no memory for the JSON object");
    puts(line);
    free(line);
    return mm_code_ok;
}

static enum mm_code answer_once(struct mm_session *s, const struct mm_args *args,
                                const struct settings *o, struct mm_error *err) {
    const int n = mm_args_count(args, "--image");
    struct mm_picture *p = mm_xcalloc((size_t)n, sizeof *p);
    for (int i = 0; i < n; i++)
        p[i].path = mm_args_nth(args, "--image", i);
    const bool json = mm_args_flag(args, "--json");
    struct mm_answer a;
    enum mm_code code = mm_session_add_turn(s, mm_args_string(args, "--prompt"), p, n, err);
    free(p);
    if (!code) {
        code = mm_session_generate(s, &o->generation,
                                   json ? &mm_chat_to_nowhere : &mm_chat_to_stdout, &a, err);
    }
    if (code) return code;
    if (json) {
        MM_TRY(print_json(&a, err));
    } else {
        putchar('\n');
        mm_info("%lld tokens read, %lld written (%s), the first after %.3f s, then %.1f tokens/s",
                (long long)a.prompt_tokens, (long long)a.new_tokens, mm_finish_name(a.finish),
                a.ttft_s, a.decode_tok_s);
    }
    if (a.finish == mm_finish_cancelled) {
        return mm_fail(err, mm_code_interrupted, "interrupted after %lld tokens",
                       (long long)a.new_tokens);
    }
    return mm_code_ok;
}

static enum mm_code talk(struct mm_engine *e, struct mm_session *s, const struct mm_args *args,
                         const struct settings *o, struct mm_error *err) {
    const int n = mm_args_count(args, "--image");
    const char **pictures = mm_xcalloc((size_t)n, sizeof *pictures);
    for (int i = 0; i < n; i++)
        pictures[i] = mm_args_nth(args, "--image", i);
    const enum mm_code code = mm_chat_talk(e, s, &o->session, &o->generation, pictures, n, err);
    free(pictures);
    return code;
}

static enum mm_code run(const struct mm_args *args, struct mm_error *err) {
    int dtype = -1;
    MM_TRY(check(args, &dtype, err));
    struct mm_backend *be = NULL;
    struct mm_engine *e = NULL;
    struct mm_session *s = NULL;
    struct settings o;
    MM_TRY(mm_cli_backend(&be, args, err));
    enum mm_code code = mm_engine_open(&e, be, mm_args_positional(args, 0), dtype, err);
    if (!code && mm_args_flag(args, "--huge-pages")) code = mm_engine_copy_weights(e, err);
    if (!code) code = settle(&o, args, e, err);
    if (!code) code = mm_session_new(&s, e, &o.session, err);
    if (!code) code = mm_session_set_sampling(s, &o.sampling, err);
    if (!code) {
        mm_session_set_seed(s, o.seed);
        mm_chat_catch();
        if (mm_args_given(args, "--prompt")) {
            code = answer_once(s, args, &o, err);
        } else {
            code = talk(e, s, args, &o, err);
            s = NULL;
        }
    }
    mm_session_free(s);
    mm_engine_close(e);
    mm_backend_close(be);
    return code;
}

int mm_cmd_chat(int argc, char **argv) {
    struct mm_args *args = NULL;
    struct mm_error err = {mm_code_ok, ""};
    bool done = false;
    enum mm_code code =
        mm_cli_parse(&args, opts, "mmamba chat MODEL [-i IMAGE]... [-p TEXT]",
                     "Talks with a model about pictures. With -p one answer; without, a\n"
                     "conversation: several turns, /help lists its commands.",
                     argc, argv, &done, &err);
    if (!code && !done) code = run(args, &err);
    mm_args_free(args);
    return code ? mm_cli_exit(&err) : 0;
}
