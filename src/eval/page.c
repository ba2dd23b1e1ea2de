// The page of questions and answers: src/eval/data/page.html with the report, the pictures and the
// questions put in as JSON. Nothing is loaded from elsewhere.
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include "base/log.h"
#include "base/utf8.h"
#include "eval/compare.h"
#include "eval/embedded.h"
#include "eval/pictures.h"
#include "io/file.h"
#include "io/json.h"

enum {
    keep_bytes = 48 << 10,  // a picture file that is embedded as it is
    keep_side = 640,
    shrunk_side = 400,  // of others, as JPEG
    shrunk_quality = 82,
    flush_bytes = 1 << 20,
};

// What one model said to a chosen question.
struct said {
    char *text;
    size_t n;
    struct mm_verdict verdict;
    bool found, missing;
};

// One benchmark's part of the page.
struct part {
    int64_t *slot;  // (n_questions) of the benchmark: number among the chosen, or -1
    int64_t n;      // chosen
    int64_t failed, failed_shown;
    struct said *said;  // (n, models)
};

struct page {
    const struct mm_compare *c;
    struct mm_outfile *f;
    struct mm_buf out;
    struct part *part;       // (n_benches)
    struct mm_names shown;   // pictures, by their keys with the benchmark in front
    int bench;               // being written
    bool any;                // an item was written, so that a comma comes first
    int64_t slots_of_model;  // while answers are collected: whose
};

static enum mm_code flush(struct page *p, size_t above, struct mm_error *err) {
    if (p->out.len <= above) return mm_code_ok;
    const enum mm_code code = mm_outfile_write(p->f, p->out.data, p->out.len, err);
    mm_buf_reset(&p->out);
    return code;
}

// A text as JSON that can stand inside a script element.
static void add_text(struct mm_buf *out, struct mm_str s) {
    struct mm_buf clean = {0}, json = {0};
    struct mm_utf8_stream stream = {0};
    mm_utf8_stream_add(&stream, s.n ? s.s : "", s.n, &clean);
    mm_utf8_stream_end(&stream, &clean);
    mm_json_add_string(&json, clean.data ? clean.data : "", clean.len);
    for (size_t i = 0; i < json.len; i++) {
        if (json.data[i] == '<') {
            mm_buf_adds(out, "\\u003c");
        } else {
            mm_buf_add(out, &json.data[i], 1);
        }
    }
    mm_buf_free(&clean);
    mm_buf_free(&json);
}

static void add_member(struct mm_buf *out, const char *name, struct mm_str s) {
    if (!s.s) return;
    mm_buf_addf(out, ", \"%s\": ", name);
    add_text(out, s);
}

// ---- choosing ----

// `most` of the questions, those first that some model failed, but leaving room for a third of
// others; each kind evenly over the data set.
static void choose(struct part *p, const struct mm_compare_bench *b, int64_t most) {
    p->slot = mm_xmalloc(((size_t)b->n_questions + 1) * sizeof *p->slot);
    for (int64_t i = 0; i < b->n_questions; i++) {
        p->failed += b->failed[i];
    }
    int64_t room[2] = {b->n_questions - p->failed, p->failed};  // right, failed
    const int64_t of_kind[2] = {room[0], room[1]};
    if (most > 0 && most < b->n_questions) {
        if (room[0] > most / 3) room[0] = most / 3;
        if (room[1] > most - room[0]) room[1] = most - room[0];
        room[0] = most - room[1] < of_kind[0] ? most - room[1] : of_kind[0];
    }
    int64_t seen[2] = {0, 0};
    for (int64_t i = 0; i < b->n_questions; i++) {
        const int k = b->failed[i];
        // the s-th of n is taken when the share s * room / n steps over a whole number
        const int64_t before = seen[k] * room[k] / of_kind[k];
        const int64_t after = ++seen[k] * room[k] / of_kind[k];
        p->slot[i] = after > before ? p->n++ : -1;
        p->failed_shown += k && after > before;
    }
}

// ---- collecting ----

static enum mm_code collect(void *arg, const struct mm_question *q, const struct mm_prediction *p,
                            const struct mm_verdict *v, struct mm_error *err) {
    struct page *page = arg;
    (void)err;
    const struct part *part = &page->part[page->bench];
    const int64_t slot = part->slot[q->number];
    if (slot < 0) return mm_code_ok;
    struct said *s = &part->said[slot * page->c->models.n + page->slots_of_model];
    *s = (struct said){
        .n = p->text.n, .verdict = *v, .found = p->found, .missing = p->missing_image};
    s->text = mm_xmalloc(p->text.n + 1);
    memcpy(s->text, p->text.n ? p->text.s : "", p->text.n);
    return mm_code_ok;
}

