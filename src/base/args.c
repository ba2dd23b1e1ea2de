// Parsing a verb's options. Numbers are converted and checked here, so that the verbs only read.
#include "base/args.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/buf.h"
#include "base/suggest.h"

struct value {
    const char *text;  // borrowed from argv or the table
    int64_t i;
    double f;
};

struct slot {  // what one option of the table got
    struct value *values;
    int n;     // times given
    bool has;  // values[0] exists: given, or a default
};

struct mm_args {
    const struct mm_opt *opts;
    struct slot *slots;  // one an option
    const char **positional;
    int n_positional;
};

// Whether `text` (n bytes) is one of the names in "--image,-i".
static bool has_name(const struct mm_opt *o, const char *text, size_t n) {
    for (const char *s = o->name; s;) {
        const size_t len = strcspn(s, ",");
        if (len == n && !memcmp(s, text, n)) return true;
        s = s[len] ? s + len + 1 : NULL;
    }
    return false;
}

static int find_opt(const struct mm_opt *opts, const char *text, size_t n) {
    for (int i = 0; opts[i].name; i++) {
        if (has_name(&opts[i], text, n)) return i;
    }
    return -1;
}

// The long name, for messages and help; the caller prints it with %.*s.
static int long_name(const struct mm_opt *o) {
    return (int)strcspn(o->name, ",");
}

static enum mm_code parse_int(const struct mm_opt *o, struct value *v, struct mm_error *err) {
    char *end;
    errno = 0;
    const long long i = strtoll(v->text, &end, 10);
    if (end == v->text || *end || errno == ERANGE) {
        return mm_fail(err, mm_code_usage, "%.*s is '%s', must be a whole number", long_name(o),
                       o->name, v->text);
    }
    if ((o->min != 0 || o->max != 0) && ((double)i < o->min || (double)i > o->max)) {
        return mm_fail(err, mm_code_usage, "%.*s is %lld, must be %.15g to %.15g", long_name(o),
                       o->name, i, o->min, o->max);
    }
    v->i = i;
    return mm_code_ok;
}

static enum mm_code parse_float(const struct mm_opt *o, struct value *v, struct mm_error *err) {
    char *end;
    const double f = strtod(v->text, &end);
    if (end == v->text || *end || !isfinite(f)) {
        return mm_fail(err, mm_code_usage, "%.*s is '%s', must be a number", long_name(o), o->name,
                       v->text);
    }
    if ((o->min != 0 || o->max != 0) && (f < o->min || f > o->max)) {
        return mm_fail(err, mm_code_usage, "%.*s is %s, must be %.15g to %.15g", long_name(o),
                       o->name, v->text, o->min, o->max);
    }
    v->f = f;
    return mm_code_ok;
}

static enum mm_code convert(const struct mm_opt *o, struct value *v, struct mm_error *err) {
    switch (o->kind) {
        case mm_opt_kind_int:
            return parse_int(o, v, err);
        case mm_opt_kind_float:
            return parse_float(o, v, err);
        case mm_opt_kind_flag:
        case mm_opt_kind_string:
            break;
    }
    return mm_code_ok;
}

static enum mm_code add_value(const struct mm_opt *o, struct slot *s, const char *text,
                              struct mm_error *err) {
    if (s->n > 0 && !o->repeat) {
        return mm_fail(err, mm_code_usage, "%.*s is given twice", long_name(o), o->name);
    }
    struct value v = {.text = text};
    MM_TRY(convert(o, &v, err));
    s->values = mm_xrealloc(s->values, ((size_t)s->n + 1) * sizeof *s->values);
    s->values[s->n++] = v;
    s->has = true;
    return mm_code_ok;
}

static enum mm_code fail_unknown(const struct mm_opt *opts, const char *arg, size_t n,
                                 struct mm_error *err) {
    struct mm_suggest best = mm_suggest_begin(arg, n);
    for (int i = 0; opts[i].name; i++) {
        mm_suggest_try(&best, opts[i].name, (size_t)long_name(&opts[i]));
    }
    if (best.name) {
        return mm_fail(err, mm_code_usage, "unknown option %.*s; did you mean %.*s?", (int)n, arg,
                       (int)best.name_len, best.name);
    }
    return mm_fail(err, mm_code_usage, "unknown option %.*s; --help lists the options", (int)n,
                   arg);
}

