/* The tables of the library, one view. */
#include "api/ternion.h"

#include "converter/form.h"
#include "converter/quantizer.h"
#include "onnx_io/ops/op.h"
#include "data/preprocess.h"
#include "onnx_io/zoo/zoo.h"

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

bool tn_catalog(tn_catalog_kind kind, size_t i, tn_catalog_entry *entry)
{
    const tn_form *form;
    const tn_architecture *architecture;
    const tn_op *op;
    switch (kind) {
    case TN_CATALOG_QUANTIZERS:
        return quantizer_entry(i, entry);
    case TN_CATALOG_FORMS:
        if ((form = tn_form_at(i)))
            *entry = (tn_catalog_entry){.id = form->id, .summary = form->summary};
        return form != NULL;
    case TN_CATALOG_OPERATORS:
        if ((op = tn_op_at(i)))
            *entry = (tn_catalog_entry){.id = op->type, .summary = op->domain};
        return op != NULL;
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