static enum mm_code collect_all(struct page *page, struct mm_error *err) {
    const struct mm_compare *c = page->c;
    const struct mm_score_listener listener = {collect, page};
    const enum mm_log_level level = mm_log_get_level();
    enum mm_code code = mm_code_ok;
    mm_log_set_level(mm_log_level_error);  // the same warnings were given before
    for (page->bench = 0; page->bench < c->n_benches; page->bench++) {
        struct part *part = &page->part[page->bench];
        part->said = mm_xcalloc((size_t)(part->n * c->models.n) + 1, sizeof *part->said);
        for (int64_t m = 0; m < c->models.n && code == mm_code_ok; m++) {
            if (!mm_compare_at(c, m, page->bench)->files) continue;
            struct mm_score_job job = mm_compare_job(c, m, page->bench);
            struct mm_report again;
            job.listener = &listener;
            page->slots_of_model = m;
            code = mm_score_run(&job, &again, err);
            if (code == mm_code_ok) mm_report_free(&again);
        }
    }
    mm_log_set_level(level);
    return code;
}

// ---- pictures ----

// A picture as a data URI: as it is when it is small, else shrunk.
static enum mm_code add_picture(struct page *p, const struct mm_buf *bytes, struct mm_error *err) {
    static const char *const types[] = {"jpeg", "png", "webp"};
    struct mm_image_info info;
    MM_TRY(mm_image_peek(&info, bytes->data, bytes->len, "the picture", err));
    const int32_t side = info.width > info.height ? info.width : info.height;
    if (bytes->len <= keep_bytes && side <= keep_side) {
        mm_buf_addf(&p->out, "\"data:image/%s;base64,", types[info.format]);
        mm_base64_encode(&p->out, bytes->data, bytes->len);
        mm_buf_adds(&p->out, "\"");
        return mm_code_ok;
    }
    struct mm_image image, small;
    MM_TRY(mm_image_decode(&image, bytes->data, bytes->len, "the picture", err));
    enum mm_code code = mm_code_ok;
    if (side > shrunk_side) {
        const double scale = (double)shrunk_side / side;
        const int32_t w = (int32_t)fmax(1, image.width * scale + 0.5);
        const int32_t h = (int32_t)fmax(1, image.height * scale + 0.5);
        code = mm_image_resize(&small, &image, w, h, mm_filter_bicubic, err);
        if (code == mm_code_ok) {
            mm_image_free(&image);
            image = small;
        }
    }
    struct mm_buf jpeg = {0};
    if (code == mm_code_ok) code = mm_image_encode_jpeg(&jpeg, &image, shrunk_quality, err);
    if (code == mm_code_ok) {
        mm_buf_adds(&p->out, "\"data:image/jpeg;base64,");
        mm_base64_encode(&p->out, jpeg.data, jpeg.len);
        mm_buf_adds(&p->out, "\"");
    }
    mm_buf_free(&jpeg);
    mm_image_free(&image);
    return code;
}

static void picture_key(struct mm_buf *key, int bench, int number, const struct mm_buf *of) {
    mm_buf_reset(key);
    mm_buf_addf(key, "%d/%d/", bench, number);
    mm_buf_add(key, of->data ? of->data : "", of->len);
}

// The pictures of one question that are not on the page yet. One that cannot be read is left out.
static enum mm_code add_pictures(struct page *p, struct mm_pictures *pictures,
                                 struct mm_error *err) {
    struct mm_buf key = {0}, of = {0}, bytes[mm_pictures_max];
    int n = 0;
    enum mm_code code = mm_pictures_key(pictures, &of, err);
    picture_key(&key, p->bench, 0, &of);
    const bool there = mm_names_find(&p->shown, (struct mm_str){key.data, key.len}) >= 0;
    struct mm_error ignored;
    if (code == mm_code_ok && !there) mm_pictures_bytes(pictures, bytes, &n, &ignored);
    for (int i = 0; i < n; i++) {
        const size_t before = p->out.len;
        picture_key(&key, p->bench, i, &of);
        mm_buf_addf(&p->out, "%s\n\"%" PRId64 "\": ", p->any ? "," : "", p->shown.n);
        if (add_picture(p, &bytes[i], &ignored) == mm_code_ok) {
            mm_names_add(&p->shown, (struct mm_str){key.data, key.len});
            p->any = true;
        } else {
            p->out.len = before;
        }
        mm_buf_free(&bytes[i]);
    }
    mm_buf_free(&key);
    mm_buf_free(&of);
    return code;
}

