// The verb `inspect`: what a model is made of, what of it trains, and what it takes in memory. Of a
// config.json alone too, and of the student that a teacher would give.
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/devices.h"
#include "cli/inspect.h"

static const struct mm_opt opts[] = {
    {"--tokens", mm_opt_kind_int, "N", "length of the sequence that state and cache are given for",
     "4096", 1, 1e12, false},
    {"--keep", mm_opt_kind_string, "KEEP",
     "of a teacher: show the student that keeps these blocks (none, all, 0,4,8, "
     "head-interleaved:8, ...)",
     NULL, 0, 0, false},
    {"--dtype", mm_opt_kind_string, "bf16|f16|f32|q8|q4",
     "show the weights in this type (default: as stored)", NULL, 0, 0, false},
    {"--recipe", mm_opt_kind_string, "FILE",
     "count what this recipe trains (default: the published one)", NULL, 0, 0, false},
    {"--device", mm_opt_kind_flag, NULL,
     "list what this machine can compute on; with a MODEL also how many sequences of --tokens fit",
     NULL, 0, 0, false},
    MM_CLI_COMMON,
};

// ---- opening ------------------------------------------------------------------------------------

static bool is_config(const char *path) {
    const size_t n = strlen(path);
    return n > 5 && strcmp(path + n - 5, ".json") == 0 && !mm_path_is_folder(path);
}

static enum mm_dtype config_dtype(const struct mm_config *c) {
    return strcmp(c->torch_dtype, "float32") == 0   ? mm_dtype_f32
           : strcmp(c->torch_dtype, "float16") == 0 ? mm_dtype_f16
                                                    : mm_dtype_bf16;
}

// The list of parameters of a config, without memory.
static enum mm_code list_only(struct mm_inspection *x, const char *path, struct mm_error *err) {
    struct mm_config config = {0};
    MM_TRY(mm_config_read(&config, path, err));
    mm_model_init(&x->model, &config, NULL, config_dtype(&config));
    mm_config_deinit(&config);
    x->planned = true;
    return mm_code_ok;
}

// Reads and checks the weights, then keeps only the list: what follows counts.
static enum mm_code list_of_weights(struct mm_inspection *x, const char *path,
                                    struct mm_error *err) {
    struct mm_backend *be;
    MM_TRY(mm_backend_open_cpu(&be, 1, err));
    enum mm_code code = mm_model_load(&x->model, be, path, -1, err);
    if (!code) {
        const struct mm_st *st = x->model.source;
        for (int i = 0; i < mm_st_count(st); i++)
            x->disk_bytes += mm_st_at(st, i)->bytes;
        x->memory_bytes = mm_model_weight_bytes(&x->model);
        const enum mm_dtype dtype = x->model.dtype;
        struct mm_config config;
        code = mm_config_copy(&config, &x->model.config, err);
        mm_model_deinit(&x->model);
        if (!code) mm_model_init(&x->model, &config, NULL, dtype);
        if (!code) mm_config_deinit(&config);
    }
    mm_backend_close(be);
    return code;
}

// The model as it would be with another set of mixers, or in another type.
static enum mm_code change(struct mm_inspection *x, const char *keep_text, int dtype,
                           struct mm_error *err) {
    struct mm_config config = {0};
    if (keep_text) {
        MM_TRY(mm_model_refuse_quantized(&x->model, "a student starts from exact ones", err));
        bool keep[mm_max_blocks] = {false};
        if (x->model.config.student) {
            return mm_fail(err, mm_code_usage,
                           "--keep has no effect here: the model is carved already, only a teacher "
                           "can be shown as its student");
        }
        MM_TRY(mm_keep_parse(keep_text, x->model.n_blocks, keep, err));
        MM_TRY(mm_config_student(&config, &x->model.config, keep, err));
    } else {
        MM_TRY(mm_config_copy(&config, &x->model.config, err));
    }
    const bool rounded = mm_dtype_quantized((enum mm_dtype)dtype);
    const enum mm_dtype now = dtype < 0 || rounded ? x->model.dtype : (enum mm_dtype)dtype;
    if (dtype >= 0) mm_config_set_quant(&config, (enum mm_dtype)dtype);
    mm_model_deinit(&x->model);
    mm_model_init(&x->model, &config, NULL, now);
    mm_config_deinit(&config);
    x->planned = true;
    return mm_code_ok;
}

static enum mm_code open_inspection(struct mm_inspection *x, const struct mm_args *args,
                                    struct mm_error *err) {
    const char *dtype_text = mm_args_string(args, "--dtype");
    const char *keep = mm_args_string(args, "--keep");
    const char *recipe = mm_args_string(args, "--recipe");
    int dtype = dtype_text ? mm_dtype_parse(dtype_text) : -1;
    if (dtype_text && strcmp(dtype_text, "q8") == 0) dtype = mm_dtype_q8;
    if (dtype_text && strcmp(dtype_text, "q4") == 0) dtype = mm_dtype_q4;
    if (dtype_text && dtype != mm_dtype_bf16 && dtype != mm_dtype_f16 && dtype != mm_dtype_f32 &&
        dtype != mm_dtype_q8 && dtype != mm_dtype_q4) {
        return mm_fail(err, mm_code_usage,
                       "inspect: --dtype is '%s', wanted bf16, f16, f32, q8 or q4", dtype_text);
    }
    struct mm_recipe r;
    mm_recipe_defaults(&r);
    if (recipe) MM_TRY(mm_recipe_read(&r, recipe, err));
    MM_TRY(is_config(x->path) ? list_only(x, x->path, err) : list_of_weights(x, x->path, err));
    if (keep || dtype >= 0) MM_TRY(change(x, keep, dtype, err));
    if (x->planned) {
        x->memory_bytes = mm_model_weight_bytes(&x->model);
        x->disk_bytes = mm_model_quantized(&x->model) ? x->memory_bytes
                                                      : (size_t)mm_model_n_parameters(&x->model) *
                                                            mm_dtype_bytes(x->model.dtype);
    }
    x->tokens = mm_args_int(args, "--tokens");
    return mm_inspection_count(x, &r, recipe, err);
}

