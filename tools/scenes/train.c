// The training half of a world: pictures, the jsonl of conversations, the meta JSON. Pictures are
// made in blocks by all threads and their lines written in order, so that the files do not depend
// on the number of threads.
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "io/file.h"
#include "io/json.h"
#include "scenes/write.h"

enum { block = 512, per_folder = 1000, n_turns = 4 };

static void add_string(struct mm_buf *out, const char *text) {
    json_t *s = json_string(text);
    char *quoted = json_dumps(s, JSON_ENCODE_ANY);
    mm_buf_adds(out, quoted);
    free(quoted);
    json_decref(s);
}

void mm_dump_scene(struct mm_buf *out, const struct mm_world *w, const struct mm_scene *s,
                   const char *split, int64_t index, const struct mm_question *q, int n_q) {
    mm_buf_addf(out, "{\"split\": \"%s\", \"index\": %lld, \"grid\": %d, \"word\": ", split,
                (long long)index, w->grid);
    if (s->labelled) {
        add_string(out, s->word);
    } else {
        mm_buf_adds(out, "null");
    }
    mm_buf_adds(out, ", \"things\": [");
    for (int i = 0; i < s->n; i++) {
        const struct mm_item *it = &s->item[i];
        const struct mm_thing *t = &w->things.list[it->thing];
        mm_buf_adds(out, i ? ", {\"name\": " : "{\"name\": ");
        add_string(out, t->name);
        mm_buf_adds(out, ", \"plural\": ");
        add_string(out, t->plural);
        mm_buf_addf(out, ", \"kind\": \"%s\", \"shape\": %s, \"color\": \"%s\", \"colors\": [",
                    t->kind ? t->kind : "", t->shape >= 0 ? "true" : "false",
                    it->colour >= 0 ? mm_colour_names[it->colour] : "");
        const uint32_t mask = mm_scene_colours(w, it);
        for (int c = 0, n = 0; c < mm_colour_count; c++) {
            if (mask >> c & 1u) mm_buf_addf(out, "%s\"%s\"", n++ ? ", " : "", mm_colour_names[c]);
        }
        mm_buf_addf(out, "], \"row\": %d, \"col\": %d}", it->row, it->col);
    }
    mm_buf_adds(out, "], \"questions\": [");
    for (int i = 0; i < n_q; i++) {
        mm_buf_addf(out, "%s{\"topic\": \"%s\", \"text\": ", i ? ", " : "", q[i].topic);
        add_string(out, q[i].text);
        mm_buf_adds(out, ", \"answer\": ");
        add_string(out, q[i].answer);
        mm_buf_adds(out, ", \"options\": [");
        for (int k = 0; k < q[i].n_options; k++) {
            mm_buf_adds(out, k ? ", " : "");
            add_string(out, q[i].option[k]);
        }
        mm_buf_adds(out, "]}");
    }
    mm_buf_adds(out, "]}\n");
}

static void add_sample(struct mm_buf *out, const struct mm_world *w, int64_t index,
                       const char *picture, const struct mm_question *q, int n) {
    struct mm_buf prompt = {0};
    mm_buf_addf(out,
                "{\"id\": %lld, \"image\": \"%s\", \"width\": %d, \"height\": %d, "
                "\"conversations\": [",
                (long long)index, picture, w->size, w->size);
    for (int i = 0; i < n; i++) {
        mm_buf_reset(&prompt);
        if (i == 0) mm_buf_adds(&prompt, "<image>\n");
        mm_ask_prompt(&prompt, &q[i]);
        mm_buf_adds(
            out, i ? ", {\"from\": \"human\", \"value\": " : "{\"from\": \"human\", \"value\": ");
        add_string(out, prompt.data);
        mm_buf_adds(out, "}, {\"from\": \"gpt\", \"value\": ");
        add_string(out, q[i].answer);
        mm_buf_adds(out, "}");
    }
    mm_buf_adds(out, "]}\n");
    mm_buf_free(&prompt);
}

struct batch {
    const struct mm_job *job;
    int64_t first;
    struct mm_buf line[block], dumped[block];
    struct mm_error err[block];  // of the picture that could not be written
};

static enum mm_code write_plain(const char *path, const struct mm_buf *b, struct mm_error *err) {
    // Not through a temporary and a rename: sixty thousand fsyncs would take longer than the
    // pictures, and meta.json, written last, is what makes the folder valid.
    FILE *f = fopen(path, "wb");
    if (!f) return mm_fail_errno(err, "cannot write %s", path);
    const bool ok = fwrite(b->data, 1, b->len, f) == b->len;
    if ((fclose(f) != 0) || !ok) return mm_fail_errno(err, "cannot write %s", path);
    return mm_code_ok;
}

