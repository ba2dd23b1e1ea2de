// Reads the wire format of protocol buffers, field by field, out of memory.
#ifndef MM_IO_PROTOBUF_H
#define MM_IO_PROTOBUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mm_pb {
    const unsigned char *data;
    size_t n, at;
    bool broken;  // cut short, or a field no version of the format has
};

enum mm_pb_kind {
    mm_pb_kind_varint = 0,
    mm_pb_kind_fixed64 = 1,
    mm_pb_kind_bytes = 2,
    mm_pb_kind_fixed32 = 5,
};

struct mm_pb_field {
    uint32_t number;
    enum mm_pb_kind kind;
    uint64_t value;             // varint and fixed
    const unsigned char *data;  // bytes
    size_t n;
};

struct mm_pb mm_pb_over(const void *data, size_t n);
bool mm_pb_next(struct mm_pb *p, struct mm_pb_field *f);  // false at the end, or when broken
float mm_pb_float(const struct mm_pb_field *f);           // of a fixed32

#endif
