// Files put into the program by the assembler; MM_EVAL_DATA is their folder (CMakeLists.txt).
#include "eval/embedded.h"

#define EMBED(name, file)                      \
    __asm__(".pushsection .rodata." #name      \
            ", \"a\"\n"                        \
            ".globl " #name "\n" #name         \
            ":\n"                              \
            ".incbin \"" MM_EVAL_DATA "/" file \
            "\"\n"                             \
            ".byte 0\n"                        \
            ".popsection\n")

EMBED(mm_embedded_published, "published.tsv");
EMBED(mm_embedded_published_speed, "published_speed.tsv");
EMBED(mm_embedded_page, "page.html");
