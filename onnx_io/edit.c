#include "onnx_io/edit.h"

#include "onnx_io/model_store.h"
#include "onnx_io/order.h"

#include <stdio.h>
#include <string.h>

static tn_status out_of_memory(tn_error *error)
{
    return tn_fail(error, TN_ERROR_LIMIT, "out of memory editing the model");
}

static bool take_name(tn_model *model, const char *name)
{
    return !tn_text(name)[0] || tn_names_set(&model->store->taken, name, model);
}

static bool take_graph(tn_model *model, const Onnx__GraphProto *graph)
{
    bool ok = true;
    for (size_t i = 0; ok && i < graph->n_input; i++)
        ok = take_name(model, graph->input[i]->name);
    for (size_t i = 0; ok && i < graph->n_output; i++)
        ok = take_name(model, graph->output[i]->name);
    for (size_t i = 0; ok && i < graph->n_value_info; i++)
        ok = take_name(model, graph->value_info[i]->name);
    for (size_t i = 0; ok && i < graph->n_initializer; i++)
        ok = take_name(model, graph->initializer[i]->name);
    for (size_t i = 0; ok && i < graph->n_sparse_initializer; i++)
        ok = !graph->sparse_initializer[i]->values ||
             take_name(model, graph->sparse_initializer[i]->values->name);
    for (size_t i = 0; ok && i < graph->n_node; i++) {
        const Onnx__NodeProto *node = graph->node[i];
        ok = take_name(model, node->name);
        for (size_t k = 0; ok && k < node->n_input; k++)
            ok = take_name(model, node->input[k]);
        for (size_t k = 0; ok && k < node->n_output; k++)
            ok = take_name(model, node->output[k]);
        for (size_t k = 0; ok && k < node->n_attribute; k++) {
            const Onnx__AttributeProto *attribute = node->attribute[k];
            ok = !attribute->g || take_graph(model, attribute->g);
            for (size_t g = 0; ok && g < attribute->n_graphs; g++)
                ok = take_graph(model, attribute->graphs[g]);
        }
    }
    return ok;
}

const char *tn_edit_unique_name(tn_model *model, const char *base)
{
    tn_names *taken = &model->store->taken;
    if (taken->count == 0 && !take_graph(model, model->proto->graph)) {
        tn_names_done(taken);
        tn_names_init(taken);
        return NULL;
    }
    size_t room = strlen(base) + 24;
    char *name = tn_arena_alloc(&model->arena, room);
    if (!name)
        return NULL;
    snprintf(name, room, "%s", base);
    for (unsigned long i = 1; tn_names_get(taken, name); i++)
        snprintf(name, room, "%s_%lu", base, i);
    return take_name(model, name) ? name : NULL;
}

/* Makes room for one more item in a repeated field of pointers. */
static bool grow_list(tn_model *model, void ***list, size_t count)
{
    struct tn_model_store *store = model->store;
    size_t slot = 0;
    while (slot < TN_GROWN_LISTS && store->grown[slot].list != *list)
        slot++;
    if (*list && slot < TN_GROWN_LISTS && count < store->grown[slot].capacity)
        return true;
    size_t capacity = count * 2 + 8;
    void **larger = tn_arena_array(&model->arena, capacity, sizeof *larger);
    if (!larger)
        return false;
    if (count > 0)
        memcpy(larger, *list, count * sizeof *larger);
    if (slot == TN_GROWN_LISTS || !*list) {
        slot = store->next_grown;
        store->next_grown = (slot + 1) % TN_GROWN_LISTS;
    }
    store->grown[slot].list = larger;
    store->grown[slot].capacity = capacity;
    *list = larger;
    return true;
}

static bool insert(tn_model *model, void ***list, size_t *count, size_t position, void *item)
{
    if (!item || !grow_list(model, list, *count))
        return false;
    if (position > *count)
        position = *count;
    memmove(*list + position + 1, *list + position, (*count - position) * sizeof **list);
    (*list)[position] = item;
    ++*count;
    return true;
}

/* Appends to a repeated message field through its typed list. */
#define APPEND(model, list, count, item)                                                           \
    insert((model), (void ***)(void *)&(list), &(count), SIZE_MAX, (item))

static void remove_at(void **list, size_t *count, size_t position)
{
    memmove(list + position, list + position + 1, (*count - position - 1) * sizeof *list);
    --*count;
}

