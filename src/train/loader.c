// Order and threads. A place of the stream is claimed under the lock, one after the other, and
// filled outside it; the reader takes places in the order in which they were claimed. So what is
// read does not depend on how many threads there are or how they run.
#include "train/loader.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/log.h"

struct mm_loader {
    const struct mm_sample_env *env;
    const struct mm_data_index *index;
    int64_t *order;       // (n_samples), the permutation of order_epoch
    int64_t order_epoch;  // -1: none yet
    int64_t epoch, next;  // the place that is claimed next

    struct mm_loaded *ring;  // (n_slots); claim number c lives in slot c % n_slots
    int32_t n_slots;
    int64_t n_claimed, n_released;  // released: read and no longer needed
    bool holding;                   // the reader still has the place n_released

    pthread_mutex_t lock;
    pthread_cond_t ready, space;
    pthread_t *threads;
    int32_t n_threads;  // running
    bool stop;
    struct mm_buf line;  // of the reader, when there are no threads
};

int32_t mm_loader_slots(const struct mm_data_options *o) {
    // Two batches ahead, so that the threads keep busy while one is trained on.
    return o->n_workers == 0 ? 1 : 2 * o->micro_batch + o->n_workers;
}

size_t mm_loader_fixed_bytes(const struct mm_loader *l) {
    return (size_t)l->index->n_samples * sizeof *l->order + (size_t)l->n_slots * sizeof *l->ring;
}

enum mm_code mm_loader_new(struct mm_loader **loader, const struct mm_sample_env *env,
                           const struct mm_data_index *index, struct mm_error *err) {
    struct mm_loader *l = mm_xcalloc(1, sizeof *l);
    *loader = NULL;
    l->env = env;
    l->index = index;
    l->order_epoch = -1;
    l->n_slots = mm_loader_slots(&env->options);
    l->order = malloc((size_t)index->n_samples * sizeof *l->order);
    l->ring = calloc((size_t)l->n_slots, sizeof *l->ring);
    if (!l->order || !l->ring) {
        free(l->order);
        free(l->ring);
        free(l);
        return mm_fail(err, mm_code_memory, "%s: no memory for the order of %lld samples",
                       index->meta_path, (long long)index->n_samples);
    }
    l->threads = mm_xcalloc((size_t)env->options.n_workers + 1, sizeof *l->threads);
    pthread_mutex_init(&l->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&l->ready, &attr);
    pthread_cond_init(&l->space, &attr);
    pthread_condattr_destroy(&attr);
    *loader = l;
    return mm_code_ok;
}

static void threads_stop(struct mm_loader *l) {
    pthread_mutex_lock(&l->lock);
    l->stop = true;
    pthread_cond_broadcast(&l->space);
    pthread_mutex_unlock(&l->lock);
    for (int32_t i = 0; i < l->n_threads; i++)
        pthread_join(l->threads[i], NULL);
    l->n_threads = 0;
    l->stop = false;
}

void mm_loader_free(struct mm_loader *l) {
    if (!l) return;
    threads_stop(l);
    for (int32_t i = 0; i < l->n_slots; i++)
        mm_sample_free(&l->ring[i].sample);
    pthread_cond_destroy(&l->ready);
    pthread_cond_destroy(&l->space);
    pthread_mutex_destroy(&l->lock);
    mm_buf_free(&l->line);
    free(l->threads);
    free(l->ring);
    free(l->order);
    free(l);
}

// ---- the order ----

// A stream of random numbers of its own for each epoch, and for each place that wants some.
static uint64_t stream_of(const char *use, int64_t epoch, int64_t index) {
    char name[96];
    snprintf(name, sizeof name, "data/%s/%lld/%lld", use, (long long)epoch, (long long)index);
    return mm_rng_stream(name);
}

