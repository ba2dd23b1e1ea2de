// A model rounded to q8 or q4 in memory: what `quantize` would write, without the files.
#ifndef MM_BENCH_ROUND_H
#define MM_BENCH_ROUND_H

#include "model/model.h"

// *to owns all its memory; `from` is not quantized, and may go afterwards.
enum mm_code mm_bench_round_model(struct mm_model *to, const struct mm_model *from,
                                  enum mm_dtype quant, struct mm_error *err);

#endif
