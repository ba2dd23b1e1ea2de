// Stands in for libFuzzer in the ordinary build: gives every file of a corpus folder to the same
// LLVMFuzzerTestOneInput, so that what fuzzing once found stays found. Prints nothing but the
// count; a crash or a hang names the file.
#include <dirent.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const char *current = "the empty input";

static void on_death(int number) {
    static const char text[] = "\nreplay: died on ";
    // Only what a signal handler may call.
    if (write(2, text, sizeof text - 1) < 0 || write(2, current, strlen(current)) < 0 ||
        write(2, "\n", 1) < 0) {
        _exit(2);
    }
    signal(number, SIG_DFL);
    raise(number);
}

static void give(const uint8_t *data, size_t n) {
    // A copy of the exact size: a read past the end is seen by the sanitizers.
    uint8_t *copy = malloc(n ? n : 1);
    if (!copy) abort();
    if (n) memcpy(copy, data, n);
    alarm(20);
    LLVMFuzzerTestOneInput(copy, n);
    alarm(0);
    free(copy);
}

static void give_file(const char *path) {
    FILE *f = fopen(path, "rb");
    if (!f) {
        perror(path);
        exit(1);
    }
    uint8_t *data = NULL;
    size_t n = 0, cap = 0;
    for (;;) {
        if (n == cap) {
            cap = cap ? 2 * cap : 65536;
            data = realloc(data, cap);
            if (!data) abort();
        }
        const size_t got = fread(data + n, 1, cap - n, f);
        if (got == 0) break;
        n += got;
    }
    fclose(f);
    current = path;
    give(data, n);
    free(data);
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: %s CORPUS-FOLDER\n", argv[0]);
        return 2;
    }
    signal(SIGALRM, on_death);
#ifndef __SANITIZE_ADDRESS__  // ASan's own report says more
    signal(SIGSEGV, on_death);
    signal(SIGBUS, on_death);
    signal(SIGFPE, on_death);
#endif
    signal(SIGABRT, on_death);
    give((const uint8_t *)"", 0);
    struct dirent **entries;
    const int n = scandir(argv[1], &entries, NULL, alphasort);
    if (n < 0) {
        perror(argv[1]);
        return 1;
    }
    int n_files = 0;
    for (int i = 0; i < n; i++) {
        if (entries[i]->d_name[0] != '.') {
            char path[4096];
            snprintf(path, sizeof path, "%s/%s", argv[1], entries[i]->d_name);
            give_file(path);
            n_files++;
        }
        free(entries[i]);
    }
    free(entries);
    if (n_files == 0) {
        fprintf(stderr, "%s: no inputs; a corpus of nothing proves nothing\n", argv[1]);
        return 1;
    }
    printf("%d inputs\n", n_files);
    return 0;
}
