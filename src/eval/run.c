// Putting a benchmark's questions to a model.
#include "eval/run.h"

#include <inttypes.h>
#include <stdlib.h>
#include <xxhash.h>
#include "base/log.h"
#include "eval/answers.h"
#include "eval/prompt.h"
#include "infer/batch.h"

enum { named_without = 5 };  // questions without picture that are named; more are counted

struct run {
    const struct mm_eval_job *job;
    struct mm_engine *e;
    struct mm_questions questions;
    struct mm_pictures pictures;
    struct mm_plan plan;
    struct mm_answers answers;
    struct mm_progress progress;
    struct mm_batch *batch;
    struct mm_session **in;  // (n_in) sessions that are answering
    int n_in;
    struct mm_session *base;  // everything up to the end of the last picture, or NULL
    int64_t base_picture;     // what base shows
    int n_base_pictures;
    struct mm_buf prompt;
    int64_t n_read, n_reused;  // pictures read, questions that used one again
    int64_t tokens_not_again;  // of prompts
    int64_t n_without;         // questions left out for want of a picture
};

// ---- asking ----

// Through JPEG of quality 75 and back, as VLMEvalKit stores a single picture.
static enum mm_code pass_through_jpeg(struct mm_image *image, struct mm_error *err) {
    struct mm_buf jpeg = {0};
    struct mm_image again;
    enum mm_code code = mm_image_encode_jpeg(&jpeg, image, 75, err);
    if (code == mm_code_ok) code = mm_image_decode(&again, jpeg.data, jpeg.len, "the JPEG", err);
    mm_buf_free(&jpeg);
    if (code != mm_code_ok) return code;
    mm_image_free(image);
    *image = again;
    return code;
}

// Decodes the question's pictures and cuts them into tiles.
static enum mm_code cut_pictures(struct run *r, const struct mm_tile_rule *rule,
                                 struct mm_tiles tiles[mm_pictures_max], int *n,
                                 struct mm_error *err) {
    struct mm_image image[mm_pictures_max];
    int n_images;
    *n = 0;
    MM_TRY(mm_pictures_load(&r->pictures, image, &n_images, err));
    enum mm_code code = mm_code_ok;
    if (r->job->kit_jpeg && n_images == 1) code = pass_through_jpeg(&image[0], err);
    for (int i = 0; i < n_images && code == mm_code_ok; i++) {
        if (i == 0 && r->job->bench->twice_as_large) {
            struct mm_image large;
            code = mm_image_resize(&large, &image[0], 2 * image[0].width, 2 * image[0].height,
                                   mm_filter_bilinear, err);
            if (code != mm_code_ok) break;
            mm_image_free(&image[0]);
            image[0] = large;
        }
        code = mm_tiles_make(&tiles[i], &image[i], rule->size, rule->min_tiles, rule->max_tiles,
                             rule->thumbnail, err);
        if (code == mm_code_ok) *n = i + 1;
    }
    for (int i = 0; i < n_images; i++) {
        mm_image_free(&image[i]);
    }
    if (code == mm_code_ok) return code;
    while (*n > 0) {
        mm_tiles_free(&tiles[--*n]);
    }
    return code;
}

// The whole prompt with "<image>" for pictures. Returns where the last picture's tag ends.
static size_t write_prompt(struct run *r, const struct mm_question *q, int n_pictures) {
    struct mm_buf message = {0};
    mm_prompt_message(r->job->bench, q, r->questions.kit, n_pictures, &message);
    mm_buf_reset(&r->prompt);
    mm_chat_add_turn(&r->prompt, mm_chat_role_system, mm_chat_default_system, true);
    size_t cut = r->prompt.len;
    mm_chat_add_turn(&r->prompt, mm_chat_role_user, message.data, true);
    mm_chat_add_turn(&r->prompt, mm_chat_role_assistant, NULL, false);
    mm_buf_free(&message);
    for (int i = 0; i < n_pictures; i++) {
        const char *tag = strstr(r->prompt.data + cut, "<image>");
        cut = (size_t)(tag - r->prompt.data) + strlen("<image>");
    }
    return n_pictures ? cut : 0;
}

static enum mm_code new_session(struct run *r, struct mm_session **s, struct mm_error *err) {
    struct mm_session_options options = MM_SESSION_OPTIONS;
    options.min_tiles = 1;
    options.max_tiles = r->job->bench->max_tiles;
    options.n_marks = 0;
    MM_TRY(mm_session_new(s, r->e, &options, err));
    const struct mm_sampling greedy = MM_SAMPLING_GREEDY;
    return mm_session_set_sampling(*s, &greedy, err);
}

