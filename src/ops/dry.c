#include "ops/dry.h"

static void skip_upload(struct mm_backend *be, void *dst, const void *host, size_t bytes) {
    (void)be, (void)dst, (void)host, (void)bytes;
}
static void skip_download(struct mm_backend *be, void *host, const void *src, size_t bytes) {
    (void)be, (void)host, (void)src, (void)bytes;
}
static enum mm_code skip_sync(struct mm_backend *be, struct mm_error *err) {
    (void)be, (void)err;
    return mm_code_ok;
}

void mm_backend_dry(struct mm_backend *dry, const struct mm_backend *be) {
    *dry = *be;
    // an error is sticky and makes every operation return at once
    mm_fail(&dry->error, mm_code_unsupported, "a dry backend computes nothing");
    dry->upload = skip_upload;
    dry->download = skip_download;
    dry->move = skip_upload;
    dry->sync = skip_sync;
}

bool mm_backend_is_dry(const struct mm_backend *be) {
    return be->sync == skip_sync;
}
