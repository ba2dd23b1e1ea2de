// Files of a world: training pictures with jsonl and meta JSON, test TSVs, the dump of scenes.
#ifndef MM_SCENES_WRITE_H
#define MM_SCENES_WRITE_H

#include "base/threads.h"
#include "scenes/ask.h"

struct mm_job {
    const struct mm_world *world;
    struct mm_pool *pool;
    const char *out;      // folder
    const char *made_by;  // the options that matter, one line: goes into meta.json
    int64_t n_pictures, n_test;
    int jpeg_quality;  // 0: PNG
    FILE *dump;        // scenes as JSON lines, or NULL
};

// images/train/NNN/NNNNNN.png, train.jsonl, and, last, meta.json.
enum mm_code mm_write_training(const struct mm_job *job, struct mm_error *err);
enum mm_code mm_write_meta(const struct mm_job *job, struct mm_error *err);

// POPE, MME, TextVQA_VAL, ScienceQA_TEST and GQA, each once as it is and once as heldout_*.
enum mm_code mm_write_tests(const struct mm_job *job, struct mm_error *err);

// One line of the dump: what the picture shows, and what was asked.
void mm_dump_scene(struct mm_buf *out, const struct mm_world *w, const struct mm_scene *s,
                   const char *split, int64_t index, const struct mm_question *q, int n_q);

// Contact sheets, for the eye.
enum mm_code mm_write_sheet(const struct mm_world *w, const char *path, struct mm_error *err);
enum mm_code mm_write_names(const struct mm_world *w, const char *path, struct mm_error *err);

#endif
