// One line of jsonl through the reading of samples. Pictures are not files here: a path that ends
// in a digit is a picture of a size drawn from its text, every other path is missing. What comes
// out must be consistent.
#include <stdlib.h>
#include <string.h>

#include "train/sample.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static enum mm_code fake_picture(struct mm_image *im, const char *path, struct mm_error *err) {
    const size_t n = strlen(path);
    if (n < 3 || path[n - 1] < '0' || path[n - 1] > '9') {
        return mm_fail(err, mm_code_io, "%s: no such file", path);
    }
    *im = (struct mm_image){.width = 1 + (unsigned char)path[n - 2] % 64,
                            .height = 1 + (unsigned char)path[n - 3] % 64};
    im->rgb = mm_xcalloc((size_t)im->width * (size_t)im->height, 3);
    return mm_code_ok;
}

static struct mm_tokenizer *tokenizer;
static struct mm_sample_env env;
static struct mm_sample sample;  // kept over inputs, as a loader keeps it

static void setup(void) {
    const char *folder = getenv("MMAMBA_FUZZ_TOKENIZER");
    if (!folder) folder = "tests/golden/tokenizer";
    const struct mm_data_options o = {.image_size = 14,
                                      .tokens_per_tile = 4,
                                      .min_tiles = 1,
                                      .max_tiles = 12,
                                      .dynamic_tiling = true,
                                      .thumbnail = true,
                                      .max_length = 300,
                                      .micro_batch = 1,
                                      .system = "s"};
    struct mm_error err;
    if (mm_tokenizer_open(&tokenizer, folder, &err) != mm_code_ok ||
        mm_sample_env_init(&env, tokenizer, folder, &o, &err) != mm_code_ok) {
        abort();  // run from the repository's root
    }
    env.picture = fake_picture;
}

static void must(bool ok) {
    if (!ok) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!tokenizer) setup();
    const struct mm_sample_source source = {
        .root = "/missing", .max_tiles = 6, .augment = size % 8 == 0};
    struct mm_error err = {0};
    const enum mm_code code = mm_sample_read(&sample, &env, &source, mm_rng_make(1, size),
                                             (const char *)data, size, &err);
    if (code != mm_code_ok) {
        must(err.text[0] != 0 && strlen(err.text) < sizeof err.text);
        return 0;
    }
    const int64_t n = sample.ids.n;
    must(n >= env.opening.n && n <= env.options.max_length && sample.learn.len == (size_t)n);
    int64_t n_context = 0, depth = 0;
    for (int64_t i = 0; i < n; i++) {
        const int32_t id = sample.ids.data[i];
        must(id >= 0 && id < mm_tokenizer_size(tokenizer));
        depth += (id == env.special.img) - (id == env.special.img_end);
        must(depth == 0 || depth == 1);
        n_context += id == env.special.img_context;
        must(id != env.special.img_context || depth == 1);
        if (sample.learn.data[i]) must(depth == 0 && i > env.opening.n);
    }
    must(depth == 0 && n_context == (int64_t)sample.n_tiles * env.options.tokens_per_tile);
    uint32_t sum = 0;
    for (size_t i = 0; i < (size_t)sample.n_tiles * 14 * 14 * 3; i++)
        sum += sample.tiles[i];
    must(sum != 1);  // so that the bytes are read
    return 0;
}
