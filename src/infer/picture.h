// A picture on its way into a session. Its number of tiles is known from the header alone; it is
// decoded and cut when its tokens are read, and forgotten after.
#ifndef MM_INFER_PICTURE_H
#define MM_INFER_PICTURE_H

#include "base/buf.h"
#include "io/image.h"

// Given by the caller: exactly one of path, bytes and tiles.
struct mm_picture {
    const char *path;   // a file
    const void *bytes;  // JPEG, PNG or WebP; copied
    size_t n_bytes;
    struct mm_tiles *tiles;  // cut by the caller; taken over and left empty when the call succeeds
    const char *name;        // for messages; NULL: the path, or "picture"
};

struct mm_queued_picture {
    char *name;
    struct mm_buf bytes;    // encoded, until it is cut
    struct mm_tiles tiles;  // rgb NULL until its first tile is read
    int32_t n_tiles, n_read;
};

struct mm_tile_rule {
    int32_t size, min_tiles, max_tiles;
    bool thumbnail;
};

enum mm_code mm_queued_picture_init(struct mm_queued_picture *q, const struct mm_picture *p,
                                    const struct mm_tile_rule *rule, struct mm_error *err);
// Moves tiles over from p->tiles; after this the caller's struct is empty.
void mm_queued_picture_take(struct mm_queued_picture *q, const struct mm_picture *p);
void mm_queued_picture_copy(struct mm_queued_picture *to, const struct mm_queued_picture *from);
void mm_queued_picture_deinit(struct mm_queued_picture *q);
// The next n tiles as (n, 3, S, S) normalised; decodes and cuts on the first call.
enum mm_code mm_queued_picture_read(struct mm_queued_picture *q, const struct mm_tile_rule *rule,
                                    int32_t n, float *pixels, struct mm_error *err);

#endif
