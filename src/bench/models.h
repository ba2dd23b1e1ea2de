// The models of one run: a folder's or a config's, in its linear, hybrid and attention form.
#ifndef MM_BENCH_MODELS_H
#define MM_BENCH_MODELS_H

#include "model/model.h"

enum mm_bench_form {
    mm_bench_form_linear,
    mm_bench_form_hybrid,
    mm_bench_form_attention,
    mm_bench_form_count,
};
extern const char *const mm_bench_form_names[mm_bench_form_count];

struct mm_bench_source {
    struct mm_backend *be;
    const char *path;         // MODEL, or the config of random weights
    bool random;              // make weights up
    int dtype;                // of the matrices; -1: as stored (random: as the config says)
    const char *keep;         // KEEP of the hybrid; NULL: a quarter, head-interleaved
    uint64_t seed;            // of random weights and of new mixers
    struct mm_config config;  // as read
    struct mm_model loaded;   // MODEL; empty when random, and when it is to be rounded
};
// Reads the config; loads MODEL.
enum mm_code mm_bench_source_open(struct mm_bench_source *s, struct mm_error *err);
void mm_bench_source_close(struct mm_bench_source *s);

// What the source is by itself.
enum mm_bench_form mm_bench_source_form(const struct mm_bench_source *s);
// Whether this form can be made of it.
enum mm_code mm_bench_form_check(const struct mm_bench_source *s, enum mm_bench_form form,
                                 struct mm_error *err);
// Makes one form, which mm_bench_form_check allows; *m is new (carved ones share what they can with
// the loaded model) or the loaded model itself. Give it back with mm_bench_model_close.
enum mm_code mm_bench_model_open(struct mm_model **m, struct mm_bench_source *s,
                                 enum mm_bench_form form, struct mm_error *err);
void mm_bench_model_close(struct mm_bench_source *s, struct mm_model *m);

#endif
