// The verb `probe`: which of its kinds was asked for.
#include <stdio.h>
#include <string.h>
#include "base/suggest.h"
#include "cli/cli.h"

static const struct probe {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
} probes[] = {
    {"tiles", mm_cmd_probe_tiles, "a picture's tiles as they enter normalisation"},
    {"tokens", mm_cmd_probe_tokens, "the ids of a text, or the text of ids"},
    {"forward", mm_cmd_probe_forward, "logits and every block's output, in f32"},
    {"grad", mm_cmd_probe_grad, "a stage's loss and gradients, in f32"},
    {NULL, NULL, NULL},
};

static void help(void) {
    printf(
        "usage: mmamba probe KIND [OPTION]...\n\n"
        "Computes one part of this program on given input and writes it out, so that anybody\n"
        "can hold it against another program, number by number.\n\n");
    for (const struct probe *p = probes; p->name; p++) {
        printf("  %-10s %s\n", p->name, p->summary);
    }
}

int mm_cmd_probe(int argc, char **argv) {
    struct mm_error err;
    if (argc < 1) {
        mm_fail(&err, mm_code_usage, "probe: a kind is missing; --help lists them");
        return mm_cli_exit(&err);
    }
    if (!strcmp(argv[0], "--help") || !strcmp(argv[0], "-h")) {
        help();
        return 0;
    }
    struct mm_suggest best = mm_suggest_begin(argv[0], strlen(argv[0]));
    for (const struct probe *p = probes; p->name; p++) {
        if (!strcmp(argv[0], p->name)) return p->run(argc - 1, argv + 1);
        mm_suggest_try(&best, p->name, strlen(p->name));
    }
    if (best.name) {
        mm_fail(&err, mm_code_usage, "there is no probe '%s'; did you mean '%s'?", argv[0],
                best.name);
    } else {
        mm_fail(&err, mm_code_usage, "there is no probe '%s'; 'mmamba probe --help' lists them",
                argv[0]);
    }
    return mm_cli_exit(&err);
}
