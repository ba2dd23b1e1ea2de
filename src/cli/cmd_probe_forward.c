// The verb `probe forward`: logits and every block's output for given token ids and pixels, in f32,
// whole, in pieces, or token by token.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/probe_input.h"
#include "infer/piece.h"
#include "model/model.h"

static const struct mm_opt opts[] = {
    {"--model", mm_opt_kind_string, "MODEL", "folder, or CONFIG.json:WEIGHTS.safetensors", NULL, 0,
     0, false},
    {"--input", mm_opt_kind_string, "FILE", "safetensors with input_ids, and pixel_values", NULL, 0,
     0, false},
    {"--output", mm_opt_kind_string, "FILE", "safetensors to write", NULL, 0, 0, false},
    {"--chunk", mm_opt_kind_int, "N", "feed about N tokens at a time (a tile stays whole)", NULL, 1,
     1e9, false},
    {"--step-from", mm_opt_kind_int, "N", "feed tokens N.. one at a time", NULL, 0, 1e9, false},
    MM_CLI_COMMON,
};

// What is written: logits, and a row of (T, D) a block.
struct output {
    struct mm_model *m;
    int64_t B, T, T_embed;  // rows of a sequence in each stack
    float *logits;          // (B, T, V)
    float **layers;         // (L) of (B, T or T_embed, D)
    int64_t at_embed, at_llm;
};

static int64_t rows_of(const struct output *o, int64_t block) {
    return block < o->m->config.embed.n_blocks ? o->T_embed : o->T;
}

static void keep_layer(void *arg, int64_t block, const struct mm_stream *st,
                       const struct mm_block_acts *acts, struct mm_view y, struct mm_arena *arena) {
    (void)acts, (void)arena;
    struct output *o = arg;
    const int64_t D = o->m->config.llm.D;
    const int64_t at = block < o->m->config.embed.n_blocks ? o->at_embed : o->at_llm;
    o->m->be->download(o->m->be, o->layers[block] + at * D, y.data,
                       (size_t)(st->T * D) * sizeof(float));
}

static enum mm_code write_output(const struct output *o, const char *path, struct mm_error *err) {
    const int64_t L = o->m->n_blocks, D = o->m->config.llm.D, V = o->m->config.V;
    struct mm_st_tensor *t = mm_xcalloc((size_t)L + 1, sizeof *t);
    char(*names)[32] = mm_xcalloc((size_t)L, sizeof *names);
    for (int64_t i = 0; i < L; i++) {
        snprintf(names[i], sizeof names[i], "layer_%02lld.out", (long long)i);
        const int64_t rows = rows_of(o, i);
        t[i] = (struct mm_st_tensor){
            names[i],        mm_dtype_f32, 3,
            {o->B, rows, D}, o->layers[i], (size_t)(o->B * rows * D) * sizeof(float)};
    }
    t[L] = (struct mm_st_tensor){"logits",  mm_dtype_f32,
                                 3,         {o->B, o->T, V},
                                 o->logits, (size_t)(o->B * o->T * V) * sizeof(float)};
    const enum mm_code code = mm_st_write(path, t, (int)L + 1, NULL, 0, err);
    free(names);
    free(t);
    return code;
}

// All sequences at once, packed, from nothing: the path that training takes.
static enum mm_code run_packed(struct output *o, const struct mm_probe_input *in,
                               struct mm_error *err) {
    struct mm_probe_batch b;
    const int64_t n = o->B * o->T, V = o->m->config.V;
    MM_TRY(mm_probe_batch_make(&b, o->m, in, mm_piece_plan(o->m, n, in->B, in->n_tiles, n, false),
                               err));
    struct mm_forward f = {0};
    const struct mm_tap tap = {keep_layer, o, false};
    mm_model_fwd(o->m, &b.layout, b.pixels, NULL, &f, false, false, &tap, &b.device);
    struct mm_view logits =
        mm_view2(mm_arena_take(&b.device, (size_t)(n * V) * sizeof(float)), mm_dtype_f32, n, V);
    mm_linear_fwd(o->m->be, logits, f.hidden, mm_model_w(o->m, mm_role_output), MM_NONE);
    o->m->be->download(o->m->be, o->logits, logits.data, (size_t)(n * V) * sizeof(float));
    const enum mm_code code = mm_backend_sync(o->m->be, err);
    mm_probe_batch_deinit(&b);
    return code;
}