// One argument that begins with '-'. *i moves past a value taken from the next argument.
static enum mm_code parse_option(struct mm_args *a, int argc, char **argv, int *i,
                                 struct mm_error *err) {
    const char *arg = argv[*i];
    const size_t n = strcspn(arg, "=");
    const int k = find_opt(a->opts, arg, n);
    if (k < 0) return fail_unknown(a->opts, arg, n, err);
    const struct mm_opt *o = &a->opts[k];
    if (o->kind == mm_opt_kind_flag) {
        if (arg[n]) {
            return mm_fail(err, mm_code_usage, "%.*s takes no value", long_name(o), o->name);
        }
        return add_value(o, &a->slots[k], "", err);
    }
    if (arg[n]) return add_value(o, &a->slots[k], arg + n + 1, err);
    // The next argument is the value, unless it is plainly another option: then one was forgotten.
    const char *next = *i + 1 < argc ? argv[*i + 1] : NULL;
    if (!next || !strcmp(next, "--") ||
        (next[0] == '-' && find_opt(a->opts, next, strcspn(next, "=")) >= 0)) {
        return mm_fail(err, mm_code_usage, "%.*s wants a value: %s", long_name(o), o->name,
                       o->value_name ? o->value_name : "VALUE");
    }
    (*i)++;
    return add_value(o, &a->slots[k], next, err);
}

static bool asks_help(int argc, char **argv) {
    for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) return true;
    }
    return false;
}

static struct mm_args *new_args(const struct mm_opt *opts, int argc) {
    int n_opts = 0;
    while (opts[n_opts].name) {
        n_opts++;
    }
    struct mm_args *a = mm_xcalloc(1, sizeof *a);
    a->opts = opts;
    a->slots = mm_xcalloc((size_t)n_opts, sizeof *a->slots);
    a->positional = mm_xcalloc((size_t)argc + 1, sizeof *a->positional);
    for (int i = 0; i < n_opts; i++) {
        const struct mm_opt *o = &opts[i];
        assert(!o->repeat || o->kind == mm_opt_kind_string);
        if (!o->fallback) continue;
        struct slot *s = &a->slots[i];
        s->values = mm_xcalloc(1, sizeof *s->values);
        s->values[0].text = o->fallback;
        s->has = true;
        struct mm_error bug;
        const enum mm_code code = convert(o, &s->values[0], &bug);
        assert(code == mm_code_ok && "a default does not pass its own check");
        (void)code;
    }
    return a;
}

enum mm_code mm_args_parse(struct mm_args **args, const struct mm_opt *opts, int argc, char **argv,
                           bool *help, struct mm_error *err) {
    *args = NULL;
    *help = asks_help(argc, argv);
    if (*help) return mm_code_ok;
    struct mm_args *a = new_args(opts, argc);
    bool only_positional = false;
    for (int i = 0; i < argc; i++) {
        const char *arg = argv[i];
        if (only_positional || arg[0] != '-' || !arg[1]) {
            a->positional[a->n_positional++] = arg;
        } else if (!strcmp(arg, "--")) {
            only_positional = true;
        } else {
            const enum mm_code code = parse_option(a, argc, argv, &i, err);
            if (code != mm_code_ok) {
                mm_args_free(a);
                return code;
            }
        }
    }
    *args = a;
    return mm_code_ok;
}

void mm_args_free(struct mm_args *a) {
    if (!a) return;
    for (int i = 0; a->opts[i].name; i++) {
        free(a->slots[i].values);
    }
    free(a->slots);
    free(a->positional);
    free(a);
}

