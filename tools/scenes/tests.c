// The testing half of a world: TSV files in the containers of the real benchmarks. Their pictures
// come from splits of their own, so that none was trained on; the heldout_ files show only
// pictures with a combination that training never shows.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "io/file.h"
#include "scenes/write.h"

struct sheet {  // one TSV while it grows
    const struct mm_job *job;
    char split[48];  // "POPE", "heldout_POPE"
    enum mm_held held;
    int64_t next_scene;  // scenes tried so far
    int64_t n_rows;
    struct mm_buf tsv, dump;
    struct mm_canvas canvas;
};

// The sheet's next scene, with the generator of its questions. False when the world has no
// held-out combination to show.
static bool next_scene(struct sheet *t, struct mm_scene *s, struct mm_rng *rng) {
    const struct mm_world *w = t->job->world;
    char stream[64];
    snprintf(stream, sizeof stream, "scenes/test/%s", t->split);
    mm_scene_compose(s, w, stream, t->next_scene, t->held);
    *rng = mm_scene_rng(w, stream, t->next_scene);
    t->next_scene++;
    return t->held == mm_held_never || mm_scene_held_out(s, &w->things);
}

// index and image of a row. The picture is spelled out in the first row that shows it
// (first_row < 0); further rows hold that row's index instead.
static enum mm_code begin_row(struct sheet *t, const struct mm_scene *s, int64_t first_row,
                              struct mm_error *err) {
    mm_buf_addf(&t->tsv, "%lld\t", (long long)t->n_rows++);
    if (first_row >= 0) {
        mm_buf_addf(&t->tsv, "%lld\t", (long long)first_row);
        return mm_code_ok;
    }
    struct mm_buf file = {0};
    mm_scene_paint(s, t->job->world, &t->canvas);
    const enum mm_code code = mm_picture_encode(&file, &t->canvas, t->job->jpeg_quality, err);
    if (code == mm_code_ok) {
        mm_base64_encode(&t->tsv, file.data, file.len);
        mm_buf_adds(&t->tsv, "\t");
    }
    mm_buf_free(&file);
    return code;
}

static void dump(struct sheet *t, const struct mm_scene *s, const struct mm_question *q, int n) {
    if (t->job->dump) {
        mm_dump_scene(&t->dump, t->job->world, s, t->split, t->next_scene - 1, q, n);
    }
}

// Three rows a picture: one of each kind of negative, "yes" and "no" taking turns.
static enum mm_code add_pope(struct sheet *t, const struct mm_scene *s, struct mm_rng *rng,
                             int64_t n_done, bool *done, struct mm_error *err) {
    static const char *const names[] = {"random", "popular", "adversarial"};
    struct mm_question q[3];
    for (int k = 0; k < 3; k++) {
        const bool yes = (n_done / 3 + k) % 2 == 0;
        if (!mm_ask_presence(&q[k], t->job->world, s, rng, yes, (enum mm_negative)k)) {
            return mm_code_ok;
        }
    }
    const int64_t first = t->n_rows;
    for (int k = 0; k < 3; k++) {
        MM_TRY(begin_row(t, s, k ? first : -1, err));
        mm_buf_addf(&t->tsv, "%s Please answer yes or no.\t%s\t%s\n", q[k].text, q[k].answer,
                    names[k]);
    }
    dump(t, s, q, 3);
    *done = true;
    return mm_code_ok;
}

// Two rows a picture, one Yes and one No.
static enum mm_code add_mme(struct sheet *t, const struct mm_scene *s, struct mm_rng *rng,
                            int64_t n_done, bool *done, struct mm_error *err) {
    static mm_ask_yesno_fn *const ask[] = {mm_ask_existence, mm_ask_count_yesno, mm_ask_position,
                                           mm_ask_colour};
    struct mm_question q[2];
    const bool yes_first = mm_rng_below(rng, 2) != 0;
    for (int k = 0; k < 2; k++) {
        bool ok = false;
        for (int tries = 0; tries < 20 && !ok; tries++) {
            ok = ask[n_done / 2 % 4](&q[k], t->job->world, s, rng, (k == 0) == yes_first);
        }
        if (!ok) return mm_code_ok;
    }
    const int64_t first = t->n_rows;
    for (int k = 0; k < 2; k++) {
        MM_TRY(begin_row(t, s, k ? first : -1, err));
        mm_buf_addf(&t->tsv, "%s Please answer yes or no.\t%s\t%s\t%s/%06lld.%s\n", q[k].text,
                    q[k].answer, q[k].topic, q[k].topic, (long long)first,
                    t->job->jpeg_quality ? "jpg" : "png");
    }
    dump(t, s, q, 2);
    *done = true;
    return mm_code_ok;
}

static enum mm_code add_text(struct sheet *t, const struct mm_scene *s, struct mm_rng *rng,
                             int64_t n_done, bool *done, struct mm_error *err) {
    (void)n_done;
    struct mm_question q;
    if (!mm_ask_text(&q, t->job->world, s, rng)) return mm_code_ok;
    MM_TRY(begin_row(t, s, -1, err));
    mm_buf_addf(&t->tsv, "%s\t[", q.text);
    for (int k = 0; k < 10; k++) {  // ten people who agree
        mm_buf_addf(&t->tsv, "%s'%s'", k ? ", " : "", q.answer);
    }
    mm_buf_adds(&t->tsv, "]\n");
    dump(t, s, &q, 1);
    *done = true;
    return mm_code_ok;
}

