#include "converter/policy.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_NAME = 64 };

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Levenshtein distance of the first MAX_NAME bytes. */
static size_t edit_distance(const char *a, const char *b)
{
    size_t row[MAX_NAME + 1], n = strnlen(b, MAX_NAME), m = strnlen(a, MAX_NAME);
    for (size_t j = 0; j <= n; j++)
        row[j] = j;
    for (size_t i = 1; i <= m; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= n; j++) {
            size_t change = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            row[j] = smaller(change, smaller(row[j], row[j - 1]) + 1);
        }
    }
    return row[n];
}

void tn_suggest(const char *wrong, const char *const *names, size_t count, char *text, size_t size)
{
    const char *best = NULL;
    size_t least = strnlen(wrong, MAX_NAME) / 2 + 1;
    for (size_t i = 0; i < count; i++) {
        size_t distance = edit_distance(wrong, names[i]);
        if (distance < least) {
            least = distance;
            best = names[i];
        }
    }
    text[0] = '\0';
    if (best != NULL)
        (void)snprintf(text, size, "; did you mean %s?", tn_quote(best));
}

static tn_status find_scheme(const char *id, const char *option, const tn_quantizer **quantizer,
                             tn_error *error)
{
    const char *names[16];
    size_t count = 0;
    char list[160] = "", hint[160];
    for (; count < 16 && tn_quantizer_at(count) != NULL; count++) {
        names[count] = tn_quantizer_at(count)->id;
        size_t used = strlen(list);
        (void)snprintf(list + used, sizeof list - used, "%s%s", used > 0 ? ", " : "", names[count]);
    }
    const tn_quantizer *found = tn_quantizer_find(id);
    if (found == NULL) {
        tn_suggest(id, names, count, hint, sizeof hint);
        return tn_fail(error, TN_ERROR_USAGE, "%s: there is no scheme %s (schemes: %s)%s", option,
                       tn_quote(id), list, hint);
    }
    *quantizer = found;
    return TN_OK;
}

/* ternary or a width; the scheme says whether it holds it. */
static tn_status parse_bits(const char *text, const char *option, bool *ternary, int *bits,
                            tn_error *error)
{
    char *end;
    long value = strtol(text, &end, 10);
    if (strcmp(text, "1.58") == 0 || strcmp(text, "ternary") == 0) {
        *ternary = true;
        *bits = 2;
        return TN_OK;
    }
    if (end == text || *end != '\0' || !((value >= 1 && value <= 8) || value == 16))
        return tn_fail(error, TN_ERROR_USAGE,
                       "%s: %s is no width; expected 1.58 (ternary), 1 to 8, or 16", option,
                       tn_quote(text));
    *ternary = false;
    *bits = (int)value;
    return TN_OK;
}

static tn_status parse_granularity(const char *text, tn_scheme *scheme, tn_error *error)
{
    char *end;
    if (text == NULL || strcmp(text, "channel") == 0) {
        scheme->granularity = TN_PER_CHANNEL;
        return TN_OK;
    }
    if (strcmp(text, "tensor") == 0) {
        scheme->granularity = TN_PER_TENSOR;
        return TN_OK;
    }
    if (strncmp(text, "group:", 6) == 0) {
        errno = 0;
        long long n = strtoll(text + 6, &end, 10);
        if (errno == 0 && end != text + 6 && *end == '\0' && n > 0) {
            scheme->granularity = TN_PER_GROUP;
            scheme->group = n;
            return TN_OK;
        }
    }
    return tn_fail(error, TN_ERROR_USAGE,
                   "--granularity: %s is not possible; expected tensor, channel or group:N with N "
                   "of at least 1",
                   tn_quote(text));
}

static tn_status parse_threshold(const char *text, tn_scheme *scheme, tn_error *error)
{
    static const struct {
        const char *name;
        tn_threshold_kind kind;
        float most;
    } kinds[] = {{"mean:", TN_THRESHOLD_MEAN, 1e6f},
                 {"max:", TN_THRESHOLD_MAX, 1.0f},
                 {"sparsity:", TN_THRESHOLD_SPARSITY, 1.0f}};
    scheme->threshold = TN_THRESHOLD_OPTIMAL;
    if (text == NULL || strcmp(text, "optimal") == 0)
        return TN_OK;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        size_t length = strlen(kinds[i].name);
        if (strncmp(text, kinds[i].name, length) != 0)
            continue;
        char *end;
        float value = strtof(text + length, &end);
        if (end == text + length || *end != '\0' || !(value >= 0.0f && value <= kinds[i].most))
            break;
        scheme->threshold = kinds[i].kind;
        scheme->threshold_value = value;
        return TN_OK;
    }
    return tn_fail(error, TN_ERROR_USAGE,
                   "--threshold: %s is not possible; expected optimal, mean:F (mean:0.7), max:F "
                   "(0 to 1) or sparsity:F (0 to 1)",
                   tn_quote(text));
}