Onnx__TensorProto *tn_edit_add_initializer(tn_model *model, const char *name, tn_dtype dtype,
                                           int rank, const int64_t *dims, const void *data,
                                           size_t bytes, bool copy)
{
    Onnx__GraphProto *graph = model->proto->graph;
    Onnx__TensorProto *tensor = tn_arena_alloc(&model->arena, sizeof *tensor);
    int64_t *own_dims = tn_arena_array(&model->arena, (size_t)rank, sizeof *own_dims);
    char *own_name = tn_arena_strdup(&model->arena, name);
    void *own_data = copy ? tn_arena_alloc(&model->arena, bytes) : (void *)(uintptr_t)data;
    if (!tensor || !own_dims || !own_name || (copy && !own_data))
        return NULL;
    if (copy && bytes > 0)
        memcpy(own_data, data, bytes);
    if (rank > 0)
        memcpy(own_dims, dims, (size_t)rank * sizeof *own_dims);
    onnx__tensor_proto__init(tensor);
    tensor->name = own_name;
    tensor->has_data_type = 1;
    tensor->data_type = (int32_t)dtype;
    tensor->dims = own_dims;
    tensor->n_dims = (size_t)rank;
    tensor->has_raw_data = 1;
    tensor->raw_data = (ProtobufCBinaryData){bytes, own_data};
    return APPEND(model, graph->initializer, graph->n_initializer, tensor) ? tensor : NULL;
}

/* Copies of a NULL-ended list of strings; NULL when out of memory. */
static char **copy_strings(tn_model *model, const char *const *strings, size_t *count)
{
    size_t n = 0;
    while (strings[n])
        n++;
    char **copy = tn_arena_array(&model->arena, n, sizeof *copy);
    for (size_t i = 0; copy && i < n; i++) {
        copy[i] = tn_arena_strdup(&model->arena, strings[i]);
        if (!copy[i])
            return NULL;
    }
    *count = n;
    return copy;
}

Onnx__NodeProto *tn_edit_add_node(tn_model *model, size_t position, const char *type,
                                  const char *name, const char *const *inputs,
                                  const char *const *outputs)
{
    Onnx__GraphProto *graph = model->proto->graph;
    Onnx__NodeProto *node = tn_arena_alloc(&model->arena, sizeof *node);
    if (!node)
        return NULL;
    onnx__node_proto__init(node);
    node->op_type = tn_arena_strdup(&model->arena, type);
    node->name = tn_arena_strdup(&model->arena, name);
    node->input = copy_strings(model, inputs, &node->n_input);
    node->output = copy_strings(model, outputs, &node->n_output);
    if (!node->op_type || !node->name || !node->input || !node->output)
        return NULL;
    return insert(model, (void ***)(void *)&graph->node, &graph->n_node, position, node) ? node
                                                                                         : NULL;
}

/* The attribute, emptied, or a new one. */
static tn_status reset_attribute(tn_model *model, Onnx__NodeProto *node, const char *name,
                                 Onnx__AttributeProto__AttributeType type,
                                 Onnx__AttributeProto **attribute, tn_error *error)
{
    Onnx__AttributeProto *result = NULL;
    for (size_t i = 0; i < node->n_attribute; i++)
        if (strcmp(tn_text(node->attribute[i]->name), name) == 0)
            result = node->attribute[i];
    bool is_new = !result;
    if (is_new)
        result = tn_arena_alloc(&model->arena, sizeof *result);
    char *own_name = tn_arena_strdup(&model->arena, name);
    if (!result || !own_name)
        return out_of_memory(error);
    onnx__attribute_proto__init(result);
    result->name = own_name;
    result->has_type = 1;
    result->type = type;
    if (is_new && !APPEND(model, node->attribute, node->n_attribute, result))
        return out_of_memory(error);
    *attribute = result;
    return TN_OK;
}

tn_status tn_edit_set_int(tn_model *model, Onnx__NodeProto *node, const char *name, int64_t value,
                          tn_error *error)
{
    Onnx__AttributeProto *attribute;
    tn_status status = reset_attribute(
        model, node, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT, &attribute, error);
    if (status != TN_OK)
        return status;
    attribute->has_i = 1;
    attribute->i = value;
    return TN_OK;
}

