// Owns: reading and checking config.json. Every size is held against a range that the arithmetic
// of the rest of the program can bear, and everything this program does not compute (biases, other
// activations, other ways to shuffle pixels) is refused here by name, never ignored.
#include "model/config.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "io/json.h"

enum {
    max_D = 1 << 16,
    max_H = 1 << 12,
    max_P = 1 << 10,
    max_F = 1 << 20,
    max_V = 1 << 24,
    max_side = 1 << 13,  // pixels
    max_K = 16,
    max_tiles = 4096,
};

// Checks an integer that has one supported value; a missing one is taken to have it.
static enum mm_code want_int(const json_t *o, const char *key, int64_t wanted, const char *what,
                             struct mm_error *err) {
    int64_t v = wanted;
    MM_TRY(mm_json_int(o, key, INT64_MIN, INT64_MAX, false, &v, what, err));
    if (v == wanted) return mm_code_ok;
    return mm_fail(err, mm_code_unsupported,
                   "%s: '%s' is %" PRId64 ", only %" PRId64 " is supported", what, key, v, wanted);
}

static enum mm_code want_bool(const json_t *o, const char *key, bool wanted, const char *what,
                              struct mm_error *err) {
    bool v = wanted;
    MM_TRY(mm_json_bool(o, key, false, &v, what, err));
    if (v == wanted) return mm_code_ok;
    return mm_fail(err, mm_code_unsupported, "%s: '%s' is %s, only %s is supported", what, key,
                   v ? "true" : "false", wanted ? "true" : "false");
}

static enum mm_code want_string(const json_t *o, const char *key, const char *wanted,
                                const char *what, struct mm_error *err) {
    const char *v = wanted;
    MM_TRY(mm_json_string(o, key, false, &v, what, err));
    if (strcmp(v, wanted) == 0) return mm_code_ok;
    char seen[96];
    mm_json_show(seen, sizeof seen, json_object_get(o, key));
    return mm_fail(err, mm_code_unsupported, "%s: '%s' is %s, only \"%s\" is supported", what, key,
                   seen, wanted);
}

static enum mm_code want_half(const json_t *o, const char *key, const char *what,
                              struct mm_error *err) {
    double v = 0.5;
    MM_TRY(mm_json_float(o, key, -HUGE_VAL, HUGE_VAL, false, &v, what, err));
    if (v == 0.5) return mm_code_ok;
    return mm_fail(err, mm_code_unsupported, "%s: '%s' is %.9g, only 0.5 is supported", what, key,
                   v);
}

// "rope_scaling": null, {"type": "linear" | "dynamic", "factor": f}; newer files say "rope_type",
// and "default" for none.
static enum mm_code read_rope(struct mm_stack_config *s, const json_t *o, const char *what,
                              struct mm_error *err) {
    s->rope_scaling = mm_rope_scaling_none;
    s->rope_factor = 1.0;
    const json_t *v = json_object_get(o, "rope_scaling");
    if (!v || json_is_null(v)) return mm_code_ok;
    if (!json_is_object(v)) {
        return mm_json_wrong(what, "rope_scaling", v,
                             "null or {\"type\": \"linear\" or \"dynamic\", \"factor\": number}",
                             err);
    }
    char *inner = mm_xasprintf("%s: 'rope_scaling'", what);
    const char *key = json_object_get(v, "type") ? "type" : "rope_type";
    const char *type = NULL;
    enum mm_code code = mm_json_string(v, key, true, &type, inner, err);
    if (code != mm_code_ok || strcmp(type, "default") == 0) {
        free(inner);
        return code;
    }
    if (strcmp(type, "linear") == 0) {
        s->rope_scaling = mm_rope_scaling_linear;
    } else if (strcmp(type, "dynamic") == 0) {
        s->rope_scaling = mm_rope_scaling_dynamic;
    } else {
        char seen[96];
        mm_json_show(seen, sizeof seen, json_object_get(v, key));
        code = mm_fail(err, mm_code_unsupported,
                       "%s: '%s' is %s, only \"linear\" and \"dynamic\" are supported", inner, key,
                       seen);
    }
    if (code == mm_code_ok) {
        code = mm_json_float(v, "factor", 1.0, 1e6, true, &s->rope_factor, inner, err);
    }
    free(inner);
    return code;
}

