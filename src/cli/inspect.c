// Counting and printing for `inspect`.
#include "cli/inspect.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const mm_part_keys[mm_part_count] = {
    "image_entry", "text_embeddings", "attention", "mamba2", "mlp", "norms", "output", "unused",
};
static const char *const part_names[mm_part_count] = {
    "image entry", "text embeddings", "attention", "Mamba-2 mixers",
    "MLPs",        "norms",           "output",    "stored, not used",
};

// ---- counting -----------------------------------------------------------------------------------

static enum mm_part part_of(const struct mm_model *m, const struct mm_param *p) {
    if (!p->used) return mm_part_unused;
    switch (p->role) {
        case mm_role_text:
        case mm_role_special:
            return mm_part_text;
        case mm_role_norm:
        case mm_role_attention_norm:
        case mm_role_ffn_norm:
            return mm_part_norms;
        case mm_role_output:
            return mm_part_output;
        case mm_role_w1:
        case mm_role_w2:
        case mm_role_w3:
            return mm_part_mlp;
        default:
            break;
    }
    if (p->block < 0) return mm_part_image;
    return m->blocks[p->block].mixer == mm_mixer_mha ? mm_part_attention : mm_part_mamba2;
}

static enum mm_code count_stage(int64_t *n, int64_t *of, const struct mm_config *config,
                                const struct mm_stage_recipe *stage, const char *recipe_path,
                                struct mm_error *err) {
    struct mm_model m;
    bool converted = false;
    mm_model_init(&m, config, NULL, mm_dtype_f32);
    *of = mm_model_n_parameters(&m);
    for (int i = 0; i < m.n_params; i++) {
        if (mm_recipe_trains(stage, &m.params[i])) *n += mm_view_count(m.params[i].w);
        converted |= m.params[i].role == mm_role_g_proj;
    }
    enum mm_code code = mm_code_ok;
    if (recipe_path && converted) code = mm_recipe_check_names(stage, &m, err);
    mm_model_deinit(&m);
    return code;
}

enum mm_code mm_inspection_count(struct mm_inspection *x, const struct mm_recipe *r,
                                 const char *recipe_path, struct mm_error *err) {
    const struct mm_model *m = &x->model;
    x->parameters = mm_model_n_parameters(m);
    for (int i = 0; i < m->n_params; i++) {
        const struct mm_view w = m->params[i].w;
        x->part[part_of(m, &m->params[i])] += mm_view_count(w);
        if (mm_dtype_quantized(w.dtype)) x->quantized_bytes += mm_view_bytes(w);
    }
    struct mm_config config;
    MM_TRY(mm_config_copy(&config, &m->config, err));
    const bool teacher = !config.student;
    enum mm_code code = mm_code_ok;
    for (int stage = 1; stage <= 3 && !code; stage++) {
        if (stage == 3 && !teacher) {
            memcpy(config.mixers, m->config.mixers, sizeof config.mixers);
        } else {
            for (int64_t i = 0; i < m->n_blocks; i++)
                config.mixers[i] = mm_mixer_mamba2;
        }
        code = count_stage(&x->trainable[stage], &x->of[stage], &config, &r->stage[stage],
                           recipe_path, err);
    }
    mm_config_deinit(&config);
    return code;
}

const char *mm_inspection_type(const struct mm_inspection *x) {
    return x->model.config.student ? "mmMamba_chat" : "internvl_chat";
}

// ---- printing -----------------------------------------------------------------------------------

// "2,742,104,064"; out has room for any 64-bit number.
static const char *grouped(char out[32], int64_t n) {
    char digits[24];
    const int count = snprintf(digits, sizeof digits, "%lld", (long long)n);
    int at = 0;
    for (int i = 0; i < count; i++) {
        if (i > 0 && (count - i) % 3 == 0) out[at++] = ',';
        out[at++] = digits[i];
    }
    out[at] = 0;
    return out;
}

static const char *bytes_text(char out[32], double n) {
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    int u = 0;
    while (n >= 1024.0 && u < 5)
        n /= 1024.0, u++;
    snprintf(out, 32, u == 0 ? "%.0f %s" : "%.2f %s", n, units[u]);
    return out;
}

