// A model small enough for finite differences, of any shape a config can ask for, with random
// weights everywhere (no norm is 1 and no bias 0), and a batch for it.
#ifndef MM_TESTS_MODEL_TINY_MODEL_H
#define MM_TESTS_MODEL_TINY_MODEL_H

#include <stdio.h>

#include "model/model_test.h"

struct tiny {
    bool post, normalize, student;
    const char *rope;     // "linear" or "dynamic" with factor 2 past 12 positions; NULL: none
    const char *keep;     // of a student
    const char *options;  // of both stacks, as JSON: "\"use_D\": true, "
    int n_special;
    double theta;  // rope_theta; 0: 100
};

enum { tiny_V = 23, tiny_image_id = 21, tiny_S = 8, tiny_patch = 2, tiny_max_tokens = 96 };

// D 12, H 3, G 1, P 4, F 10; 1 + 2 blocks; tiles of 8 pixels: 16 patches, 4 tokens.
static inline void tiny_config(struct mm_config *c, const struct tiny *t) {
    char rope[96] = "null", special[256] = "";
    if (t->rope) snprintf(rope, sizeof rope, "{\"type\": \"%s\", \"factor\": 2.0}", t->rope);
    for (int i = 0; i < t->n_special; i++) {
        const size_t used = strlen(special);
        snprintf(special + used, sizeof special - used, "%s\"<s%d>\": %d", i ? ", " : "", i,
                 tiny_V + i);
    }
    char stack[1024];
    snprintf(stack, sizeof stack,
             "\"hidden_size\": 12, \"num_attention_heads\": 3, \"num_key_value_heads\": 1, "
             "\"intermediate_size\": 10, \"rms_norm_eps\": 1e-5, \"rope_theta\": %.17g, "
             "\"max_position_embeddings\": 12, \"rope_scaling\": %s, %s",
             t->theta ? t->theta : 100.0, rope, t->options ? t->options : "");
    char text[4096];
    const int n = snprintf(
        text, sizeof text,
        "{\"model_type\": \"internvl_chat\", \"normalize_encoder_output\": %s, "
        "\"embedding_config\": {\"model_type\": \"holistic_embedding\", \"num_hidden_layers\": 1, "
        "%s \"patch_size\": %d, \"image_size\": %d, \"downsample_ratio\": 0.5, "
        "\"pixel_shuffle_loc\": \"%s\", \"special_token_maps\": {%s}, \"llm_vocab_size\": %d, "
        "\"img_context_token_id\": %d}, "
        "\"llm_config\": {\"model_type\": \"internlm2\", \"num_hidden_layers\": 2, %s "
        "\"vocab_size\": %d}}",
        t->normalize ? "true" : "false", stack, tiny_patch, tiny_S, t->post ? "post" : "pre",
        special, tiny_V, tiny_image_id, stack, tiny_V);
    assert_in_range(n, 1, (int)sizeof text - 1);
    struct mm_config teacher;
    OK(mm_config_parse(&teacher, text, (size_t)n, "tiny", &err));
    if (!t->student) {
        *c = teacher;
        return;
    }
    bool keep[mm_max_blocks];
    OK(mm_keep_parse(t->keep ? t->keep : "none", 3, keep, &err));
    OK(mm_config_student(c, &teacher, keep, &err));
    mm_config_deinit(&teacher);
}

// Moves every weight a little, so that none sits at a special value.
static inline void tiny_shake(struct mm_model *m, uint64_t seed) {
    for (int i = 0; i < m->n_params; i++) {
        const struct mm_param *p = &m->params[i];
        const int64_t n = mm_view_count(p->w);
        struct mm_rng r = mm_rng_make(seed, mm_rng_stream(p->name));
        float *x = p->w.data;
        // tables start small; everything else is of the size of its inputs
        const bool table = p->role == mm_role_text || p->role == mm_role_special;
        for (int64_t j = 0; j < n; j++)
            x[j] += (float)((table ? 1.0 : 0.2) * mm_rng_normal(&r));
    }
}

static inline void tiny_model(struct mm_model *m, struct mm_backend *be, const struct tiny *t,
                              uint64_t seed) {
    struct mm_config c;
    tiny_config(&c, t);
    mm_model_init(m, &c, be, mm_dtype_f32);
    mm_config_deinit(&c);
    OK(mm_model_alloc(m, &err));
    mm_model_randomize(m, seed);
    tiny_shake(m, seed + 1);
}

struct tiny_batch {
    int32_t ids[tiny_max_tokens], start[8], targets[tiny_max_tokens];
    int64_t tiles_of[8];
    float pixels[8 * 3 * tiny_S * tiny_S];
};

// Five sequences: text of 7; two pictures of 2 and 1 tiles among text; one token; a picture first
// and last; text longer than max_position_embeddings.
static inline struct batch tiny_batch_make(struct tiny_batch *b, const struct mm_config *c,
                                           bool text_only) {
    static const char *const sequences[] = {"ttttttt", "tIItttIstt", "t", "ItI",
                                            "tttttttttttttsttt"};
    struct mm_rng r = mm_rng_make(21, 0);
    int32_t t = 0, tiles = 0;
    for (int s = 0; s < 5; s++) {
        b->start[s] = t;
        b->tiles_of[s] = 0;
        for (const char *p = sequences[s]; *p; p++) {
            if (*p == 'I' && !text_only) {
                for (int k = 0; k < 4; k++)
                    b->ids[t++] = tiny_image_id;
                b->tiles_of[s]++;
                tiles++;
            } else if (*p == 's' && c->n_special > 0) {
                b->ids[t++] = tiny_V + (int32_t)mm_rng_below(&r, (uint32_t)c->n_special);
            } else {
                b->ids[t++] = (int32_t)mm_rng_below(&r, tiny_image_id);
            }
        }
    }
    b->start[5] = t;
    assert_in_range(t, 1, tiny_max_tokens);
    for (int32_t i = 0; i < t; i++)
        b->targets[i] = i % 3 == 2 ? -100 : (int32_t)mm_rng_below(&r, tiny_V);
    for (int64_t i = 0; i < tiles * 3 * tiny_S * tiny_S; i++)
        b->pixels[i] = (float)mm_rng_normal(&r);
    return (struct batch){.n_seqs = 5,
                          .n_tiles = tiles,
                          .ids = b->ids,
                          .start = b->start,
                          .targets = b->targets,
                          .pixels = b->pixels};
}

#endif
