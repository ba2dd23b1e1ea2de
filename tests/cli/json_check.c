// Reads standard input, which must be one JSON object in one piece and nothing else, with the keys
// named as arguments. For tests of --json.
#include <jansson.h>
#include <stdio.h>

int main(int argc, char **argv) {
    json_error_t e;
    json_t *root = json_loadf(stdin, JSON_REJECT_DUPLICATES, &e);  // to the end of the input
    if (!json_is_object(root)) {
        printf("not one JSON object: line %d column %d: %s\n", e.line, e.column, e.text);
        json_decref(root);
        return 1;
    }
    int missing = 0;
    for (int i = 1; i < argc; i++) {
        if (!json_object_get(root, argv[i])) {
            printf("the JSON object has no '%s'\n", argv[i]);
            missing++;
        }
    }
    json_decref(root);
    return missing != 0;
}
