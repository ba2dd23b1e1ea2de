// Errors as values. A function that can fail for a reason outside the program (input, files,
// sockets, devices, memory) returns an enum mm_code and writes one sentence into *err: what
// failed, where, the value seen and the value wanted. A bug in the program asserts instead.
// Only src/cli ends the process.
#ifndef MM_BASE_STATUS_H
#define MM_BASE_STATUS_H

enum mm_code {
    mm_code_ok = 0,
    mm_code_input,        // a file, request or value from outside is wrong
    mm_code_io,           // the system refused to read or write
    mm_code_memory,       // does not fit
    mm_code_unsupported,  // understood, and not available here
    mm_code_device,       // an accelerator failed
    mm_code_interrupted,  // SIGINT or SIGTERM; what could be saved was saved
    mm_code_usage,        // wrong command line
};

struct mm_error {
    enum mm_code code;
    char text[1024];  // one sentence, no newline at the end
};

// Fills *err (which may be NULL) and returns code, so that a caller writes
//     return mm_fail(err, mm_code_input, "%s: 'hidden_size' is %lld, must be positive", path, n);
enum mm_code mm_fail(struct mm_error *err, enum mm_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

// As mm_fail, with ": " and strerror(errno) at the end; the code is mm_code_memory for ENOMEM,
// else mm_code_io.
enum mm_code mm_fail_errno(struct mm_error *err, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

// Leaves the enclosing function with the code of a failed call. Where something must be released
// first, write the test out and jump to the release.
#define MM_TRY(call)                         \
    do {                                     \
        const enum mm_code mm_try_ = (call); \
        if (mm_try_ != mm_code_ok) {         \
            return mm_try_;                  \
        }                                    \
    } while (0)

#endif
