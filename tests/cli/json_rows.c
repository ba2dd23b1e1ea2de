// Numbers and words out of a JSON file, for scripts: json_rows FILE PATH KEY... prints a line for
// each element of the array at PATH (or for the one object there), its KEYs separated by tabs. PATH
// "." is the whole; a KEY may go deeper, "ceilings.read_GBps". What is not there is '-'.
#include <jansson.h>
#include <stdio.h>
#include <string.h>

static const json_t *at(const json_t *o, const char *path) {
    while (o && *path && strcmp(path, ".") != 0) {
        const size_t n = strcspn(path, ".");
        char key[128];
        if (n >= sizeof key) return NULL;
        memcpy(key, path, n);
        key[n] = '\0';
        o = json_object_get(o, key);
        path += path[n] == '.' ? n + 1 : n;
    }
    return o;
}

static void print(const json_t *v) {
    if (json_is_string(v)) {
        printf("%s", json_string_value(v));
    } else if (json_is_integer(v)) {
        printf("%" JSON_INTEGER_FORMAT, json_integer_value(v));
    } else if (json_is_real(v)) {
        printf("%.6g", json_real_value(v));
    } else if (json_is_boolean(v)) {
        printf("%s", json_is_true(v) ? "true" : "false");
    } else {
        printf("-");
    }
}

static void print_row(const json_t *o, char **keys, int n) {
    for (int i = 0; i < n; i++) {
        if (i > 0) printf("\t");
        print(at(o, keys[i]));
    }
    printf("\n");
}

int main(int argc, char **argv) {
    json_error_t e;
    if (argc < 4) {
        fprintf(stderr, "usage: json_rows FILE PATH KEY...\n");
        return 2;
    }
    json_t *root = json_load_file(argv[1], 0, &e);
    if (!root) {
        fprintf(stderr, "%s: line %d: %s\n", argv[1], e.line, e.text);
        return 1;
    }
    const json_t *found = at(root, argv[2]);
    if (json_is_array(found)) {
        for (size_t i = 0; i < json_array_size(found); i++)
            print_row(json_array_get(found, i), argv + 3, argc - 3);
    } else if (found) {
        print_row(found, argv + 3, argc - 3);
    }
    json_decref(root);
    return 0;
}
