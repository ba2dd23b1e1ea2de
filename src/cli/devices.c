#include "cli/devices.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "ops/ops.h"

// ---- finding ------------------------------------------------------------------------------------

static enum mm_code add_cpu(struct mm_devices *d, struct mm_error *err) {
    struct mm_backend *be;
    MM_TRY(mm_backend_open_cpu(&be, 0, err));
    struct mm_device *at = &d->at[d->n++];
    snprintf(at->backend, sizeof at->backend, "cpu");
    snprintf(at->name, sizeof at->name, "%s", be->device);
    at->units = mm_pool_size(be->pool);
    at->bytes = at->free_bytes = mm_memory_available();
    mm_backend_close(be);
    return mm_code_ok;
}

// The next field of a line of mm_backend_list_cuda, which ends at a tab or the line's end.
static const char *field(char **at) {
    char *begin = *at, *end = begin + strcspn(begin, "\t\n");
    *at = *end ? end + 1 : end;
    *end = '\0';
    return begin;
}

static void add_gpus(struct mm_devices *d) {
    char lines[16384] = "";
    int count = 0;
    if (mm_backend_list_cuda(lines, sizeof lines, &count, &d->no_gpu)) return;
    if (count == 0) mm_fail(&d->no_gpu, mm_code_unsupported, "the driver lists no NVIDIA GPU");
    char *at = lines;
    for (int i = 0; i < count && d->n < mm_devices_max && *at; i++) {
        struct mm_device *g = &d->at[d->n++];
        snprintf(g->backend, sizeof g->backend, "cuda:%.8s", field(&at));
        snprintf(g->name, sizeof g->name, "%s", field(&at));
        g->bytes = strtoll(field(&at), NULL, 10);
        g->free_bytes = strtoll(field(&at), NULL, 10);
        g->units = (int)strtol(field(&at), NULL, 10);
        snprintf(g->capability, sizeof g->capability, "%s", field(&at));
    }
}

enum mm_code mm_devices_find(struct mm_devices *d, struct mm_error *err) {
    *d = (struct mm_devices){0};
    MM_TRY(add_cpu(d, err));
    add_gpus(d);
    return mm_code_ok;
}

// ---- what fits ----------------------------------------------------------------------------------

static bool is_gpu(const struct mm_device *d) {
    return d->capability[0] != '\0';
}

// Keys and values are bf16 on a GPU where the weights have no more bits (backend->activations).
static int64_t cache_row(const struct mm_device *d, const struct mm_model *m) {
    const int64_t row = (int64_t)mm_model_cache_bytes_per_token(m);
    const bool halves = m->dtype == mm_dtype_bf16 || mm_model_quantized(m);
    return is_gpu(d) && halves ? row / 2 : row;
}

int64_t mm_device_sequences(const struct mm_device *d, const struct mm_inspection *x) {
    const int64_t left = d->free_bytes - (int64_t)x->memory_bytes;
    if (left < 0) return -1;
    const double each = (double)mm_model_state_bytes(&x->model) +
                        (double)cache_row(d, &x->model) * (double)x->tokens;
    return each > 0.0 ? (int64_t)((double)left / each) : 0;
}

static double gib(int64_t bytes) {
    return (double)bytes / 1073741824.0;
}

void mm_devices_print(const struct mm_devices *d, const struct mm_inspection *x) {
    for (int i = 0; i < d->n; i++) {
        const struct mm_device *at = &d->at[i];
        printf("%-8s %s, %.1f GiB of memory free", at->backend, at->name, gib(at->free_bytes));
        if (is_gpu(at)) {
            printf(" of %.1f, %d multiprocessors, compute capability %s\n", gib(at->bytes),
                   at->units, at->capability);
        } else {
            printf("\n");  // the name says how many threads
        }
        if (x == NULL) continue;
        const int64_t n = mm_device_sequences(at, x);
        printf("         %s: weights %.2f GiB ", x->path, gib((int64_t)x->memory_bytes));
        if (n < 0) {
            printf("do not fit\n");
        } else {
            printf(
                "fit, and beside them %lld sequences of %lld tokens, without what a prompt is "
                "read in\n",
                (long long)n, (long long)x->tokens);
        }
    }
    if (d->no_gpu.code) printf("no GPU: %s\n", d->no_gpu.text);
}

void mm_devices_print_json(const struct mm_devices *d, const struct mm_inspection *x) {
    json_t *list = json_array();
    for (int i = 0; i < d->n; i++) {
        const struct mm_device *at = &d->at[i];
        json_t *o =
            json_pack("{s:s, s:s, s:I, s:I, s:i}", "backend", at->backend, "name", at->name,
                      "bytes", (json_int_t)at->bytes, "free_bytes", (json_int_t)at->free_bytes,
                      is_gpu(at) ? "multiprocessors" : "threads", at->units);
        if (is_gpu(at)) {
            json_object_set_new(o, "compute_capability", json_string(at->capability));
        }
        if (x) {
            const int64_t n = mm_device_sequences(at, x);
            json_object_set_new(o, "weights_fit", json_boolean(n >= 0));
            json_object_set_new(o, "sequences", json_integer(n < 0 ? 0 : (json_int_t)n));
        }
        json_array_append_new(list, o);
    }
    json_t *o = json_pack("{s:o}", "devices", list);
    if (d->no_gpu.code) json_object_set_new(o, "no_gpu", json_string(d->no_gpu.text));
    if (x) {
        json_object_set_new(o, "weight_bytes", json_integer((json_int_t)x->memory_bytes));
        json_object_set_new(o, "tokens", json_integer((json_int_t)x->tokens));
    }
    char *text = json_dumps(o, 0);
    puts(text);
    free(text);
    json_decref(o);
}