// Makes r->base a session that has read everything up to the question's last picture. *trouble is
// set, with the sentence in *err, when a picture is not there or damaged.
static enum mm_code read_pictures(struct run *r, const struct mm_question *q, bool *trouble,
                                  struct mm_error *err) {
    struct mm_tiles tiles[mm_pictures_max];
    struct mm_picture pictures[mm_pictures_max];
    int n;
    mm_session_free(r->base);
    r->base = NULL;
    MM_TRY(new_session(r, &r->base, err));
    enum mm_code code = cut_pictures(r, &r->base->tiles, tiles, &n, err);
    *trouble = code == mm_code_input || code == mm_code_io;
    if (code != mm_code_ok) return code;
    r->n_base_pictures = n;
    if (n == 0) return mm_code_ok;  // an empty list: nothing is in front of the question
    for (int i = 0; i < n; i++) {
        pictures[i] = (struct mm_picture){.tiles = &tiles[i]};
    }
    const size_t cut = write_prompt(r, q, n);
    const char after = r->prompt.data[cut];
    r->prompt.data[cut] = '\0';
    code = mm_session_add_text(r->base, r->prompt.data, pictures, n, err);
    r->prompt.data[cut] = after;
    for (int i = 0; i < n; i++) {
        mm_tiles_free(&tiles[i]);  // empty when the session took them
    }
    if (code == mm_code_ok) code = mm_session_prefill(r->base, NULL, err);
    r->n_read++;
    return code;
}

// A session of its own that has the question before it.
static enum mm_code put_question(struct run *r, const struct mm_question *q, struct mm_session **s,
                                 struct mm_error *err) {
    const size_t cut = write_prompt(r, q, r->n_base_pictures);
    MM_TRY(mm_session_fork(s, r->base, err));
    const enum mm_code code = mm_session_add_text(*s, r->prompt.data + cut, NULL, 0, err);
    if (code == mm_code_ok) return code;
    mm_session_free(*s);
    *s = NULL;
    return code;
}

static struct mm_generation how_to_answer(const struct run *r) {
    const struct mm_bench *bench = r->job->bench;
    const int kit = r->questions.kit;
    const int64_t most = r->job->max_new_tokens;
    return (struct mm_generation){.max_new_tokens = most ? most : bench->max_new_tokens[kit],
                                  .min_new_tokens = bench->never_empty[kit] ? 1 : 0};
}

static enum mm_code put_down(struct run *r, int64_t number, struct mm_str said, const char *trouble,
                             struct mm_error *err) {
    MM_TRY(mm_answers_add(&r->answers, number, said, trouble, err));
    mm_progress_update(&r->progress, r->answers.n_done, NULL);
    return mm_code_ok;
}

// The question's session; *s stays NULL when its picture is not there, which is put down.
static enum mm_code prepare(struct run *r, const struct mm_plan_item *item, struct mm_session **s,
                            struct mm_error *err) {
    struct mm_question q;
    *s = NULL;
    MM_TRY(mm_questions_at(&r->questions, item->place, &q, err));
    if (r->base && r->base_picture == item->picture) {
        r->n_reused++;
        r->tokens_not_again += r->base->n_fed;
    } else {
        bool trouble = false;
        const enum mm_code code = read_pictures(r, &q, &trouble, err);
        if (trouble) {
            if (r->n_without++ < named_without) {
                mm_warn("question '%.*s' is left out: %s", (int)q.index.n, q.index.s, err->text);
            }
            mm_session_free(r->base);
            r->base = NULL;
            return put_down(r, item->place.number, mm_str_of(""), err->text, err);
        }
        MM_TRY(code);
        r->base_picture = item->picture;
    }
    return put_question(r, &q, s, err);
}

// ---- answers ----

static enum mm_code of_question(const struct run *r, int64_t number, enum mm_code code,
                                struct mm_error *err) {
    const struct mm_str index = mm_names_get(&r->plan.index, number);
    char why[sizeof err->text];
    snprintf(why, sizeof why, "%s", err->text);
    return mm_fail(err, code, "%s: question '%.*s': %.900s", r->job->data, (int)index.n, index.s,
                   why);
}

// Takes out the answers that are over and puts them down.
static enum mm_code take_answers(struct run *r, struct mm_error *err) {
    enum mm_code code = mm_code_ok;
    struct mm_batch_done done;
    while (code == mm_code_ok && mm_batch_take(r->batch, &done)) {
        const struct mm_plan_item *item = done.tag;
        int i = 0;
        while (r->in[i] != done.session)
            i++;
        r->in[i] = r->in[--r->n_in];
        if (done.code == mm_code_ok) {
            const struct mm_str said = {done.answer.text, done.answer.n_bytes};
            code = put_down(r, item->place.number, said, NULL, err);
        } else {
            *err = done.error;
            code = of_question(r, item->place.number, done.code, err);
        }
        mm_session_free(done.session);
    }
    return code;
}

// Puts the next question that has no answer yet; *i moves behind it.
static enum mm_code join_next(struct run *r, int64_t *i, struct mm_error *err) {
    struct mm_plan_item *item = &r->plan.item[(*i)++];
    const int64_t number = item->place.number;
    const struct mm_generation how = how_to_answer(r);
    struct mm_session *s;
    if (r->answers.done[number]) return mm_code_ok;
    enum mm_code code = prepare(r, item, &s, err);
    if (code != mm_code_ok) return of_question(r, number, code, err);
    if (!s) return mm_code_ok;
    code = mm_batch_join(r->batch, s, &how, NULL, item, err);
    if (code == mm_code_ok) {
        r->in[r->n_in++] = s;
        return code;
    }
    mm_session_free(s);
    return of_question(r, number, code, err);
}

