/* What options need of each other. An option that would say nothing is an error: a check that never
 * fails, or a figure that somebody believes was asked for, is worse. */
#include "cli/command.h"

#include <math.h>
#include <string.h>

typedef struct need {
    const char *option;
    const char *of[3]; /* one of them must be given too; ends with NULL */
    const char *why;
} need;

static const need needs[] = {
    {"fail-if-drop", {"data"}, "accuracies are compared on images: give --data DATA"},
    {"method", {"calibration-data"}, "codes are chosen on images: give --calibration-data DATA"},
    {"bn", {"calibration-data"}, "it is fitted on images: give --calibration-data DATA"},
    {"calibration-samples",
     {"calibration-data"},
     "there is nothing to draw them from: give --calibration-data DATA"},
    {"save-synthesized",
     {"calibration-data"},
     "there are none to keep: give --calibration-data synthesize"},
    {"activation-range",
     {"activation-bits", "input-bits"},
     "it is of quantized activations: give --activation-bits N or --input-bits N"},
    {"activation-scheme",
     {"activation-bits", "input-bits"},
     "it is of quantized activations: give --activation-bits N or --input-bits N"},
    {"save-every", {"checkpoint"}, "there is nothing to save into: give --checkpoint DIR"},
};

typedef struct conflict {
    const char *option, *with, *why;
} conflict;

static const conflict conflicts[] = {
    {"scheme", "target-size", "which chooses scheme and bits of every layer"},
    {"bits", "target-size", "which chooses scheme and bits of every layer"},
    {"scheme", "target-drop", "which chooses scheme and bits of every layer"},
    {"bits", "target-drop", "which chooses scheme and bits of every layer"},
    {"scheme", "sensitivity", "which tries every width with its own scheme"},
    {"bits", "sensitivity", "which tries every width with its own scheme"},
};

static tn_status check_needs(const cli_arguments *arguments, tn_error *error)
{
    for (size_t i = 0; i < sizeof needs / sizeof *needs; i++) {
        bool met = !cli_is_given(arguments, needs[i].option);
        for (size_t k = 0; !met && needs[i].of[k]; k++)
            met = cli_is_given(arguments, needs[i].of[k]);
        if (!met)
            return cli_fail(error, TN_ERROR_USAGE, "--%s: %s", needs[i].option, needs[i].why);
    }
    return TN_OK;
}

static tn_status check_conflicts(const cli_arguments *arguments, tn_error *error)
{
    for (size_t i = 0; i < sizeof conflicts / sizeof *conflicts; i++)
        if (cli_is_given(arguments, conflicts[i].option) &&
            cli_is_given(arguments, conflicts[i].with))
            return cli_fail(error, TN_ERROR_USAGE,
                            "--%s says nothing beside --%s, %s: leave out one", conflicts[i].option,
                            conflicts[i].with, conflicts[i].why);
    return TN_OK;
}

static bool has_threshold(const char *scheme)
{
    tn_catalog_entry entry;
    for (size_t i = 0; tn_catalog(TN_CATALOG_QUANTIZERS, i, &entry); i++)
        for (size_t p = 0; strcmp(entry.id, scheme) == 0 && p < entry.n_parameters; p++)
            if (strcmp(entry.parameters[p].name, "threshold") == 0)
                return true;
    return false;
}

/* Some layer may get a scheme with a threshold. `standard`: the command's scheme. */
static tn_status check_threshold(const cli_arguments *arguments, const char *standard,
                                 tn_error *error)
{
    const char *scheme = arguments->scheme ? arguments->scheme : standard;
    bool used = has_threshold(scheme);
    for (size_t i = 0; i < arguments->layer.count && !used; i++) {
        const char *what = strrchr(arguments->layer.items[i], '=');
        used = what && has_threshold(what + 1);
    }
    if (arguments->threshold && !used)
        return cli_fail(error, TN_ERROR_USAGE,
                        "--threshold: scheme %s has none; choose twn or ttq with --scheme, or "
                        "leave it out",
                        scheme);
    if (arguments->sparsity_ramp &&
        (!arguments->threshold || strncmp(arguments->threshold, "sparsity:", 9) != 0))
        return cli_fail(
            error, TN_ERROR_USAGE,
            "--sparsity-ramp: there is no sparsity to grow: give --threshold sparsity:F");
    return TN_OK;
}

/* 0 in the request of the library means "not asked". */
static tn_status check_targets(const cli_arguments *arguments, tn_error *error)
{
    if (cli_is_given(arguments, "target-size") && arguments->target_size == 0)
        return cli_fail(error, TN_ERROR_USAGE, "--target-size 0: expected 1 byte or more");
    if (cli_is_given(arguments, "target-drop") &&
        !(arguments->target_drop >= 0 && isfinite(arguments->target_drop)))
        return cli_fail(error, TN_ERROR_USAGE, "--target-drop %g: expected 0 points or more",
                        arguments->target_drop);
    return TN_OK;
}

tn_status cli_needs_check(const cli_command *command, const cli_arguments *arguments,
                          tn_error *error)
{
    tn_status status = check_needs(arguments, error);
    if (status == TN_OK)
        status = check_conflicts(arguments, error);
    if (status == TN_OK)
        status = check_targets(arguments, error);
    if (status == TN_OK)
        status =
            check_threshold(arguments, strcmp(command->name, "finetune") ? "twn" : "lsq", error);
    return status;
}
