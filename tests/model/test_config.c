// config.json: the golden files are read to the field, students written as the released ones, and
// everything that could be wrong is refused with a sentence that names field, value and wish.
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "io/file.h"
#include "io/json.h"
#include "model/config.h"

static struct mm_error err;

static void read_golden(struct mm_config *c, const char *name, const char *which) {
    char *path = mm_xasprintf("tests/golden/%s/%s_config.json", name, which);
    if (mm_config_read(c, path, &err) != mm_code_ok) fail_msg("%s", err.text);
    free(path);
}

static void reads_every_field(void **state) {
    (void)state;
    struct mm_config c;
    read_golden(&c, "pre_hybrid", "student");
    assert_true(c.student);
    assert_int_equal(c.embed.n_blocks, 2);
    assert_int_equal(c.llm.n_blocks, 4);
    assert_int_equal(mm_config_blocks(&c), 6);
    for (int b = 0; b < 6; b++) {
        const struct mm_stack_config *s = mm_config_stack(&c, b);
        assert_ptr_equal(s, b < 2 ? &c.embed : &c.llm);
        assert_int_equal(s->D, 48);
        assert_int_equal(s->H, 3);
        assert_int_equal(s->G, 1);
        assert_int_equal(s->P, 16);
        assert_int_equal(s->F, 80);
        assert_true(s->rms_eps == 1e-5 && s->rope_theta == 1e6 && s->rope_factor == 1.0);
        assert_int_equal(s->rope_scaling, mm_rope_scaling_none);
        assert_int_equal(s->max_positions, 4096);
        assert_true(s->use_A && !s->use_D && !s->use_qknorm);
        assert_int_equal(s->K, 2);
        assert_int_equal(c.mixers[b], b == 0 || b == 4 ? mm_mixer_mha : mm_mixer_mamba2);
    }
    assert_int_equal(c.V, 200);
    assert_int_equal(c.n_special, 0);
    assert_false(c.normalize_encoder_output);
    assert_false(c.shuffle_post);
    assert_int_equal(c.image_size, 28);
    assert_int_equal(c.patch, 14);
    assert_int_equal(mm_config_tile_patches(&c), 4);
    assert_int_equal(mm_config_tile_tokens(&c), 1);
    assert_int_equal(c.img_context_id, 193);
    assert_true(c.dynamic_tiles && c.thumbnail);
    assert_int_equal(c.min_tiles, 1);
    assert_int_equal(c.max_tiles, 12);
    assert_int_equal(c.bos_id, -1);
    assert_int_equal(c.eos_id, -1);
    assert_string_equal(c.torch_dtype, "float32");
    mm_config_deinit(&c);
    read_golden(&c, "post_gqa", "teacher");
    assert_false(c.student);
    assert_true(c.shuffle_post);
    assert_int_equal(c.llm.G, 2);
    for (int b = 0; b < 5; b++)
        assert_int_equal(c.mixers[b], mm_mixer_mha);
    mm_config_deinit(&c);
}

// The sizes of HoVLE-2.6B as its parts have them.
static void reads_the_real_size(void **state) {
    (void)state;
    struct mm_config c;
    if (mm_config_read(&c, "tests/fuzz/corpus/config/full.json", &err) != mm_code_ok) {
        fail_msg("%s", err.text);
    }
    assert_int_equal(mm_config_blocks(&c), 32);
    assert_int_equal(c.llm.D, 2048);
    assert_int_equal(c.llm.P, 128);
    assert_int_equal(c.V, 92553);
    assert_int_equal(mm_config_tile_tokens(&c), 256);
    assert_int_equal(c.embed.rope_scaling, mm_rope_scaling_none);
    assert_int_equal(c.llm.rope_scaling, mm_rope_scaling_dynamic);
    assert_true(c.llm.rope_factor == 2.0 && c.llm.rope_theta == 1e6);
    assert_int_equal(c.bos_id, 1);
    assert_int_equal(c.eos_id, 2);
    assert_string_equal(c.torch_dtype, "bfloat16");
    mm_config_deinit(&c);
}

