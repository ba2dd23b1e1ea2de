// libmmamba: talk with a Mamba-2 vision-language model. An engine holds a model, a session a
// conversation with it; sessions are saved, copied and taken back exactly, and take the same memory
// however long they grow (but for blocks that were kept as attention).
//
//     struct mmamba_engine *engine;
//     struct mmamba_session *session;
//     struct mmamba_error err;
//     struct mmamba_answer answer;
//     const struct mmamba_picture cat = {.path = "cat.jpg"};
//     if (mmamba_engine_open(&engine, "models/pico", NULL, &err) ||
//         mmamba_session_new(&session, engine, NULL, &err) ||
//         mmamba_session_add_turn(session, "What is this?", &cat, 1, &err) ||
//         mmamba_session_generate(session, NULL, NULL, &answer, &err)) {
//         fprintf(stderr, "%s\n", err.text);
//         return 1;
//     }
//     puts(answer.text);
//
// Texts are UTF-8. An engine and its sessions belong to one thread at a time; engines do not know
// each other. err may be NULL everywhere. A function that fails leaves *out pointers NULL.
#ifndef MMAMBA_H
#define MMAMBA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

const char *mmamba_version(void);

// ---- status -------------------------------------------------------------------------------------

enum mmamba_code {
    mmamba_code_ok = 0,
    mmamba_code_input,        // a file or value given is wrong
    mmamba_code_io,           // the system refused to read or write
    mmamba_code_memory,       // does not fit
    mmamba_code_unsupported,  // understood, and not available here
    mmamba_code_device,       // an accelerator failed
    mmamba_code_interrupted,  // a listener stopped the work
    mmamba_code_usage,        // options contradict each other
};

struct mmamba_error {
    enum mmamba_code code;
    char text[1024];  // one sentence: what failed, where, the value seen, the value wanted
};

// ---- engine -------------------------------------------------------------------------------------

struct mmamba_engine;

struct mmamba_engine_options {  // zeros and NULL: the defaults
    const char *backend;        // "auto" (default) and "cpu"; "cuda", "cuda:1": a GPU
    int n_threads;              // 0: all this process may use
    const char *dtype;          // "f32", "bf16", "f16"; default: as stored
};

// Opens a Hugging Face folder: config.json, safetensors, tokenizer. options may be NULL.
enum mmamba_code mmamba_engine_open(struct mmamba_engine **engine, const char *folder,
                                    const struct mmamba_engine_options *options,
                                    struct mmamba_error *err);
// Its sessions must have been freed. NULL is allowed.
void mmamba_engine_close(struct mmamba_engine *engine);

struct mmamba_engine_info {
    int64_t n_blocks, n_attention_blocks;  // those that were kept as attention
    int64_t n_parameters, weight_bytes;
    int64_t state_bytes;            // of a session, however long
    int64_t cache_bytes_per_token;  // of a session: keys and values of kept attention
    int64_t tile_tokens;            // tokens of one tile of a picture
    char weights_hash[33];          // 32 hex digits: what a saved session belongs to
    char device[128];               // where it computes
};
// The first call reads all weights for the hash.
void mmamba_engine_describe(struct mmamba_engine *engine, struct mmamba_engine_info *info);

// ---- session ------------------------------------------------------------------------------------

struct mmamba_session;

struct mmamba_session_options {  // zeros and NULL: the defaults
    const char *system;          // the system message; NULL: InternVL's, "": an empty one
    int max_tiles;               // of a picture; 0: the config's
    int n_rewind;                // turns that can be taken back; 0: 8, -1: none
    int64_t piece_tokens;        // of a prompt are read at a time; 0: as many as suit the device
};

// options may be NULL.
enum mmamba_code mmamba_session_new(struct mmamba_session **session, struct mmamba_engine *engine,
                                    const struct mmamba_session_options *options,
                                    struct mmamba_error *err);
void mmamba_session_free(struct mmamba_session *session);  // NULL is allowed

struct mmamba_picture {
    const char *path;   // a JPEG, PNG or WebP file; or NULL, and
    const void *bytes;  // the file's bytes, copied
    size_t n_bytes;
    const char *name;  // for messages; may be NULL
};

