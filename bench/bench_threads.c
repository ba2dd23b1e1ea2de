// What a competing process costs the pool: one loop of products after another, alone and with
// processes that spin on some of the CPUs.
//     build/bench/bench_threads [THREADS]
// A line: nominal work of a loop on one thread, microseconds a loop (mean over half a second) with
// the CPUs free, with one process spinning on the last CPU, and the ratio of the two. What can be
// had at best is n / (n - 1/2) for n CPUs, because the kernel shares the last one evenly.
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "base/threads.h"

enum { n_items = 256, floats = 512 };

struct job {
    const float *x;
    float *y;
    int64_t repeats;
};

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void products(void *arg, int64_t begin, int64_t end, int thread) {
    const struct job *j = arg;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        float sum = 0.0f;
        for (int64_t r = 0; r < j->repeats; r++) {
            for (int k = 0; k < floats; k++)
                sum += j->x[k] * j->x[(k + i) % floats];
        }
        j->y[i] = sum;
    }
}

// A child that does nothing but take time on one CPU until it is killed, or its parent ends.
static pid_t compete(size_t cpu) {
    const pid_t child = fork();
    if (child != 0) return child;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    sched_setaffinity(0, sizeof set, &set);
    for (volatile unsigned i = 0;;)
        i = i + 1;
}

static double loop_us(struct mm_pool *pool, struct job *j, double seconds) {
    const double begin = now();
    int64_t n = 0;
    double end;
    do {
        mm_parallel_for(pool, n_items, 1, products, j);
        n++;
    } while ((end = now()) - begin < seconds);
    return (end - begin) / (double)n * 1e6;
}

int main(int argc, char **argv) {
    const int threads = argc > 1 ? atoi(argv[1]) : 0;
    struct mm_pool *pool;
    struct mm_error err = {0};
    float x[floats], y[n_items];
    for (int k = 0; k < floats; k++)
        x[k] = (float)k / (float)floats;
    if (mm_pool_new(&pool, threads, &err) != mm_code_ok) {
        fprintf(stderr, "bench_threads: %s\n", err.text);
        return 1;
    }
    const int last = mm_threads_available() - 1;
    printf("%d threads, CPUs 0 to %d\n%12s %12s %12s %8s\n", mm_pool_size(pool), last, "us of work",
           "alone", "competing", "ratio");
    for (int64_t repeats = 1; repeats <= 4096; repeats *= 4) {
        struct job j = {x, y, repeats};
        const double one = loop_us(NULL, &j, 0.1);
        const double alone = loop_us(pool, &j, 0.5);
        const pid_t child = compete((size_t)last);
        const double with = loop_us(pool, &j, 1.0);
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        printf("%12.0f %12.1f %12.1f %8.2f\n", one, alone, with, with / alone);
    }
    mm_pool_free(pool);
    return 0;
}