static int64_t block_parameters(const struct mm_model *m, int64_t block) {
    int64_t n = 0;
    for (int i = 0; i < m->n_params; i++) {
        if (m->params[i].block == block) n += mm_view_count(m->params[i].w);
    }
    return n;
}

static void print_head(const struct mm_inspection *x) {
    const struct mm_config *c = &x->model.config;
    const struct mm_stack_config *const stacks[] = {&c->embed, &c->llm};
    static const char *const names[] = {"embedding", "decoder"};
    char number[32];
    printf("%s: %s, %s%s\n\n", x->path, mm_inspection_type(x), mm_model_dtype_name(&x->model),
           x->planned ? ", as it would be" : "");
    printf("  %-11s %6s %8s %8s %14s %10s %14s\n", "stack", "blocks", "hidden", "heads",
           "of key/value", "head size", "feed-forward");
    for (int i = 0; i < 2; i++) {
        const struct mm_stack_config *s = stacks[i];
        printf("  %-11s %6lld %8lld %8lld %14lld %10lld %14lld\n", names[i], (long long)s->n_blocks,
               (long long)s->D, (long long)s->H, (long long)s->G, (long long)s->P, (long long)s->F);
    }
    printf("  vocabulary %s; pictures in tiles of %lld pixels; tokens a tile: %lld\n\n",
           grouped(number, c->V), (long long)c->image_size, (long long)mm_config_tile_tokens(c));
}

// Neighbours that are alike share a row.
static void print_blocks(const struct mm_model *m) {
    printf("  %-11s %-11s %-10s %16s\n", "block", "stack", "mixer", "parameters each");
    int64_t end;
    for (int64_t i = 0; i < m->n_blocks; i = end) {
        const struct mm_block *b = &m->blocks[i];
        end = i + 1;
        while (end < m->n_blocks && m->blocks[end].mixer == b->mixer &&
               m->blocks[end].stack == b->stack) {
            end++;
        }
        char range[48], number[32];
        if (end == i + 1) {
            snprintf(range, sizeof range, "%lld", (long long)i);
        } else {
            snprintf(range, sizeof range, "%lld-%lld", (long long)i, (long long)end - 1);
        }
        printf("  %-11s %-11s %-10s %16s\n", range,
               b->stack == &m->config.embed ? "embedding" : "decoder",
               b->mixer == mm_mixer_mha ? "attention" : "Mamba-2",
               grouped(number, block_parameters(m, i)));
    }
}

static void print_share(const char *name, int64_t n, int64_t of) {
    char number[32];
    printf("  %-28s %16s %7.2f%%\n", name, grouped(number, n),
           of > 0 ? 100.0 * (double)n / (double)of : 0.0);
}

static void print_memory(const struct mm_inspection *x) {
    char number[32], text[32];
    const size_t row = mm_model_cache_bytes_per_token(&x->model);
    printf("\n  %-28s %16s\n", "weights on disk", bytes_text(text, (double)x->disk_bytes));
    printf("  %-28s %16s\n", "weights in memory", bytes_text(text, (double)x->memory_bytes));
    if (mm_model_quantized(&x->model)) {
        printf("  %-28s %16s   ", "of them quantized",
               bytes_text(text, (double)x->quantized_bytes));
        printf("%s; the rest is %s and f32\n", mm_model_dtype_name(&x->model),
               mm_dtype_name(x->model.dtype));
    }
    printf("  %-28s %16s   whatever its length\n", "state of a sequence",
           bytes_text(text, (double)mm_model_state_bytes(&x->model)));
    printf("  %-28s %16s   ", "cache", bytes_text(text, (double)row * (double)x->tokens));
    printf("at %s tokens, ", grouped(number, x->tokens));
    printf("%s a token\n", bytes_text(text, (double)row));
}

void mm_inspection_print(const struct mm_inspection *x) {
    print_head(x);
    print_blocks(&x->model);
    printf("\n");
    for (int i = 0; i < mm_part_count; i++) {
        if (x->part[i] > 0) print_share(part_names[i], x->part[i], x->parameters);
    }
    print_share("parameters", x->parameters, x->parameters);
    for (int i = 1; i <= 3; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s in stage %d",
                 x->model.config.student ? "trains" : "its student trains", i);
        print_share(name, x->trainable[i], x->of[i]);
    }
    print_memory(x);
}