static enum mm_code add_choice(struct sheet *t, const struct mm_scene *s, struct mm_rng *rng,
                               int64_t n_done, bool *done, struct mm_error *err) {
    static mm_ask_fn *const ask[] = {mm_ask_choice_which, mm_ask_choice_place, mm_ask_choice_kind};
    struct mm_question q;
    const bool has_kinds = t->job->world->things.n_kinds >= 4;
    if (!ask[n_done % (has_kinds ? 3 : 2)](&q, t->job->world, s, rng)) return mm_code_ok;
    MM_TRY(begin_row(t, s, -1, err));
    mm_buf_addf(&t->tsv, "%s\t%s", q.text, q.hint);
    for (int k = 0; k < q.n_options; k++) {
        mm_buf_addf(&t->tsv, "\t%s", q.option[k]);
    }
    mm_buf_addf(&t->tsv, "\t%s\t%s\tsmall world\ttest\n", q.answer, q.topic);
    dump(t, s, &q, 1);
    *done = true;
    return mm_code_ok;
}

static enum mm_code add_gqa(struct sheet *t, const struct mm_scene *s, struct mm_rng *rng,
                            int64_t n_done, bool *done, struct mm_error *err) {
    static mm_ask_fn *const ask[] = {mm_ask_relation, mm_ask_place, mm_ask_compositional,
                                     mm_ask_relation, mm_ask_where, mm_ask_compositional};
    struct mm_question q;
    if (!ask[n_done % 6](&q, t->job->world, s, rng)) return mm_code_ok;
    MM_TRY(begin_row(t, s, -1, err));
    mm_buf_addf(&t->tsv, "%s\t%s\t%s\n", q.text, q.answer, q.topic);
    dump(t, s, &q, 1);
    *done = true;
    return mm_code_ok;
}

static const struct {
    const char *name, *header;
    enum mm_code (*add)(struct sheet *t, const struct mm_scene *s, struct mm_rng *rng,
                        int64_t n_done, bool *done, struct mm_error *err);
} kinds[] = {
    {"POPE", "index\timage\tquestion\tanswer\tcategory\n", add_pope},
    {"MME", "index\timage\tquestion\tanswer\tcategory\timage_path\n", add_mme},
    {"TextVQA_VAL", "index\timage\tquestion\tanswer\n", add_text},
    {"ScienceQA_TEST",
     "index\timage\tquestion\thint\tA\tB\tC\tD\tanswer\tcategory\tl2-category\tsplit\n",
     add_choice},
    {"GQA", "index\timage\tquestion\tanswer\tcategory\n", add_gqa},
};
enum { n_kinds = sizeof kinds / sizeof kinds[0], n_sheets = 2 * n_kinds };

static enum mm_code fill(struct sheet *t, int kind, struct mm_error *err) {
    mm_buf_adds(&t->tsv, kinds[kind].header);
    int64_t barren = 0;  // scenes in a row that gave no question
    while (t->n_rows < t->job->n_test) {
        struct mm_scene s;
        struct mm_rng rng;
        bool done = false;
        if (!next_scene(t, &s, &rng)) {
            return mm_fail(err, mm_code_input,
                           "this world has no held-out combination to test; "
                           "it needs more things (--things) or shapes (--shapes)");
        }
        MM_TRY(kinds[kind].add(t, &s, &rng, t->n_rows, &done, err));
        barren = done ? 0 : barren + 1;
        if (barren > 100000) {
            return mm_fail(err, mm_code_input,
                           "%s: this world gives no questions of its kind; it "
                           "needs more things (--things) or shapes (--shapes)",
                           t->split);
        }
        if (mm_interrupted()) return mm_fail(err, mm_code_interrupted, "interrupted");
    }
    return mm_code_ok;
}

struct sheets {
    struct sheet sheet[n_sheets];
    struct mm_error err[n_sheets];
};

static void fill_some(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    struct sheets *all = arg;
    for (int64_t i = begin; i < end; i++) {
        fill(&all->sheet[i], (int)(i % n_kinds), &all->err[i]);
    }
}

static enum mm_code save(const struct sheets *all, const struct mm_job *job, struct mm_error *err) {
    for (int i = 0; i < n_sheets; i++) {
        const struct sheet *t = &all->sheet[i];
        if (all->err[i].code != mm_code_ok) {
            return mm_fail(err, all->err[i].code, "%s", all->err[i].text);
        }
        char *path = mm_xasprintf("%s/%s.tsv", job->out, t->split);
        const enum mm_code code = mm_file_write(path, t->tsv.data, t->tsv.len, err);
        free(path);
        MM_TRY(code);
        if (t->dump.len && fwrite(t->dump.data, 1, t->dump.len, job->dump) != t->dump.len) {
            return mm_fail_errno(err, "cannot write the dump of scenes");
        }
    }
    return mm_code_ok;
}

enum mm_code mm_write_tests(const struct mm_job *job, struct mm_error *err) {
    const int32_t size = job->world->size;
    struct sheets *all = mm_xcalloc(1, sizeof *all);
    for (int i = 0; i < n_sheets; i++) {
        struct sheet *t = &all->sheet[i];
        t->job = job;
        t->held = i < n_kinds ? mm_held_never : mm_held_always;
        snprintf(t->split, sizeof t->split, "%s%s", i < n_kinds ? "" : "heldout_",
                 kinds[i % n_kinds].name);
        t->canvas = (struct mm_canvas){size, size, mm_xmalloc((size_t)size * (size_t)size * 3)};
    }
    mm_parallel_for(job->pool, n_sheets, 1, fill_some, all);
    const enum mm_code code = save(all, job, err);
    for (int i = 0; i < n_sheets; i++) {
        mm_buf_free(&all->sheet[i].tsv);
        mm_buf_free(&all->sheet[i].dump);
        free(all->sheet[i].canvas.rgb);
    }
    free(all);
    return code;
}
