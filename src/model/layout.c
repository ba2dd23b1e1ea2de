// Where rows go: from packed token ids and tiles to the row indices both stacks work with.
// With pixel_shuffle_loc "post" the first stack runs on a longer sequence, in which a tile has
// (S/patch)^2 rows instead of a quarter of them (docs/MODEL.md section 1).
#include "model/model.h"

#include <assert.h>
#include <string.h>

struct counts {
    int64_t T, T_embed, img_short, img_embed, special;
};

// One i32 array on the host and its twin on the device.
struct twin {
    int32_t *host;
    struct mm_view view;
};

static struct twin take(struct mm_arena *host, struct mm_arena *device, bool same, int64_t n) {
    struct twin t = {0};
    t.host = mm_arena_take(host, (size_t)n * sizeof(int32_t));
    void *dev = same ? t.host : mm_arena_take(device, (size_t)n * sizeof(int32_t));
    t.view = mm_view1(dev, mm_dtype_i32, n);
    return t;
}

static void send(const struct mm_model *m, struct twin t) {
    if (t.view.data != t.host && t.view.shape[0] > 0) {
        m->be->upload(m->be, t.view.data, t.host, (size_t)t.view.shape[0] * sizeof(int32_t));
    }
}

static enum mm_code count(struct counts *c, const struct mm_model *m, const int32_t *ids,
                          const int32_t *start, int64_t n_seqs, int64_t n_tiles, const char *what,
                          struct mm_error *err) {
    const struct mm_config *cfg = &m->config;
    const int64_t per = mm_config_tile_tokens(cfg);
    *c = (struct counts){.T = start[n_seqs]};
    for (int64_t s = 0; s < n_seqs; s++) {
        int64_t run = 0;
        for (int64_t t = start[s]; t <= start[s + 1]; t++) {
            const bool image = t < start[s + 1] && ids[t] == cfg->img_context_id;
            if (image) {
                run++;
                c->img_short++;
                continue;
            }
            if (run % per != 0) {
                return mm_fail(err, mm_code_input,
                               "%s: a run of %lld image tokens (id %lld); each tile has exactly "
                               "%lld",
                               what, (long long)run, (long long)cfg->img_context_id,
                               (long long)per);
            }
            run = 0;
            if (t == start[s + 1]) break;
            if (ids[t] < 0 || ids[t] >= cfg->V + cfg->n_special) {
                return mm_fail(err, mm_code_input,
                               "%s: token id %d at position %lld; the vocabulary has %lld", what,
                               (int)ids[t], (long long)(t - start[s]),
                               (long long)(cfg->V + cfg->n_special));
            }
            c->special += ids[t] >= cfg->V;
        }
    }
    if (c->img_short != n_tiles * per) {
        return mm_fail(err, mm_code_input,
                       "%s: %lld image tokens, but %lld tiles of %lld tokens were given", what,
                       (long long)c->img_short, (long long)n_tiles, (long long)per);
    }
    c->img_embed = cfg->shuffle_post ? 4 * c->img_short : c->img_short;
    c->T_embed = c->T + c->img_embed - c->img_short;
    return mm_code_ok;
}

static struct mm_segs make_segs(const struct mm_model *m, struct twin start) {
    send(m, start);
    return (struct mm_segs){start.view.shape[0] - 1, start.host, start.view.data};
}

