/* The policy of tn_layers_select, parsed: rules and the scheme that each gives a layer. */
#ifndef TERNION_CONVERTER_POLICY_H
#define TERNION_CONVERTER_POLICY_H

#include "converter/layers.h"

/* What is asked for one layer, before tn_quantizer.resolve. */
typedef struct tn_request {
    const tn_quantizer *quantizer; /* NULL: follows from the bits */
    const char *bits;              /* NULL: the scheme's own */
    bool bits_given_here;          /* by something narrower than --bits: may change the scheme */
    bool scheme_given_here;        /* by something narrower than --scheme: --levels do not apply */
    bool keep;
    const char *reason;
} tn_request;

/* Sets layer->scheme from the request and the policy's granularity, threshold, levels. */
tn_status tn_policy_resolve(const tn_policy *policy, const tn_request *request, tn_layer *layer,
                            tn_error *error) TN_MUST_CHECK;

/* "4", "fixed", "fixed:4" or "keep" laid over `request`. */
tn_status tn_policy_apply_choice(const char *choice, const char *option, tn_request *request,
                                 tn_error *error) TN_MUST_CHECK;

/* Checks what does not depend on a layer: scheme, bits, granularity, threshold, levels. */
tn_status tn_policy_check(const tn_policy *policy, tn_request *standard,
                          tn_error *error) TN_MUST_CHECK;

/* "; did you mean NAME?" in `text` for the closest of the names, or "". */
void tn_suggest(const char *wrong, const char *const *names, size_t count, char *text, size_t size);

#endif
