#include "train/recipe.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "io/json.h"

static void set_train(struct mm_stage_recipe *s, const char *const *names, int n) {
    s->n_train = n;
    for (int i = 0; i < n; i++)
        snprintf(s->train[i], sizeof s->train[i], "%s", names[i]);
}

void mm_recipe_defaults(struct mm_recipe *r) {
    // 4 GPUs with 8 accumulation steps each: 32 on one device
    const struct mm_stage_recipe common = {.accumulate = 32,
                                           .clip = 2.0,
                                           .weight_decay = 0.05,
                                           .b1 = 0.9,
                                           .b2 = 0.999,
                                           .eps = 1e-8,
                                           .batch = 2,
                                           .steps = 20000,
                                           .warmup = 2000,
                                           .stable = 16000,
                                           .decay = 2000};
    static const char *const new_ones[] = {"g_proj",     "in_proj", "conv1d", "dt_bias",
                                           "A_log_bias", "g_norm",  "D",      "q_norm",
                                           "k_norm",     "q_proj",  "k_proj", "v_proj"};
    static const char *const last[] = {"g_proj", "in_proj", "conv1d", "g_norm", "D",
                                       "q_norm", "k_norm",  "q_proj", "k_proj", "v_proj"};
    static const char *const everything[] = {"all"};
    *r = (struct mm_recipe){.compute = mm_dtype_bf16,
                            .max_length = 8192,
                            .seed = 1,
                            .checkpoint_every = 200,
                            .workers = 1};
    for (int i = 0; i < 4; i++)
        r->stage[i] = common;
    r->stage[0].lr = 1e-3;
    set_train(&r->stage[0], everything, 1);
    r->stage[1].lr = 1e-3;
    set_train(&r->stage[1], new_ones, 9);
    r->stage[2].lr = 5e-4;
    r->stage[2].warmup = 5000, r->stage[2].stable = 40000, r->stage[2].decay = 5000;
    set_train(&r->stage[2], new_ones, 12);
    r->stage[3].lr = 5e-5;
    r->stage[3].batch = 1;
    set_train(&r->stage[3], last, 10);
}

// ---- reading ------------------------------------------------------------------------------------

static enum mm_code refuse_unknown(const json_t *o, const char *const *known, const char *what,
                                   struct mm_error *err) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)o, key, value) {
        bool found = false;
        for (int i = 0; known[i]; i++)
            found |= strcmp(known[i], key) == 0;
        if (found) continue;
        char all[512];
        size_t used = 0;
        for (int i = 0; known[i] && used < sizeof all; i++) {
            used +=
                (size_t)snprintf(all + used, sizeof all - used, "%s%s", i ? ", " : "", known[i]);
        }
        return mm_fail(err, mm_code_input, "%s: unknown entry '%s'; known are %s", what, key, all);
    }
    return mm_code_ok;
}

static enum mm_code read_train(struct mm_stage_recipe *s, const json_t *list, const char *what,
                               struct mm_error *err) {
    if (!json_is_array(list) || json_array_size(list) < 1 ||
        json_array_size(list) > mm_recipe_max_train) {
        return mm_fail(err, mm_code_input, "%s: 'train' must be a list of 1 to %d names", what,
                       mm_recipe_max_train);
    }
    s->n_train = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));
        if (name == NULL || *name == 0 || strlen(name) >= sizeof s->train[0]) {
            return mm_fail(err, mm_code_input, "%s: entry %zu of 'train' is no tensor name", what,
                           i);
        }
        snprintf(s->train[s->n_train++], sizeof s->train[0], "%s", name);
    }
    return mm_code_ok;
}

static enum mm_code read_schedule(struct mm_stage_recipe *s, const json_t *o, const char *what,
                                  struct mm_error *err) {
    static const char *const known[] = {"warmup", "stable", "decay", NULL};
    if (!json_is_object(o)) {
        return mm_fail(err, mm_code_input,
                       "%s: 'schedule' must be an object with warmup, stable and decay", what);
    }
    MM_TRY(refuse_unknown(o, known, what, err));
    MM_TRY(mm_json_int(o, "warmup", 0, 1000000000, false, &s->warmup, what, err));
    MM_TRY(mm_json_int(o, "stable", 0, 1000000000, false, &s->stable, what, err));
    return mm_json_int(o, "decay", 0, 1000000000, false, &s->decay, what, err);
}

