// Reading control group files. They are the kernel's, but inside a container the path that
// /proc/self/cgroup names is often not visible; then the mount's own root is the container's group.
#include "base/cgroup.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { path_cap = 4096 };
static const int64_t none = -1;  // no limit

static FILE *open_file(const char *mount, const char *group, const char *name) {
    char path[path_cap];
    const int n = snprintf(path, sizeof path, "%s%s/%s", mount, group, name);
    return n < 0 || n >= (int)sizeof path ? NULL : fopen(path, "re");
}

// The first number of a file; false when it is not there or is a word ("max").
static bool read_number(const char *mount, const char *group, const char *name, int64_t *out) {
    FILE *f = open_file(mount, group, name);
    if (!f) return false;
    const bool ok = fscanf(f, "%" SCNd64, out) == 1;
    fclose(f);
    return ok;
}

// ---- one group's limit, of each resource in each hierarchy ----

// Microseconds of CPU a period as whole CPUs, to the nearest but at least 1: half a CPU is worth a
// thread, which is then throttled for a part of each period, less is not (docs/PERFORMANCE.md).
static int64_t whole_cpus(int64_t quota, int64_t period) {
    if (quota <= 0 || period <= 0) return none;
    const int64_t whole = quota / period, rest = quota % period;
    const int64_t cpus = whole + (rest >= period - rest);
    return cpus < 1 ? 1 : cpus > 65536 ? 65536 : cpus;
}

static int64_t cpus_v2(const char *mount, const char *group) {
    FILE *f = open_file(mount, group, "cpu.max");
    if (!f) return none;
    int64_t quota, period;
    const bool ok = fscanf(f, "%" SCNd64 " %" SCNd64, &quota, &period) == 2;  // or "max 100000"
    fclose(f);
    return ok ? whole_cpus(quota, period) : none;
}

static int64_t cpus_v1(const char *mount, const char *group) {
    int64_t quota, period;
    if (!read_number(mount, group, "cpu.cfs_quota_us", &quota)) return none;
    if (!read_number(mount, group, "cpu.cfs_period_us", &period)) return none;
    return whole_cpus(quota, period);
}

// Pages of files, by memory.stat: `active` and `inactive` name its lines.
static int64_t file_pages(const char *mount, const char *group, const char *active,
                          const char *inactive) {
    FILE *f = open_file(mount, group, "memory.stat");
    if (!f) return 0;
    char name[64];
    int64_t value, sum = 0;
    while (fscanf(f, "%63s %" SCNd64, name, &value) == 2) {
        if (!strcmp(name, active) || !strcmp(name, inactive)) sum += value;
    }
    fclose(f);
    return sum;
}

static int64_t left_of(int64_t limit, int64_t used, int64_t files) {
    // "No limit" of the old hierarchy is a number near the largest there is.
    if (limit < 0 || limit > INT64_C(1) << 60) return none;
    used = used > files ? used - files : 0;
    return limit > used ? limit - used : 0;
}

static int64_t memory_v2(const char *mount, const char *group) {
    int64_t limit, used;
    if (!read_number(mount, group, "memory.max", &limit)) return none;
    if (!read_number(mount, group, "memory.current", &used)) return none;
    return left_of(limit, used, file_pages(mount, group, "active_file", "inactive_file"));
}

static int64_t memory_v1(const char *mount, const char *group) {
    int64_t limit, used;
    if (!read_number(mount, group, "memory.limit_in_bytes", &limit)) return none;
    if (!read_number(mount, group, "memory.usage_in_bytes", &used)) return none;
    return left_of(limit, used,
                   file_pages(mount, group, "total_active_file", "total_inactive_file"));
}

// ---- the way from the process's group up to the root ----

typedef int64_t limit_fn(const char *mount, const char *group);

static int64_t tighter(int64_t a, int64_t b) {
    return a == none ? b : b == none ? a : a < b ? a : b;
}

static int64_t limit_upwards(const char *mount, char *group, limit_fn *limit) {
    int64_t least = none;
    for (;;) {
        char *slash = strrchr(group, '/');
        if (slash && !slash[1]) {  // a trailing slash, or the root
            *slash = '\0';
            continue;
        }
        least = tighter(least, limit(mount, group));
        if (!slash) return least;
        *slash = '\0';
    }
}

// Whether a comma-separated list of controllers has `name`.
static bool has_controller(const char *list, const char *name) {
    const size_t n = strlen(name);
    for (const char *c = list; c; c = strchr(c, ',') ? strchr(c, ',') + 1 : NULL) {
        if (!strncmp(c, name, n) && (c[n] == ',' || c[n] == '\0')) return true;
    }
    return false;
}

static int64_t tightest(const char *membership, const char *mount, const char *controller,
                        limit_fn *v1, limit_fn *v2) {
    FILE *f = fopen(membership, "re");
    if (!f) return none;
    int64_t least = none;
    char line[path_cap];
    while (fgets(line, sizeof line, f)) {  // hierarchy-id:controllers:/group
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':');
        char *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group) continue;
        *controllers++ = '\0';
        *group++ = '\0';
        if (*controllers == '\0') {
            least = tighter(least, limit_upwards(mount, group, v2));
        } else if (has_controller(controllers, controller)) {
            char sub[path_cap];
            const int n = snprintf(sub, sizeof sub, "%s/%s", mount, controllers);
            if (n > 0 && n < (int)sizeof sub) {
                least = tighter(least, limit_upwards(sub, group, v1));
            }
        }
    }
    fclose(f);
    return least;
}

int mm_cgroup_cpus(const char *membership, const char *mount) {
    const int64_t cpus = tightest(membership, mount, "cpu", cpus_v1, cpus_v2);
    return cpus == none ? 0 : (int)cpus;
}

int64_t mm_cgroup_memory(const char *membership, const char *mount) {
    return tightest(membership, mount, "memory", memory_v1, memory_v2);
}