// Carving on paper: the teacher's config becomes the released student's, field for field and in
// the same order.
static void students_are_the_released_layout(void **state) {
    (void)state;
    static const char *const names[] = {"post_gqa", "pre_hybrid", "text_long"};
    char folder[] = "/tmp/mm_test_config_XXXXXX";
    assert_non_null(mkdtemp(folder));
    char *path = mm_path_join(folder, "config.json");
    for (int i = 0; i < 3; i++) {
        struct mm_config teacher, student, back, golden;
        bool keep[6] = {false};
        read_golden(&teacher, names[i], "teacher");
        read_golden(&golden, names[i], "student");
        if (i == 1) keep[0] = keep[4] = true;
        assert_int_equal(mm_config_student(&student, &teacher, keep, &err), mm_code_ok);
        assert_int_equal(mm_config_write(&student, path, &err), mm_code_ok);
        assert_int_equal(mm_config_read(&back, path, &err), mm_code_ok);
        // Order counts here, which json_equal does not see.
        char *want = json_dumps(golden.json, 0), *got = json_dumps(back.json, 0);
        assert_string_equal(got, want);
        free(want);
        free(got);
        assert_memory_equal(back.mixers, golden.mixers, sizeof back.mixers);
        assert_true(json_equal(teacher.json, teacher.json));
        mm_config_deinit(&teacher);
        mm_config_deinit(&student);
        mm_config_deinit(&back);
        mm_config_deinit(&golden);
    }
    unlink(path);
    rmdir(folder);
    free(path);
}

static json_t *golden_json(const char *name, const char *which) {
    char *path = mm_xasprintf("tests/golden/%s/%s_config.json", name, which);
    json_t *root = NULL;
    assert_int_equal(mm_json_load(&root, path, &err), mm_code_ok);
    free(path);
    return root;
}

static enum mm_code parse(struct mm_config *c, const json_t *root) {
    char *text = json_dumps(root, JSON_ENCODE_ANY);
    const enum mm_code code = mm_config_parse(c, text, strlen(text), "x.json", &err);
    free(text);
    return code;
}

static void unknown_fields_survive_and_python_names_change(void **state) {
    (void)state;
    json_t *root = golden_json("text_long", "teacher");
    json_t *auto_map =
        json_pack("{s:s,s:s,s:s}", "AutoConfig", "a.B", "AutoModel", "c.D", "AutoX", "k");
    json_object_set(root, "auto_map", auto_map);
    json_object_set_new(json_object_get(root, "llm_config"), "auto_map", json_deep_copy(auto_map));
    json_decref(auto_map);
    json_object_set_new(root, "layers_block_type", json_array());
    json_object_set_new(root, "something", json_pack("{s:[i,f]}", "else", 1, 0.1));
    json_object_set_new(json_object_get(root, "llm_config"), "torch_dtype", json_string("float32"));
    struct mm_config teacher, student;
    assert_int_equal(parse(&teacher, root), mm_code_ok);
    const bool keep[3] = {true, true, true};
    assert_int_equal(mm_config_student(&student, &teacher, keep, &err), mm_code_ok);
    assert_true(
        json_equal(json_object_get(student.json, "something"), json_object_get(root, "something")));
    assert_null(json_object_get(student.json, "layers_block_type"));
    const json_t *map = json_object_get(student.json, "auto_map");
    assert_string_equal(json_string_value(json_object_get(map, "AutoConfig")),
                        "configuration_mmMamba_chat.mmMambaChatConfig");
    assert_string_equal(json_string_value(json_object_get(map, "AutoModel")),
                        "modeling_mmMamba_chat.mmMambaChatModel");
    assert_string_equal(json_string_value(json_object_get(map, "AutoX")), "k");
    assert_int_equal(json_object_size(map), 3);
    map = json_object_get(json_object_get(student.json, "llm_config"), "auto_map");
    assert_string_equal(json_string_value(json_object_get(map, "AutoModel")),
                        "modeling_mmMamba.mmMambaForCausalLM");
    mm_config_set_dtype(&student, "bfloat16");
    assert_string_equal(student.torch_dtype, "bfloat16");
    assert_string_equal(json_string_value(json_object_get(student.json, "torch_dtype")),
                        "bfloat16");
    const json_t *llm = json_object_get(student.json, "llm_config");
    assert_string_equal(json_string_value(json_object_get(llm, "torch_dtype")), "bfloat16");
    assert_null(json_object_get(json_object_get(student.json, "embedding_config"), "torch_dtype"));
    // The teacher it came from is as it was.
    assert_true(json_equal(teacher.json, root));
    mm_config_deinit(&student);
    mm_config_deinit(&teacher);
    json_decref(root);
}