// One sequence after another, each in pieces against its state.
static enum mm_code run_pieces(struct output *o, const struct mm_probe_input *in, int64_t chunk,
                               int64_t step_from, struct mm_error *err) {
    struct mm_piece_memory mem = {0};
    struct mm_state state;
    MM_TRY(mm_state_init(&state, o->m, err));
    const int64_t S = o->m->config.image_size, V = o->m->config.V;
    const struct mm_tap tap = {keep_layer, o, false};
    int64_t tile = 0;
    enum mm_code code = mm_code_ok;
    for (int64_t s = 0; !code && s < in->B; s++) {
        const int32_t *ids = in->ids + s * in->T;
        mm_state_clear(&state);
        for (int64_t t = 0, end; !code && t < in->T; t = end) {
            int64_t tiles, want = t >= step_from ? 1 : chunk;
            if (t < step_from && t + want > step_from) want = step_from - t;
            end = mm_piece_end(&o->m->config, ids, in->T, t, want, &tiles);
            if (tile + tiles > in->n_tiles) tiles = in->n_tiles - tile;  // the layout tells
            code = mm_piece_memory_reserve(&mem, o->m, end - t, tiles, end - t, err);
            struct mm_view hidden;
            if (!code) {
                code = mm_piece_run(&mem, o->m, &state, ids + t, end - t,
                                    in->pixels + tile * 3 * S * S, tiles, &tap, &hidden, in->path,
                                    err);
            }
            if (!code) {
                code = mm_piece_logits(&mem, o->m, hidden, end - t, o->logits + (s * in->T + t) * V,
                                       err);
            }
            o->at_embed = s * o->T_embed + state.n_embed;
            o->at_llm = s * o->T + state.n_llm;
            tile += tiles;
        }
    }
    mm_piece_memory_deinit(&mem);
    mm_state_deinit(&state);
    return code;
}

static enum mm_code run(const struct mm_args *args, struct mm_error *err) {
    struct mm_backend *be = NULL;
    struct mm_model m = {0};
    struct mm_probe_input in = {0};
    struct output o = {.m = &m};
    for (int i = 0; i < 3; i++) {
        if (mm_args_string(args, opts[i].name) == NULL) {
            return mm_fail(err, mm_code_usage, "probe forward: %s is missing", opts[i].name);
        }
    }
    enum mm_code code = mm_cli_backend_reference(&be, args, err);
    if (!code) code = mm_model_load(&m, be, mm_args_string(args, "--model"), mm_dtype_f32, err);
    if (!code) code = mm_probe_input_read(&in, mm_args_string(args, "--input"), &m.config, err);
    if (!code) {
        o.B = in.B, o.T = in.T, o.T_embed = in.T_embed;
        o.logits = mm_xmalloc((size_t)(o.B * o.T * m.config.V) * sizeof(float));
        o.layers = mm_xcalloc((size_t)m.n_blocks, sizeof *o.layers);
        for (int64_t i = 0; i < m.n_blocks; i++) {
            o.layers[i] =
                mm_xmalloc((size_t)(o.B * rows_of(&o, i) * m.config.llm.D) * sizeof(float));
        }
        const bool pieces = mm_args_given(args, "--chunk") || mm_args_given(args, "--step-from");
        if (pieces) {
            const int64_t chunk =
                mm_args_given(args, "--chunk") ? mm_args_int(args, "--chunk") : in.T;
            const int64_t from =
                mm_args_given(args, "--step-from") ? mm_args_int(args, "--step-from") : in.T;
            code = run_pieces(&o, &in, chunk, from, err);
        } else {
            code = run_packed(&o, &in, err);
        }
    }
    if (!code) code = write_output(&o, mm_args_string(args, "--output"), err);
    for (int64_t i = 0; o.layers && i < m.n_blocks; i++)
        free(o.layers[i]);
    free(o.layers);
    free(o.logits);
    mm_probe_input_deinit(&in);
    if (m.be) mm_model_deinit(&m);
    if (be) mm_backend_close(be);
    return code;
}

int mm_cmd_probe_forward(int argc, char **argv) {
    struct mm_args *args = NULL;
    struct mm_error err = {0};
    bool done = false;
    enum mm_code code =
        mm_cli_parse(&args, opts, "mmamba probe forward --model MODEL --input IN --output OUT",
                     "Writes logits and layer_NN.out for given token ids, computed in f32.", argc,
                     argv, &done, &err);
    if (!code && !done) code = mm_args_refuse(args, "--json", "the answer is a file", &err);
    if (!code && !done) code = run(args, &err);
    mm_args_free(args);
    return code ? mm_cli_exit(&err) : 0;
}