tn_status tn_edit_set_float(tn_model *model, Onnx__NodeProto *node, const char *name, float value,
                            tn_error *error)
{
    Onnx__AttributeProto *attribute;
    tn_status status = reset_attribute(
        model, node, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT, &attribute, error);
    if (status != TN_OK)
        return status;
    attribute->has_f = 1;
    attribute->f = value;
    return TN_OK;
}

tn_status tn_edit_set_ints(tn_model *model, Onnx__NodeProto *node, const char *name,
                           const int64_t *values, size_t count, tn_error *error)
{
    Onnx__AttributeProto *attribute;
    int64_t *copy = tn_arena_array(&model->arena, count, sizeof *copy);
    if (!copy)
        return out_of_memory(error);
    if (count > 0)
        memcpy(copy, values, count * sizeof *copy);
    tn_status status = reset_attribute(
        model, node, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS, &attribute, error);
    if (status != TN_OK)
        return status;
    attribute->ints = copy;
    attribute->n_ints = count;
    return TN_OK;
}

tn_status tn_edit_set_string(tn_model *model, Onnx__NodeProto *node, const char *name,
                             const char *value, tn_error *error)
{
    Onnx__AttributeProto *attribute;
    char *copy = tn_arena_strdup(&model->arena, value);
    if (!copy)
        return out_of_memory(error);
    tn_status status = reset_attribute(
        model, node, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRING, &attribute, error);
    if (status != TN_OK)
        return status;
    attribute->has_s = 1;
    attribute->s = (ProtobufCBinaryData){strlen(value), (uint8_t *)copy};
    return TN_OK;
}

void tn_edit_remove_attribute(Onnx__NodeProto *node, const char *name)
{
    for (size_t i = node->n_attribute; i-- > 0;)
        if (strcmp(tn_text(node->attribute[i]->name), name) == 0)
            remove_at((void **)node->attribute, &node->n_attribute, i);
}

tn_status tn_edit_set_input(tn_model *model, Onnx__NodeProto *node, size_t index, const char *name,
                            tn_error *error)
{
    size_t count = node->n_input > index ? node->n_input : index + 1;
    char **inputs = node->input;
    char *copy = tn_arena_strdup(&model->arena, name);
    if (copy && count > node->n_input) {
        inputs = tn_arena_array(&model->arena, count, sizeof *inputs);
        for (size_t i = 0; inputs && i < count; i++)
            inputs[i] = i < node->n_input ? node->input[i] : copy + strlen(copy); /* "" */
    }
    if (!copy || !inputs)
        return out_of_memory(error);
    inputs[index] = copy;
    node->input = inputs;
    node->n_input = count;
    return TN_OK;
}

void tn_edit_remove_node(tn_model *model, const Onnx__NodeProto *node)
{
    Onnx__GraphProto *graph = model->proto->graph;
    for (size_t i = 0; i < graph->n_node; i++) {
        if (graph->node[i] == node) {
            remove_at((void **)graph->node, &graph->n_node, i);
            return;
        }
    }
}

void tn_edit_remove_initializer(tn_model *model, const char *name)
{
    Onnx__GraphProto *graph = model->proto->graph;
    for (size_t i = graph->n_initializer; i-- > 0;)
        if (strcmp(tn_text(graph->initializer[i]->name), name) == 0)
            remove_at((void **)graph->initializer, &graph->n_initializer, i);
    for (size_t i = graph->n_input; i-- > 0;)
        if (strcmp(tn_text(graph->input[i]->name), name) == 0)
            remove_at((void **)graph->input, &graph->n_input, i);
}

