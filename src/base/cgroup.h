// The CPU limit that a container or a systemd slice sets on this process.
#ifndef MM_BASE_CGROUP_H
#define MM_BASE_CGROUP_H

// Whole CPUs of the tightest limit between the process's control group and the root: cpu.max of
// the unified hierarchy, cpu.cfs_quota_us of the old one. 0 when there is none; at least 1 else.
// membership is /proc/self/cgroup and mount is /sys/fs/cgroup, except in tests.
int mm_cgroup_cpus(const char *membership, const char *mount);

#endif
