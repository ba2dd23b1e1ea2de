// The data sets of a meta JSON: where each line of each jsonl begins, and how an epoch's sample
// numbers map to lines.
#ifndef MM_TRAIN_DATA_INDEX_H
#define MM_TRAIN_DATA_INDEX_H

#include "base/buf.h"
#include "train/sample.h"

struct mm_data_set {
    char *name;  // its key in the meta JSON
    char *path;  // of the jsonl, as opened
    char *root;  // of its pictures
    struct mm_sample_source source;
    int fd;           // of the jsonl; read by position, so threads may share it
    int64_t *offset;  // (n_lines + 1), where each line that is not blank begins; then the size
    int64_t n_lines, cap;
    int64_t n_blank;  // blank lines, which have no number here
    int64_t n_used;   // lines taken: the first n_lines * repeat_time where that is less than 1
    int64_t repeat;   // times each is taken in an epoch
    int64_t first;    // its first sample's number; sample first + r * n_used + l is line l
    uint8_t *warned;  // (n_used) bits: this line has been complained about
};

struct mm_data_index {
    char *meta_path;
    struct mm_data_set *sets;
    int32_t n_sets;
    int64_t n_samples;  // of an epoch
    uint8_t hash[16];
    size_t bytes;  // memory held
};

enum mm_code mm_data_index_open(struct mm_data_index *index, const char *meta_path,
                                const struct mm_data_options *options, struct mm_error *err);
void mm_data_index_close(struct mm_data_index *index);

// Sample number -> its data set and line (counted from 0, blank lines left out).
struct mm_data_set *mm_data_index_find(const struct mm_data_index *index, int64_t sample,
                                       int64_t *line);
enum mm_code mm_data_set_read(const struct mm_data_set *set, int64_t line, struct mm_buf *out,
                              struct mm_error *err);
// The line's number in the file, from 1, as an editor counts; 0 when the file cannot be read.
int64_t mm_data_set_line_number(const struct mm_data_set *set, int64_t line);

#endif
