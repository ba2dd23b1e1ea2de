// Rows and states of a token step of many sequences (step_many_rows.cuh).
#include "ops/cuda/step_many_rows.cuh"

#include <stdlib.h>
#include <string.h>

#include "ops/cuda/attention_hopper.cuh"

// Where the sequences' states are, as the device was told last: (blocks, n).
struct mm_step_many_states {
    struct mm_many_state *host, *dev;
    size_t bytes;  // of each
    int64_t n;     // sequences of the last step; 0: none was
};

static int64_t most(int64_t a, int64_t b) {
    return a > b ? a : b;
}

static int64_t padded_rows(int64_t n) {
    int64_t p = 16;
    while (p < n)
        p *= 2;
    return p;
}

int64_t mm_many_padded(const struct mm_step *s, bool codes) {
    return padded_rows(codes && s->n_seqs > mm_step_many_codes ? mm_step_many_codes : s->n_seqs);
}

bool mm_many_has_codes(const struct mm_step *s) {
    bool codes = s->output.data && mm_dtype_quantized(s->output.dtype);
    for (int64_t i = 0; i < s->n_blocks; i++)
        codes = codes || mm_dtype_quantized(s->blocks[i].wo.dtype);
    return codes;
}

int mm_many_own_parts(struct mm_backend *be, const struct mm_many_rows *r, struct mm_view w) {
    return r->early ? mm_many_hopper_parts(be, w, r->padded) : 0;
}

static void measure(struct mm_backend *be, struct mm_many_rows *r, const struct mm_step *s,
                    int64_t padded) {
    r->stopped = (const int32_t *)s->stopped.data;
    r->n = s->n_seqs, r->padded = padded;
    r->early = mm_hopper_here(be);
    r->most_z_parts = r->most_gates_parts = 1;
    r->quantized = mm_many_has_codes(s);
    for (int64_t i = 0; i < s->n_blocks; i++) {
        const struct mm_step_block *b = &s->blocks[i];
        r->z_cols = most(r->z_cols, (b->in[0].shape[0] + 7) / 8 * 8);
        r->o_cols = most(r->o_cols, b->H * b->P);
        r->f_cols = most(r->f_cols, b->F);
        r->most_z_parts = (int)most(r->most_z_parts, mm_many_own_parts(be, r, b->in[0]));
        r->x_tiles = mm_many_hopper_tiles(b->wo);
        if (b->in[1].data) {
            r->gates_cols = most(r->gates_cols, (b->in[1].shape[0] + 7) / 8 * 8);
            r->most_gates_parts =
                (int)most(r->most_gates_parts, mm_many_own_parts(be, r, b->in[1]));
        }
        r->most_x_parts = (int)most(r->most_x_parts, mm_many_own_parts(be, r, b->wo));
        r->most_x_parts = (int)most(r->most_x_parts, mm_many_own_parts(be, r, b->w2));
        if (!b->attention) continue;
        for (int64_t t = 0; t < r->n; t++) {
            const int pieces = mm_many_pieces((int)s->seqs[t].past[b->stack] + 1);
            if (pieces > r->pieces[b->stack]) r->pieces[b->stack] = pieces;
        }
    }
    // cuBLASLt writes whole rows of logits, and wants them to begin at multiples of eight
    const bool fit = r->padded == r->n && s->logits.ld % 8 == 0;
    if (s->output.data && !fit && !mm_many_own_parts(be, r, s->output))
        r->logit_cols = (s->output.shape[0] + 7) / 8 * 8;
}

static char *take(char **at, int64_t bytes) {
    char *here = *at;
    *at += (bytes + 255) / 256 * 256;
    return here;
}

// Words of a block's products: of wo and of w2, and of w1 and w3 where their result is to be codes.
static int64_t block_words(const struct mm_many_rows *r) {
    return 2 * r->x_tiles + (r->quantized ? r->f_cols / mm_quant_block : 0);
}
static int64_t met_bytes(const struct mm_many_rows *r, const struct mm_step *s) {
    return s->n_blocks * block_words(r) * (int64_t)sizeof *r->met;
}

static struct mm_many_operand take_operand(char **at, const struct mm_many_rows *r, int64_t cols) {
    struct mm_many_operand o = {};
    o.cols = (int)cols, o.scales_ld = r->padded;
    o.u = (__nv_bfloat16 *)take(at, r->padded * cols * 2);
    if (!r->quantized) return o;
    o.codes = (int8_t *)take(at, r->padded * cols);
    return o;
}

static void take_scales(char **at, const struct mm_many_rows *r, struct mm_many_operand *o) {
    if (!r->quantized) return;
    o->scales = (float *)take(at, mm_quant_blocks(o->cols) * o->scales_ld * (int64_t)sizeof(float));
}