static enum mm_code read_stage(struct mm_stage_recipe *s, const json_t *o, const char *what,
                               struct mm_error *err) {
    static const char *const known[] = {"lr",    "schedule",     "steps", "batch", "accumulate",
                                        "clip",  "weight_decay", "b1",    "b2",    "eps",
                                        "train", "kl_reduction", NULL};
    if (!json_is_object(o)) return mm_fail(err, mm_code_input, "%s must be an object", what);
    MM_TRY(refuse_unknown(o, known, what, err));
    MM_TRY(mm_json_float(o, "lr", 0.0, 10.0, false, &s->lr, what, err));
    MM_TRY(mm_json_int(o, "steps", 1, 1000000000, false, &s->steps, what, err));
    MM_TRY(mm_json_int(o, "batch", 1, 65536, false, &s->batch, what, err));
    MM_TRY(mm_json_int(o, "accumulate", 1, 65536, false, &s->accumulate, what, err));
    MM_TRY(mm_json_float(o, "clip", 0.0, 1e9, false, &s->clip, what, err));
    MM_TRY(mm_json_float(o, "weight_decay", 0.0, 10.0, false, &s->weight_decay, what, err));
    MM_TRY(mm_json_float(o, "b1", 0.0, 0.999999, false, &s->b1, what, err));
    MM_TRY(mm_json_float(o, "b2", 0.0, 0.999999999, false, &s->b2, what, err));
    MM_TRY(mm_json_float(o, "eps", 0.0, 1.0, false, &s->eps, what, err));
    const char *kl = NULL;
    MM_TRY(mm_json_string(o, "kl_reduction", false, &kl, what, err));
    if (kl) {
        const int k = mm_kl_reduction_parse(kl);
        if (k < 0) {
            return mm_fail(err, mm_code_input,
                           "%s: 'kl_reduction' is '%s', wanted batchmean, token or completion",
                           what, kl);
        }
        s->kl_reduction = (enum mm_kl_reduction)k;
    }
    const json_t *schedule = json_object_get(o, "schedule");
    if (schedule) {
        MM_TRY(read_schedule(s, schedule, what, err));
    } else if (json_object_get(o, "steps")) {
        // the schedule follows a changed number of steps: a tenth up, a tenth down
        s->warmup = s->decay = s->steps / 10;
        s->stable = s->steps - s->warmup - s->decay;
    }
    const json_t *train = json_object_get(o, "train");
    return train ? read_train(s, train, what, err) : mm_code_ok;
}

static const char *const stage_names[] = {"supervised", "stage1", "stage2", "stage3"};
static const char *const recompute_names[] = {"auto", "always", "never"};

enum mm_code mm_recipe_read(struct mm_recipe *r, const char *path, struct mm_error *err) {
    static const char *const known[] = {"supervised", "stage1",           "stage2",    "stage3",
                                        "compute",    "max_length",       "max_tiles", "seed",
                                        "recompute",  "checkpoint_every", "workers",   NULL};
    json_t *root;
    MM_TRY(mm_json_load(&root, path, err));
    enum mm_code code = mm_code_ok;
    if (!json_is_object(root)) code = mm_fail(err, mm_code_input, "%s: not an object", path);
    if (!code) code = refuse_unknown(root, known, path, err);
    for (int i = 0; !code && i < 4; i++) {
        const json_t *o = json_object_get(root, stage_names[i]);
        char what[512];
        snprintf(what, sizeof what, "%s: '%s'", path, stage_names[i]);
        if (o) code = read_stage(&r->stage[i], o, what, err);
    }
    const char *compute = NULL, *recompute = NULL;
    int64_t seed = (int64_t)r->seed;
    if (!code) code = mm_json_string(root, "compute", false, &compute, path, err);
    if (!code) code = mm_json_string(root, "recompute", false, &recompute, path, err);
    if (!code) code = mm_json_int(root, "max_length", 1, 1 << 24, false, &r->max_length, path, err);
    if (!code) code = mm_json_int(root, "max_tiles", 0, 4096, false, &r->max_tiles, path, err);
    if (!code) code = mm_json_int(root, "seed", 0, INT64_MAX, false, &seed, path, err);
    if (!code) {
        code = mm_json_int(root, "checkpoint_every", 1, 1000000000, false, &r->checkpoint_every,
                           path, err);
    }
    if (!code) code = mm_json_int(root, "workers", 0, 256, false, &r->workers, path, err);
    r->seed = (uint64_t)seed;
    if (!code && compute) {
        if (strcmp(compute, "bf16") && strcmp(compute, "f32")) {
            code = mm_fail(err, mm_code_input, "%s: 'compute' is '%s', wanted f32 or bf16", path,
                           compute);
        }
        r->compute = strcmp(compute, "f32") == 0 ? mm_dtype_f32 : mm_dtype_bf16;
    }
    if (!code && recompute) {
        int k = 0;
        while (k < 3 && strcmp(recompute, recompute_names[k]))
            k++;
        if (k == 3) {
            code =
                mm_fail(err, mm_code_input, "%s: 'recompute' is '%s', wanted auto, always or never",
                        path, recompute);
        } else {
            r->recompute = (enum mm_recompute)k;
        }
    }
    json_decref(root);
    return code;
}

