// The parts of the verb `eval` that are called by their own word.
#ifndef MM_CLI_CMD_EVAL_H
#define MM_CLI_CMD_EVAL_H

#include "cli/cli.h"

int mm_cmd_eval_report(int argc, char **argv);  // the arguments after "report"

#endif