// A user's turn. Pictures go where the text says "<image>", else in front. Nothing in the text can
// become a control token. Nothing is computed yet.
enum mmamba_code mmamba_session_add_turn(struct mmamba_session *session, const char *text,
                                         const struct mmamba_picture *pictures, int n_pictures,
                                         struct mmamba_error *err);

struct mmamba_sampling {
    double temperature;         // 0: always the likeliest token
    int64_t top_k;              // 0: off
    double top_p;               // 1: off
    double min_p;               // 0: off
    double repetition_penalty;  // 1: off; over the tokens of the answer
};
// A session begins with the model's own settings (generation_config.json, else greedy), seed 0.
void mmamba_session_get_sampling(const struct mmamba_session *session,
                                 struct mmamba_sampling *sampling);
enum mmamba_code mmamba_session_set_sampling(struct mmamba_session *session,
                                             const struct mmamba_sampling *sampling,
                                             struct mmamba_error *err);
void mmamba_session_set_seed(struct mmamba_session *session, uint64_t seed);

// ---- generate -----------------------------------------------------------------------------------

struct mmamba_generation {   // zeros: the model's own settings
    int64_t max_new_tokens;  // 0: generation_config.json, else 1024
    int64_t min_new_tokens;  // 0: generation_config.json, else none
};

struct mmamba_listener {  // functions may be NULL; one that returns false stops the work
    bool (*read)(void *arg, int64_t n_read, int64_t n_all);     // tokens of the prompt
    bool (*text)(void *arg, const char *text, size_t n_bytes);  // whole characters, maybe none
    void *arg;
};

enum mmamba_finish { mmamba_finish_stop, mmamba_finish_length, mmamba_finish_cancelled };
const char *mmamba_finish_name(enum mmamba_finish finish);  // "stop", "length", "cancelled"

struct mmamba_answer {
    const char *text;  // zero-terminated; the session's, until its next answer
    size_t n_bytes;
    enum mmamba_finish finish;
    int64_t prompt_tokens;  // since the last answer, pictures included
    int64_t new_tokens;
    double ttft_s;        // from adding the turn to the first token
    double decode_tok_s;  // from then on
};

// Answers the waiting turn. generation and listener may be NULL. After "length" or "cancelled"
// another call continues the answer. A failure takes the turn back: the session is as it was before
// mmamba_session_add_turn (where turns can be taken back).
enum mmamba_code mmamba_session_generate(struct mmamba_session *session,
                                         const struct mmamba_generation *generation,
                                         const struct mmamba_listener *listener,
                                         struct mmamba_answer *answer, struct mmamba_error *err);

// ---- snapshot -----------------------------------------------------------------------------------

// One file; loaded with the same model it goes on to exactly the same tokens. What of n_rewind was
// remembered is not in it.
enum mmamba_code mmamba_session_save(struct mmamba_session *session, const char *path,
                                     struct mmamba_error *err);
// A file of another model is refused. options may be NULL; `system` is the file's.
enum mmamba_code mmamba_session_load(struct mmamba_session **session, struct mmamba_engine *engine,
                                     const struct mmamba_session_options *options, const char *path,
                                     struct mmamba_error *err);
// A copy that goes its own way.
enum mmamba_code mmamba_session_fork(struct mmamba_session **copy,
                                     const struct mmamba_session *session,
                                     struct mmamba_error *err);
// Takes back the last n turns, exactly.
enum mmamba_code mmamba_session_rewind(struct mmamba_session *session, int n,
                                       struct mmamba_error *err);

struct mmamba_session_info {
    int64_t n_turns, n_tokens;
    int n_rewind;         // turns that can be taken back now
    int64_t state_bytes;  // the fixed part, and
    int64_t cache_bytes;  // keys and values of kept attention so far
};
void mmamba_session_describe(const struct mmamba_session *session,
                             struct mmamba_session_info *info);
// Everything said, with its markers, pictures as "<image>"; to be released with mmamba_text_free.
char *mmamba_session_text(const struct mmamba_session *session);
void mmamba_text_free(char *text);

#ifdef __cplusplus
}
#endif

#endif
