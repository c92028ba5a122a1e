#include "converter/pack.h"

#include "converter/activation_record.h"
#include "converter/forms/forms.h"

#include <stdio.h>
#include <string.h>

enum { OPSET_INT16_LINEAR = 21, IR_OF_IT = 10 };
enum { LOWEST_IR = 4 }; /* below, every initializer is a graph input and packed ones could not be */

static bool is_half(const tn_pack_item *item)
{
    return !item->weight || !item->weight->codes;
}

static tn_status choose_forms(const tn_pack_item *items, size_t count, const tn_form *wanted,
                              tn_pack_choice *choice, tn_error *error)
{
    size_t refused = 0, packed = 0;
    const char *first_reason = NULL;
    const tn_layer *first_layer = NULL;
    for (size_t i = 0; i < count; i++) {
        bool by_bits = false;
        if (is_half(&items[i]))
            continue;
        packed++;
        choice[i].reason = tn_form_refusal(wanted, items[i].weight, items[i].layer, &by_bits);
        choice[i].form = tn_form_fallback(wanted, items[i].weight, items[i].layer);
        if (!choice[i].reason || by_bits)
            continue;
        refused++;
        if (!first_layer) {
            first_layer = items[i].layer;
            first_reason = choice[i].reason;
        }
    }
    if (packed > 0 && refused == packed)
        return tn_fail(error, TN_ERROR_USAGE,
                       "form %s can hold none of the %zu layers; the first, %s: %s. Use form lut",
                       wanted->id, packed, tn_quote(tn_node_label(first_layer->node)),
                       first_reason);
    return TN_OK;
}

/* Why a weight in front of quantized activations cannot have this form. ONNX Runtime makes integer
 * operators of two DequantizeLinear; those of INT2 and INT4 then do not load. */
static const char *refuse_linear(const tn_form *form, const tn_pack_item *item)
{
    const char *reason = tn_form_refusal(form, item->weight, item->layer, NULL);
    if (!reason && form == &tn_form_qdq && item->weight->bits <= 4)
        reason = "INT2 and INT4 do not load there";
    return reason;
}

static tn_status choose_linear(const tn_pack_item *items, size_t count, const tn_form *wanted,
                               tn_pack_choice *choice, tn_error *error)
{
    if (wanted != &tn_form_int8_lut && wanted != &tn_form_qdq)
        return tn_fail(
            error, TN_ERROR_USAGE,
            "form %s with quantized activations: ONNX Runtime would quantize the decoded "
            "weights once more, to 8 bits per tensor; use form int8-lut or qdq",
            wanted->id);
    for (size_t i = 0; i < count; i++) {
        const tn_pack_item *item = &items[i];
        if (is_half(item))
            continue;
        if (item->layer->weight->rank == 1) { /* a bias */
            choice[i].form = tn_form_fallback(&tn_form_lut, item->weight, item->layer);
            continue;
        }
        const char *reason = refuse_linear(wanted, item);
        choice[i].form = !reason ? wanted : item->weight->bits > 8 ? &tn_form_qdq : NULL;
        if (reason && (!choice[i].form || refuse_linear(choice[i].form, item)))
            return tn_fail(error, TN_ERROR_USAGE,
                           "form %s with quantized activations cannot hold layer %s: %s; use form "
                           "int8-lut and one scale per tensor or channel, or keep the layer with "
                           "--nodes-to-exclude",
                           wanted->id, tn_quote(tn_node_label(item->layer->node)), reason);
        choice[i].reason = reason;
    }
    return TN_OK;
}

/* The IR that introduced a type: a file that uses it cannot say less. */
static int64_t ir_of_type(int32_t dtype)
{
    switch ((tn_dtype)dtype) {
    case TN_FLOAT8E4M3FN:
    case TN_FLOAT8E4M3FNUZ:
    case TN_FLOAT8E5M2:
    case TN_FLOAT8E5M2FNUZ:
        return 9;
    case TN_UINT4:
    case TN_INT4:
        return 10;
    case TN_FLOAT4E2M1:
        return 11;
    case TN_FLOAT8E8M0:
        return 12;
    case TN_UINT2:
    case TN_INT2:
        return 13;
    default:
        return LOWEST_IR;
    }
}

static bool is_replaced(const tn_pack_item *items, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(items[i].layer->weight->name, name) == 0)
            return true;
    }
    return false;
}

/* A runtime older than the file's IR loads it when nothing in it needs that IR. */
static int64_t lowest_ir(const tn_graph *graph, const tn_pack_item *items, size_t count)
{
    const Onnx__GraphProto *proto = graph->model->proto->graph;
    int64_t ir = LOWEST_IR;
    for (size_t i = 0; i < proto->n_initializer; i++) {
        int64_t needed = ir_of_type(proto->initializer[i]->data_type);
        if (needed > ir && !is_replaced(items, count, tn_text(proto->initializer[i]->name)))
            ir = needed;
    }
    return ir;
}

