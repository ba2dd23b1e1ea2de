// Reading control group files. They are the kernel's, but inside a container the path that
// /proc/self/cgroup names is often not visible; then the mount's own root is the container's group.
#include "base/cgroup.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { path_cap = 4096 };

// The first line of mount + group + name.
static bool read_line(const char *mount, const char *group, const char *name, char *line, int cap) {
    char path[path_cap];
    const int n = snprintf(path, sizeof path, "%s%s/%s", mount, group, name);
    if (n < 0 || n >= (int)sizeof path) return false;
    FILE *f = fopen(path, "re");
    if (!f) return false;
    const bool ok = fgets(line, cap, f) != NULL;
    fclose(f);
    return ok;
}

// Microseconds of CPU a period as whole CPUs, rounded down (half a CPU more for a pool of spinning
// threads would be throttled) but at least 1; 0 when that is no limit.
static int whole_cpus(long long quota, long long period) {
    if (quota <= 0 || period <= 0) return 0;
    const long long cpus = quota / period;
    return cpus < 1 ? 1 : cpus > 65536 ? 65536 : (int)cpus;
}

static int tighter(int a, int b) {
    return a == 0 ? b : b == 0 ? a : a < b ? a : b;
}

static int limit_v2(const char *mount, const char *group) {
    char line[128];
    long long quota = 0, period = 0;
    if (!read_line(mount, group, "cpu.max", line, sizeof line)) return 0;
    if (sscanf(line, "%lld %lld", &quota, &period) != 2) return 0;  // "max 100000"
    return whole_cpus(quota, period);
}

static int limit_v1(const char *mount, const char *group) {
    char quota[64], period[64];
    if (!read_line(mount, group, "cpu.cfs_quota_us", quota, sizeof quota)) return 0;
    if (!read_line(mount, group, "cpu.cfs_period_us", period, sizeof period)) return 0;
    return whole_cpus(strtoll(quota, NULL, 10), strtoll(period, NULL, 10));
}

// The tightest limit on the way from the group up to the root of the hierarchy.
static int limit_upwards(const char *mount, char *group, int (*limit)(const char *, const char *)) {
    int cpus = 0;
    for (;;) {
        char *slash = strrchr(group, '/');
        if (slash && !slash[1]) {  // a trailing slash, or the root
            *slash = '\0';
            continue;
        }
        cpus = tighter(cpus, limit(mount, group));
        if (!slash) return cpus;
        *slash = '\0';
    }
}

// Whether a comma-separated list of controllers has "cpu".
static bool has_cpu(const char *list) {
    for (const char *c = list; c; c = strchr(c, ',') ? strchr(c, ',') + 1 : NULL) {
        if (!strncmp(c, "cpu", 3) && (c[3] == ',' || c[3] == '\0')) return true;
    }
    return false;
}

int mm_cgroup_cpus(const char *membership, const char *mount) {
    FILE *f = fopen(membership, "re");
    if (!f) return 0;
    int cpus = 0;
    char line[path_cap];
    while (fgets(line, sizeof line, f)) {  // hierarchy-id:controllers:/group
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':');
        char *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group) continue;
        *controllers++ = '\0';
        *group++ = '\0';
        if (*controllers == '\0') {
            cpus = tighter(cpus, limit_upwards(mount, group, limit_v2));
        } else if (has_cpu(controllers)) {
            char sub[path_cap];
            const int n = snprintf(sub, sizeof sub, "%s/%s", mount, controllers);
            if (n > 0 && n < (int)sizeof sub) {
                cpus = tighter(cpus, limit_upwards(sub, group, limit_v1));
            }
        }
    }
    fclose(f);
    return cpus;
}
