// The file of predictions while a benchmark runs.
#include "eval/answers.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>
#include "base/log.h"
#include "io/file.h"
#include "io/json.h"

// ---- what is there already ----

static enum mm_code of_another(const struct mm_answers *a, int64_t line, const char *why,
                               struct mm_error *err) {
    return mm_fail(err, mm_code_input,
                   "%s: line %" PRId64
                   ": %s; it belongs to another run: give another --out or "
                   "remove it",
                   a->path, line, why);
}

// Takes one line over. *stale: it says that a picture was not there.
static enum mm_code take_line(struct mm_answers *a, const struct mm_jsonl *file, const json_t *o,
                              bool *stale, struct mm_error *err) {
    char room[24], why[512];
    struct mm_str index, run;
    MM_TRY(mm_jsonl_index(file, o, "index", room, &index, err));
    MM_TRY(mm_jsonl_text(file, o, "run", false, &run, err));
    const int64_t number = mm_names_find(&a->plan->index, index);
    if (number < 0) {
        snprintf(why, sizeof why, "index '%.*s' is of no question of %s", (int)index.n, index.s,
                 a->data);
        return of_another(a, file->line, why, err);
    }
    if (run.s && !mm_str_is(run, a->run)) {
        return of_another(a, file->line,
                          "it was made with another model, other settings or other data", err);
    }
    if (a->done[number]) {
        snprintf(why, sizeof why, "index '%.*s' is there twice", (int)index.n, index.s);
        return of_another(a, file->line, why, err);
    }
    *stale = json_is_true(json_object_get(o, "missing_image"));
    if (*stale) return mm_code_ok;
    a->done[number] = 1;
    a->n_done += a->plan->chosen[number];
    a->in_order = a->in_order && number > a->last;
    a->last = number;
    return mm_code_ok;
}

// Reads the whole lines. *end is where the last one ends; `kept`, when there are stale lines,
// receives the others.
static enum mm_code take_lines(struct mm_answers *a, struct mm_jsonl *file, off_t *end,
                               int64_t *n_stale, struct mm_buf *kept, struct mm_error *err) {
    *end = 0;
    for (;;) {
        json_t *o = NULL;
        const size_t from = file->at;
        const enum mm_code code = mm_jsonl_next(file, &o, err);
        const bool whole = file->at > 0 && file->map.data[file->at - 1] == '\n';
        if (code != mm_code_ok && !whole) return mm_code_ok;  // the line a kill left half
        if (code != mm_code_ok) return code;
        if (!o || !whole) {
            json_decref(o);
            return mm_code_ok;
        }
        bool stale = false;
        const enum mm_code taken = take_line(a, file, o, &stale, err);
        json_decref(o);
        MM_TRY(taken);
        *end = (off_t)file->at;
        *n_stale += stale;
        if (!stale) mm_buf_add(kept, file->map.data + from, file->at - from);
    }
}

static enum mm_code open_file(struct mm_answers *a, struct mm_error *err) {
    if (a->fd >= 0) close(a->fd);
    a->fd = open(a->path, O_RDWR | O_CREAT | O_CLOEXEC | O_APPEND, 0666);
    if (a->fd < 0) return mm_fail_errno(err, "%s: cannot be written", a->path);
    if (flock(a->fd, LOCK_EX | LOCK_NB) == 0) return mm_code_ok;
    if (errno != EWOULDBLOCK) return mm_code_ok;  // no locks on this file system
    return mm_fail(err, mm_code_input, "%s: another process is writing it; give another --out",
                   a->path);
}

static enum mm_code take_over(struct mm_answers *a, struct mm_error *err) {
    struct mm_jsonl file;
    struct mm_buf kept = {0};
    off_t end;
    int64_t n_stale = 0;
    MM_TRY(mm_jsonl_open(&file, a->path, err));
    enum mm_code code = take_lines(a, &file, &end, &n_stale, &kept, err);
    const bool half = (off_t)file.map.bytes > end;
    mm_jsonl_close(&file);
    if (code == mm_code_ok && n_stale) {
        mm_info("%s: %" PRId64 " questions whose picture was not there are asked again", a->path,
                n_stale);
        code = mm_file_write(a->path, kept.data ? kept.data : "", kept.len, err);
        if (code == mm_code_ok) code = open_file(a, err);
    } else if (code == mm_code_ok && half && ftruncate(a->fd, end) != 0) {
        code = mm_fail_errno(err, "%s: cannot be shortened", a->path);
    }
    mm_buf_free(&kept);
    return code;
}

