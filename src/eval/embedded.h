// Files of src/eval/data that are part of the program; each text ends with a zero byte.
#ifndef MM_EVAL_EMBEDDED_H
#define MM_EVAL_EMBEDDED_H

extern const char mm_embedded_published[];        // published.tsv: the paper's Table 1
extern const char mm_embedded_published_speed[];  // published_speed.tsv: its Table 2
extern const char mm_embedded_page[];             // page.html: the page of questions and answers

#endif