// Lays the rows out from `base` on; returns the bytes they take.
static int64_t lay_out(struct mm_many_rows *r, const struct mm_step *s, char *base) {
    const int64_t n = r->padded, D = mm_view_cols(s->x), f = sizeof(float);
    int64_t parts = 0;
    char *at = base;
    for (int64_t i = 0; i < s->n_blocks; i++) {
        const struct mm_step_block *b = &s->blocks[i];
        if (b->attention) parts = most(parts, r->pieces[b->stack] * b->H * (b->P + 4));
    }
    r->x = (float *)take(&at, n * D * f);
    r->u = take_operand(&at, r, D);
    r->z = (float *)take(&at, r->most_z_parts * n * r->z_cols * f);
    r->gates = (float *)take(&at, r->most_gates_parts * n * r->gates_cols * f);
    r->sums = (float *)take(&at, r->most_x_parts * n * D * f);
    r->ss = (float *)take(&at, n * r->x_tiles * f);
    r->o = take_operand(&at, r, r->o_cols);
    r->a = (float *)take(&at, n * r->f_cols * f);
    r->b = (float *)take(&at, n * r->f_cols * f);
    r->s = take_operand(&at, r, r->f_cols);
    r->met = (unsigned *)take(&at, met_bytes(r, s));
    for (struct mm_many_operand *o : {&r->u, &r->o, &r->s})
        take_scales(&at, r, o);
    r->zeros = at - (char *)r->met;
    r->part = (float *)take(&at, r->n * parts * f);
    r->rope = (float2 *)take(&at, r->n * 2 * mm_many_pairs * (int64_t)sizeof(float2));
    r->at = (struct mm_many_at *)take(&at, r->n * (int64_t)sizeof *r->at);
    r->logits = (float *)take(&at, n * r->logit_cols * f);
    return at - base;
}

static bool room_for_states(struct mm_backend *be, size_t bytes) {
    struct mm_step_many_states *m = mm_cuda_of(be)->many;
    if (bytes <= m->bytes) return true;
    mm_step_many_free(be);
    m = mm_cuda_of(be)->many = (struct mm_step_many_states *)calloc(1, sizeof *m);
    if (m) m->host = (struct mm_many_state *)calloc(1, bytes);
    if (!m || !m->host) return mm_cuda_ok(be, cudaErrorMemoryAllocation, "memory for a token step");
    struct mm_error why = {};
    m->dev = (struct mm_many_state *)mm_cuda_take(be, bytes, "a token step", &why);
    if (!m->dev) {
        if (!be->error.code) be->error = why;
        return false;
    }
    m->bytes = bytes;
    be->scratch_bytes += bytes;
    return true;
}

void mm_step_many_free(struct mm_backend *be) {
    struct mm_step_many_states *m = mm_cuda_of(be)->many;
    mm_cuda_of(be)->many = NULL;
    if (!m) return;
    be->scratch_bytes -= m->bytes;
    mm_cuda_give(be, m->dev, m->bytes);
    free(m->host);
    free(m);
}

// The states, sent where they are others than in the last step.
static bool send_states(struct mm_backend *be, struct mm_many_rows *r, const struct mm_step *s) {
    const size_t bytes = (size_t)(s->n_blocks * r->n) * sizeof(struct mm_many_state);
    if (!room_for_states(be, bytes)) return false;
    struct mm_step_many_states *m = mm_cuda_of(be)->many;
    bool other = m->n != r->n;
    for (int64_t t = 0; t < r->n; t++) {
        for (int64_t i = 0; i < s->n_blocks; i++) {
            const struct mm_block_state *b = &s->seqs[t].blocks[i];
            const struct mm_many_state is = {(float *)b->S.data, (float *)b->conv.data, b->k.data,
                                             b->v.data};
            struct mm_many_state *to = &m->host[i * r->n + t];
            other = other || memcmp(to, &is, sizeof is) != 0;
            *to = is;
        }
    }
    r->states = m->dev;
    m->n = 0;
    // a copy from pageable memory has read it when the call returns
    if (other &&
        !mm_cuda_ok(
            be, cudaMemcpyAsync(m->dev, m->host, bytes, cudaMemcpyDefault, mm_cuda_of(be)->stream),
            "copying where the states are"))
        return false;
    m->n = r->n;
    return true;
}

bool mm_many_rows_begin(struct mm_backend *be, struct mm_many_rows *r, const struct mm_step *s,
                        int64_t padded) {
    struct mm_cuda *cuda = mm_cuda_of(be);
    if (!cuda->many) cuda->many = (struct mm_step_many_states *)calloc(1, sizeof *cuda->many);
    if (!cuda->many) return mm_cuda_ok(be, cudaErrorMemoryAllocation, "memory for a token step");
    measure(be, r, s, padded);
    const int64_t bytes = lay_out(r, s, NULL);
    char *room = (char *)mm_cuda_scratch(be, mm_cuda_slot_many, (size_t)bytes);
    if (!room) return false;
    lay_out(r, s, room);
    if (r->early && r->zeros &&
        !mm_cuda_ok(be, cudaMemsetAsync(r->met, 0, (size_t)r->zeros, cuda->stream),
                    "clearing a token step's counters"))
        return false;
    return send_states(be, r, s);
}
