// The picture of a run: loss against step, one panel a stage.
#ifndef MM_TRAIN_PLOT_H
#define MM_TRAIN_PLOT_H

#include "base/status.h"

// Draws log.jsonl (a line a step: "stage", "step", "loss", "lr") into a PNG; atomic. Lines that are
// no such thing are passed over with one warning. mm_code_input where not one line can be drawn.
enum mm_code mm_plot_loss(const char *log_path, const char *png_path, struct mm_error *err);

#endif
