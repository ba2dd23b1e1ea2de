// The stream of batches: order, cursor, workers, what is skipped and how it is told.
#include "data_fixture.h"

#include <signal.h>
#include <sys/wait.h>

#include "base/log.h"

// Text and pictures of several sizes, lines 3 and 7 of 12 are bad.
static const char *write_mixed(void) {
    static const char *const images[] = {"photo.jpg", "tiny.png", "gray.png", "rgba.png"};
    struct mm_buf text = {0};
    for (int i = 1; i <= 12; i++) {
        if (i == 3) {
            mm_buf_adds(&text,
                        "{\"image\": \"missing.png\", \"conversations\": [{\"value\": "
                        "\"q\"}, {\"value\": \"a\"}]}\n");
        } else if (i == 7) {
            mm_buf_adds(&text, "{\"conversations\": [\n");
        } else if (i % 2 == 0) {
            mm_buf_addf(
                &text,
                "{\"image\": \"%s\", \"conversations\": [{\"value\": \"what\"}, {\"value\": "
                "\"%d\"}]}\n",
                images[i / 2 % 4], i);
        } else {
            mm_buf_addf(&text, "{\"conversations\": [{\"value\": \"n\"}, {\"value\": \"%d\"}]}\n",
                        i);
        }
    }
    write_text("mixed.jsonl", text.data);
    mm_buf_free(&text);
    return write_meta("mixed.jsonl", ", \"data_augment\": true");
}

// Everything a batch holds, as one number.
static uint64_t fingerprint(const struct mm_batch *b, const struct mm_data_options *o) {
    const size_t tile = (size_t)o->image_size * (size_t)o->image_size * 3;
    const struct {
        const void *data;
        size_t bytes;
    } part[] = {
        {b->start, ((size_t)b->n_seqs + 1) * sizeof *b->start},
        {b->ids, (size_t)b->n_tokens * sizeof *b->ids},
        {b->targets, (size_t)b->n_tokens * sizeof *b->targets},
        {b->tiles_of_seq, (size_t)b->n_seqs * sizeof *b->tiles_of_seq},
        {b->tiles, (size_t)b->n_tiles * tile},
        {&b->cursor, sizeof b->cursor},
        {&b->n_targets, sizeof b->n_targets},
    };
    uint64_t h = 1469598103934665603u;
    for (size_t i = 0; i < sizeof part / sizeof part[0]; i++) {
        for (size_t k = 0; k < part[i].bytes; k++) {
            h = (h ^ ((const uint8_t *)part[i].data)[k]) * 1099511628211u;
        }
    }
    return h;
}

// ---- tests ----

static void test_batch_layout(void **state) {
    (void)state;
    write_text("two.jsonl",
               "{\"image\": \"photo.jpg\", \"conversations\": [{\"value\": \"q\"}, {\"value\": "
               "\"yes\"}]}\n{\"conversations\": [{\"value\": \"q\"}, {\"value\": \"no\"}]}");
    struct mm_data_options o = small_options();
    o.micro_batch = 2;
    struct mm_data *d = open_data(write_meta("two.jsonl", ""), &o);
    assert_int_equal(mm_data_samples(d), 2);
    const struct mm_batch *b = next_batch(d);
    assert_int_equal(b->n_seqs, 2);
    assert_int_equal(b->start[0], 0);
    assert_int_equal(b->start[2], b->n_tokens);
    assert_int_equal(b->n_tiles, 7);
    assert_int_equal(b->tiles_of_seq[0] + b->tiles_of_seq[1], 7);
    const int32_t context = mm_tokenizer_special(tokenizer, "<IMG_CONTEXT>");
    const int32_t end = mm_tokenizer_special(tokenizer, "<|im_end|>");
    int64_t n_targets = 0;
    for (int32_t i = 0; i < 2; i++) {
        assert_int_equal(b->ids[b->start[i]], mm_tokenizer_bos(tokenizer));
        int32_t n_context = 0;
        for (int32_t t = b->start[i]; t < b->start[i + 1]; t++) {
            n_context += b->ids[t] == context;
            if (b->targets[t] < 0) {
                assert_int_equal(b->targets[t], -100);
                continue;
            }
            n_targets++;
            assert_true(t + 1 < b->start[i + 1]);
            assert_int_equal(b->targets[t], b->ids[t + 1]);
        }
        assert_int_equal(n_context, 16 * b->tiles_of_seq[i]);
        // The last token closes the answer: the position before it is the last to learn.
        assert_int_equal(b->targets[b->start[i + 1] - 1], -100);
        assert_int_equal(b->targets[b->start[i + 1] - 2], end);
    }
    assert_int_equal(b->n_targets, n_targets);
    assert_true(b->n_tokens <= mm_data_max_tokens(&o) && b->n_tiles <= mm_data_max_tiles(&o));
    mm_data_close(d);
}

