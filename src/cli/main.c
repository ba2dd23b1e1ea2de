// The table of verbs, and nothing else of theirs: each verb lives in cmd_<verb>.c.
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/suggest.h"
#include "cli/cli.h"

static const struct verb {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
} verbs[] = {
    {"chat", mm_cmd_chat, "talk with a model about pictures"},
    {"inspect", mm_cmd_inspect, "a model's blocks, sizes, and what it will take in memory"},
    {"train", mm_cmd_train, "train a model on conversations about pictures"},
    {"carve", mm_cmd_carve, "cut the Mamba-2 student out of a teacher, as it starts"},
    {"distill", mm_cmd_distill, "turn a Transformer into a Mamba-2 model, in three stages"},
    {"export", mm_cmd_export, "write a run's model in the released layout"},
    {"quantize", mm_cmd_quantize, "round a model's weights to 8 or 4 bits, and tell what it costs"},
    {"eval", mm_cmd_eval, "put a benchmark's questions to a model, and score what it said"},
    {"bench", mm_cmd_bench, "how fast, how large, and how close to what the machine can do"},
    {"probe", mm_cmd_probe, "hold single parts of this program against another one, in numbers"},
};
enum { n_verbs = sizeof verbs / sizeof verbs[0] };

static int help(void) {
    printf(
        "usage: mmamba VERB [OPTION]...\n\n"
        "Carves a Mamba-2 vision-language model out of a trained Transformer, distils it,\n"
        "measures it, and talks with it.\n\n");
    for (int i = 0; i < n_verbs; i++) {
        printf("  %-10s %s\n", verbs[i].name, verbs[i].summary);
    }
    printf(
        "\n'mmamba VERB --help' lists a verb's options; 'mmamba --version' prints the version.\n");
    return 0;
}

static int unknown(const char *name) {
    struct mm_suggest best = mm_suggest_begin(name, strlen(name));
    for (int i = 0; i < n_verbs; i++) {
        mm_suggest_try(&best, verbs[i].name, strlen(verbs[i].name));
    }
    struct mm_error err;
    if (best.name) {
        mm_fail(&err, mm_code_usage, "there is no verb '%s'; did you mean '%s'?", name, best.name);
    } else {
        mm_fail(&err, mm_code_usage, "there is no verb '%s'; --help lists the verbs", name);
    }
    return mm_cli_exit(&err);
}

// For verbs that save nothing when they are interrupted. Those that do call mm_interrupt_catch,
// which takes this one's place.
static void leave(int number) {
    (void)number;
    _exit(130);
}

// What was printed may still be in the buffer, and the disk full.
static int flushed(int status) {
    if (fflush(stdout) == 0 && !ferror(stdout)) return status;
    struct mm_error err;
    mm_fail_errno(&err, "cannot write to standard output");
    return status != 0 ? status : mm_cli_exit(&err);
}

static int run(int argc, char **argv) {
    if (argc < 2) {
        struct mm_error err;
        mm_fail(&err, mm_code_usage, "a verb is missing; --help lists the verbs");
        return mm_cli_exit(&err);
    }
    const char *name = argv[1];
    if (!strcmp(name, "--help") || !strcmp(name, "-h") || !strcmp(name, "help")) return help();
    if (!strcmp(name, "--version")) {
        printf("mmamba %s\n", MMAMBA_VERSION);
        return 0;
    }
    for (int i = 0; i < n_verbs; i++) {
        if (!strcmp(name, verbs[i].name)) return verbs[i].run(argc - 2, argv + 2);
    }
    return unknown(name);
}

int main(int argc, char **argv) {
    // A file size limit is a write that fails with a sentence, not a signal that kills.
    signal(SIGXFSZ, SIG_IGN);
    signal(SIGINT, leave);
    return flushed(run(argc, argv));
}