static void options_of_the_mixer_travel(void **state) {
    (void)state;
    char folder[] = "/tmp/mm_test_config_XXXXXX";
    assert_non_null(mkdtemp(folder));
    char *path = mm_path_join(folder, "config.json");
    struct mm_config c, back;
    read_golden(&c, "post_gqa", "student");
    c.llm.use_D = c.llm.use_qknorm = c.embed.use_qknorm = true;
    c.embed.use_A = false;
    c.llm.K = 4;
    c.mixers[3] = mm_mixer_mha;
    assert_int_equal(mm_config_write(&c, path, &err), mm_code_ok);
    assert_int_equal(mm_config_read(&back, path, &err), mm_code_ok);
    assert_memory_equal(back.mixers, c.mixers, sizeof c.mixers);
    assert_memory_equal(&back.embed, &c.embed, sizeof c.embed);
    assert_memory_equal(&back.llm, &c.llm, sizeof c.llm);
    const json_t *embed = json_object_get(back.json, "embedding_config");
    assert_null(json_object_get(embed, "use_D"));  // says nothing, so is not written
    assert_true(json_is_false(json_object_get(embed, "use_A")));
    mm_config_deinit(&c);
    mm_config_deinit(&back);
    unlink(path);
    rmdir(folder);
    free(path);
}

