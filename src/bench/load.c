// Linux tells three things: how long each thread waited for a processor (/proc/self/task), how long
// all processors were busy or stolen by the host (/proc/stat), and our own processor time.
#include "bench/load.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/log.h"

static double seconds_waited(void) {
    DIR *d = opendir("/proc/self/task");
    if (d == NULL) return -1.0;
    double sum = 0.0;
    int known = 0;
    for (const struct dirent *e; (e = readdir(d)) != NULL;) {
        char path[300], text[128];
        if (e->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "/proc/self/task/%s/schedstat", e->d_name);
        FILE *f = fopen(path, "re");
        if (f == NULL) continue;
        // nanoseconds on a processor, nanoseconds waiting for one, turns
        if (fgets(text, sizeof text, f)) {
            char *end;
            strtoull(text, &end, 10);
            sum += (double)strtoull(end, NULL, 10) * 1e-9;
            known++;
        }
        fclose(f);
    }
    closedir(d);
    return known ? sum : -1.0;
}

// "cpu user nice system idle iowait irq softirq steal ...", in ticks.
static void processors(double *busy, double *stolen) {
    *busy = *stolen = -1.0;
    FILE *f = fopen("/proc/stat", "re");
    char line[512];
    if (f == NULL) return;
    if (fgets(line, sizeof line, f) && !strncmp(line, "cpu ", 4)) {
        const double tick = 1.0 / (double)sysconf(_SC_CLK_TCK);
        double v[8] = {0};
        char *at = line + 4;
        for (int i = 0; i < 8; i++)
            v[i] = (double)strtoull(at, &at, 10) * tick;
        *busy = v[0] + v[1] + v[2] + v[5] + v[6];
        *stolen = v[7];
    }
    fclose(f);
}

static double seconds(struct timeval t) {
    return (double)t.tv_sec + (double)t.tv_usec * 1e-6;
}

struct mm_load_mark mm_load_mark_now(void) {
    struct mm_load_mark m = {.wall = mm_now(), .waited = seconds_waited()};
    processors(&m.busy, &m.stolen);
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    m.own = seconds(u.ru_utime) + seconds(u.ru_stime);
    return m;
}

static double rate(double from, double to, double by) {
    return from < 0.0 || to < from || by <= 0.0 ? -1.0 : (to - from) / by;
}

struct mm_load mm_load_since(const struct mm_load_mark *from, int n_threads) {
    const struct mm_load_mark now = mm_load_mark_now();
    const double wall = now.wall - from->wall;
    struct mm_load l = {
        .waited = rate(from->waited, now.waited, wall * n_threads),
        .others = rate(from->busy, now.busy, wall),
        .stolen = rate(from->stolen, now.stolen, wall),
    };
    // ticks are coarse: over a short time the difference can come out below zero
    if (l.others >= 0.0) l.others -= rate(from->own, now.own, wall);
    if (l.others < 0.0 && now.busy >= 0.0) l.others = 0.0;
    return l;
}

struct mm_load mm_load_worse(struct mm_load a, struct mm_load b) {
    return (struct mm_load){
        a.waited > b.waited ? a.waited : b.waited,
        a.others > b.others ? a.others : b.others,
        a.stolen > b.stolen ? a.stolen : b.stolen,
    };
}

bool mm_load_high(const struct mm_load *l) {
    return l->waited > 0.03 || l->others > 0.1 || l->stolen > 0.05;
}
