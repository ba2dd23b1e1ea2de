// Lines from a person: with editing and history on a terminal, plain otherwise; and what Ctrl-C
// means: while an answer is written it stops the answer, at the prompt it leaves.
#ifndef MM_CLI_CHAT_INPUT_H
#define MM_CLI_CHAT_INPUT_H

#include <stdbool.h>

#include "base/buf.h"

struct mm_chat_input;

struct mm_chat_input *mm_chat_input_open(void);
void mm_chat_input_close(struct mm_chat_input *in);
bool mm_chat_input_terminal(const struct mm_chat_input *in);
// One line without its end; false when there are no more. The prompt is shown on a terminal only.
bool mm_chat_input_line(struct mm_chat_input *in, const char *prompt, struct mm_buf *line);

// From here on SIGINT and SIGTERM set a flag; a second one, or one while a line is waited for,
// ends the process with 130 and leaves the terminal as it was found.
void mm_chat_catch(void);
bool mm_chat_stopped(void);
// What came was SIGTERM, or nobody at a terminal could go on.
bool mm_chat_leaving(void);

#endif