// What both stacks name alike. A stack has no biases and SiLU as its activation.
static enum mm_code read_stack(struct mm_stack_config *s, const json_t *o, const char *what,
                               struct mm_error *err) {
    MM_TRY(
        mm_json_int(o, "num_hidden_layers", 1, mm_max_blocks - 1, true, &s->n_blocks, what, err));
    MM_TRY(mm_json_int(o, "hidden_size", 2, max_D, true, &s->D, what, err));
    MM_TRY(mm_json_int(o, "num_attention_heads", 1, max_H, true, &s->H, what, err));
    MM_TRY(mm_json_int(o, "num_key_value_heads", 1, s->H, true, &s->G, what, err));
    MM_TRY(mm_json_int(o, "intermediate_size", 1, max_F, true, &s->F, what, err));
    if (s->D % s->H != 0) {
        return mm_fail(err, mm_code_input,
                       "%s: 'hidden_size' is %" PRId64
                       ", wanted a multiple of 'num_attention_heads', which is %" PRId64,
                       what, s->D, s->H);
    }
    if (s->H % s->G != 0) {
        return mm_fail(err, mm_code_input,
                       "%s: 'num_attention_heads' is %" PRId64
                       ", wanted a multiple of 'num_key_value_heads', which is %" PRId64,
                       what, s->H, s->G);
    }
    s->P = s->D / s->H;
    if (s->P % 2 != 0 || s->P > max_P) {
        return mm_fail(err, mm_code_input,
                       "%s: 'hidden_size' / 'num_attention_heads' is %" PRId64
                       ", wanted an even head size of at most %d",
                       what, s->P, max_P);
    }
    MM_TRY(mm_json_float(o, "rms_norm_eps", 1e-12, 0.1, true, &s->rms_eps, what, err));
    MM_TRY(mm_json_float(o, "rope_theta", 1.0, 1e15, true, &s->rope_theta, what, err));
    MM_TRY(mm_json_int(o, "max_position_embeddings", 1, INT32_MAX, true, &s->max_positions, what,
                       err));
    MM_TRY(read_rope(s, o, what, err));
    MM_TRY(want_bool(o, "bias", false, what, err));
    MM_TRY(want_bool(o, "attention_bias", false, what, err));
    MM_TRY(want_bool(o, "mlp_bias", false, what, err));
    MM_TRY(want_int(o, "head_dim", s->P, what, err));
    MM_TRY(want_string(o, "hidden_act", "silu", what, err));
    // The published code fixes these; the names are those of its training settings.
    s->use_A = true;
    s->use_D = s->use_qknorm = false;
    s->K = 2;
    // Without these two its stages do not agree on what is computed: there is no such model.
    MM_TRY(want_bool(o, "use_conv", true, what, err));
    MM_TRY(want_bool(o, "use_gnorm", true, what, err));
    MM_TRY(mm_json_bool(o, "use_A", false, &s->use_A, what, err));
    MM_TRY(mm_json_bool(o, "use_D", false, &s->use_D, what, err));
    MM_TRY(mm_json_bool(o, "use_qknorm", false, &s->use_qknorm, what, err));
    return mm_json_int(o, "d_conv", 2, max_K, false, &s->K, what, err);
}