static void make_pictures(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    struct batch *b = arg;
    const struct mm_job *job = b->job;
    const struct mm_world *w = job->world;
    struct mm_canvas canvas = {w->size, w->size, mm_xmalloc((size_t)w->size * (size_t)w->size * 3)};
    struct mm_buf file = {0};
    for (int64_t i = begin; i < end; i++) {
        const int64_t index = b->first + i;
        struct mm_scene s;
        struct mm_question q[n_turns];
        mm_scene_compose(&s, w, "scenes/train", index, mm_held_never);
        struct mm_rng rng = mm_scene_rng(w, "scenes/train", index);
        const int n = mm_ask_some(q, n_turns, w, &s, &rng);
        mm_scene_paint(&s, w, &canvas);
        char name[64];
        snprintf(name, sizeof name, "%03lld/%06lld.%s", (long long)(index / per_folder),
                 (long long)index, job->jpeg_quality ? "jpg" : "png");
        mm_buf_reset(&file);
        if (mm_picture_encode(&file, &canvas, job->jpeg_quality, &b->err[i]) == mm_code_ok) {
            char *path = mm_xasprintf("%s/images/train/%s", job->out, name);
            write_plain(path, &file, &b->err[i]);
            free(path);
        }
        add_sample(&b->line[i], w, index, name, q, n);
        if (job->dump) mm_dump_scene(&b->dumped[i], w, &s, "train", index, q, n);
    }
    mm_buf_free(&file);
    free(canvas.rgb);
}

static enum mm_code write_block(struct batch *b, int64_t n, struct mm_outfile *jsonl,
                                struct mm_error *err) {
    for (int64_t i = 0; i < n; i++) {
        mm_buf_reset(&b->line[i]);
        mm_buf_reset(&b->dumped[i]);
        b->err[i].code = mm_code_ok;
    }
    mm_parallel_for(b->job->pool, n, 1, make_pictures, b);
    for (int64_t i = 0; i < n; i++) {
        if (b->err[i].code != mm_code_ok) {
            return mm_fail(err, b->err[i].code, "%s", b->err[i].text);
        }
        MM_TRY(mm_outfile_write(jsonl, b->line[i].data, b->line[i].len, err));
        FILE *dump = b->job->dump;
        if (dump && fwrite(b->dumped[i].data, 1, b->dumped[i].len, dump) != b->dumped[i].len) {
            return mm_fail_errno(err, "cannot write the dump of scenes");
        }
    }
    return mm_code_ok;
}

enum mm_code mm_write_training(const struct mm_job *job, struct mm_error *err) {
    for (int64_t f = 0; f * per_folder < job->n_pictures; f++) {
        char *folder = mm_xasprintf("%s/images/train/%03lld", job->out, (long long)f);
        const enum mm_code code = mm_folder_make(folder, err);
        free(folder);
        MM_TRY(code);
    }
    char *path = mm_path_join(job->out, "train.jsonl");
    struct mm_outfile *jsonl = NULL;
    enum mm_code code = mm_outfile_open(&jsonl, path, err);
    free(path);
    MM_TRY(code);
    struct batch *b = mm_xcalloc(1, sizeof *b);
    b->job = job;
    struct mm_progress progress;
    mm_progress_begin(&progress, "pictures", "pictures", job->n_pictures, 0);
    while (b->first < job->n_pictures && code == mm_code_ok) {
        const int64_t left = job->n_pictures - b->first, n = left < block ? left : block;
        code = write_block(b, n, jsonl, err);
        b->first += n;
        mm_progress_update(&progress, b->first, NULL);
        if (code == mm_code_ok && mm_interrupted()) {
            code = mm_fail(err, mm_code_interrupted,
                           "interrupted: %s is not complete; the same "
                           "command makes it anew",
                           job->out);
        }
    }
    mm_progress_end(&progress);
    for (int i = 0; i < block; i++) {
        mm_buf_free(&b->line[i]);
        mm_buf_free(&b->dumped[i]);
    }
    free(b);
    if (code != mm_code_ok) {
        mm_outfile_abort(jsonl);
        return code;
    }
    return mm_outfile_commit(jsonl, err);
}

// root and annotation are relative to the folder that meta.json lies in, so that the world can
// be moved as a whole.
enum mm_code mm_write_meta(const struct mm_job *job, struct mm_error *err) {
    json_t *meta = json_pack("{s: {s: s, s: s, s: b, s: i, s: i, s: I, s: s}}", "scenes", "root",
                             "images/train", "annotation", "train.jsonl", "data_augment", 0,
                             "repeat_time", 1, "max_dynamic_patch", 1, "length",
                             (json_int_t)job->n_pictures, "made_by", job->made_by);
    char *path = mm_path_join(job->out, "meta.json");
    const enum mm_code code = mm_json_write_file(meta, path, err);
    free(path);
    json_decref(meta);
    return code;
}
