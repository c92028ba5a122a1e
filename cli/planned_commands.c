/* Commands whose names are fixed and which this version cannot run yet: each says so. */
#include "cli/commands.h"

static tn_status run_planned(cli_context *context)
{
    return cli_fail(&context->error, TN_ERROR_USAGE,
                    "%s is not supported in this version (%s); `ternion help` lists what is",
                    context->command->name, tn_version());
}

static const cli_group *const no_groups[] = {NULL};
static const cli_example no_examples[] = {{NULL, NULL}};

#define PLANNED(name, summary)                                                                     \
    {                                                                                              \
        name, summary " (not in this version)", "...", "Not supported in this version.",           \
            no_examples, no_groups, 0, 1000, run_planned, true                                     \
    }

const cli_command cli_report_command = PLANNED("report", "an HTML page about a run or models");