/* A ValueInfoProto of a dense tensor; -1 among dims is the symbolic dimension "batch". */
static Onnx__ValueInfoProto *make_value_info(tn_model *model, const char *name, tn_dtype dtype,
                                             int rank, const int64_t *dims)
{
    struct parts {
        Onnx__ValueInfoProto info;
        Onnx__TypeProto type;
        Onnx__TypeProto__Tensor tensor;
        Onnx__TensorShapeProto shape;
        Onnx__TensorShapeProto__Dimension *list[TN_MAX_RANK];
        Onnx__TensorShapeProto__Dimension dims[TN_MAX_RANK];
    } *parts = tn_arena_alloc(&model->arena, sizeof *parts);
    char *own_name = tn_arena_strdup(&model->arena, name);
    char *batch = tn_arena_strdup(&model->arena, "batch");
    if (!parts || !own_name || !batch || rank > TN_MAX_RANK)
        return NULL;
    onnx__value_info_proto__init(&parts->info);
    onnx__type_proto__init(&parts->type);
    onnx__type_proto__tensor__init(&parts->tensor);
    onnx__tensor_shape_proto__init(&parts->shape);
    parts->info.name = own_name;
    parts->info.type = &parts->type;
    parts->type.value_case = ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE;
    parts->type.tensor_type = &parts->tensor;
    parts->tensor.has_elem_type = 1;
    parts->tensor.elem_type = (int32_t)dtype;
    parts->tensor.shape = &parts->shape;
    parts->shape.dim = parts->list;
    parts->shape.n_dim = (size_t)rank;
    for (int i = 0; i < rank; i++) {
        Onnx__TensorShapeProto__Dimension *dim = parts->list[i] = &parts->dims[i];
        onnx__tensor_shape_proto__dimension__init(dim);
        if (dims[i] < 0) {
            dim->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM;
            dim->dim_param = batch;
        } else {
            dim->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE;
            dim->dim_value = dims[i];
        }
    }
    return &parts->info;
}

tn_status tn_edit_add_input(tn_model *model, const char *name, tn_dtype dtype, int rank,
                            const int64_t *dims, tn_error *error)
{
    Onnx__GraphProto *graph = model->proto->graph;
    Onnx__ValueInfoProto *info = make_value_info(model, name, dtype, rank, dims);
    return APPEND(model, graph->input, graph->n_input, info) ? TN_OK : out_of_memory(error);
}

tn_status tn_edit_add_output(tn_model *model, const char *name, tn_dtype dtype, int rank,
                             const int64_t *dims, tn_error *error)
{
    Onnx__GraphProto *graph = model->proto->graph;
    Onnx__ValueInfoProto *info = make_value_info(model, name, dtype, rank, dims);
    return APPEND(model, graph->output, graph->n_output, info) ? TN_OK : out_of_memory(error);
}

tn_status tn_edit_set_metadata(tn_model *model, const char *key, const char *value, tn_error *error)
{
    Onnx__ModelProto *proto = model->proto;
    char *own_key = tn_arena_strdup(&model->arena, key);
    char *own_value = tn_arena_strdup(&model->arena, value);
    if (!own_key || !own_value)
        return out_of_memory(error);
    for (size_t i = 0; i < proto->n_metadata_props; i++) {
        if (strcmp(tn_text(proto->metadata_props[i]->key), key) == 0) {
            proto->metadata_props[i]->value = own_value;
            return TN_OK;
        }
    }
    Onnx__StringStringEntryProto *entry = tn_arena_alloc(&model->arena, sizeof *entry);
    if (!entry)
        return out_of_memory(error);
    onnx__string_string_entry_proto__init(entry);
    entry->key = own_key;
    entry->value = own_value;
    return APPEND(model, proto->metadata_props, proto->n_metadata_props, entry)
               ? TN_OK
               : out_of_memory(error);
}

/* Every import of the default domain: a file may have it under both of its names. False when it has
 * none. */
static bool set_default_opsets(const Onnx__ModelProto *proto, int64_t opset)
{
    bool found = false;
    for (size_t i = 0; i < proto->n_opset_import; i++) {
        const char *domain = tn_text(proto->opset_import[i]->domain);
        if (domain[0] && strcmp(domain, "ai.onnx") != 0)
            continue;
        proto->opset_import[i]->has_version = 1;
        proto->opset_import[i]->version = opset;
        found = true;
    }
    return found;
}

tn_status tn_edit_set_versions(tn_model *model, int64_t ir_version, int64_t opset, tn_error *error)
{
    Onnx__ModelProto *proto = model->proto;
    if (!set_default_opsets(proto, opset)) {
        Onnx__OperatorSetIdProto *import = tn_arena_alloc(&model->arena, sizeof *import);
        char *domain = tn_arena_strdup(&model->arena, "");
        if (!import || !domain)
            return out_of_memory(error);
        onnx__operator_set_id_proto__init(import);
        import->domain = domain;
        import->has_version = 1;
        import->version = opset;
        if (!APPEND(model, proto->opset_import, proto->n_opset_import, import))
            return out_of_memory(error);
    }
    proto->has_ir_version = 1;
    proto->ir_version = ir_version;
    model->ir_version = ir_version;
    model->opset = opset;
    return TN_OK;
}