// "layers_block_type": in a student one word a block; a teacher needs none, and all its blocks
// are attention.
static enum mm_code read_mixers(enum mm_mixer *mixers, int64_t n, bool student, const json_t *o,
                                const char *what, struct mm_error *err) {
    const json_t *v = json_object_get(o, "layers_block_type");
    for (int64_t b = 0; b < n; b++)
        mixers[b] = mm_mixer_mha;
    if ((!v || json_is_null(v)) && !student) return mm_code_ok;
    if (!json_is_array(v) || json_array_size(v) != (size_t)n) {
        char wanted[96];
        snprintf(wanted, sizeof wanted, "an array of %" PRId64 " words ('num_hidden_layers')", n);
        return mm_json_wrong(what, "layers_block_type", v, wanted, err);
    }
    for (int64_t b = 0; b < n; b++) {
        const json_t *word = json_array_get(v, (size_t)b);
        const char *text = json_string_value(word);
        if (!text || (strcmp(text, "mha") != 0 && strcmp(text, "mamba2") != 0)) {
            char key[48];
            snprintf(key, sizeof key, "layers_block_type[%" PRId64 "]", b);
            return mm_json_wrong(what, key, word, "\"mamba2\" or \"mha\"", err);
        }
        mixers[b] = strcmp(text, "mha") == 0 ? mm_mixer_mha : mm_mixer_mamba2;
        if (!student && mixers[b] != mm_mixer_mha) {
            return mm_fail(err, mm_code_input,
                           "%s: 'layers_block_type' has \"mamba2\" at %" PRId64
                           ", but 'model_type' is \"internvl_chat\", wanted \"mmMamba_chat\"",
                           what, b);
        }
    }
    return mm_code_ok;
}

// The vision entry and the text embeddings, which stand in embedding_config.
static enum mm_code read_entry(struct mm_config *c, const json_t *o, const char *what,
                               struct mm_error *err) {
    MM_TRY(want_bool(o, "use_ls", false, what, err));
    MM_TRY(want_int(o, "num_channels", 3, what, err));
    MM_TRY(mm_json_int(o, "patch_size", 1, max_side, true, &c->patch, what, err));
    MM_TRY(mm_json_int(o, "image_size", 2, max_side, true, &c->image_size, what, err));
    if (c->image_size % (2 * c->patch) != 0) {
        return mm_fail(err, mm_code_input,
                       "%s: 'image_size' is %" PRId64
                       ", wanted a multiple of twice 'patch_size', which is %" PRId64,
                       what, c->image_size, c->patch);
    }
    MM_TRY(want_half(o, "downsample_ratio", what, err));
    MM_TRY(want_bool(o, "use_pixel_shuffle_proj", true, what, err));
    const char *loc = "pre";
    MM_TRY(mm_json_string(o, "pixel_shuffle_loc", false, &loc, what, err));
    c->shuffle_post = strcmp(loc, "post") == 0;
    if (!c->shuffle_post && strcmp(loc, "pre") != 0) {
        return mm_json_wrong(what, "pixel_shuffle_loc", json_object_get(o, "pixel_shuffle_loc"),
                             "\"pre\" or \"post\"", err);
    }
    const json_t *maps = json_object_get(o, "special_token_maps");
    if (maps && !json_is_null(maps) && !json_is_object(maps)) {
        return mm_json_wrong(what, "special_token_maps", maps, "an object", err);
    }
    c->n_special = (int64_t)json_object_size(maps);
    MM_TRY(mm_json_int(o, "llm_vocab_size", 1, max_V, true, &c->V, what, err));
    MM_TRY(want_int(o, "llm_hidden_size", c->embed.D, what, err));
    return mm_json_int(o, "img_context_token_id", 0, c->V + c->n_special - 1, true,
                       &c->img_context_id, what, err);
}

// What stands in llm_config beside the stack, and has to agree with embedding_config.
static enum mm_code read_llm(struct mm_config *c, const json_t *o, const char *what,
                             struct mm_error *err) {
    int64_t V = 0;
    MM_TRY(mm_json_int(o, "vocab_size", 1, max_V, true, &V, what, err));
    if (V != c->V) {
        return mm_fail(err, mm_code_input,
                       "%s: 'vocab_size' is %" PRId64
                       ", wanted 'llm_vocab_size' of embedding_config, which is %" PRId64,
                       what, V, c->V);
    }
    if (c->llm.D != c->embed.D) {
        return mm_fail(err, mm_code_input,
                       "%s: 'hidden_size' is %" PRId64
                       ", wanted that of embedding_config, which is %" PRId64,
                       what, c->llm.D, c->embed.D);
    }
    MM_TRY(want_bool(o, "tie_word_embeddings", false, what, err));
    c->bos_id = c->eos_id = -1;
    MM_TRY(mm_json_int(o, "bos_token_id", -1, c->V - 1, false, &c->bos_id, what, err));
    return mm_json_int(o, "eos_token_id", -1, c->V - 1, false, &c->eos_id, what, err);
}