// The slot of an option by any of its names; asking for one that is not in the table is a bug.
static const struct slot *slot_of(const struct mm_args *a, const char *name,
                                  const struct mm_opt **o) {
    const int k = find_opt(a->opts, name, strlen(name));
    assert(k >= 0 && "the verb's table has no such option");
    *o = &a->opts[k];
    return &a->slots[k];
}

bool mm_args_given(const struct mm_args *a, const char *name) {
    const struct mm_opt *o;
    return slot_of(a, name, &o)->n > 0;
}

bool mm_args_flag(const struct mm_args *a, const char *name) {
    const struct mm_opt *o;
    const struct slot *s = slot_of(a, name, &o);
    assert(o->kind == mm_opt_kind_flag);
    return s->n > 0;
}

const char *mm_args_string(const struct mm_args *a, const char *name) {
    const struct mm_opt *o;
    const struct slot *s = slot_of(a, name, &o);
    assert(o->kind != mm_opt_kind_flag);
    return s->has ? s->values[0].text : NULL;
}

int64_t mm_args_int(const struct mm_args *a, const char *name) {
    const struct mm_opt *o;
    const struct slot *s = slot_of(a, name, &o);
    assert(o->kind == mm_opt_kind_int && s->has);
    return s->values[0].i;
}

double mm_args_float(const struct mm_args *a, const char *name) {
    const struct mm_opt *o;
    const struct slot *s = slot_of(a, name, &o);
    assert(o->kind == mm_opt_kind_float && s->has);
    return s->values[0].f;
}

int mm_args_count(const struct mm_args *a, const char *name) {
    const struct mm_opt *o;
    return slot_of(a, name, &o)->n;
}

const char *mm_args_nth(const struct mm_args *a, const char *name, int i) {
    const struct mm_opt *o;
    const struct slot *s = slot_of(a, name, &o);
    assert(i >= 0 && i < s->n);
    return s->values[i].text;
}

int mm_args_n_positional(const struct mm_args *a) {
    return a->n_positional;
}

const char *mm_args_positional(const struct mm_args *a, int i) {
    return i >= 0 && i < a->n_positional ? a->positional[i] : NULL;
}

enum mm_code mm_args_refuse(const struct mm_args *a, const char *name, const char *why,
                            struct mm_error *err) {
    if (!mm_args_given(a, name)) return mm_code_ok;
    return mm_fail(err, mm_code_usage, "%s has no effect here: %s", name, why);
}

// Text broken at spaces so that no line passes column 90; all lines start at `column`.
static void print_wrapped(const char *text, int column) {
    enum { right = 90 };
    int at = column;
    while (*text) {
        const int n = (int)strcspn(text, " ");
        if (at > column && at + 1 + n > right) {
            printf("\n%*s", column, "");
            at = column;
        } else if (at > column) {
            putchar(' ');
            at++;
        }
        printf("%.*s", n, text);
        at += n;
        text += n;
        while (*text == ' ') {
            text++;
        }
    }
    putchar('\n');
}

void mm_args_print_help(const struct mm_opt *opts, const char *usage, const char *summary) {
    enum { column = 32 };
    printf("usage: %s\n\n", usage);
    print_wrapped(summary, 0);
    printf("\n");
    for (const struct mm_opt *o = opts; o->name; o++) {
        const int n = long_name(o);
        struct mm_buf b = {0};
        if (o->name[n]) {
            mm_buf_addf(&b, "  %s, %.*s", o->name + n + 1, n, o->name);
        } else {
            mm_buf_addf(&b, "      %.*s", n, o->name);
        }
        if (o->kind != mm_opt_kind_flag) {
            mm_buf_addf(&b, " %s", o->value_name ? o->value_name : "VALUE");
        }
        if (o->repeat) mm_buf_adds(&b, " ...");
        printf("%-*s", column, b.data);
        if (b.len >= column) printf("\n%*s", column, "");
        mm_buf_reset(&b);
        mm_buf_adds(&b, o->help ? o->help : "");
        if (o->fallback) mm_buf_addf(&b, " [%s]", o->fallback);
        print_wrapped(b.data, column);
        mm_buf_free(&b);
    }
}