enum mm_code mm_answers_open(struct mm_answers *a, const char *path, const struct mm_plan *plan,
                             const char *data, uint64_t run, struct mm_error *err) {
    *a = (struct mm_answers){
        .path = path, .data = data, .plan = plan, .fd = -1, .in_order = true, .last = -1};
    snprintf(a->run, sizeof a->run, "%016" PRIx64, run);
    a->done = mm_xcalloc((size_t)plan->n_questions + 1, 1);
    enum mm_code code = open_file(a, err);
    if (code == mm_code_ok) code = take_over(a, err);
    if (code != mm_code_ok) {
        mm_answers_close(a);
        return code;
    }
    if (a->n_done > 0) {
        mm_info("%s: %" PRId64 " of %" PRId64 " questions are answered already", path, a->n_done,
                plan->n);
    }
    return mm_code_ok;
}

void mm_answers_close(struct mm_answers *a) {
    if (a->fd >= 0) close(a->fd);
    free(a->done);
    mm_buf_free(&a->line);
    *a = (struct mm_answers){.fd = -1};
}

// ---- what is written ----

static bool is_whole_number(struct mm_str s) {
    if (s.n == 0 || s.n > 18 || (s.s[0] == '0' && s.n > 1)) return false;
    for (size_t i = 0; i < s.n; i++) {
        if (s.s[i] < '0' || s.s[i] > '9') return false;
    }
    return true;
}

enum mm_code mm_answers_add(struct mm_answers *a, int64_t number, struct mm_str said,
                            const char *trouble, struct mm_error *err) {
    const struct mm_str index = mm_names_get(&a->plan->index, number);
    struct mm_buf *line = &a->line;
    mm_buf_reset(line);
    mm_buf_adds(line, "{\"index\": ");
    if (is_whole_number(index)) {
        mm_buf_add(line, index.s, index.n);
    } else {
        mm_json_add_string(line, index.s, index.n);
    }
    mm_buf_adds(line, ", \"prediction\": ");
    mm_json_add_string(line, said.s, said.n);
    if (trouble) {
        mm_buf_adds(line, ", \"missing_image\": true, \"error\": ");
        mm_json_add_string(line, trouble, strlen(trouble));
    }
    mm_buf_addf(line, ", \"run\": \"%s\"}\n", a->run);
    for (size_t done = 0; done < line->len;) {
        const ssize_t n = write(a->fd, line->data + done, line->len - done);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return mm_fail_errno(err, "%s: cannot be written", a->path);
        done += (size_t)n;
    }
    a->done[number] = 1;
    a->n_done += a->plan->chosen[number];
    a->in_order = a->in_order && number > a->last;
    a->last = number;
    return mm_code_ok;
}

struct span {
    size_t begin, end;
};

static enum mm_code find_spans(const struct mm_answers *a, struct mm_jsonl *file, struct span *span,
                               struct mm_error *err) {
    for (;;) {
        const size_t begin = file->at;
        json_t *o;
        char room[24];
        struct mm_str index;
        MM_TRY(mm_jsonl_next(file, &o, err));
        if (!o) return mm_code_ok;
        const enum mm_code code = mm_jsonl_index(file, o, "index", room, &index, err);
        const int64_t number = code ? -1 : mm_names_find(&a->plan->index, index);
        json_decref(o);
        MM_TRY(code);
        if (number >= 0) span[number] = (struct span){begin, file->at};
    }
}

static enum mm_code put_in_order(struct mm_answers *a, struct mm_error *err) {
    struct mm_jsonl file;
    struct mm_outfile *out = NULL;
    struct span *span = mm_xcalloc((size_t)a->plan->n_questions, sizeof *span);
    enum mm_code code = mm_jsonl_open(&file, a->path, err);
    if (code == mm_code_ok) {
        code = find_spans(a, &file, span, err);
        if (code == mm_code_ok) code = mm_outfile_open(&out, a->path, err);
        for (int64_t i = 0; i < a->plan->n_questions && code == mm_code_ok; i++) {
            if (span[i].end == 0) continue;
            while (file.map.data[span[i].begin] != '{')
                span[i].begin++;  // empty lines in front
            code = mm_outfile_write(out, file.map.data + span[i].begin, span[i].end - span[i].begin,
                                    err);
        }
        mm_jsonl_close(&file);
    }
    free(span);
    if (code == mm_code_ok) return mm_outfile_commit(out, err);
    mm_outfile_abort(out);
    return code;
}

enum mm_code mm_answers_finish(struct mm_answers *a, struct mm_error *err) {
    if (!a->in_order) return put_in_order(a, err);
    if (fsync(a->fd) == 0 || errno == EINVAL) return mm_code_ok;
    return mm_fail_errno(err, "%s: cannot be written", a->path);
}