static enum mm_code read_dtype(struct mm_config *c, const json_t *o, const char *what,
                               struct mm_error *err) {
    static const char *const names[] = {"float32", "float16", "bfloat16"};
    const char *key = json_object_get(o, "torch_dtype") ? "torch_dtype" : "dtype";
    const char *text = "float32";
    MM_TRY(mm_json_string(o, key, false, &text, what, err));
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(text, names[i]) == 0) {
            snprintf(c->torch_dtype, sizeof c->torch_dtype, "%s", text);
            return mm_code_ok;
        }
    }
    return mm_json_wrong(what, key, json_object_get(o, key),
                         "\"float32\", \"float16\" or \"bfloat16\"", err);
}

// "quantization_config": {"quant_method": "mmamba", "format": "q8" | "q4", "block": 128, "group":
// 32} where the big matrices are rows of base/quant.h. Other methods are other programs'.
static enum mm_code read_quant(struct mm_config *c, const json_t *o, const char *what,
                               struct mm_error *err) {
    static const char key[] = "quantization_config";
    const json_t *v = json_object_get(o, key);
    c->quant = mm_dtype_f32;
    if (!v || json_is_null(v)) return mm_code_ok;
    if (!json_is_object(v)) {
        return mm_json_wrong(what, key, v,
                             "{\"quant_method\": \"mmamba\", \"format\": \"q8\" or \"q4\"}", err);
    }
    char *inner = mm_xasprintf("%s: '%s'", what, key);
    const char *method = NULL, *format = NULL;
    enum mm_code code = mm_json_string(v, "quant_method", true, &method, inner, err);
    if (!code) code = want_string(v, "quant_method", "mmamba", inner, err);
    if (!code) code = mm_json_string(v, "format", true, &format, inner, err);
    if (!code && strcmp(format, "q8") == 0) {
        c->quant = mm_dtype_q8;
    } else if (!code && strcmp(format, "q4") == 0) {
        c->quant = mm_dtype_q4;
    } else if (!code) {
        code =
            mm_json_wrong(inner, "format", json_object_get(v, "format"), "\"q8\" or \"q4\"", err);
    }
    if (!code) code = want_int(v, "block", mm_quant_block, inner, err);
    if (!code) code = want_int(v, "group", mm_quant_group, inner, err);
    free(inner);
    return code;
}

static enum mm_code read_top(struct mm_config *c, const json_t *o, const char *what,
                             struct mm_error *err) {
    MM_TRY(want_int(o, "force_image_size", c->image_size, what, err));
    MM_TRY(want_half(o, "downsample_ratio", what, err));
    MM_TRY(want_string(o, "template", "internlm2-chat", what, err));
    MM_TRY(want_bool(o, "pad2square", false, what, err));
    c->normalize_encoder_output = false;
    MM_TRY(mm_json_bool(o, "normalize_encoder_output", false, &c->normalize_encoder_output, what,
                        err));
    c->dynamic_tiles = c->thumbnail = false;  // the published class's own defaults
    c->min_tiles = 1;
    c->max_tiles = 6;
    MM_TRY(mm_json_bool(o, "dynamic_image_size", false, &c->dynamic_tiles, what, err));
    MM_TRY(mm_json_bool(o, "use_thumbnail", false, &c->thumbnail, what, err));
    MM_TRY(mm_json_int(o, "min_dynamic_patch", 1, max_tiles, false, &c->min_tiles, what, err));
    MM_TRY(mm_json_int(o, "max_dynamic_patch", 1, max_tiles, false, &c->max_tiles, what, err));
    if (c->min_tiles > c->max_tiles) {
        return mm_fail(err, mm_code_input,
                       "%s: 'min_dynamic_patch' is %" PRId64
                       ", wanted at most 'max_dynamic_patch', which is %" PRId64,
                       what, c->min_tiles, c->max_tiles);
    }
    MM_TRY(read_quant(c, o, what, err));
    return read_dtype(c, o, what, err);
}

