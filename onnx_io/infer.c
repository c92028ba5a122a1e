#include "onnx_io/infer.h"

#include "core/checked.h"
#include "onnx_io/model_store.h"
#include "onnx_io/ops/shapes.h"

#include <string.h>

/* A tensor that folding produced: linked in graph->folds, the struct in the graph's arena. */
struct tn_fold {
    struct tn_fold *next;
    tn_tensor tensor;
};

enum {
    PROBE_LIMIT = 1 << 16,   /* bytes of a value that is folded while probing batch sizes */
    FOLD_FLOPS = 1 << 28,    /* of a product that is folded */
    WORK_PER_BYTE = 64,      /* bytes folding may read, per byte it may produce */
    DEFAULT_LIMIT = 1 << 30, /* bytes folding may produce, beside 4 x file */
    PROBES = 2
};

static const int64_t probe_batches[PROBES] = {61, 1009};

typedef struct infer_run {
    tn_graph *graph;
    struct tn_fold **folds;   /* list the results go to */
    uint64_t bytes_left;      /* that folding may still produce */
    uint64_t work_left;       /* bytes folding may still read and write */
    uint64_t value_limit;     /* most bytes of one folded value */
    int64_t old_batch, batch; /* Reshape constants: old leading batch -> new; 0: as they are */
} infer_run;

static void release(struct tn_fold **folds)
{
    for (struct tn_fold *fold = *folds; fold; fold = fold->next)
        tn_tensor_done(&fold->tensor);
    *folds = NULL;
}

void tn_graph_release_folds(tn_graph *graph)
{
    release(&graph->folds);
}

static tn_status check_arity(const tn_node *node, const tn_op *op, tn_error *error)
{
    if (node->n_inputs > (size_t)op->max_inputs || node->n_inputs < (size_t)op->min_inputs)
        return tn_fail(error, TN_ERROR_MODEL, "%zu inputs: %d to %d expected at opset %lld",
                       node->n_inputs, op->min_inputs, op->max_inputs,
                       (long long)node->model->opset);
    if (node->n_outputs > (size_t)op->max_outputs || node->n_outputs < (size_t)op->min_outputs)
        return tn_fail(error, TN_ERROR_MODEL, "%zu outputs: %d to %d expected at opset %lld",
                       node->n_outputs, op->min_outputs, op->max_outputs,
                       (long long)node->model->opset);
    for (int i = 0; i < op->min_inputs; i++)
        if (!node->inputs[i])
            return tn_fail(error, TN_ERROR_MODEL, "input %d is missing", i);
    return TN_OK;
}

/* Infers a Reshape as if its shape constant began with the new batch. True when that worked. */
static bool infer_rebatched(const infer_run *run, tn_node *node)
{
    tn_value *shape = tn_op_input(node, 1);
    tn_int_list list;
    if (run->batch == 0 || strcmp(node->type, "Reshape") != 0 || !shape || !shape->constant ||
        node->inputs[0]->constant ||
        tn_int_list_from_tensor(shape->constant, "", &list, NULL) != TN_OK || list.count == 0 ||
        list.values[0] != run->old_batch)
        return false;
    list.values[0] = run->batch;
    const tn_tensor *kept = shape->constant;
    tn_tensor patched = {.dtype = TN_INT64,
                         .rank = 1,
                         .dims = {list.count},
                         .data = list.values,
                         .bytes = (size_t)list.count * sizeof(int64_t)};
    shape->constant = &patched;
    tn_status status = node->op->infer(node, NULL);
    shape->constant = kept;
    return status == TN_OK;
}

static tn_status infer_shapes(const infer_run *run, tn_node *node, tn_error *error)
{
    for (size_t k = 0; k < node->n_outputs; k++) {
        tn_value *value = node->outputs[k];
        if (!value)
            continue;
        value->dtype = TN_UNDEFINED;
        value->rank = TN_RANK_UNKNOWN;
        value->constant = NULL;
    }
    tn_status status = check_arity(node, node->op, error);
    if (status != TN_OK || infer_rebatched(run, node))
        return status;
    return node->op->infer(node, error);
}

static bool value_bytes(const tn_value *value, uint64_t *bytes)
{
    tn_shape shape = tn_op_shape(value);
    int64_t count = tn_shape_count(&shape);
    size_t size;
    if (count < 0 || !tn_dtype_bytes(value->dtype, (uint64_t)count, &size))
        return false;
    *bytes = size;
    return true;
}