static void test_order(void **state) {
    (void)state;
    enum { n = 20 };
    write_numbers("n.jsonl", 0, n);
    const char *meta = write_meta("n.jsonl", "");
    struct mm_data_options o = small_options();
    o.micro_batch = 4;
    int first[3 * n], second[3 * n], other[3 * n];
    struct mm_data *d = open_data(meta, &o);
    take_numbers(d, first, 3 * n / 4);
    mm_data_close(d);
    d = open_data(meta, &o);
    take_numbers(d, second, 3 * n / 4);
    mm_data_close(d);
    assert_memory_equal(first, second, sizeof first);
    o.seed++;
    d = open_data(meta, &o);
    take_numbers(d, other, 3 * n / 4);
    mm_data_close(d);
    assert_memory_not_equal(first, other, sizeof first);
    assert_memory_not_equal(first, first + n, n * sizeof *first);
    for (int e = 0; e < 3; e++) {  // every epoch holds every sample once
        qsort(first + e * n, n, sizeof *first, compare_int);
        for (int i = 0; i < n; i++)
            assert_int_equal(first[e * n + i], i);
    }
}

static void test_workers_and_seek(void **state) {
    (void)state;
    enum { n_batches = 14 };  // of 3 samples: 42 of 10 good ones an epoch, over four epochs
    const char *meta = write_mixed();
    struct mm_data_options o = small_options();
    o.micro_batch = 3;
    uint64_t expected[n_batches];
    struct mm_data_cursor cursor[n_batches];
    capture_begin();
    for (int32_t workers = 0; workers <= 3; workers++) {
        o.n_workers = workers;
        struct mm_data *d = open_data(meta, &o);
        for (int k = 0; k < n_batches; k++) {
            const struct mm_batch *b = next_batch(d);
            const uint64_t h = fingerprint(b, &o);
            if (workers == 0) {
                expected[k] = h;
                cursor[k] = b->cursor;
            }
            assert_true(h == expected[k]);
        }
        // Back and forth, in the same stream.
        for (int k = n_batches - 2; k >= 0; k -= 3) {
            struct mm_error err = {0};
            assert_int_equal(mm_data_seek(d, &cursor[k], &err), 0);
            const struct mm_data_cursor told = mm_data_tell(d);
            assert_memory_equal(&cursor[k], &told, sizeof told);
            assert_true(fingerprint(next_batch(d), &o) == expected[k + 1]);
        }
        mm_data_close(d);
    }
    // From every cursor in a fresh stream, as after a crash.
    for (int k = 0; k < n_batches - 1; k++) {
        o.n_workers = k % 3;
        struct mm_data *d = open_data(meta, &o);
        struct mm_error err = {0};
        assert_int_equal(mm_data_seek(d, &cursor[k], &err), 0);
        assert_true(fingerprint(next_batch(d), &o) == expected[k + 1]);
        mm_data_close(d);
    }
    capture_end();
    assert_true(cursor[n_batches - 1].epoch >= 3);
    // Two bad samples in each whole epoch.
    assert_true(cursor[n_batches - 1].skipped >= 2 * cursor[n_batches - 1].epoch);

    struct mm_data *d = open_data(meta, &o);
    struct mm_error err = {0};
    assert_int_equal(mm_data_seek(d, &(struct mm_data_cursor){0, 12, 0}, &err), mm_code_input);
    assert_non_null(strstr(err.text, "12 samples"));
    assert_int_equal(mm_data_seek(d, &(struct mm_data_cursor){-1, 0, 0}, &err), mm_code_input);
    mm_data_close(d);
}