// One of the two inner objects, or NULL with the error set.
static const json_t *inner(const json_t *o, const char *key, const char *what,
                           struct mm_error *err) {
    const json_t *v = json_object_get(o, key);
    if (json_is_object(v)) return v;
    mm_json_wrong(what, key, v, "an object", err);
    return NULL;
}

static enum mm_code read_all(struct mm_config *c, const char *what, const char *what_embed,
                             const char *what_llm, struct mm_error *err) {
    const char *type = NULL;
    if (!json_is_object(c->json)) {
        return mm_fail(err, mm_code_input, "%s: is no JSON object", what);
    }
    MM_TRY(mm_json_string(c->json, "model_type", true, &type, what, err));
    c->student = strcmp(type, "mmMamba_chat") == 0;
    if (!c->student && strcmp(type, "internvl_chat") != 0) {
        return mm_json_wrong(what, "model_type", json_object_get(c->json, "model_type"),
                             "\"internvl_chat\" or \"mmMamba_chat\"", err);
    }
    const json_t *embed = inner(c->json, "embedding_config", what, err);
    if (!embed) return mm_code_input;
    const json_t *llm = inner(c->json, "llm_config", what, err);
    if (!llm) return mm_code_input;
    MM_TRY(want_string(embed, "model_type", c->student ? "mmMamba_embedding" : "holistic_embedding",
                       what_embed, err));
    MM_TRY(want_string(llm, "model_type", c->student ? "mmMamba" : "internlm2", what_llm, err));
    MM_TRY(read_stack(&c->embed, embed, what_embed, err));
    MM_TRY(read_entry(c, embed, what_embed, err));
    MM_TRY(read_stack(&c->llm, llm, what_llm, err));
    MM_TRY(read_llm(c, llm, what_llm, err));
    if (mm_config_blocks(c) > mm_max_blocks) {
        return mm_fail(err, mm_code_input,
                       "%s: the stacks have %" PRId64 " blocks together, wanted at most %d", what,
                       mm_config_blocks(c), mm_max_blocks);
    }
    MM_TRY(read_mixers(c->mixers, c->embed.n_blocks, c->student, embed, what_embed, err));
    MM_TRY(read_mixers(c->mixers + c->embed.n_blocks, c->llm.n_blocks, c->student, llm, what_llm,
                       err));
    return read_top(c, c->json, what, err);
}

// Reads c->json; on failure c is as mm_config_deinit leaves it.
static enum mm_code read_json(struct mm_config *c, const char *what, struct mm_error *err) {
    char *what_embed = mm_xasprintf("%s: embedding_config", what);
    char *what_llm = mm_xasprintf("%s: llm_config", what);
    const enum mm_code code = read_all(c, what, what_embed, what_llm, err);
    free(what_embed);
    free(what_llm);
    if (code != mm_code_ok) mm_config_deinit(c);
    return code;
}

enum mm_code mm_config_read(struct mm_config *c, const char *path, struct mm_error *err) {
    *c = (struct mm_config){0};
    MM_TRY(mm_json_load(&c->json, path, err));
    return read_json(c, path, err);
}

enum mm_code mm_config_parse(struct mm_config *c, const char *text, size_t n, const char *what,
                             struct mm_error *err) {
    *c = (struct mm_config){0};
    MM_TRY(mm_json_parse(&c->json, text, n, what, err));
    return read_json(c, what, err);
}

void mm_config_deinit(struct mm_config *c) {
    json_decref(c->json);
    *c = (struct mm_config){0};
}
