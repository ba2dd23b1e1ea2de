// Weights that would have to be converted into more memory than there is are refused before the
// first byte of them is taken; without a conversion the same file is only mapped.
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/memory.h"
#include "model/model_test.h"

static const char config_text[] =
    "{\"model_type\": \"internvl_chat\", \"torch_dtype\": \"float32\", "
    "\"embedding_config\": {\"model_type\": \"holistic_embedding\", \"num_hidden_layers\": 1, "
    "\"hidden_size\": 8192, \"num_attention_heads\": 64, \"num_key_value_heads\": 8, "
    "\"intermediate_size\": 8192, \"rms_norm_eps\": 1e-5, \"rope_theta\": 1e4, "
    "\"max_position_embeddings\": 64, \"patch_size\": 2, \"image_size\": 8, "
    "\"downsample_ratio\": 0.5, \"llm_vocab_size\": 4194304, \"img_context_token_id\": 7}, "
    "\"llm_config\": {\"model_type\": \"internlm2\", \"num_hidden_layers\": 1, "
    "\"hidden_size\": 8192, \"num_attention_heads\": 64, \"num_key_value_heads\": 8, "
    "\"intermediate_size\": 8192, \"rms_norm_eps\": 1e-5, \"rope_theta\": 1e4, "
    "\"max_position_embeddings\": 64, \"vocab_size\": 4194304}}";

// A safetensors file of the model's tensors in f32 that has a header and no other page.
static bool sparse_file(const char *path, const struct mm_model *m) {
    struct mm_buf h = {0};
    uint64_t at = 0;
    for (int i = 0; i < m->n_params; i++) {
        const struct mm_param *p = &m->params[i];
        const uint64_t bytes = (uint64_t)mm_view_count(p->w) * 4;
        mm_buf_addf(&h, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[", i ? "," : "{", p->name);
        for (int a = 0; a < p->n_axes; a++)
            mm_buf_addf(&h, "%s%lld", a ? "," : "", (long long)p->shape[a]);
        mm_buf_addf(&h, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)at,
                    (unsigned long long)(at + bytes));
        at += bytes;
    }
    mm_buf_adds(&h, "}");
    while (h.len % 8)
        mm_buf_adds(&h, " ");
    const uint64_t length = h.len;
    const int fd = open(path, O_CREAT | O_RDWR | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, &length, 8), 8);
    assert_int_equal(write(fd, h.data, h.len), (ssize_t)h.len);
    const bool ok = ftruncate(fd, (off_t)(8 + h.len + at)) == 0;
    close(fd);
    mm_buf_free(&h);
    return ok;
}

static void conversion_beyond_memory_is_refused(void **state) {
    (void)state;
    char dir[] = "/tmp/mm_load_XXXXXX";
    assert_non_null(mkdtemp(dir));
    struct mm_backend *be = open_isa(mm_isa_plain, 1);
    struct mm_config c;
    struct mm_model m;
    OK(mm_config_parse(&c, config_text, sizeof config_text - 1, "test", &err));
    mm_model_init(&m, &c, NULL, mm_dtype_f32);
    char *weights = mm_xasprintf("%s/model.safetensors", dir);
    char *config = mm_xasprintf("%s/config.json", dir);
    const size_t bytes = mm_model_weight_bytes(&m);
    const bool made = sparse_file(weights, &m);
    OK(mm_config_write(&c, config, &err));
    mm_model_deinit(&m);
    mm_config_deinit(&c);
    if (made && (int64_t)(bytes / 2) > mm_memory_available()) {
        const int64_t before = mm_memory_used();
        assert_int_equal(mm_model_load(&m, be, dir, mm_dtype_bf16, &err), mm_code_memory);
        if (strstr(err.text, "GiB in bf16") == NULL || strstr(err.text, "are free") == NULL) {
            fail_msg("says '%s'", err.text);
        }
        OK(mm_model_load(&m, be, dir, mm_dtype_f32, &err));
        assert_true(m.params[m.global[mm_role_output]].borrowed);
        mm_model_deinit(&m);
        assert_true(mm_memory_used() - before < (64 << 20));
    }
    unlink(weights);
    unlink(config);
    rmdir(dir);
    free(weights);
    free(config);
    mm_backend_close(be);
    if (!made || bytes / 2 <= (size_t)mm_memory_available()) skip();
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(conversion_beyond_memory_is_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
