// Asking the kernel about memory.
#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include "base/cgroup.h"

// A line "name: N kB" of a file in /proc, in bytes; -1 when it is not there.
static int64_t proc_bytes(const char *path, const char *name) {
    FILE *f = fopen(path, "re");
    if (!f) return -1;
    const size_t n = strlen(name);
    int64_t kib = -1;
    char line[256];
    while (kib < 0 && fgets(line, sizeof line, f)) {
        if (!strncmp(line, name, n)) kib = strtoll(line + n, NULL, 10);
    }
    fclose(f);
    return kib < 0 ? -1 : kib * 1024;
}

int64_t mm_memory_available(void) {
    // Free pages and those that give way (caches), as the kernel reckons them.
    int64_t bytes = proc_bytes("/proc/meminfo", "MemAvailable:");
    if (bytes < 0) bytes = (int64_t)sysconf(_SC_AVPHYS_PAGES) * sysconf(_SC_PAGESIZE);
    const int64_t allowed = mm_cgroup_memory("/proc/self/cgroup", "/sys/fs/cgroup");
    return allowed >= 0 && allowed < bytes ? allowed : bytes;
}

int64_t mm_memory_used(void) {
    const int64_t bytes = proc_bytes("/proc/self/status", "VmRSS:");
    return bytes < 0 ? 0 : bytes;
}

int64_t mm_memory_peak(void) {
    // Not getrusage's ru_maxrss where it can be helped: that one survives exec, so that it may be
    // the size of whoever started this program.
    const int64_t bytes = proc_bytes("/proc/self/status", "VmHWM:");
    if (bytes >= 0) return bytes;
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (int64_t)u.ru_maxrss * 1024;
}

bool mm_memory_peak_reset(void) {
    FILE *f = fopen("/proc/self/clear_refs", "we");
    if (!f) return false;
    const bool written = fputs("5", f) >= 0;
    return fclose(f) == 0 && written;
}
