// Putting a benchmark's questions to a model.
#include "eval/run.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
#include "base/log.h"
#include "eval/pictures.h"
#include "eval/prompt.h"
#include "io/json.h"

struct run {
    const struct mm_eval_job *job;
    struct mm_engine *e;
    struct mm_questions questions;
    struct mm_pictures pictures;
    int fd;  // of the predictions
    int64_t n_all, n_done;
    struct mm_session *base;  // everything up to the end of the last picture, or NULL
    struct mm_buf key;        // what base shows
    int n_base_pictures;
    struct mm_buf next_key, prompt, line;
    int64_t n_read, n_reused;               // pictures read, questions that used one again
    int64_t tokens_read, tokens_not_again;  // of prompts
    int64_t n_missing;
};

// ---- what is there already ----

static enum mm_code cut_off(int fd, off_t at, const char *path, struct mm_error *err) {
    if (ftruncate(fd, at) != 0) return mm_fail_errno(err, "%s: cannot be shortened", path);
    return mm_code_ok;
}

// Holds the whole lines of the file against the questions. *end is where the last one ends.
static enum mm_code check_lines(struct run *r, struct mm_jsonl *file, off_t *end,
                                struct mm_error *err) {
    *end = 0;
    for (;;) {
        json_t *o = NULL;
        const enum mm_code code = mm_jsonl_next(file, &o, err);
        const bool whole = file->at > 0 && file->map.data[file->at - 1] == '\n';
        if (code != mm_code_ok && !whole) return mm_code_ok;  // the line a kill left half
        if (code != mm_code_ok) return code;
        if (!o || !whole) {
            json_decref(o);
            return mm_code_ok;
        }
        struct mm_question q;
        bool over;
        char room[24];
        struct mm_str index;
        enum mm_code next = mm_jsonl_index(file, o, "index", room, &index, err);
        if (next == mm_code_ok) next = mm_questions_next(&r->questions, &q, &over, err);
        const bool past = next == mm_code_ok && over;
        if (next == mm_code_ok && !over && !mm_str_equal(index, q.index)) {
            next = mm_fail(err, mm_code_input,
                           "%s: line %lld: index is '%.*s' where %s has '%.*s'; it belongs to "
                           "another run: give another --out or remove it",
                           file->path, (long long)file->line, (int)index.n, index.s, r->job->data,
                           (int)q.index.n, q.index.s);
        }
        if (past && !r->job->limit) {
            next = mm_fail(err, mm_code_input,
                           "%s: line %lld: there are more answers than %s has questions; it "
                           "belongs to another run: give another --out or remove it",
                           file->path, (long long)file->line, r->job->data);
        }
        json_decref(o);
        if (next != mm_code_ok) return next;
        *end = (off_t)file->at;
        if (past) return mm_code_ok;  // a longer run's file: nothing is left to ask
        r->n_done++;
    }
}

static enum mm_code open_out(struct run *r, struct mm_error *err) {
    const char *path = r->job->out;
    r->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_APPEND, 0666);
    if (r->fd < 0) return mm_fail_errno(err, "%s: cannot be written", path);
    struct mm_jsonl file;
    off_t end;
    MM_TRY(mm_jsonl_open(&file, path, err));
    enum mm_code code = check_lines(r, &file, &end, err);
    const bool more = (off_t)file.map.bytes > end && r->n_done < r->n_all;
    mm_jsonl_close(&file);
    if (code == mm_code_ok && more) code = cut_off(r->fd, end, path, err);
    if (code == mm_code_ok && r->n_done > 0) {
        mm_info("%s: %lld of %lld questions are answered already", path, (long long)r->n_done,
                (long long)r->n_all);
    }
    return code;
}

// ---- what is written ----

static bool is_whole_number(struct mm_str s) {
    if (s.n == 0 || s.n > 18 || (s.s[0] == '0' && s.n > 1)) return false;
    for (size_t i = 0; i < s.n; i++) {
        if (s.s[i] < '0' || s.s[i] > '9') return false;
    }
    return true;
}

static enum mm_code write_line(struct run *r, const struct mm_question *q, struct mm_str said,
                               const char *trouble, struct mm_error *err) {
    struct mm_buf *line = &r->line;
    mm_buf_reset(line);
    mm_buf_adds(line, "{\"index\": ");
    if (is_whole_number(q->index)) {
        mm_buf_add(line, q->index.s, q->index.n);
    } else {
        mm_json_add_string(line, q->index.s, q->index.n);
    }
    mm_buf_adds(line, ", \"prediction\": ");
    mm_json_add_string(line, said.s, said.n);
    if (trouble) {
        mm_buf_adds(line, ", \"missing_image\": true, \"error\": ");
        mm_json_add_string(line, trouble, strlen(trouble));
    }
    mm_buf_adds(line, "}\n");
    for (size_t done = 0; done < line->len;) {
        const ssize_t n = write(r->fd, line->data + done, line->len - done);
        if (n < 0) return mm_fail_errno(err, "%s: cannot be written", r->job->out);
        done += (size_t)n;
    }
    return mm_code_ok;
}

// ---- asking ----