/* The narrowest integer type that a form puts into the file; 8 when none is below. */
static int narrowest(const tn_pack_item *items, size_t count, const tn_pack_choice *choice,
                     const tn_form *form)
{
    int narrow = 8;
    for (size_t i = 0; i < count; i++) {
        if (choice[i].form != form)
            continue;
        int bits = items[i].weight->bits;
        int width = bits <= 2 ? 2 : bits <= 4 ? 4 : 8;
        narrow = width < narrow ? width : narrow;
    }
    return narrow;
}

static tn_status check_runtime(const tn_pack_options *options, const tn_runtime_need *need,
                               int64_t input, tn_error *error)
{
    const tn_runtime *runtime = options->runtime;
    if (need->opset > runtime->opset)
        return tn_fail(error, TN_ERROR_USAGE,
                       need->opset == input ? "the model has opset %lld, but %s loads at most %lld"
                       : need->opset == options->opset
                           ? "activations of these bits need opset %lld, but %s loads at most %lld"
                           : "this form needs opset %lld, but %s loads at most %lld; use form lut",
                       (long long)need->opset, runtime->id, (long long)runtime->opset);
    if (need->ir > runtime->ir)
        return tn_fail(error, TN_ERROR_USAGE,
                       "the result needs IR version %lld, but %s loads at most %lld",
                       (long long)need->ir, runtime->id, (long long)runtime->ir);
    if (need->linear_bits < runtime->linear_bits)
        return tn_fail(error, TN_ERROR_USAGE,
                       "%s has no DequantizeLinear of %d-bit integers; use form lut", runtime->id,
                       need->linear_bits);
    if (need->cast_bits < runtime->cast_bits)
        return tn_fail(error, TN_ERROR_USAGE,
                       "%s has no Cast of %d-bit integers; use form qdq or lut", runtime->id,
                       need->cast_bits);
    return TN_OK;
}

static void say_needs(tn_pack_plan *plan, const tn_form *wanted, const tn_runtime_need *need)
{
    const tn_runtime *oldest = tn_runtime_oldest(need);
    if (!wanted->self_contained)
        snprintf(plan->needs, sizeof plan->needs, "%s", wanted->needs);
    else if (!oldest)
        snprintf(plan->needs, sizeof plan->needs, "a runtime for opset %lld and IR %lld",
                 (long long)plan->opset, (long long)plan->ir);
    else
        snprintf(plan->needs, sizeof plan->needs, "%sONNX Runtime from %s (opset %lld, IR %lld)",
                 oldest == tn_runtime_at(0) ? "any " : "", oldest->first, (long long)plan->opset,
                 (long long)plan->ir);
}

static bool has_integer_layers(const tn_pack_item *items, size_t count)
{
    for (size_t i = 0; i < count; i++)
        for (size_t u = 0; u < items[i].layer->n_users; u++)
            if (tn_activation_is_integer(items[i].layer->users[u]))
                return true;
    return false;
}

tn_status tn_pack_choose(tn_graph *graph, const tn_pack_item *items, size_t count,
                         const tn_pack_options *options, tn_pack_plan *plan, tn_error *error)
{
    const bool linear = options->linear || has_integer_layers(items, count);
    const tn_form *wanted = options->form ? options->form
                            : linear      ? &tn_form_int8_lut
                                          : &tn_form_lut;
    int64_t input = graph->model->opset;
    tn_pack_plan result = {.form = wanted, .opset = input, .ir = graph->model->ir_version};
    result.choice = tn_arena_array(&graph->arena, count, sizeof *result.choice);
    if (!result.choice)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the plan");
    tn_status status = linear ? choose_linear(items, count, wanted, result.choice, error)
                              : choose_forms(items, count, wanted, result.choice, error);
    if (status != TN_OK)
        return status;
    if (options->runtime && result.ir > options->runtime->ir) {
        int64_t lowest = lowest_ir(graph, items, count);
        result.ir = lowest > options->runtime->ir ? lowest : options->runtime->ir;
    }
    if (result.ir < LOWEST_IR)
        result.ir = LOWEST_IR;
    for (size_t i = 0; i < count; i++) {
        int64_t opset = 0, ir = 0;
        if (result.choice[i].form)
            result.choice[i].form->versions(items[i].weight, &opset, &ir);
        result.opset = opset > result.opset ? opset : result.opset;
        result.ir = ir > result.ir ? ir : result.ir;
    }
    if (options->opset > result.opset)
        result.opset = options->opset;
    if (options->opset >= OPSET_INT16_LINEAR && result.ir < IR_OF_IT)
        result.ir = IR_OF_IT;
    const tn_runtime_need need = {
        .opset = result.opset,
        .ir = result.ir,
        .linear_bits = narrowest(items, count, result.choice, &tn_form_qdq),
        .cast_bits = narrowest(items, count, result.choice, &tn_form_int2)};
    if (options->runtime)
        status = check_runtime(options, &need, input, error);
    if (status != TN_OK)
        return status;
    say_needs(&result, wanted, &need);
    *plan = result;
    return TN_OK;
}
