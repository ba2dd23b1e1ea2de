// data_augment of InternVL: a tile is compressed as JPEG (4:2:0) at a random quality and read
// back, so that a model does not learn to trust single pixels.
#ifndef MM_TRAIN_DEGRADE_H
#define MM_TRAIN_DEGRADE_H

#include <stdint.h>
#include "base/rng.h"
#include "base/status.h"

// tiles (n, size, size, 3) in place; the quality of each is 75..100, drawn from rng in order.
enum mm_code mm_degrade_tiles(uint8_t *tiles, int32_t n, int32_t size, struct mm_rng *rng,
                              struct mm_error *err);

#endif
