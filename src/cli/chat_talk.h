// A conversation by lines: text is a turn, /word a command, the path of a picture a picture.
#ifndef MM_CLI_CHAT_TALK_H
#define MM_CLI_CHAT_TALK_H

#include "infer/snapshot.h"

// What Ctrl-C stops and where text goes; for `chat -p` too.
extern const struct mm_listener mm_chat_to_stdout;   // as it is written
extern const struct mm_listener mm_chat_to_nowhere;  // only stops

// Talks until there are no more lines. first: the session to begin with, taken over. pictures go
// with the first turn. What fails is said and the conversation goes on; the result is the first
// failure when nobody sits at a terminal.
enum mm_code mm_chat_talk(struct mm_engine *e, struct mm_session *first,
                          const struct mm_session_options *options, const struct mm_generation *g,
                          const char *const *pictures, int n_pictures, struct mm_error *err);

#endif
