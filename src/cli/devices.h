// What this machine can compute on, and how many sequences of a model fit there.
#ifndef MM_CLI_DEVICES_H
#define MM_CLI_DEVICES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "cli/inspect.h"

enum { mm_devices_max = 65 };

struct mm_device {
    char backend[16];  // as --backend takes it: "cpu", "cuda:0"
    char name[128];
    int64_t bytes, free_bytes;  // of its memory
    int units;                  // threads, or multiprocessors
    char capability[16];        // of a GPU, "9.0"
};
struct mm_devices {
    struct mm_device at[mm_devices_max];  // the CPU first
    int n;
    struct mm_error no_gpu;  // why there is none; mm_code_ok where there are
};

enum mm_code mm_devices_find(struct mm_devices *d, struct mm_error *err);
// Sequences of x->tokens tokens whose weights, states and caches the memory has room for, -1: not
// even the weights. What reading a prompt works in is not counted.
int64_t mm_device_sequences(const struct mm_device *d, const struct mm_inspection *x);
// x NULL: no model was named.
void mm_devices_print(const struct mm_devices *d, const struct mm_inspection *x);
void mm_devices_print_json(const struct mm_devices *d, const struct mm_inspection *x);

#endif