/* Whether all inputs are there and the results stay within the budget. *work counts bytes. */
static bool can_fold(const infer_run *run, const tn_node *node, uint64_t *work)
{
    uint64_t produced = 0, bytes;
    *work = 0;
    if (!node->op->evaluate)
        return false;
    for (size_t i = 0; i < node->n_inputs && !node->op->by_shape; i++) {
        if (node->inputs[i] && !node->inputs[i]->constant)
            return false;
        *work += node->inputs[i] ? node->inputs[i]->constant->bytes : 0;
    }
    for (size_t k = 0; k < node->n_outputs; k++) {
        if (!node->outputs[k])
            continue;
        if (!value_bytes(node->outputs[k], &bytes) || bytes > run->value_limit ||
            bytes > run->bytes_left || produced > run->bytes_left - bytes)
            return false;
        produced += bytes;
    }
    *work += produced;
    int64_t flops = node->op->flops ? node->op->flops(node) : 0;
    return flops >= 0 && flops <= FOLD_FLOPS && *work <= run->work_left;
}

static tn_status keep_output(infer_run *run, tn_value *value, tn_tensor *tensor, tn_error *error)
{
    struct tn_fold *fold = tn_arena_alloc(&run->graph->arena, sizeof *fold);
    if (!fold) {
        tn_tensor_done(tensor);
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    }
    fold->tensor = *tensor;
    fold->next = *run->folds;
    *run->folds = fold;
    if (tensor->owned)
        run->bytes_left -= tensor->bytes < run->bytes_left ? tensor->bytes : run->bytes_left;
    value->constant = &fold->tensor;
    value->dtype = fold->tensor.dtype;
    value->rank = fold->tensor.rank;
    memcpy(value->dims, fold->tensor.dims, sizeof value->dims);
    return TN_OK;
}

static tn_status fold_node(infer_run *run, tn_node *node, tn_error *error)
{
    uint64_t work;
    if (!can_fold(run, node, &work))
        return TN_OK;
    run->work_left -= work;
    const tn_tensor **inputs = tn_alloc_zero(node->n_inputs + 1, sizeof *inputs);
    tn_tensor *outputs = tn_alloc_zero(node->n_outputs + 1, sizeof *outputs);
    tn_status status = TN_OK;
    if (!inputs || !outputs) {
        status = tn_fail(error, TN_ERROR_LIMIT, "out of memory");
        goto done;
    }
    tn_op_constants(node, inputs, node->n_inputs);
    status = node->op->evaluate(node, inputs, outputs, error);
    for (size_t k = 0; k < node->n_outputs; k++) {
        if (status == TN_OK && node->outputs[k])
            status = keep_output(run, node->outputs[k], &outputs[k], error);
        else
            tn_tensor_done(&outputs[k]);
    }
    node->folded = status == TN_OK;
    if (status == TN_ERROR_USAGE) { /* it stays as it is, and what hangs on it */
        if (error)
            tn_error_clear(error);
        status = TN_OK;
    }
done:
    tn_free(inputs);
    tn_free(outputs);
    return status;
}

static tn_status infer_node(infer_run *run, tn_node *node, tn_error *error)
{
    tn_status status = infer_shapes(run, node, error);
    if (status == TN_OK)
        status = fold_node(run, node, error);
    if (status != TN_OK && error) {
        tn_error_prepend(error, "%s node %s", node->op->type, tn_quote(tn_node_label(node)));
        tn_error_note_node(error, tn_node_label(node));
    }
    return status;
}

/* The batch the file gives the first input; 0 when it is not static. */
static int64_t static_batch(const tn_graph *graph)
{
    const Onnx__GraphProto *proto = graph->model->proto->graph;
    for (size_t i = 0; graph->n_inputs > 0 && i < proto->n_input; i++) {
        if (strcmp(tn_text(proto->input[i]->name), graph->inputs[0]->name) != 0)
            continue;
        const Onnx__TypeProto *type = proto->input[i]->type;
        if (!type || type->value_case != ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE ||
            !type->tensor_type || !type->tensor_type->shape || type->tensor_type->shape->n_dim == 0)
            return 0;
        const Onnx__TensorShapeProto__Dimension *dim = type->tensor_type->shape->dim[0];
        return dim->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE &&
                       dim->dim_value > 0
                   ? dim->dim_value
                   : 0;
    }
    return 0;
}

/* The shapes of all values, kept while a batch size is tried. */
typedef struct shape_record {
    tn_dtype dtype;
    tn_shape shape;
} shape_record;

static void record_shapes(const tn_graph *graph, shape_record *records)
{
    for (size_t i = 0; i < graph->n_values; i++)
        records[i] = (shape_record){graph->values[i]->dtype, tn_op_shape(graph->values[i])};
}

static void restore_shapes(tn_graph *graph, const shape_record *records)
{
    for (size_t i = 0; i < graph->n_values; i++) {
        tn_value *value = graph->values[i];
        value->dtype = records[i].dtype;
        value->rank = records[i].shape.rank;
        memcpy(value->dims, records[i].shape.dims, sizeof value->dims);
    }
}

/* Runs inference of what is not folded with a batch size; false when that is not possible. The
 * constants it finds are dropped again, so that none depends on the size tried. */
