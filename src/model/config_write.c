// Owns: the student's config.json made out of the teacher's, and writing. The JSON of the file that
// was read is changed in place and only where mmMamba's released files differ, so that fields this
// program knows nothing of survive.
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "io/json.h"
#include "model/config.h"

enum mm_code mm_config_copy(struct mm_config *to, const struct mm_config *from,
                            struct mm_error *err) {
    *to = *from;
    to->json = json_deep_copy(from->json);
    if (!to->json) {
        *to = (struct mm_config){0};
        return mm_fail(err, mm_code_memory, "a model's config does not fit into memory");
    }
    return mm_code_ok;
}

// Python classes that a folder with remote code names: replaced where the teacher names its own.
static void set_auto_map(json_t *o, const char *config, const char *model) {
    static const char *const keys[] = {"AutoConfig", "AutoModel", "AutoModelForCausalLM"};
    json_t *map = json_object_get(o, "auto_map");
    if (!json_is_object(map)) return;
    for (size_t i = 0; i < 3; i++) {
        if (json_object_get(map, keys[i])) {
            json_object_set_new(map, keys[i], json_string(i == 0 ? config : model));
        }
    }
}

static void set_block_types(json_t *o, const enum mm_mixer *mixers, int64_t n) {
    json_t *words = json_array();
    for (int64_t b = 0; b < n; b++) {
        json_array_append_new(words, json_string(mixers[b] == mm_mixer_mha ? "mha" : "mamba2"));
    }
    json_object_set_new(o, "layers_block_type", words);
}

static void set_option(json_t *o, const char *key, bool value, bool usual) {
    // The released files have none of these fields; they appear only when they say something.
    if (value != usual || json_object_get(o, key)) {
        json_object_set_new(o, key, json_boolean(value));
    }
}

// Puts what the struct says about one stack into its object.
static void set_stack(json_t *o, const struct mm_stack_config *s) {
    set_option(o, "use_A", s->use_A, true);
    set_option(o, "use_D", s->use_D, false);
    set_option(o, "use_qknorm", s->use_qknorm, false);
    if (s->K != 2 || json_object_get(o, "d_conv")) {
        json_object_set_new(o, "d_conv", json_integer(s->K));
    }
}

// Brings c->json to what the struct says. A teacher has no mixers to write.
static void sync_json(const struct mm_config *c, json_t *root) {
    if (!c->student) return;
    json_t *embed = json_object_get(root, "embedding_config");
    json_t *llm = json_object_get(root, "llm_config");
    set_block_types(embed, c->mixers, c->embed.n_blocks);
    set_block_types(llm, c->mixers + c->embed.n_blocks, c->llm.n_blocks);
    set_stack(embed, &c->embed);
    set_stack(llm, &c->llm);
}

enum mm_code mm_config_student(struct mm_config *to, const struct mm_config *teacher,
                               const bool *keep, struct mm_error *err) {
    MM_TRY(mm_config_copy(to, teacher, err));
    to->student = true;
    for (int64_t b = 0; b < mm_config_blocks(to); b++) {
        to->mixers[b] = keep[b] ? mm_mixer_mha : mm_mixer_mamba2;
    }
    json_t *root = to->json;
    json_t *embed = json_object_get(root, "embedding_config");
    json_t *llm = json_object_get(root, "llm_config");
    json_object_set_new(root, "model_type", json_string("mmMamba_chat"));
    json_object_set_new(root, "architectures", json_string("mmMambaChatModel"));
    json_object_del(root, "layers_block_type");  // the published converter's remainder
    json_object_set_new(embed, "model_type", json_string("mmMamba_embedding"));
    json_object_set_new(llm, "model_type", json_string("mmMamba"));
    json_object_set_new(llm, "architectures", json_string("mmMambaForCausalLM"));
    set_auto_map(root, "configuration_mmMamba_chat.mmMambaChatConfig",
                 "modeling_mmMamba_chat.mmMambaChatModel");
    set_auto_map(llm, "configuration_mmMamba.mmMambaConfig", "modeling_mmMamba.mmMambaForCausalLM");
    sync_json(to, root);
    return mm_code_ok;
}

// The field appears in the inner objects too when the file was written by transformers.
static void set_dtype_in(json_t *o, const char *torch_dtype, bool always) {
    const char *key = json_object_get(o, "dtype") ? "dtype" : "torch_dtype";
    const json_t *old = json_object_get(o, key);
    if (always || json_is_string(old)) json_object_set_new(o, key, json_string(torch_dtype));
}

void mm_config_set_dtype(struct mm_config *c, const char *torch_dtype) {
    assert(strlen(torch_dtype) < sizeof c->torch_dtype);
    snprintf(c->torch_dtype, sizeof c->torch_dtype, "%s", torch_dtype);
    set_dtype_in(c->json, torch_dtype, true);
    set_dtype_in(json_object_get(c->json, "embedding_config"), torch_dtype, false);
    set_dtype_in(json_object_get(c->json, "llm_config"), torch_dtype, false);
}

void mm_config_set_quant(struct mm_config *c, enum mm_dtype quant) {
    c->quant = quant;
    json_object_del(c->json, "quantization_config");
    if (!mm_dtype_quantized(quant)) return;
    json_object_set_new(
        c->json, "quantization_config",
        json_pack("{s:s, s:s, s:i, s:i}", "quant_method", "mmamba", "format", mm_dtype_name(quant),
                  "block", (int)mm_quant_block, "group", (int)mm_quant_group));
}

enum mm_code mm_config_write(const struct mm_config *c, const char *path, struct mm_error *err) {
    struct mm_config copy;
    MM_TRY(mm_config_copy(&copy, c, err));
    sync_json(&copy, copy.json);
    const enum mm_code code = mm_json_write_file(copy.json, path, err);
    mm_config_deinit(&copy);
    return code;
}