static enum mm_code ask_all(struct run *r, struct mm_error *err) {
    const int batch = r->job->batch > 1 ? r->job->batch : 1;
    int64_t next = 0;
    MM_TRY(mm_batch_new(&r->batch, r->e, batch, err));
    r->in = mm_xcalloc((size_t)batch, sizeof(struct mm_session *));
    while (next < r->plan.n || mm_batch_count(r->batch) > 0) {
        if (mm_interrupted()) {
            return mm_fail(err, mm_code_interrupted,
                           "interrupted after %" PRId64 " of %" PRId64
                           " questions; the same command goes on",
                           r->answers.n_done, r->plan.n);
        }
        if (next < r->plan.n && mm_batch_count(r->batch) < batch) {
            MM_TRY(join_next(r, &next, err));
        } else {
            MM_TRY(mm_batch_step(r->batch, err));
        }
        MM_TRY(take_answers(r, err));
    }
    return mm_answers_finish(&r->answers, err);
}

// What was being answered when a run ends early is asked again another time.
static void drop_batch(struct run *r) {
    if (!r->batch) return;
    while (r->n_in > 0) {
        struct mm_batch_done done;
        mm_batch_leave(r->batch, r->in[--r->n_in], &done);
        mm_session_free(done.session);
    }
    mm_batch_free(r->batch);
    free(r->in);
}

// What lines of one file must agree in: the model, the settings, the data.
static uint64_t run_of(const struct run *r) {
    const struct mm_eval_job *job = r->job;
    const struct mm_generation how = how_to_answer(r);
    struct mm_buf text = {0};
    mm_buf_addf(&text, "%s %s %d %" PRId64 " %d %d %" PRId64 " %zu", job->bench->name,
                mm_engine_hash(r->e), r->questions.kit, how.max_new_tokens, job->pandas1,
                job->kit_jpeg, r->plan.n_questions,
                r->questions.kit ? r->questions.lines.map.bytes : r->questions.tsv.map.bytes);
    const uint64_t hash = XXH3_64bits(text.data, text.len);
    mm_buf_free(&text);
    return hash;
}

static enum mm_code run_open(struct run *r, struct mm_error *err) {
    const struct mm_eval_job *job = r->job;
    MM_TRY(mm_questions_open(&r->questions, job->bench, job->data, job->pandas1, mm_tsv_form_table,
                             0, err));
    if (job->images && !mm_pictures_are_files(&r->questions)) {
        return mm_fail(err, mm_code_usage,
                       "--images has no effect here: the pictures are in %s itself", job->data);
    }
    if (job->kit_jpeg && mm_pictures_are_files(&r->questions)) {
        return mm_fail(err, mm_code_usage,
                       "--kit-jpeg has no effect here: the pictures of %s are files, which the "
                       "kits read as they are",
                       job->data);
    }
    MM_TRY(mm_pictures_open(&r->pictures, &r->questions, job->images, err));
    MM_TRY(mm_plan_make(&r->plan, &r->questions, &r->pictures, job->limit, job->shard, err));
    if (r->plan.n_doubled) {
        mm_warn("%s: %" PRId64
                " questions end with the instruction already: it stands twice in their "
                "prompts, as in the kit",
                job->data, r->plan.n_doubled);
    }
    if (r->plan.n == 0) {
        return mm_fail(err, mm_code_input, "%s: has no question%s", job->data,
                       r->plan.n_questions ? " in this shard" : "");
    }
    MM_TRY(mm_answers_open(&r->answers, job->out, &r->plan, job->data, run_of(r), err));
    mm_progress_begin(&r->progress, job->bench->title, "questions", r->plan.n, r->answers.n_done);
    const enum mm_code code = ask_all(r, err);
    mm_progress_end(&r->progress);
    return code;
}

enum mm_code mm_eval_run(const struct mm_eval_job *job, struct mm_engine *e, struct mm_error *err) {
    struct run r = {.job = job, .e = e, .answers.fd = -1};
    const enum mm_code code = run_open(&r, err);
    if (r.n_without > named_without) {
        mm_warn("%" PRId64 " more questions are left out for want of their picture",
                r.n_without - named_without);
    }
    if (r.n_reused) {
        mm_info("%s: %" PRId64 " pictures read; %" PRId64
                " questions went on from a picture read before, which saved %" PRId64
                " prompt tokens",
                job->bench->title, r.n_read, r.n_reused, r.tokens_not_again);
    }
    drop_batch(&r);
    mm_session_free(r.base);
    mm_answers_close(&r.answers);
    mm_plan_free(&r.plan);
    mm_pictures_close(&r.pictures);
    mm_questions_close(&r.questions);
    mm_buf_free(&r.prompt);
    return code;
}
