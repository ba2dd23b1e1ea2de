// Limits of containers, in a folder that looks like /sys/fs/cgroup; memory of the process.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/cgroup.h"
#include "base/memory.h"
#include "cmocka_all.h"

static char root[64];

static void put(const char *path, const char *text) {
    char full[256];
    snprintf(full, sizeof full, "%s/%s", root, path);
    for (char *c = full + strlen(root) + 1; (c = strchr(c, '/')); c++) {
        *c = '\0';
        mkdir(full, 0700);
        *c = '/';
    }
    FILE *f = fopen(full, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static int64_t ask(const char *membership, int64_t (*what)(const char *, const char *)) {
    char file[256], mount[256];
    put("membership", membership);
    snprintf(file, sizeof file, "%s/membership", root);
    snprintf(mount, sizeof mount, "%s/mnt", root);
    return what(file, mount);
}

static int64_t ask_cpus(const char *membership, const char *mount) {
    return mm_cgroup_cpus(membership, mount);
}

static int64_t cpus(const char *membership) {
    return ask(membership, ask_cpus);
}

static int64_t memory(const char *membership) {
    return ask(membership, mm_cgroup_memory);
}

static int begin(void **state) {
    (void)state;
    strcpy(root, "/tmp/mmamba-cgroup-XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static int end(void **state) {
    (void)state;
    char remove_all[128];
    snprintf(remove_all, sizeof remove_all, "rm -r '%s'", root);
    return system(remove_all);
}

static void limits_of_cpus(void **state) {
    (void)state;
    assert_int_equal(cpus("0::/\n"), 0);  // nothing there
    put("mnt/cpu.max", "max 100000\n");
    assert_int_equal(cpus("0::/\n"), 0);
    put("mnt/a/cpu.max", "340000 100000\n");
    put("mnt/a/b/cpu.max", "max 100000\n");
    assert_int_equal(cpus("0::/\n"), 0);
    assert_int_equal(cpus("0::/a\n"), 3);     // 3.4 CPUs
    assert_int_equal(cpus("0::/a/b/\n"), 3);  // the parent's limit counts
    put("mnt/a/b/cpu.max", "50000 100000\n");
    assert_int_equal(cpus("0::/a/b\n"), 1);  // half a CPU
    static const struct {
        const char *text;
        int64_t cpus;
    } rounded[] = {{"150000 100000\n", 2}, {"149999 100000\n", 1},
                   {"1 1000000\n", 1},     {"0 100000\n", 0},
                   {"100000 0\n", 0},      {"max\n", 0},
                   {"250000 100000\n", 3}, {"9223372036854775807 1\n", 65536}};
    for (size_t i = 0; i < sizeof rounded / sizeof *rounded; i++) {
        put("mnt/r/cpu.max", rounded[i].text);
        assert_int_equal(cpus("0::/r\n"), rounded[i].cpus);
    }
    assert_int_equal(cpus("0::/not/visible\n"), 0);
    put("mnt/cpu.max", "200000 100000\n");
    assert_int_equal(cpus("0::/not/visible\n"), 2);  // a container sees its own group as the root
    put("mnt/cpu,cpuacct/x/cpu.cfs_quota_us", "-1\n");
    put("mnt/cpu,cpuacct/x/cpu.cfs_period_us", "100000\n");
    assert_int_equal(cpus("4:cpu,cpuacct:/x\n"), 0);
    put("mnt/cpu,cpuacct/x/cpu.cfs_quota_us", "600000\n");
    assert_int_equal(cpus("5:cpuset:/x\n4:cpu,cpuacct:/x\n"), 6);
    assert_int_equal(cpus("4:cpu,cpuacct:/x\n0::/a\n"), 2);
    put("mnt/cpu.max", "rubbish");
    assert_int_equal(cpus("0::/\nno colons\n:\n"), 0);
}

static void limits_of_memory(void **state) {
    (void)state;
    assert_int_equal(memory("0::/\n"), -1);
    put("mnt/memory.max", "max\n");
    put("mnt/memory.current", "5000\n");
    assert_int_equal(memory("0::/\n"), -1);
    put("mnt/a/memory.max", "10000\n");
    put("mnt/a/memory.current", "7000\n");
    assert_int_equal(memory("0::/a/b\n"), 3000);
    // Pages of files give way.
    put("mnt/a/memory.stat", "anon 4000\nfile 3000\nactive_file 500\ninactive_file 1500\nslab 9\n");
    assert_int_equal(memory("0::/a/b\n"), 5000);
    put("mnt/a/b/memory.max", "10000\n");
    put("mnt/a/b/memory.current", "20000\n");
    assert_int_equal(memory("0::/a/b\n"), 0);
    put("mnt/memory/x/memory.limit_in_bytes", "9223372036854771712\n");  // none
    put("mnt/memory/x/memory.usage_in_bytes", "1000\n");
    assert_int_equal(memory("4:memory:/x\n"), -1);
    put("mnt/memory/x/memory.limit_in_bytes", "8000\n");
    put("mnt/memory/x/memory.stat", "cache 1\ntotal_active_file 100\ntotal_inactive_file 200\n");
    assert_int_equal(memory("4:memory:/x\n"), 7300);
    assert_int_equal(cpus("4:memory:/x\n"), 0);
}

static void memory_of_this_process(void **state) {
    (void)state;
    enum { bytes = 48 << 20 };
    const int64_t before = mm_memory_peak();
    assert_true(before > 100 << 10);
    assert_true(mm_memory_available() > 1 << 20);
    volatile char *p = malloc(bytes);
    assert_non_null(p);
    for (int i = 0; i < bytes; i += 1024) {
        p[i] = 1;
    }
    // The kernel keeps the count a thread at a time, a few pages late.
    assert_true(mm_memory_peak() >= before + bytes - (8 << 20));
    free((void *)p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(limits_of_cpus, begin, end),
        cmocka_unit_test_setup_teardown(limits_of_memory, begin, end),
        cmocka_unit_test(memory_of_this_process),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
