// Names of tensors in the released layout where they differ from those of the list of parameters.
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "model/model.h"

const char *mm_param_released_name(const struct mm_param *p, char out[128]) {
    static const char *const stacks[mm_stack_count] = {
        [mm_stack_vkqgdt] = "wvkqgdt.weight",
        [mm_stack_vkq] = "wvkq.weight",
        [mm_stack_gdt] = "wgdt.weight",
    };
    const char *to = stacks[p->stack];
    if (p->role == mm_role_g_norm) to = "g_norm_swish_gate.weight";
    if (to == NULL) return NULL;
    const char *mixer = strstr(p->name, ".attention.");
    assert(mixer);
    snprintf(out, 128, "%.*s.attention.%s", (int)(mixer - p->name), p->name, to);
    return out;
}