static bool probe_batch(infer_run *run, int64_t batch)
{
    tn_graph *graph = run->graph;
    tn_status status = TN_OK;
    for (size_t i = 0; i < graph->n_inputs; i++)
        if (graph->inputs[i]->rank > 0 && graph->inputs[i]->dims[0] == TN_DIM_UNKNOWN)
            graph->inputs[i]->dims[0] = batch;
    bool *tried = tn_alloc_zero(graph->n_nodes + 1, sizeof *tried);
    if (!tried)
        return false;
    for (size_t i = 0; status == TN_OK && i < graph->n_nodes; i++) {
        tn_node *node = graph->nodes[i];
        tried[i] = node->op && !node->folded;
        if (tried[i])
            status = infer_node(run, node, NULL);
    }
    for (size_t i = 0; i < graph->n_nodes; i++) {
        tn_node *node = graph->nodes[i];
        node->folded = node->folded && !tried[i];
        for (size_t k = 0; tried[i] && k < node->n_outputs; k++)
            if (node->outputs[k])
                node->outputs[k]->constant = NULL;
    }
    tn_free(tried);
    release(run->folds);
    return status == TN_OK;
}

/* Dimensions that are the same for both batch sizes do not depend on it; those that differ become
 * unknown. */
static void merge_shapes(tn_graph *graph, const shape_record *first)
{
    for (size_t i = 0; i < graph->n_values; i++) {
        tn_value *value = graph->values[i];
        if (value->rank != first[i].shape.rank)
            value->rank = TN_RANK_UNKNOWN;
        for (int k = 0; k < value->rank; k++)
            if (value->dims[k] != first[i].shape.dims[k])
                value->dims[k] = TN_DIM_UNKNOWN;
    }
}

/* Where the batch is unknown, finds by trying two sizes which dimensions follow all the same:
 * Shape -> Gather -> Concat -> Reshape then gives [unknown, C*H*W]. */
static tn_status probe_unknown_batch(infer_run run, tn_error *error)
{
    tn_graph *graph = run.graph;
    struct tn_fold *folds = NULL;
    bool unknown = false;
    for (size_t i = 0; i < graph->n_inputs; i++)
        unknown |= graph->inputs[i]->rank > 0 && graph->inputs[i]->dims[0] == TN_DIM_UNKNOWN;
    if (!unknown)
        return TN_OK;
    shape_record *plain = tn_alloc_array(graph->n_values, sizeof *plain);
    shape_record *first = tn_alloc_array(graph->n_values, sizeof *first);
    tn_status status = TN_OK;
    if (!plain || !first) {
        status = tn_fail(error, TN_ERROR_LIMIT, "out of memory inferring shapes");
        goto done;
    }
    record_shapes(graph, plain);
    run.folds = &folds;
    run.value_limit = PROBE_LIMIT;
    bool works = probe_batch(&run, probe_batches[0]);
    record_shapes(graph, first);
    restore_shapes(graph, plain);
    works = works && probe_batch(&run, probe_batches[1]);
    if (works)
        merge_shapes(graph, first);
    else
        restore_shapes(graph, plain);
done:
    tn_free(plain);
    tn_free(first);
    return status;
}

/* Bytes of the files the model was read from. */
static uint64_t file_bytes(const tn_model *model)
{
    uint64_t bytes = 0;
    for (const struct tn_model_map *map = model->store->maps; map; map = map->next)
        bytes += map->map.size;
    return bytes;
}

tn_status tn_graph_infer(tn_graph *graph, const tn_graph_options *options, tn_error *error)
{
    infer_run run = {.graph = graph, .folds = &graph->folds, .value_limit = UINT64_MAX};
    uint64_t limit = options ? options->fold_limit : 0;
    if (limit == 0)
        limit = DEFAULT_LIMIT + 4 * file_bytes(graph->model);
    run.bytes_left = limit;
    run.work_left = limit < UINT64_MAX / WORK_PER_BYTE ? limit * WORK_PER_BYTE : UINT64_MAX;
    if (options && options->batch > 0) {
        run.old_batch = static_batch(graph);
        run.batch = run.old_batch > 0 && run.old_batch != options->batch ? options->batch : 0;
    }
    tn_status status = TN_OK;
    for (size_t i = 0; status == TN_OK && i < graph->n_nodes; i++) {
        tn_node *node = graph->nodes[i];
        node->op = tn_op_find(node->domain, node->type, graph->model->opset, NULL);
        node->folded = false;
        if (node->op)
            status = infer_node(&run, node, error);
    }
    return status == TN_OK ? probe_unknown_batch(run, error) : status;
}

int64_t tn_graph_flops(const tn_graph *graph)
{
    int64_t total = 0;
    for (size_t i = 0; i < graph->n_nodes; i++) {
        const tn_node *node = graph->nodes[i];
        if (node->folded || !node->op || !node->op->flops)
            continue;
        int64_t flops = node->op->flops(node);
        if (flops < 0 || !tn_checked_add_i64(total, flops, &total))
            return -1;
    }
    return total;
}