// Decodes the question's pictures and cuts them into tiles.
static enum mm_code cut_pictures(struct run *r, const struct mm_tile_rule *rule,
                                 struct mm_tiles tiles[mm_pictures_max], int *n,
                                 struct mm_error *err) {
    struct mm_image image[mm_pictures_max];
    int n_images;
    *n = 0;
    MM_TRY(mm_pictures_load(&r->pictures, image, &n_images, err));
    enum mm_code code = mm_code_ok;
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
    r->n_base_pictures = n;
    r->n_read++;
    return code;
}

static enum mm_code answer(struct run *r, const struct mm_question *q, struct mm_error *err) {
    const struct mm_bench *bench = r->job->bench;
    const int kit = r->questions.kit;
    const int64_t most = r->job->max_new_tokens;
    const struct mm_generation how = {.max_new_tokens = most ? most : bench->max_new_tokens[kit],
                                      .min_new_tokens = bench->never_empty[kit] ? 1 : 0};
    struct mm_session *s = NULL;
    struct mm_answer a;
    const size_t cut = write_prompt(r, q, r->n_base_pictures);
    MM_TRY(mm_session_fork(&s, r->base, err));
    enum mm_code code = mm_session_add_text(s, r->prompt.data + cut, NULL, 0, err);
    if (code == mm_code_ok) code = mm_session_generate(s, &how, NULL, &a, err);
    if (code == mm_code_ok) {
        r->tokens_read += a.prompt_tokens;
        code = write_line(r, q, (struct mm_str){a.text, a.n_bytes}, NULL, err);
    }
    mm_session_free(s);
    return code;
}

static enum mm_code ask(struct run *r, const struct mm_question *q, struct mm_error *err) {
    MM_TRY(mm_pictures_key(&r->pictures, &r->next_key, err));
    const bool same = r->base && r->key.len == r->next_key.len &&
                      (r->key.len == 0 || !memcmp(r->key.data, r->next_key.data, r->key.len));
    if (same) {
        r->n_reused++;
        r->tokens_not_again += r->base->n_fed;
    } else {
        bool trouble = false;
        const enum mm_code code = read_pictures(r, q, &trouble, err);
        if (trouble) {
            mm_warn("question '%.*s' is left out: %s", (int)q->index.n, q->index.s, err->text);
            mm_session_free(r->base);
            r->base = NULL;
            r->n_missing++;
            return write_line(r, q, mm_str_of(""), err->text, err);
        }
        MM_TRY(code);
        mm_buf_reset(&r->key);
        mm_buf_add(&r->key, r->next_key.data ? r->next_key.data : "", r->next_key.len);
    }
    return answer(r, q, err);
}

static enum mm_code ask_all(struct run *r, struct mm_error *err) {
    struct mm_progress progress;
    mm_progress_begin(&progress, r->job->bench->title, "questions", r->n_all, r->n_done);
    enum mm_code code = mm_code_ok;
    while (code == mm_code_ok && r->n_done < r->n_all) {
        struct mm_question q;
        bool end;
        if (mm_interrupted()) {
            code = mm_fail(err, mm_code_interrupted,
                           "interrupted after %lld of %lld questions; the same command goes on",
                           (long long)r->n_done, (long long)r->n_all);
            break;
        }
        code = mm_questions_next(&r->questions, &q, &end, err);
        if (code == mm_code_ok && end) break;
        if (code == mm_code_ok) code = ask(r, &q, err);
        if (code == mm_code_ok) mm_progress_update(&progress, ++r->n_done, NULL);
    }
    mm_progress_end(&progress);
    if (code == mm_code_ok && fsync(r->fd) != 0 && errno != EINVAL) {
        code = mm_fail_errno(err, "%s: cannot be written", r->job->out);
    }
    if (r->n_reused) {
        mm_info(
            "%s: %lld pictures read; %lld questions went on from a picture read before, which "
            "saved %lld prompt tokens",
            r->job->bench->title, (long long)r->n_read, (long long)r->n_reused,
            (long long)r->tokens_not_again);
    }
    return code;
}

static enum mm_code run_open(struct run *r, struct mm_error *err) {
    const struct mm_eval_job *job = r->job;
    MM_TRY(mm_questions_open(&r->questions, job->bench, job->data, job->pandas1, mm_tsv_form_table,
                             job->limit, err));
    if (job->images && !mm_pictures_are_files(&r->questions)) {
        return mm_fail(err, mm_code_usage,
                       "--images has no effect here: the pictures are in %s itself", job->data);
    }
    MM_TRY(mm_pictures_open(&r->pictures, &r->questions, job->images, err));
    MM_TRY(mm_questions_count(&r->questions, &r->n_all, err));
    if (r->n_all == 0) {
        return mm_fail(err, mm_code_input, "%s: has no question", job->data);
    }
    MM_TRY(open_out(r, err));
    return ask_all(r, err);
}

enum mm_code mm_eval_run(const struct mm_eval_job *job, struct mm_engine *e, struct mm_error *err) {
    struct run r = {.job = job, .e = e, .fd = -1};
    const enum mm_code code = run_open(&r, err);
    mm_session_free(r.base);
    if (r.fd >= 0) close(r.fd);
    mm_pictures_close(&r.pictures);
    mm_questions_close(&r.questions);
    mm_buf_free(&r.key);
    mm_buf_free(&r.next_key);
    mm_buf_free(&r.prompt);
    mm_buf_free(&r.line);
    return code;
}