static void test_skipped_are_named(void **state) {
    (void)state;
    const char *meta = write_mixed();
    for (int32_t workers = 0; workers <= 2; workers += 2) {
        struct mm_data_options o = small_options();
        o.n_workers = workers;
        o.micro_batch = 10;
        struct mm_data *d = open_data(meta, &o);
        capture_begin();
        next_batch(d);
        next_batch(d);  // the second epoch must not say it again
        const struct mm_batch *b = next_batch(d);
        const char *text = capture_end();
        assert_true(b->cursor.skipped >= 4 && b->cursor.skipped <= 6);
        assert_int_equal(occurrences(text, "mixed.jsonl line 3 is skipped: "), 1);
        assert_int_equal(occurrences(text, "missing.png"), 1);
        assert_int_equal(occurrences(text, "mixed.jsonl line 7 is skipped: "), 1);
        assert_int_equal(occurrences(text, "skipped"), 2);
        mm_data_close(d);
    }
}

static void test_all_bad(void **state) {
    (void)state;
    write_text("bad.jsonl", "x\ny\nz\n");
    const char *meta = write_meta("bad.jsonl", "");
    for (int32_t workers = 0; workers <= 2; workers++) {
        struct mm_data_options o = small_options();
        o.n_workers = workers;
        struct mm_data *d = open_data(meta, &o);
        const struct mm_batch *b;
        struct mm_error err = {0};
        capture_begin();
        const enum mm_code code = mm_data_next(d, &b, &err);
        // Also from the middle of an epoch, and asked again.
        struct mm_error again = {0};
        assert_int_equal(mm_data_seek(d, &(struct mm_data_cursor){0, 1, 0}, &again), 0);
        const enum mm_code code_again = mm_data_next(d, &b, &again);
        capture_end();
        assert_int_equal(code, mm_code_input);
        assert_int_equal(code_again, mm_code_input);
        assert_null(b);
        assert_non_null(strstr(err.text, "none of its 3 samples can be used"));
        assert_non_null(strstr(err.text, "JSON"));
        mm_data_close(d);
    }
}

static void test_early_close(void **state) {
    (void)state;
    write_numbers("n.jsonl", 0, 50);
    const char *meta = write_meta("n.jsonl", "");
    struct mm_data_options o = small_options();
    o.n_workers = 3;
    for (int i = 0; i < 60; i++) {
        o.micro_batch = 1 + i % 5;
        struct mm_data *d = open_data(meta, &o);
        for (int k = 0; k < i % 4; k++)
            next_batch(d);
        mm_data_close(d);
    }
    mm_data_close(NULL);
}

static void test_limits(void **state) {
    (void)state;
    struct mm_data_options o = small_options();
    o.max_length = 100;
    o.micro_batch = 8;
    assert_int_equal(mm_data_max_tokens(&o), 800);
    assert_int_equal(mm_data_max_tiles(&o), 48);  // 100 / 16 = 6 a sample
    write_numbers("n.jsonl", 0, 3);
    struct mm_data *d = open_data(write_meta("n.jsonl", ""), &o);
    const size_t none = mm_data_max_bytes(d);
    assert_true(none > 48 * 56 * 56 * 3 && none < 4 * 48 * 56 * 56 * 3);
    mm_data_close(d);
}

// In a process of its own, as the flag stays set.
static void test_interrupt(void **state) {
    (void)state;
    write_numbers("n.jsonl", 0, 50);
    const char *meta = write_meta("n.jsonl", "");
    for (int32_t workers = 0; workers <= 2; workers += 2) {
        const pid_t child = fork();
        if (child == 0) {
            struct mm_data_options o = small_options();
            o.n_workers = workers;
            struct mm_data *d = NULL;
            struct mm_error err = {0};
            const struct mm_batch *b = NULL;
            mm_interrupt_catch();
            if (mm_data_open(&d, meta, tokenizer, tokenizer_folder, &o, &err) != mm_code_ok) {
                _exit(100);
            }
            if (mm_data_next(d, &b, &err) != mm_code_ok) _exit(101);
            const struct mm_data_cursor before = mm_data_tell(d);
            kill(getpid(), SIGTERM);
            const enum mm_code code = mm_data_next(d, &b, &err);
            if (mm_data_tell(d).index != before.index) _exit(102);
            mm_data_close(d);
            _exit((int)code);
        }
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), mm_code_interrupted);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_batch_layout),     cmocka_unit_test(test_order),
        cmocka_unit_test(test_workers_and_seek), cmocka_unit_test(test_skipped_are_named),
        cmocka_unit_test(test_all_bad),          cmocka_unit_test(test_early_close),
        cmocka_unit_test(test_limits),           cmocka_unit_test(test_interrupt),
    };
    return cmocka_run_group_tests_name("data", tests, fixture_setup, fixture_teardown);
}
