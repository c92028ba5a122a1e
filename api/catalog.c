/* The tables of the library, one view. */
#include "api/ternion.h"

#include "converter/form.h"
#include "converter/quantizer.h"
#include "onnx_io/ops/op.h"
#include "data/preprocess.h"
#include "onnx_io/zoo/zoo.h"

#include <string.h>

/* Same members: a scheme's parameters are shown as they stand in its file. */
_Static_assert(sizeof(tn_catalog_parameter) == sizeof(tn_parameter), "one row of parameters");

static bool quantizer_entry(size_t i, tn_catalog_entry *entry)
{
    const tn_quantizer *quantizer = tn_quantizer_at(i);
    if (!quantizer)
        return false;
    *entry = (tn_catalog_entry){.id = quantizer->id, .summary = quantizer->summary};
    entry->parameters = (const tn_catalog_parameter *)(const void *)quantizer->parameters;
    while (quantizer->parameters && quantizer->parameters[entry->n_parameters].name)
        entry->n_parameters++;
    return true;
}

static bool is_first_of_its_name(size_t i)
{
    const tn_op *op = tn_op_at(i);
    for (size_t k = 0; k < i; k++)
        if (strcmp(tn_op_at(k)->type, op->type) == 0 &&
            strcmp(tn_op_at(k)->domain, op->domain) == 0)
            return false;
    return true;
}

/* Some operators have a row for each range of opsets. */
static bool operator_entry(size_t i, tn_catalog_entry *entry)
{
    const tn_op *op;
    for (size_t at = 0; (op = tn_op_at(at)); at++) {
        if (!is_first_of_its_name(at) || i-- > 0)
            continue;
        *entry = (tn_catalog_entry){.id = op->type, .summary = op->domain};
        return true;
    }
    return false;
}

bool tn_catalog(tn_catalog_kind kind, size_t i, tn_catalog_entry *entry)
{
    const tn_form *form;
    const tn_architecture *architecture;
    switch (kind) {
    case TN_CATALOG_QUANTIZERS:
        return quantizer_entry(i, entry);
    case TN_CATALOG_FORMS:
        if ((form = tn_form_at(i)))
            *entry = (tn_catalog_entry){.id = form->id, .summary = form->summary};
        return form != NULL;
    case TN_CATALOG_OPERATORS:
        return operator_entry(i, entry);
    case TN_CATALOG_ARCHITECTURES:
        if ((architecture = tn_architecture_at(i)))
            *entry = (tn_catalog_entry){.id = architecture->id, .summary = architecture->summary};
        return architecture != NULL;
    case TN_CATALOG_DATA:
        if (i >= tn_reader_count())
            return false;
        *entry = (tn_catalog_entry){.id = tn_reader_id(i), .summary = tn_reader_summary(i)};
        return true;
    case TN_CATALOG_IMAGES:
        if (i >= tn_preprocess_preset_count())
            return false;
        *entry = (tn_catalog_entry){.id = tn_preprocess_preset_name(i),
                                    .summary = tn_preprocess_preset_summary(i)};
        return true;
    }
    return false;
}