static tn_status parse_levels(const char *text, tn_scheme *scheme, tn_error *error)
{
    char *middle, *end;
    if (text == NULL)
        return TN_OK;
    errno = 0;
    long low = strtol(text, &middle, 10);
    if (middle != text && *middle == ':' && errno == 0) {
        long high = strtol(middle + 1, &end, 10);
        if (end != middle + 1 && *end == '\0' && errno == 0 && low < high && low >= -32768 &&
            high <= 32767) {
            scheme->low = (int)low;
            scheme->high = (int)high;
            return TN_OK;
        }
    }
    return tn_fail(error, TN_ERROR_USAGE,
                   "--levels: %s is not possible; expected A:B with -32768 <= A < B <= 32767",
                   tn_quote(text));
}

static bool is_only_ternary(const tn_quantizer *quantizer)
{
    return strcmp(quantizer->id, "twn") == 0 || strcmp(quantizer->id, "ttq") == 0;
}

tn_status tn_policy_apply_choice(const char *choice, const char *option, tn_request *request,
                                 tn_error *error)
{
    bool ternary;
    int bits;
    const char *colon = strchr(choice, ':');
    if (strcmp(choice, "keep") == 0) {
        request->keep = true;
        return TN_OK;
    }
    char scheme[32];
    const char *width = NULL;
    if (choice[0] >= '0' && choice[0] <= '9') {
        width = choice;
    } else {
        size_t length = colon != NULL ? (size_t)(colon - choice) : strlen(choice);
        (void)snprintf(scheme, sizeof scheme, "%.*s", (int)smaller(length, sizeof scheme - 1),
                       choice);
        tn_status status = find_scheme(scheme, option, &request->quantizer, error);
        if (status != TN_OK)
            return status;
        request->scheme_given_here = true;
        request->bits_given_here = false;
        if (request->quantizer->plain || is_only_ternary(request->quantizer))
            request->bits = NULL;
        width = colon != NULL ? colon + 1 : NULL;
    }
    if (width != NULL) {
        tn_status status = parse_bits(width, option, &ternary, &bits, error);
        if (status != TN_OK)
            return status;
        request->bits = width;
        request->bits_given_here = width == choice;
    }
    request->keep = false;
    return TN_OK;
}

/* A narrower option may ask twn or ttq for n bits: such a layer is fixed. */
static const tn_quantizer *scheme_for(const tn_request *request, bool ternary)
{
    const tn_quantizer *quantizer = request->quantizer;
    if (quantizer == NULL)
        return tn_quantizer_find(request->bits == NULL || ternary ? "twn" : "fixed");
    if (request->bits_given_here && is_only_ternary(quantizer) && !ternary)
        return tn_quantizer_find("fixed");
    return quantizer;
}

tn_status tn_policy_resolve(const tn_policy *policy, const tn_request *request, tn_layer *layer,
                            tn_error *error)
{
    tn_scheme scheme = {0};
    bool ternary = false;
    tn_status status = TN_OK;
    if (request->bits != NULL)
        status = parse_bits(request->bits, "--bits", &ternary, &scheme.bits, error);
    if (status == TN_OK)
        status = parse_granularity(policy->granularity, &scheme, error);
    if (status == TN_OK)
        status = parse_threshold(policy->threshold, &scheme, error);
    if (status == TN_OK && !request->bits_given_here && !request->scheme_given_here)
        status = parse_levels(policy->levels, &scheme, error);
    if (status != TN_OK)
        return status;
    scheme.ternary = ternary;
    scheme.narrow = policy->narrow;
    scheme.quantizer = scheme_for(request, ternary);
    if (request->quantizer == NULL && request->bits == NULL && policy->levels != NULL)
        scheme.quantizer = tn_quantizer_find("fixed");
    status = scheme.quantizer->resolve(&scheme, error);
    if (status == TN_OK)
        layer->scheme = scheme;
    return status;
}

tn_status tn_policy_check(const tn_policy *policy, tn_request *standard, tn_error *error)
{
    tn_request request = {.bits = policy->bits};
    tn_layer ignored = {0};
    tn_status status = TN_OK;
    if (policy->scheme != NULL)
        status = find_scheme(policy->scheme, "--scheme", &request.quantizer, error);
    if (status == TN_OK)
        status = tn_policy_resolve(policy, &request, &ignored, error);
    const struct {
        const char *choice, *option;
    } narrower[] = {{policy->conv_bits, "--conv-bits"},
                    {policy->linear_bits, "--linear-bits"},
                    {policy->first_layer, "--first-layer"},
                    {policy->last_layer, "--last-layer"}};
    for (size_t i = 0; status == TN_OK && i < sizeof narrower / sizeof narrower[0]; i++) {
        tn_request other = request;
        if (narrower[i].choice != NULL)
            status = tn_policy_apply_choice(narrower[i].choice, narrower[i].option, &other, error);
    }
    if (status == TN_OK)
        *standard = request;
    return status;
}
