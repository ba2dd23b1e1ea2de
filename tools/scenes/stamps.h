// The second source of things: cut-out photographs with a caption each, such as Debian's
// tuxpaint-stamps-default. Read where installed, never copied.
#ifndef MM_SCENES_STAMPS_H
#define MM_SCENES_STAMPS_H

#include "scenes/things.h"

// Adds every PNG below `folder` whose caption ("An Indian blackbuck.") is a name of one to three
// words that no thing has yet. In the order of the paths, so that it does not depend on the disk.
enum mm_code mm_stamps_add(struct mm_things *w, const char *folder, struct mm_error *err);

#endif