enum mm_code mm_layout_make(struct mm_layout *l, const struct mm_model *m, struct mm_arena *host,
                            struct mm_arena *device, const int32_t *ids, const int32_t *start,
                            int64_t n_seqs, int64_t n_tiles, int64_t past_embed, int64_t past_llm,
                            const char *what, struct mm_error *err) {
    const struct mm_config *cfg = &m->config;
    const bool post = cfg->shuffle_post, same = host == device;
    assert(same ? m->be->host_memory : true);
    assert((past_embed == 0 && past_llm == 0) || n_seqs == 1);
    struct counts c;
    MM_TRY(count(&c, m, ids, start, n_seqs, n_tiles, what, err));
    *l = (struct mm_layout){.n_tiles = n_tiles};

    struct twin starts[2] = {take(host, device, same, n_seqs + 1),
                             take(host, device, same, n_seqs + 1)};
    struct twin pos[2] = {take(host, device, same, c.T_embed), take(host, device, same, c.T)};
    struct twin rows = take(host, device, same, c.T_embed);
    struct twin img = take(host, device, same, c.img_embed);
    struct twin sp_rows = take(host, device, same, c.special);
    struct twin sp_ids = take(host, device, same, c.special);
    const int64_t n_text = post ? c.T - c.img_short : 0;
    struct twin from = take(host, device, same, n_text), to = take(host, device, same, n_text);
    struct twin img_to = take(host, device, same, post ? c.img_short : 0);

    int64_t e = 0, n_img = 0, n_sp = 0, n_txt = 0, n_to = 0, longest[2] = {0, 0};
    for (int64_t s = 0; s < n_seqs; s++) {
        const int64_t e0 = e;
        starts[0].host[s] = (int32_t)e;
        starts[1].host[s] = start[s];
        for (int64_t t = start[s]; t < start[s + 1]; t++) {
            pos[1].host[t] = (int32_t)(t - start[s] + past_llm);
            const bool image = ids[t] == cfg->img_context_id;
            const int64_t repeat = image && post ? 4 : 1;
            for (int64_t r = 0; r < repeat; r++, e++) {
                pos[0].host[e] = (int32_t)(e - e0 + past_embed);
                rows.host[e] = -1;
                if (image) {
                    img.host[n_img++] = (int32_t)e;
                } else if (ids[t] >= cfg->V) {
                    sp_rows.host[n_sp] = (int32_t)e;
                    sp_ids.host[n_sp++] = (int32_t)(ids[t] - cfg->V);
                } else {
                    rows.host[e] = ids[t];
                }
            }
            if (post && image) {
                img_to.host[n_to++] = (int32_t)t;
            } else if (post) {
                from.host[n_txt] = (int32_t)(e - 1);
                to.host[n_txt++] = (int32_t)t;
            }
        }
        const int64_t len[2] = {e - e0 + past_embed, start[s + 1] - start[s] + past_llm};
        for (int i = 0; i < 2; i++)
            longest[i] = len[i] > longest[i] ? len[i] : longest[i];
    }
    starts[0].host[n_seqs] = (int32_t)e;
    starts[1].host[n_seqs] = start[n_seqs];
    assert(e == c.T_embed && n_img == c.img_embed && n_sp == c.special);

    struct twin *all[] = {&pos[0], &pos[1], &rows, &img, &sp_rows, &sp_ids, &from, &to, &img_to};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        send(m, *all[i]);
    l->embed = (struct mm_stream){c.T_embed, make_segs(m, starts[0]), pos[0].view, longest[0], 0};
    l->llm = (struct mm_stream){c.T, make_segs(m, starts[1]), pos[1].view, longest[1], 0};
    l->ids = rows.view;
    l->img_rows = img.view;
    l->special_rows = sp_rows.view;
    l->special_ids = sp_ids.view;
    l->text_from = from.view;
    l->text_to = to.view;
    l->img_to = img_to.view;
    return mm_code_ok;
}

static struct mm_view plan_view(struct mm_arena *a, int64_t n) {
    return mm_view1(mm_arena_take(a, (size_t)n * sizeof(int32_t)), mm_dtype_i32, n);
}

void mm_layout_plan(struct mm_layout *l, const struct mm_model *m, struct mm_arena *device,
                    int64_t T, int64_t n_seqs, int64_t n_tiles) {
    const bool post = m->config.shuffle_post;
    const int64_t img = n_tiles * mm_config_tile_tokens(&m->config);
    const int64_t img_embed = post ? 4 * img : img, T_embed = T + img_embed - img;
    *l = (struct mm_layout){.n_tiles = n_tiles};
    plan_view(device, n_seqs + 1);
    plan_view(device, n_seqs + 1);
    l->embed = (struct mm_stream){T_embed, {n_seqs, NULL, NULL}, plan_view(device, T_embed), 0, 0};
    l->llm = (struct mm_stream){T, {n_seqs, NULL, NULL}, plan_view(device, T), 0, 0};
    l->ids = plan_view(device, T_embed);
    l->img_rows = plan_view(device, img_embed);
    // any token may be a special one; the worst case is planned only where there are some
    l->special_rows = plan_view(device, m->config.n_special ? T : 0);
    l->special_ids = plan_view(device, m->config.n_special ? T : 0);
    l->text_from = plan_view(device, post ? T - img : 0);
    l->text_to = plan_view(device, post ? T - img : 0);
    l->img_to = plan_view(device, post ? img : 0);
}

size_t mm_layout_host_bytes(const struct mm_model *m, int64_t T, int64_t n_seqs, int64_t n_tiles) {
    const int64_t img = n_tiles * mm_config_tile_tokens(&m->config);
    const int64_t embed = T + 4 * img;
    return (size_t)(2 * (n_seqs + 1) + 2 * embed + 8 * T + 5 * img) * sizeof(int32_t) +
           16 * mm_arena_align;
}
