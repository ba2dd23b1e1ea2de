#include "bench/models.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/log.h"
#include "bench/counts.h"
#include "bench/random.h"
#include "bench/round.h"
#include "io/file.h"

const char *const mm_bench_form_names[mm_bench_form_count] = {"linear", "hybrid", "attention"};

static bool rounds(const struct mm_bench_source *s) {
    return s->dtype >= 0 && mm_dtype_quantized((enum mm_dtype)s->dtype);
}

static enum mm_code load(struct mm_model *m, const struct mm_bench_source *s,
                         struct mm_error *err) {
    MM_TRY(mm_model_load(m, s->be, s->path, rounds(s) ? -1 : s->dtype, err));
    if (!mm_model_quantized(m) || s->dtype < 0 || s->dtype == (int)m->config.quant) {
        return mm_code_ok;
    }
    const enum mm_code code =
        mm_fail(err, mm_code_usage, "%s is quantized already, to %s; it cannot be made %s", s->path,
                mm_dtype_name(m->config.quant), mm_dtype_name((enum mm_dtype)s->dtype));
    mm_model_deinit(m);
    return code;
}

enum mm_code mm_bench_source_open(struct mm_bench_source *s, struct mm_error *err) {
    if (!s->random) {
        MM_TRY(load(&s->loaded, s, err));
        const enum mm_code code = mm_config_copy(&s->config, &s->loaded.config, err);
        // what is to be rounded is loaded again for each form, and let go before it is measured
        if (code || (rounds(s) && !mm_model_quantized(&s->loaded))) mm_model_deinit(&s->loaded);
        return code;
    }
    if (!mm_path_is_folder(s->path)) return mm_config_read(&s->config, s->path, err);
    char *path = mm_path_join(s->path, "config.json");
    const enum mm_code code = mm_config_read(&s->config, path, err);
    free(path);
    return code;
}

void mm_bench_source_close(struct mm_bench_source *s) {
    if (s->loaded.be) mm_model_deinit(&s->loaded);
    mm_config_deinit(&s->config);
}

enum mm_bench_form mm_bench_source_form(const struct mm_bench_source *s) {
    const char *name = mm_bench_mixers(&s->config);
    int form = 0;
    while (strcmp(name, mm_bench_form_names[form]) != 0)
        form++;
    return (enum mm_bench_form)form;
}

static enum mm_code kept_blocks(const struct mm_bench_source *s, enum mm_bench_form form,
                                bool keep[mm_max_blocks], struct mm_error *err) {
    const int64_t n = mm_config_blocks(&s->config);
    char quarter[48];
    snprintf(quarter, sizeof quarter, "head-interleaved:%lld", (long long)(n / 4 ? n / 4 : 1));
    const char *text = form == mm_bench_form_linear ? "none" : s->keep ? s->keep : quarter;
    MM_TRY(mm_keep_parse(text, n, keep, err));
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i++)
        kept += keep[i];
    if (form == mm_bench_form_hybrid && (kept == 0 || kept == n)) {
        return mm_fail(err, mm_code_usage,
                       "--keep %s keeps %s of the %lld blocks, which is no hybrid", text,
                       kept ? "all" : "none", (long long)n);
    }
    return mm_code_ok;
}

enum mm_code mm_bench_form_check(const struct mm_bench_source *s, enum mm_bench_form form,
                                 struct mm_error *err) {
    const enum mm_bench_form is = mm_bench_source_form(s);
    bool keep[mm_max_blocks] = {false};
    if (form == is) return mm_code_ok;
    if (is == mm_bench_form_attention) return kept_blocks(s, form, keep, err);
    return mm_fail(err, mm_code_usage,
                   "%s is carved already (%s); other mixers can be made of a teacher only", s->path,
                   mm_bench_form_names[is]);
}

static enum mm_dtype config_dtype(const struct mm_config *c) {
    return strcmp(c->torch_dtype, "float32") == 0   ? mm_dtype_f32
           : strcmp(c->torch_dtype, "float16") == 0 ? mm_dtype_f16
                                                    : mm_dtype_bf16;
}

// The source's config with the mixers of a form.
static enum mm_code config_of(struct mm_config *c, const struct mm_bench_source *s,
                              enum mm_bench_form form, struct mm_error *err) {
    bool keep[mm_max_blocks] = {false};
    if (form == mm_bench_source_form(s)) return mm_config_copy(c, &s->config, err);
    MM_TRY(kept_blocks(s, form, keep, err));
    return mm_config_student(c, &s->config, keep, err);
}

static enum mm_code make_up(struct mm_model *m, const struct mm_bench_source *s,
                            enum mm_bench_form form, struct mm_error *err) {
    const double from = mm_now();
    struct mm_config config = {0};
    MM_TRY(config_of(&config, s, form, err));
    if (rounds(s)) mm_config_set_quant(&config, (enum mm_dtype)s->dtype);
    const enum mm_dtype t =
        s->dtype < 0 || rounds(s) ? config_dtype(&s->config) : (enum mm_dtype)s->dtype;
    const enum mm_code code = mm_bench_random_model(m, &config, s->be, t, s->seed, err);
    mm_config_deinit(&config);
    if (!code) {
        mm_info("%s: %.2f GB of random weights in %.1f s", mm_bench_form_names[form],
                (double)mm_model_weight_bytes(m) * 1e-9, mm_now() - from);
    }
    return code;
}

static enum mm_code carve(struct mm_model *m, const struct mm_model *teacher,
                          const struct mm_bench_source *s, enum mm_bench_form form,
                          struct mm_error *err) {
    bool keep[mm_max_blocks] = {false};
    MM_TRY(kept_blocks(s, form, keep, err));
    return mm_model_carve(m, teacher, keep, mm_init_mimic, s->seed, err);
}

// Loads, carves and rounds; what it was made of is gone afterwards.
static enum mm_code make_rounded(struct mm_model *m, const struct mm_bench_source *s,
                                 enum mm_bench_form form, struct mm_error *err) {
    struct mm_model whole = {0}, carved = {0};
    MM_TRY(load(&whole, s, err));
    enum mm_code code = mm_code_ok;
    const bool same = form == mm_bench_source_form(s);
    if (!same) code = carve(&carved, &whole, s, form, err);
    if (!code) {
        code = mm_bench_round_model(m, same ? &whole : &carved, (enum mm_dtype)s->dtype, err);
        if (!same) mm_model_deinit(&carved);
    }
    mm_model_deinit(&whole);
    return code;
}

enum mm_code mm_bench_model_open(struct mm_model **out, struct mm_bench_source *s,
                                 enum mm_bench_form form, struct mm_error *err) {
    *out = NULL;
    if (s->loaded.be && form == mm_bench_source_form(s)) {
        *out = &s->loaded;
        return mm_code_ok;
    }
    struct mm_model *m = mm_xcalloc(1, sizeof *m);
    const enum mm_code code = s->random      ? make_up(m, s, form, err)
                              : s->loaded.be ? carve(m, &s->loaded, s, form, err)
                                             : make_rounded(m, s, form, err);
    if (code) {
        free(m);
        return code;
    }
    *out = m;
    return mm_code_ok;
}

void mm_bench_model_close(struct mm_bench_source *s, struct mm_model *m) {
    if (m == NULL || m == &s->loaded) return;
    mm_model_deinit(m);
    free(m);
}