// ---- questions ----

static void add_answers(struct page *p, int64_t slot) {
    const int64_t n = p->c->models.n;
    mm_buf_adds(&p->out, ", \"a\": [");
    for (int64_t m = 0; m < n; m++) {
        const struct said *s = &p->part[p->bench].said[slot * n + m];
        if (m) mm_buf_adds(&p->out, ", ");
        if (!s->found) {
            mm_buf_adds(&p->out, "null");
        } else if (s->missing) {
            mm_buf_adds(&p->out, "{\"missing\": true}");
        } else {
            mm_buf_adds(&p->out, "{\"said\": ");
            add_text(&p->out, (struct mm_str){s->text, s->n});
            if (*s->verdict.read) add_member(&p->out, "read", mm_str_of(s->verdict.read));
            mm_buf_addf(&p->out, ", \"score\": %.4g%s}", s->verdict.score,
                        s->verdict.unresolved ? ", \"open\": true" : "");
        }
    }
    mm_buf_adds(&p->out, "]}");
}

// What the answer should have been: the data set's, or what the scorer knows.
static struct mm_str wanted(const struct page *p, const struct mm_question *q, int64_t slot) {
    if (q->answer.s) return q->answer;
    for (int64_t m = 0; m < p->c->models.n; m++) {
        const struct said *s = &p->part[p->bench].said[slot * p->c->models.n + m];
        if (*s->verdict.wanted) return mm_str_of(s->verdict.wanted);
    }
    return (struct mm_str){NULL, 0};
}

static enum mm_code add_question(struct page *p, const struct mm_question *q, int64_t slot,
                                 struct mm_pictures *pictures, struct mm_error *err) {
    struct mm_buf *out = &p->out, key = {0}, of = {0};
    mm_buf_addf(out, "%s\n{\"b\": %d", p->any ? "," : "", p->bench);
    p->any = true;
    add_member(out, "i", q->index);
    add_member(out, "q", q->text);
    add_member(out, "h", q->hint);
    add_member(out, "c", q->category);
    add_member(out, "w", wanted(p, q, slot));
    bool any = false;
    for (int k = 0; k < 26; k++) {
        if (!q->options.text[k].s) continue;
        mm_buf_addf(out, "%s[\"%c\", ", any ? ", " : ", \"o\": [", 'A' + k);
        add_text(out, q->options.text[k]);
        mm_buf_adds(out, "]");
        any = true;
    }
    mm_buf_adds(out, any ? "], \"p\": [" : ", \"p\": [");
    const enum mm_code code = mm_pictures_key(pictures, &of, err);
    for (int i = 0; code == mm_code_ok && i < mm_pictures_max; i++) {
        picture_key(&key, p->bench, i, &of);
        const int64_t number = mm_names_find(&p->shown, (struct mm_str){key.data, key.len});
        if (number < 0) break;
        mm_buf_addf(out, "%s%" PRId64, i ? ", " : "", number);
    }
    mm_buf_adds(out, "]");
    add_answers(p, slot);
    mm_buf_free(&key);
    mm_buf_free(&of);
    return code;
}

// Goes through the chosen questions of a benchmark: for their pictures, or for themselves.
static enum mm_code walk(struct page *p, bool for_pictures, struct mm_error *err) {
    const struct mm_compare_bench *b = &p->c->bench[p->bench];
    const struct part *part = &p->part[p->bench];
    struct mm_questions questions;
    struct mm_pictures pictures;
    MM_TRY(mm_questions_open(&questions, b->bench, b->data, p->c->pandas1, mm_tsv_form_table,
                             p->c->limit, err));
    enum mm_code code = mm_pictures_open(&pictures, &questions, b->images, err);
    const bool open = code == mm_code_ok;
    while (code == mm_code_ok) {
        struct mm_question q;
        bool end;
        code = mm_questions_next(&questions, &q, &end, err);
        if (code != mm_code_ok || end || q.number >= b->n_questions) break;
        const int64_t slot = part->slot[q.number];
        if (slot < 0) continue;
        code = for_pictures ? add_pictures(p, &pictures, err)
                            : add_question(p, &q, slot, &pictures, err);
        if (code == mm_code_ok) code = flush(p, flush_bytes, err);
    }
    if (open) mm_pictures_close(&pictures);
    mm_questions_close(&questions);
    return code;
}

