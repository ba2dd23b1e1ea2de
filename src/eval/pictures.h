// The pictures of a data set: base64 in the table's cells, linked from other rows, lists of them;
// or files by their paths.
#ifndef MM_EVAL_PICTURES_H
#define MM_EVAL_PICTURES_H

#include <xxhash.h>
#include "eval/names.h"
#include "eval/pylist.h"
#include "eval/questions.h"
#include "io/image.h"

struct mm_pictures {
    const struct mm_questions *questions;
    char *folder;            // where relative paths start
    struct mm_tsv_row row;   // apart from that of the questions
    struct mm_names rows;    // index of every row that has a picture
    int64_t *row_of;         // (rows.n)
    XXH128_hash_t *payload;  // (rows.n) of the image cell
    int64_t cap;
    struct mm_pylist list;
    struct mm_buf bytes;
};

enum { mm_link_max = 64 };  // an image cell of at most so many characters names another row

// Checks every link before anything is asked. `folder`: NULL for the data's own.
enum mm_code mm_pictures_open(struct mm_pictures *p, const struct mm_questions *questions,
                              const char *folder, struct mm_error *err);
void mm_pictures_close(struct mm_pictures *p);
// Whether pictures are files (then `folder` is of use).
bool mm_pictures_are_files(const struct mm_questions *questions);

// What the question read last shows: equal keys, equal pictures. Overwrites *key.
enum mm_code mm_pictures_key(struct mm_pictures *p, struct mm_buf *key, struct mm_error *err);

enum { mm_pictures_max = 64 };  // of one question
// Its pictures as files, *n of them (mm_buf_free each), for those who show them. As below.
enum mm_code mm_pictures_bytes(struct mm_pictures *p, struct mm_buf bytes[mm_pictures_max], int *n,
                               struct mm_error *err);
// Its pictures, *n of them (mm_image_free each). mm_code_input or mm_code_io when one is not there
// or is no picture: then *n is 0.
enum mm_code mm_pictures_load(struct mm_pictures *p, struct mm_image image[mm_pictures_max], int *n,
                              struct mm_error *err);

#endif
