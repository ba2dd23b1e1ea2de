// Writing the one sentence of an error.
#include "base/status.h"

#include <errno.h>
#include <stdbool.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

// Copies text into err->text: one line whatever a file or a user put into it, control characters
// shown as '?', an over-long sentence cut at a whole UTF-8 character and ended with "...".
static void set_text(struct mm_error *err, const char *text) {
    const size_t cap = sizeof err->text;
    size_t n = strlen(text);
    const bool cut = n >= cap;
    if (cut) {
        n = cap - 4;
        while (n > 0 && ((unsigned char)text[n] & 0xc0u) == 0x80u) {
            n--;
        }
    }
    for (size_t i = 0; i < n; i++) {
        const unsigned char c = (unsigned char)text[i];
        err->text[i] = c < 0x20u || c == 0x7fu ? '?' : text[i];
    }
    memcpy(err->text + n, cut ? "..." : "", cut ? 4 : 1);
}

enum mm_code mm_fail(struct mm_error *err, enum mm_code code, const char *format, ...) {
    if (err) {
        // Formatted aside first: an argument may be err->text itself.
        char text[2 * sizeof err->text];
        va_list args;
        va_start(args, format);
        vsnprintf(text, sizeof text, format, args);
        va_end(args);
        err->code = code;
        set_text(err, text);
    }
    return code;
}

enum mm_code mm_fail_errno(struct mm_error *err, const char *format, ...) {
    const int number = errno;
    const enum mm_code code = number == ENOMEM ? mm_code_memory : mm_code_io;
    if (err) {
        char text[2 * sizeof err->text];
        char reason[128];
        va_list args;
        va_start(args, format);
        vsnprintf(text, sizeof text, format, args);
        va_end(args);
        const char *why = strerror_r(number, reason, sizeof reason);  // GNU: may be a static text
        // The reason is what the user needs: a very long path gives way to it.
        const size_t keep = sizeof err->text - strlen(why) - 3;
        if (strlen(text) > keep) text[keep] = '\0';
        strcat(text, ": ");
        strcat(text, why);
        err->code = code;
        set_text(err, text);
    }
    return code;
}