json_t *mm_recipe_json(const struct mm_recipe *r) {
    json_t *root = json_object();
    for (int i = 0; i < 4; i++) {
        const struct mm_stage_recipe *s = &r->stage[i];
        json_t *train = json_array();
        for (int j = 0; j < s->n_train; j++)
            json_array_append_new(train, json_string(s->train[j]));
        json_t *o = json_pack(
            "{s:f, s:{s:I, s:I, s:I}, s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:o}", "lr", s->lr,
            "schedule", "warmup", (json_int_t)s->warmup, "stable", (json_int_t)s->stable, "decay",
            (json_int_t)s->decay, "steps", (json_int_t)s->steps, "batch", (json_int_t)s->batch,
            "accumulate", (json_int_t)s->accumulate, "clip", s->clip, "weight_decay",
            s->weight_decay, "b1", s->b1, "b2", s->b2, "eps", s->eps, "train", train);
        if (i == 3) {
            json_object_set_new(o, "kl_reduction",
                                json_string(mm_kl_reduction_name(s->kl_reduction)));
        }
        json_object_set_new(root, stage_names[i], o);
    }
    json_object_set_new(root, "compute", json_string(mm_dtype_name(r->compute)));
    json_object_set_new(root, "max_length", json_integer((json_int_t)r->max_length));
    json_object_set_new(root, "max_tiles", json_integer((json_int_t)r->max_tiles));
    json_object_set_new(root, "seed", json_integer((json_int_t)r->seed));
    json_object_set_new(root, "recompute", json_string(recompute_names[r->recompute]));
    json_object_set_new(root, "checkpoint_every", json_integer((json_int_t)r->checkpoint_every));
    json_object_set_new(root, "workers", json_integer((json_int_t)r->workers));
    return root;
}

void mm_recipe_set_steps(struct mm_recipe *r, int stage, int64_t steps) {
    struct mm_stage_recipe *s = &r->stage[stage];
    const double f = (double)steps / (double)s->steps;
    s->warmup = (int64_t)llround((double)s->warmup * f);
    s->decay = (int64_t)llround((double)s->decay * f);
    s->stable = (int64_t)llround((double)s->stable * f);
    s->steps = steps;
}

double mm_recipe_lr(const struct mm_stage_recipe *s, int64_t step) {
    if (step < s->warmup) return s->lr * (double)(step + 1) / (double)s->warmup;
    const int64_t after = step - s->warmup - s->stable;
    if (after < 0) return s->lr;
    if (after >= s->decay) return s->decay == 0 ? s->lr : 0.0;
    const double pi = 3.14159265358979323846;
    return s->lr * 0.5 * (1.0 + cos(pi * (double)after / (double)s->decay));
}

// `entry` is a run of whole dot-separated parts of `name`.
static bool name_has(const char *name, const char *entry) {
    const size_t n = strlen(entry);
    for (const char *at = name; (at = strstr(at, entry)) != NULL; at++) {
        if ((at == name || at[-1] == '.') && (at[n] == 0 || at[n] == '.')) return true;
    }
    return false;
}

bool mm_recipe_trains(const struct mm_stage_recipe *s, const struct mm_param *p) {
    for (int i = 0; i < s->n_train; i++) {
        if (strcmp(s->train[i], "all") == 0 || name_has(p->name, s->train[i])) return p->used;
    }
    return false;
}

// Options of the mixer that a config may have switched off; the default lists name them all.
static bool optional(const char *entry) {
    static const char *const names[] = {"D", "q_norm", "k_norm", "conv1d", "A_log_bias", "g_norm"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(names[i], entry) == 0) return true;
    }
    return false;
}

enum mm_code mm_recipe_check_names(const struct mm_stage_recipe *s, const struct mm_model *m,
                                   struct mm_error *err) {
    for (int i = 0; i < s->n_train; i++) {
        bool found = strcmp(s->train[i], "all") == 0 || optional(s->train[i]);
        for (int j = 0; !found && j < m->n_params; j++) {
            found = m->params[j].used && name_has(m->params[j].name, s->train[i]);
        }
        if (!found) {
            return mm_fail(err, mm_code_input,
                           "recipe: 'train' names '%s', and no tensor of the model has that part "
                           "in its name",
                           s->train[i]);
        }
    }
    return mm_code_ok;
}
