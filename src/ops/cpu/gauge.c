#include "ops/cpu/gauge.h"

#include <string.h>
#include <unistd.h>
#include "base/log.h"
#include "base/memory.h"

// ---- products -----------------------------------------------------------------------------------

struct peak_job {
    struct mm_peak_loop loop;
    int64_t rounds;
};

static void run_peak(void *arg, int64_t begin, int64_t end, int thread) {
    const struct peak_job *j = arg;
    (void)begin, (void)end, (void)thread;
    j->loop.run(j->rounds);
}

// The shortest of three: another program may have had the processor for a while.
static double timed_peak(struct mm_backend *be, struct peak_job *j) {
    double best = 1e30;
    for (int i = 0; i < 3; i++) {
        const double from = mm_now();
        mm_parallel_all(be->pool, run_peak, j);
        const double took = mm_now() - from;
        if (took < best) best = took;
    }
    return best;
}

static double measure_product(struct mm_backend *be, struct mm_peak_loop loop, double seconds) {
    enum { windows = 48 };
    const double window = seconds / windows;
    struct peak_job j = {loop, 1024};
    double best = timed_peak(be, &j);
    for (; best < 0.25 * window; best = timed_peak(be, &j))
        j.rounds *= 2;
    j.rounds = (int64_t)((double)j.rounds * window / best) + 1;
    const double until = mm_now() + seconds;
    for (best = 1e30; best > 1e29 || mm_now() < until;) {
        const double took = timed_peak(be, &j);
        if (took < best) best = took;
    }
    return (double)mm_pool_size(be->pool) * (double)j.rounds * loop.ops / best;
}

// ---- reading ------------------------------------------------------------------------------------

enum { part_unit = 16 * 4096, most_streams = 8 };

struct read_job {
    unsigned char *data;
    int64_t units;  // of part_unit bytes
    mm_read_loop *loop;
    int streams;
    bool ahead;
    uint64_t *sums;  // one a thread, kept so that nothing is optimised away
};

static void fill_part(void *arg, int64_t begin, int64_t end, int thread) {
    const struct read_job *j = arg;
    (void)thread;
    memset(j->data + begin * part_unit, 0x5a, (size_t)((end - begin) * part_unit));
}

static void read_part(void *arg, int64_t begin, int64_t end, int thread) {
    const struct read_job *j = arg;
    j->sums[thread] =
        j->loop(j->data + begin * part_unit, (end - begin) * part_unit, j->streams, j->ahead);
}

// Far beyond the caches: twice the last one, where that leaves room for others. Every measurement
// maps it anew, since it must not count in the peak of what is measured between.
static int64_t buffer_bytes(void) {
    const int64_t least = (int64_t)1 << 30, cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
    int64_t bytes = 2 * cache > least ? 2 * cache : least;
    const int64_t room = mm_memory_available() / 3;
    if (bytes > room) bytes = room;
    return bytes / ((int64_t)part_unit * most_streams) * ((int64_t)part_unit * most_streams);
}

static enum mm_code measure_read(struct mm_backend *be, double seconds, double *rate,
                                 struct mm_error *err) {
    static const int streams[] = {1, 2, 4, 8};
    const int64_t bytes = buffer_bytes();
    void *data;
    if (bytes < (int64_t)64 << 20) {
        return mm_fail(
            err, mm_code_memory,
            "measuring the memory's speed takes a buffer far beyond the caches, and only "
            "%.0f MiB are free",
            (double)mm_memory_available() / 1048576.0);
    }
    MM_TRY(be->alloc(be, (size_t)bytes, &data, err));
    struct read_job j = {.data = data,
                         .units = bytes / part_unit,
                         .loop = mm_read_loop_of(mm_cpu_isa(be)),
                         .sums = mm_cpu_scratch(be, mm_scratch_f,
                                                (size_t)mm_pool_size(be->pool) * sizeof(uint64_t))};
    double best = 1e30;
    if (j.sums) {
        mm_parallel_for(be->pool, j.units, 1, fill_part, &j);
        const double until = mm_now() + seconds;
        // each way of reading once, then the rest of the time with the best
        int winner = 0;
        for (int i = 0; i < 8 || mm_now() < until; i++) {
            const int way = i < 8 ? i : winner;
            j.streams = streams[way % 4];
            j.ahead = way >= 4;
            const double from = mm_now();
            mm_parallel_for(be->pool, j.units, 1, read_part, &j);
            const double took = mm_now() - from;
            if (took < best) best = took, winner = way;
        }
    }
    be->release(be, data, (size_t)bytes);
    *rate = (double)bytes / best;
    return be->error.code ? mm_backend_sync(be, err) : mm_code_ok;
}

// ---- the gauges ---------------------------------------------------------------------------------

static enum mm_code ceiling(struct mm_backend *be, enum mm_ceiling which, double seconds,
                            double *rate, const char **how, struct mm_error *err) {
    if (which == mm_ceiling_read) {
        *how = "reads of one large buffer";
        return measure_read(be, seconds, rate, err);
    }
    enum mm_isa isa = mm_cpu_isa(be);
    struct mm_peak_loop loop = mm_peak_loop_of(isa, which);
    // no such products in this instruction set: the type is widened, or an older set's are used
    while (!loop.run && isa > mm_isa_plain)
        loop = mm_peak_loop_of(--isa, which);
    if (!loop.run) loop = mm_peak_loop_of(mm_cpu_isa(be), mm_ceiling_f32);
    *how = loop.name;
    *rate = measure_product(be, loop, seconds);
    return mm_code_ok;
}

static bool peak_reset(struct mm_backend *be) {
    (void)be;
    return mm_memory_peak_reset();
}

static int64_t peak(struct mm_backend *be) {
    (void)be;
    return mm_memory_peak();
}

const struct mm_gauges mm_gauges_cpu = {ceiling, peak_reset, peak};