static enum mm_code add_all(struct page *p, bool for_pictures, struct mm_error *err) {
    p->any = false;
    for (p->bench = 0; p->bench < p->c->n_benches; p->bench++) {
        MM_TRY(walk(p, for_pictures, err));
    }
    return mm_code_ok;
}

static enum mm_code add_data(struct page *p, struct mm_error *err) {
    const struct mm_compare *c = p->c;
    mm_buf_adds(&p->out, "{\"models\": [");
    for (int64_t m = 0; m < c->models.n; m++) {
        if (m) mm_buf_adds(&p->out, ", ");
        add_text(&p->out, mm_names_get(&c->models, m));
    }
    mm_buf_adds(&p->out, "], \"benches\": [");
    for (int b = 0; b < c->n_benches; b++) {
        const struct mm_bench *bench = c->bench[b].bench;
        const struct part *part = &p->part[b];
        mm_buf_addf(&p->out,
                    "%s{\"name\": \"%s\", \"title\": \"%s\", \"questions\": %" PRId64
                    ", \"shown\": %" PRId64 ", \"failed\": %" PRId64 ", \"failed_shown\": %" PRId64
                    "}",
                    b ? ", " : "", bench->name, bench->title, c->bench[b].n_questions, part->n,
                    part->failed, part->failed_shown);
    }
    mm_buf_adds(&p->out, "], \"questions\": [");
    MM_TRY(add_all(p, false, err));
    mm_buf_adds(&p->out, "]}");
    return mm_code_ok;
}

// ---- the page ----

static void add_report(struct page *p, bool as_text, bool published) {
    struct mm_buf text = {0};
    if (as_text) {
        mm_compare_print(p->c, false, published, &text);
    } else {
        mm_compare_print_json(p->c, published, &text);
    }
    for (size_t i = 0; i < text.len; i++) {
        const char ch = text.data[i];
        if (ch == '<') {
            mm_buf_adds(&p->out, as_text ? "&lt;" : "\\u003c");
        } else if (ch == '&' && as_text) {
            mm_buf_adds(&p->out, "&amp;");
        } else {
            mm_buf_add(&p->out, &ch, 1);
        }
    }
    mm_buf_free(&text);
}

static enum mm_code write_page(struct page *p, bool published, struct mm_error *err) {
    static const char *const marks[] = {"@TEXT@", "@REPORT@", "@PICTURES@", "@DATA@"};
    const char *at = mm_embedded_page;
    for (int i = 0; i < 4; i++) {
        const char *mark = strstr(at, marks[i]);
        mm_buf_add(&p->out, at, (size_t)(mark - at));
        at = mark + strlen(marks[i]);
        if (i < 2) {
            add_report(p, i == 0, published);
        } else if (i == 2) {
            mm_buf_adds(&p->out, "{");
            MM_TRY(add_all(p, true, err));
            mm_buf_adds(&p->out, "}");
        } else {
            MM_TRY(add_data(p, err));
        }
    }
    mm_buf_adds(&p->out, at);
    return flush(p, 0, err);
}

enum mm_code mm_compare_write_page(const struct mm_compare *c, const char *path, bool published,
                                   int64_t most, struct mm_error *err) {
    struct page p = {.c = c};
    p.part = mm_xcalloc((size_t)c->n_benches, sizeof *p.part);
    for (int b = 0; b < c->n_benches; b++) {
        choose(&p.part[b], &c->bench[b], most);
    }
    enum mm_code code = collect_all(&p, err);
    if (code == mm_code_ok) code = mm_outfile_open(&p.f, path, err);
    if (code == mm_code_ok) {
        code = write_page(&p, published, err);
        if (code == mm_code_ok) {
            code = mm_outfile_commit(p.f, err);
        } else {
            mm_outfile_abort(p.f);
        }
    }
    for (int b = 0; b < c->n_benches; b++) {
        struct part *part = &p.part[b];
        for (int64_t i = 0; part->said && i < part->n * c->models.n; i++) {
            free(part->said[i].text);
        }
        free(part->said);
        free(part->slot);
    }
    free(p.part);
    mm_names_free(&p.shown);
    mm_buf_free(&p.out);
    return code;
}