// ---- the verb -----------------------------------------------------------------------------------

static void print_json(const struct mm_inspection *x) {
    json_t *blocks = json_array(), *parts = json_object();
    for (int64_t i = 0; i < x->model.n_blocks; i++) {
        const bool mha = x->model.blocks[i].mixer == mm_mixer_mha;
        json_array_append_new(blocks, json_string(mha ? "mha" : "mamba2"));
    }
    for (int i = 0; i < mm_part_count; i++) {
        json_object_set_new(parts, mm_part_keys[i], json_integer((json_int_t)x->part[i]));
    }
    const size_t row = mm_model_cache_bytes_per_token(&x->model);
    json_t *o = json_pack(
        "{s:s, s:o, s:I, s:{s:I, s:I, s:I}, s:I, s:I, s:I, s:I, s:I, s:s, s:I, s:I, s:o}",
        "model_type", mm_inspection_type(x), "blocks", blocks, "parameters",
        (json_int_t)x->parameters, "trainable", "1", (json_int_t)x->trainable[1], "2",
        (json_int_t)x->trainable[2], "3", (json_int_t)x->trainable[3], "weight_bytes",
        (json_int_t)x->memory_bytes, "state_bytes", (json_int_t)mm_model_state_bytes(&x->model),
        "cache_bytes_per_token", (json_int_t)row, "tokens", (json_int_t)x->tokens, "cache_bytes",
        (json_int_t)row * (json_int_t)x->tokens, "dtype", mm_model_dtype_name(&x->model),
        "disk_bytes", (json_int_t)x->disk_bytes, "quantized_bytes", (json_int_t)x->quantized_bytes,
        "parts", parts);
    char *text = json_dumps(o, 0);
    puts(text);
    free(text);
    json_decref(o);
}

static enum mm_code run_devices(const struct mm_args *args, struct mm_error *err) {
    struct mm_inspection x = {0};
    const bool named = mm_args_n_positional(args) == 1;
    struct mm_devices d;
    MM_TRY(mm_devices_find(&d, err));
    if (named) {
        x.path = mm_args_positional(args, 0);
        MM_TRY(open_inspection(&x, args, err));
    } else {
        static const char why[] = "--device without a MODEL lists devices only";
        MM_TRY(mm_args_refuse(args, "--tokens", why, err));
        MM_TRY(mm_args_refuse(args, "--keep", why, err));
        MM_TRY(mm_args_refuse(args, "--dtype", why, err));
        MM_TRY(mm_args_refuse(args, "--recipe", why, err));
    }
    if (mm_args_flag(args, "--json")) {
        mm_devices_print_json(&d, named ? &x : NULL);
    } else {
        mm_devices_print(&d, named ? &x : NULL);
    }
    if (named) mm_model_deinit(&x.model);
    return mm_code_ok;
}

static enum mm_code run(const struct mm_args *args, struct mm_error *err) {
    const bool devices = mm_args_flag(args, "--device");
    if (devices && mm_args_n_positional(args) == 0) return run_devices(args, err);
    struct mm_inspection x = {.path = mm_args_positional(args, 0)};
    if (mm_args_n_positional(args) != 1) {
        return mm_fail(err, mm_code_usage, "inspect: wanted one MODEL, got %d arguments",
                       mm_args_n_positional(args));
    }
    static const char why[] = "nothing is computed";
    MM_TRY(mm_args_refuse(args, "--backend", why, err));
    MM_TRY(mm_args_refuse(args, "--threads", why, err));
    if (devices) return run_devices(args, err);
    const enum mm_code code = open_inspection(&x, args, err);
    if (!code && mm_args_flag(args, "--json")) {
        print_json(&x);
    } else if (!code) {
        mm_inspection_print(&x);
    }
    mm_model_deinit(&x.model);
    return code;
}

int mm_cmd_inspect(int argc, char **argv) {
    struct mm_args *args = NULL;
    struct mm_error err = {0};
    bool done = false;
    enum mm_code code =
        mm_cli_parse(&args, opts,
                     "mmamba inspect MODEL|CONFIG.json [OPTION]...\n       mmamba inspect --device "
                     "[MODEL|CONFIG.json]",
                     "Shows a model's blocks and their mixers, its parameters and how many train "
                     "in each stage, and the bytes of weights, state and cache.",
                     argc, argv, &done, &err);
    if (!code && !done) code = run(args, &err);
    mm_args_free(args);
    return code ? mm_cli_exit(&err) : 0;
}
