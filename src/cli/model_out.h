// A model folder that `carve` and `export` write: it appears whole, or nothing changes.
#ifndef MM_CLI_MODEL_OUT_H
#define MM_CLI_MODEL_OUT_H

#include <stdbool.h>
#include "base/status.h"

struct mm_model_out {
    char *folder;  // where the model goes
    char *stage;   // folder/.partial-PID: where it is written first
    bool made;     // the folder did not exist before
};

// Refuses a folder that is `source` itself (a path as mm_model_load takes it).
enum mm_code mm_model_out_begin(struct mm_model_out *o, const char *folder, const char *source,
                                struct mm_error *err);
// With code mm_code_ok moves the files from the stage to the folder and removes the weights of a
// model that was there before; otherwise removes the stage, and the folder if it is new. Returns
// the first code that is not ok.
enum mm_code mm_model_out_end(struct mm_model_out *o, enum mm_code code, struct mm_error *err);

#endif
