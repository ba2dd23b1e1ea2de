// Owns: the wire format (varints, lengths, fixed numbers). Groups, which proto2 deprecated, are
// treated as damage: SentencePiece never wrote them.
#include "io/protobuf.h"

#include <string.h>

struct mm_pb mm_pb_over(const void *data, size_t n) {
    return (struct mm_pb){data, n, 0, false};
}

static bool varint(struct mm_pb *p, uint64_t *value) {
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        if (p->at == p->n) return false;
        const unsigned char c = p->data[p->at++];
        v |= (uint64_t)(c & 0x7F) << shift;
        if (c < 0x80) {
            *value = v;
            return true;
        }
    }
    return false;  // more than ten bytes
}

static bool fixed(struct mm_pb *p, size_t n_bytes, uint64_t *value) {
    if (p->n - p->at < n_bytes) return false;
    uint64_t v = 0;
    for (size_t i = 0; i < n_bytes; i++) {
        v |= (uint64_t)p->data[p->at + i] << (8 * i);
    }
    p->at += n_bytes;
    *value = v;
    return true;
}

static bool read_field(struct mm_pb *p, struct mm_pb_field *f) {
    uint64_t tag, len;
    if (!varint(p, &tag) || (tag >> 3) == 0 || (tag >> 3) > 0x1FFFFFFF) return false;
    *f = (struct mm_pb_field){.number = (uint32_t)(tag >> 3)};
    switch (tag & 7) {
        case mm_pb_kind_varint:
            f->kind = mm_pb_kind_varint;
            return varint(p, &f->value);
        case mm_pb_kind_fixed64:
            f->kind = mm_pb_kind_fixed64;
            return fixed(p, 8, &f->value);
        case mm_pb_kind_fixed32:
            f->kind = mm_pb_kind_fixed32;
            return fixed(p, 4, &f->value);
        case mm_pb_kind_bytes:
            f->kind = mm_pb_kind_bytes;
            if (!varint(p, &len) || len > p->n - p->at) return false;
            f->data = p->data + p->at;
            f->n = (size_t)len;
            p->at += f->n;
            return true;
        default:
            return false;
    }
}

bool mm_pb_next(struct mm_pb *p, struct mm_pb_field *f) {
    if (p->broken || p->at == p->n) return false;
    p->broken = !read_field(p, f);
    return !p->broken;
}

float mm_pb_float(const struct mm_pb_field *f) {
    const uint32_t bits = (uint32_t)f->value;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