// Takes the next place; the caller holds the lock where there are threads.
static struct mm_loaded *claim(struct mm_loader *l) {
    const int64_t n = l->index->n_samples;
    if (l->order_epoch != l->epoch) {
        for (int64_t i = 0; i < n; i++)
            l->order[i] = i;
        struct mm_rng rng = mm_rng_make(l->env->options.seed, stream_of("order", l->epoch, 0));
        mm_rng_shuffle(&rng, l->order, n);
        l->order_epoch = l->epoch;
    }
    struct mm_loaded *slot = &l->ring[l->n_claimed++ % l->n_slots];
    slot->epoch = l->epoch;
    slot->index = l->next;
    slot->sample_number = l->order[l->next];
    slot->ready = false;
    if (++l->next == n) {
        l->next = 0;
        l->epoch++;
    }
    return slot;
}

static void fill(const struct mm_loader *l, struct mm_loaded *slot, struct mm_buf *line) {
    int64_t at;
    const struct mm_data_set *set = mm_data_index_find(l->index, slot->sample_number, &at);
    slot->code = mm_data_set_read(set, at, line, &slot->error);
    if (slot->code != mm_code_ok) return;
    const struct mm_rng rng =
        mm_rng_make(l->env->options.seed, stream_of("augment", slot->epoch, slot->index));
    slot->code = mm_sample_read(&slot->sample, l->env, &set->source, rng, line->data, line->len,
                                &slot->error);
    if (line->cap > 1 << 20) mm_buf_free(line);  // one long line is no reason to keep as much
}

// ---- threads ----

static void *worker(void *arg) {
    struct mm_loader *l = arg;
    struct mm_buf line = {0};
    pthread_mutex_lock(&l->lock);
    while (!l->stop) {
        if (l->n_claimed - l->n_released == l->n_slots) {
            pthread_cond_wait(&l->space, &l->lock);
            continue;
        }
        struct mm_loaded *slot = claim(l);
        pthread_mutex_unlock(&l->lock);
        fill(l, slot, &line);
        pthread_mutex_lock(&l->lock);
        slot->ready = true;
        pthread_cond_signal(&l->ready);
    }
    pthread_mutex_unlock(&l->lock);
    mm_buf_free(&line);
    return NULL;
}

enum mm_code mm_loader_start(struct mm_loader *l, int64_t epoch, int64_t index,
                             struct mm_error *err) {
    threads_stop(l);
    l->epoch = epoch;
    l->next = index;
    l->n_claimed = l->n_released = 0;
    l->holding = false;
    // Signals are for the thread that runs the training.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = 0;
    while (!failed && l->n_threads < l->env->options.n_workers) {
        failed = pthread_create(&l->threads[l->n_threads], NULL, worker, l);
        if (!failed) l->n_threads++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed) {
        errno = failed;
        enum mm_code code = mm_fail_errno(err, "data: loader thread %d of %d cannot be started",
                                          l->n_threads + 1, l->env->options.n_workers);
        threads_stop(l);
        return code;
    }
    return mm_code_ok;
}

// Waits for the place to be filled; wakes now and then to see whether the run was interrupted.
static enum mm_code wait_ready(struct mm_loader *l, const struct mm_loaded *slot,
                               struct mm_error *err) {
    while (l->n_released == l->n_claimed || !slot->ready) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += 100000000;
        if (until.tv_nsec >= 1000000000) {
            until.tv_nsec -= 1000000000;
            until.tv_sec++;
        }
        pthread_cond_timedwait(&l->ready, &l->lock, &until);
        if (mm_interrupted()) return mm_fail(err, mm_code_interrupted, "interrupted");
    }
    return mm_code_ok;
}

enum mm_code mm_loader_take(struct mm_loader *l, const struct mm_loaded **loaded,
                            struct mm_error *err) {
    if (mm_interrupted()) return mm_fail(err, mm_code_interrupted, "interrupted");
    struct mm_loaded *slot;
    if (l->env->options.n_workers == 0) {
        l->n_released = l->n_claimed;
        slot = claim(l);
        fill(l, slot, &l->line);
        *loaded = slot;
        return mm_code_ok;
    }
    pthread_mutex_lock(&l->lock);
    if (l->holding) {
        l->holding = false;
        l->n_released++;
        pthread_cond_signal(&l->space);
    }
    slot = &l->ring[l->n_released % l->n_slots];
    const enum mm_code code = wait_ready(l, slot, err);
    l->holding = code == mm_code_ok;
    pthread_mutex_unlock(&l->lock);
    *loaded = slot;
    return code;
}