// One field at a time is spoiled in a good student; `where` is the object, `value` JSON, NULL:
// gone.
static void refuses_one_wrong_field_at_a_time(void **state) {
    (void)state;
    static const struct {
        const char *where, *key, *value;
        enum mm_code code;
        const char *says;
    } cases[] = {
        {"", "model_type", NULL, mm_code_input, "'model_type' is missing"},
        {"", "model_type", "\"llama\"", mm_code_input, "'model_type' is \"llama\", wanted"},
        {"", "model_type", "\"internvl_chat\"", mm_code_unsupported, "'model_type' is \"mmMamba_e"},
        {"", "embedding_config", NULL, mm_code_input, "'embedding_config' is missing"},
        {"", "embedding_config", "3", mm_code_input, "'embedding_config' is 3"},
        {"", "llm_config", "[]", mm_code_input, "'llm_config' is an array of 0"},
        {"", "force_image_size", "448", mm_code_unsupported, "'force_image_size' is 448, only 28"},
        {"", "force_image_size", "\"28\"", mm_code_input, "'force_image_size' is \"28\""},
        {"", "downsample_ratio", "0.25", mm_code_unsupported,
         "'downsample_ratio' is 0.25, only 0.5"},
        {"", "template", "\"phi3-chat\"", mm_code_unsupported, "'template' is \"phi3-chat\""},
        {"", "pad2square", "true", mm_code_unsupported, "'pad2square' is true"},
        {"", "normalize_encoder_output", "1", mm_code_input, "'normalize_encoder_output' is 1"},
        {"", "min_dynamic_patch", "0", mm_code_input, "'min_dynamic_patch' is 0"},
        {"", "min_dynamic_patch", "13", mm_code_input, "'min_dynamic_patch' is 13, wanted at most"},
        {"", "max_dynamic_patch", "1000000", mm_code_input, "'max_dynamic_patch' is 1000000"},
        {"", "torch_dtype", "\"int8\"", mm_code_input, "'torch_dtype' is \"int8\""},
        {"embedding_config", "model_type", "\"mmMamba\"", mm_code_unsupported, "'model_type' is"},
        {"embedding_config", "num_hidden_layers", NULL, mm_code_input,
         "'num_hidden_layers' is missing"},
        {"embedding_config", "num_hidden_layers", "0", mm_code_input, "'num_hidden_layers' is 0"},
        {"embedding_config", "num_hidden_layers", "-1", mm_code_input, "'num_hidden_layers' is -1"},
        {"embedding_config", "num_hidden_layers", "1000000000", mm_code_input,
         "'num_hidden_layers' is 1000000000"},
        {"embedding_config", "num_hidden_layers", "508", mm_code_input, "wanted an array of 508"},
        {"embedding_config", "num_hidden_layers", "509", mm_code_input,
         "513 blocks together, wanted at most 512"},
        {"embedding_config", "num_hidden_layers", "3", mm_code_input,
         "'layers_block_type' is an array of 2, wanted an array of 3"},
        {"embedding_config", "hidden_size", "2.5", mm_code_input, "'hidden_size' is 2.5"},
        {"embedding_config", "hidden_size", "50", mm_code_input,
         "'hidden_size' is 50, wanted a multiple of 'num_attention_heads', which is 3"},
        {"embedding_config", "hidden_size", "45", mm_code_input, "is 15, wanted an even head size"},
        {"embedding_config", "hidden_size", "60000", mm_code_input, "is 20000, wanted an even"},
        {"embedding_config", "hidden_size", "96", mm_code_unsupported, "'llm_hidden_size' is 48"},
        {"embedding_config", "hidden_size", "1152921504606846976", mm_code_input,
         "'hidden_size' is 1152921504606846976"},
        {"embedding_config", "num_key_value_heads", "2", mm_code_input,
         "'num_attention_heads' is 3, wanted a multiple of 'num_key_value_heads', which is 2"},
        {"embedding_config", "num_key_value_heads", "4", mm_code_input,
         "'num_key_value_heads' is 4, wanted an integer from 1 to 3"},
        {"embedding_config", "intermediate_size", "0", mm_code_input, "'intermediate_size' is 0"},
        {"embedding_config", "rms_norm_eps", "0", mm_code_input, "'rms_norm_eps' is 0"},
        {"embedding_config", "rope_theta", "-10000", mm_code_input, "'rope_theta' is -10000"},
        {"embedding_config", "max_position_embeddings", "0", mm_code_input,
         "'max_position_embeddings' is 0"},
        {"embedding_config", "rope_scaling", "2.0", mm_code_input, "'rope_scaling' is 2"},
        {"embedding_config", "rope_scaling", "{}", mm_code_input, "'rope_type' is missing"},
        {"embedding_config", "rope_scaling", "{\"type\":\"yarn\",\"factor\":2}",
         mm_code_unsupported, "'rope_scaling': 'type' is \"yarn\""},
        {"embedding_config", "rope_scaling", "{\"type\":\"linear\"}", mm_code_input,
         "'rope_scaling': 'factor' is missing"},
        {"embedding_config", "rope_scaling", "{\"type\":\"dynamic\",\"factor\":0.5}", mm_code_input,
         "'rope_scaling': 'factor' is 0.5"},
        {"embedding_config", "attention_bias", "true", mm_code_unsupported, "'attention_bias' is"},
        {"embedding_config", "mlp_bias", "true", mm_code_unsupported, "'mlp_bias' is true"},
        {"embedding_config", "head_dim", "32", mm_code_unsupported, "'head_dim' is 32, only 16"},
        {"embedding_config", "hidden_act", "\"gelu\"", mm_code_unsupported,
         "'hidden_act' is \"gelu\", only \"silu\""},
        {"embedding_config", "use_ls", "true", mm_code_unsupported, "'use_ls' is true"},
        {"embedding_config", "num_channels", "1", mm_code_unsupported,
         "'num_channels' is 1, only 3"},
        {"embedding_config", "patch_size", "0", mm_code_input, "'patch_size' is 0"},
        {"embedding_config", "image_size", "42", mm_code_input,
         "'image_size' is 42, wanted a multiple of twice 'patch_size', which is 14"},
        {"embedding_config", "image_size", "2800000", mm_code_input, "'image_size' is 2800000"},
        {"embedding_config", "downsample_ratio", "1.0", mm_code_unsupported, "is 1, only 0.5"},
        {"embedding_config", "use_pixel_shuffle_proj", "false", mm_code_unsupported, "is false"},
        {"embedding_config", "pixel_shuffle_loc", "\"mid\"", mm_code_input,
         "'pixel_shuffle_loc' is \"mid\", wanted \"pre\" or \"post\""},
        {"embedding_config", "special_token_maps", "[]", mm_code_input, "'special_token_maps' is"},
        {"embedding_config", "llm_vocab_size", "201", mm_code_input,
         "'vocab_size' is 200, wanted 'llm_vocab_size' of embedding_config, which is 201"},
        {"embedding_config", "img_context_token_id", "200", mm_code_input,
         "'img_context_token_id' is 200, wanted an integer from 0 to 199"},
        {"embedding_config", "img_context_token_id", NULL, mm_code_input, "is missing"},
        {"embedding_config", "layers_block_type", NULL, mm_code_input,
         "'layers_block_type' is missing"},
        {"embedding_config", "layers_block_type", "[\"mha\",\"rwkv\"]", mm_code_input,
         "'layers_block_type[1]' is \"rwkv\", wanted \"mamba2\" or \"mha\""},
        {"embedding_config", "layers_block_type", "[\"mha\",3]", mm_code_input,
         "'layers_block_type[1]' is 3"},
        {"llm_config", "use_conv", "false", mm_code_unsupported, "'use_conv' is false"},
        {"llm_config", "use_gnorm", "false", mm_code_unsupported, "'use_gnorm' is false"},
        {"embedding_config", "use_D", "\"yes\"", mm_code_input, "'use_D' is \"yes\""},
        {"embedding_config", "d_conv", "1", mm_code_input, "'d_conv' is 1"},
        {"llm_config", "hidden_size", "96", mm_code_input,
         "'hidden_size' is 96, wanted that of embedding_config, which is 48"},
        {"llm_config", "vocab_size", "-3", mm_code_input, "'vocab_size' is -3"},
        {"llm_config", "bias", "true", mm_code_unsupported, "'bias' is true, only false"},
        {"llm_config", "tie_word_embeddings", "true", mm_code_unsupported, "'tie_word_embeddings'"},
        {"llm_config", "eos_token_id", "200", mm_code_input, "'eos_token_id' is 200"},
        {"llm_config", "eos_token_id", "[2]", mm_code_input, "'eos_token_id' is an array of 1"},
        {"llm_config", "layers_block_type", "[\"mha\"]", mm_code_input, "wanted an array of 4"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        json_t *root = golden_json("pre_hybrid", "student");
        json_t *o = cases[i].where[0] ? json_object_get(root, cases[i].where) : root;
        if (cases[i].value) {
            json_object_set_new(o, cases[i].key, json_loads(cases[i].value, JSON_DECODE_ANY, NULL));
        } else {
            json_object_del(o, cases[i].key);
        }
        struct mm_config c;
        memset(&c, 0xa5, sizeof c);
        err.text[0] = '\0';
        const enum mm_code code = parse(&c, root);
        if (code != cases[i].code || !strstr(err.text, cases[i].says) ||
            strncmp(err.text, "x.json: ", 8) != 0 ||
            (strcmp(cases[i].key, "model_type") != 0 && !strstr(cases[i].says, "wanted") &&
             !strstr(err.text, cases[i].where))) {
            fail_msg("%s %s: code %d, '%s', wanted '%s'", cases[i].where, cases[i].key, (int)code,
                     err.text, cases[i].says);
        }
        assert_null(c.json);
        json_decref(root);
    }
}

static void accepts_variants(void **state) {
    (void)state;
    static const struct {
        const char *value;
        enum mm_rope_scaling scaling;
        double factor;
    } ropes[] = {
        {"null", mm_rope_scaling_none, 1},
        {"{\"rope_type\":\"default\"}", mm_rope_scaling_none, 1},
        {"{\"type\":\"linear\",\"factor\":4}", mm_rope_scaling_linear, 4},
        {"{\"rope_type\":\"dynamic\",\"factor\":2.5}", mm_rope_scaling_dynamic, 2.5},
    };
    for (size_t i = 0; i < sizeof ropes / sizeof ropes[0]; i++) {
        json_t *root = golden_json("pre_hybrid", "teacher");
        json_object_set_new(json_object_get(root, "llm_config"), "rope_scaling",
                            json_loads(ropes[i].value, JSON_DECODE_ANY, NULL));
        struct mm_config c;
        if (parse(&c, root) != mm_code_ok) fail_msg("%s", err.text);
        assert_int_equal(c.llm.rope_scaling, ropes[i].scaling);
        assert_true(c.llm.rope_factor == ropes[i].factor);
        mm_config_deinit(&c);
        json_decref(root);
    }
    json_t *root = golden_json("pre_hybrid", "teacher");
    json_t *embed = json_object_get(root, "embedding_config");
    json_object_set_new(embed, "special_token_maps", json_pack("{s:i,s:i}", "a", 200, "b", 201));
    json_object_set_new(embed, "img_context_token_id", json_integer(201));
    json_object_set_new(embed, "model_type", json_string("holistic_embedding"));
    struct mm_config c;
    if (parse(&c, root) != mm_code_ok) fail_msg("%s", err.text);
    assert_int_equal(c.n_special, 2);
    assert_int_equal(c.img_context_id, 201);
    mm_config_deinit(&c);
    json_object_set_new(embed, "layers_block_type", json_pack("[s,s]", "mha", "mamba2"));
    assert_int_equal(parse(&c, root), mm_code_input);
    assert_non_null(strstr(err.text, "'model_type' is \"internvl_chat\""));
    json_decref(root);
}

static void assert_keep(const char *text, int n, const char *want) {
    bool keep[64];
    char got[65] = {0};
    if (mm_keep_parse(text, n, keep, &err) != mm_code_ok) fail_msg("%s", err.text);
    for (int i = 0; i < n; i++)
        got[i] = keep[i] ? 'x' : '.';
    assert_string_equal(got, want);
}

static void keep_has_six_forms(void **state) {
    (void)state;
    assert_keep("none", 4, "....");
    assert_keep("all", 4, "xxxx");
    assert_keep("0,4,8", 10, "x...x...x.");
    assert_keep("3", 4, "...x");
    assert_keep("head-interleaved:8", 32, "x...x...x...x...x...x...x...x...");
    assert_keep("tail-interleaved:8", 32, "...x...x...x...x...x...x...x...x");
    assert_keep("head-stacked:8", 32, "xxxxxxxx........................");
    assert_keep("tail-stacked:8", 32, "........................xxxxxxxx");
    assert_keep("head-interleaved:3", 8, "x.x..x..");
    assert_keep("tail-interleaved:3", 8, ".x..x..x");
    assert_keep("head-interleaved:0", 4, "....");
    assert_keep("tail-stacked:4", 4, "xxxx");
    static const char *const wrong[] = {
        "",
        ",",
        "0,",
        ",0",
        "4",
        "0,4",
        "0,0",
        "-1",
        "0 ,1",
        "0x1",
        "some",
        "head-interleaved",
        "head-interleaved:",
        "head-interleaved:5",
        "head-stacked:-1",
        "tail-stacked:1x",
        "99999999999999999999",
        "all,0",
        "1,99999999999999999999,2",
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        bool keep[4];
        if (mm_keep_parse(wrong[i], 4, keep, &err) != mm_code_usage) fail_msg("'%s'", wrong[i]);
        char *quoted = mm_xasprintf("KEEP is '%s'", wrong[i]);
        assert_non_null(strstr(err.text, quoted));
        free(quoted);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_every_field),
        cmocka_unit_test(reads_the_real_size),
        cmocka_unit_test(students_are_the_released_layout),
        cmocka_unit_test(unknown_fields_survive_and_python_names_change),
        cmocka_unit_test(options_of_the_mixer_travel),
        cmocka_unit_test(refuses_one_wrong_field_at_a_time),
        cmocka_unit_test(accepts_variants),
        cmocka_unit_test(keep_has_six_forms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
