// Any bytes as config.json: refused with one sentence, or sizes that hold together, and a student
// made of it that reads back as itself.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "io/json.h"
#include "model/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check(int holds) {
    if (!holds) abort();
}

static void check_stack(const struct mm_stack_config *s) {
    check(s->n_blocks > 0 && s->D > 0 && s->H > 0 && s->G > 0 && s->F > 0 && s->K > 1);
    check(s->P * s->H == s->D && s->P % 2 == 0 && s->H % s->G == 0);
    check(s->rms_eps > 0 && s->rope_theta >= 1 && s->rope_factor >= 1 && s->max_positions > 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    struct mm_config c, student, back;
    struct mm_error err = {0};
    if (mm_config_parse(&c, (const char *)data, n, "in", &err) != mm_code_ok) {
        check(!c.json && err.text[0] && !strchr(err.text, '\n'));
        return 0;
    }
    check_stack(&c.embed);
    check_stack(&c.llm);
    check(c.embed.D == c.llm.D && mm_config_blocks(&c) <= mm_max_blocks);
    check(c.image_size % (2 * c.patch) == 0 && mm_config_tile_tokens(&c) > 0);
    check(c.img_context_id >= 0 && c.img_context_id < c.V + c.n_special);
    bool keep[mm_max_blocks];
    for (int i = 0; i < mm_max_blocks; i++)
        keep[i] = i % 3 == 0;
    check(mm_config_student(&student, &c, keep, &err) == mm_code_ok);
    mm_config_set_dtype(&student, "bfloat16");
    char *text = json_dumps(student.json, 0);
    check(text != NULL);
    if (mm_config_parse(&back, text, strlen(text), "out", &err) != mm_code_ok) abort();
    check(json_equal(back.json, student.json));
    check(memcmp(back.mixers, student.mixers, sizeof back.mixers) == 0);
    free(text);
    mm_config_deinit(&back);
    mm_config_deinit(&student);
    mm_config_deinit(&c);
    return 0;
}
