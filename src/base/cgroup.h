// The limits that a container or a systemd slice sets on this process: the tightest between its
// control group and the root, in the unified hierarchy and the old ones.
// `membership` is /proc/self/cgroup and `mount` is /sys/fs/cgroup, except in tests.
#ifndef MM_BASE_CGROUP_H
#define MM_BASE_CGROUP_H

#include <stdint.h>

// Whole CPUs (cpu.max, cpu.cfs_quota_us), at least 1; 0 when there is no limit.
int mm_cgroup_cpus(const char *membership, const char *mount);

// Bytes that may still be taken (memory.max less what is used, pages of files not counted, for
// they give way); -1 when there is no limit.
int64_t mm_cgroup_memory(const char *membership, const char *mount);

#endif
