#include "network/params.h"

#include "converter/weight.h"
#include "core/memory.h"

#include <string.h>

enum { GRADIENT_ALIGN = 64 }; /* floats: matrix products write there as to memory of their own */

struct tn_params {
    tn_device *device;
    tn_param *params;
    size_t n, capacity;
    float *gradients;
    int64_t n_gradients;
    float *staging;               /* host, of the largest parameter */
    float *host, *host_gradients; /* NULL where the device's memory is the host's */
};

/* Inputs that say how, not what: shapes, axes, bounds. They are read from the graph. */
static bool is_setting(const tn_node *node, size_t input)
{
    static const char *const types[] = {"Reshape",   "Slice",     "Pad",        "Clip",
                                        "Squeeze",   "Unsqueeze", "ReduceMean", "ReduceSum",
                                        "ReduceMax", "Dropout",   "Expand",     "Resize",
                                        "Upsample",  "Tile",      "Split",      "TopK"};
    if (input == 0)
        return false;
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
        if (strcmp(node->type, types[i]) == 0)
            return true;
    return false;
}

static bool reads_matmul(const tn_node *node)
{
    for (size_t i = 0; i < node->n_inputs; i++)
        if (node->inputs[i] && node->inputs[i]->producer &&
            strcmp(node->inputs[i]->producer->type, "MatMul") == 0)
            return true;
    return false;
}

static void set_role(tn_param *p, const tn_node *node, size_t input)
{
    static const tn_param_role norm[] = {TN_PARAM_OTHER, TN_PARAM_GAMMA, TN_PARAM_BETA,
                                         TN_PARAM_MEAN, TN_PARAM_VAR};
    const char *type = node->type;
    p->role = TN_PARAM_OTHER;
    if (strcmp(type, "Conv") == 0 || strcmp(type, "ConvTranspose") == 0) {
        p->role = input == 1 ? TN_PARAM_WEIGHT : TN_PARAM_BIAS;
        p->channel_axis = input == 1 && strcmp(type, "ConvTranspose") == 0;
    } else if (strcmp(type, "Gemm") == 0) {
        int64_t transposed = 0;
        p->role = input == 2 ? TN_PARAM_BIAS : TN_PARAM_WEIGHT;
        if (tn_node_int(node, "transB", 0, &transposed, NULL) != TN_OK)
            transposed = 0;
        p->channel_axis = input == 1 && !transposed;
    } else if (strcmp(type, "MatMul") == 0) {
        p->role = TN_PARAM_WEIGHT;
        p->channel_axis = p->rank > 0 ? p->rank - 1 : 0;
    } else if (strcmp(type, "BatchNormalization") == 0 && input < 5) {
        p->role = norm[input];
    } else if (strcmp(type, "Add") == 0 && p->rank <= 1 && reads_matmul(node)) {
        p->role = TN_PARAM_BIAS;
    } else if (strcmp(type, "QuantizeLinear") == 0 && input == 1 && p->count == 1) {
        p->role = TN_PARAM_STEP;
    }
    p->trainable = p->role == TN_PARAM_STEP || p->role == TN_PARAM_WEIGHT ||
                   p->role == TN_PARAM_BIAS || p->role == TN_PARAM_GAMMA ||
                   p->role == TN_PARAM_BETA || (strcmp(type, "PRelu") == 0 && input == 1);
}

static tn_status append(tn_params *params, const tn_value *value, const tn_node *node, size_t input,
                        tn_error *error)
{
    const tn_tensor *constant = value->constant;
    if (params->n == params->capacity) {
        size_t capacity = params->capacity ? 2 * params->capacity : 64;
        tn_param *grown = tn_realloc(params->params, capacity * sizeof(*grown));
        if (!grown)
            return tn_fail(error, TN_ERROR_LIMIT, "out of memory");
        params->params = grown;
        params->capacity = capacity;
    }
    tn_param *p = &params->params[params->n];
    memset(p, 0, sizeof(*p));
    p->name = value->name;
    p->node = node;
    p->rank = constant->rank;
    memcpy(p->dims, constant->dims, sizeof(p->dims));
    p->count = tn_tensor_count(constant);
    p->version = 1;
    set_role(p, node, input);
    p->data = params->device->type->alloc(params->device, (size_t)p->count * sizeof(float));
    if (!p->data)
        return tn_fail(error, tn_device_memory_status(params->device),
                       "no memory on %s for %s (%lld values)", params->device->id,
                       tn_quote(value->name), (long long)p->count);
    params->n++;
    return TN_OK;
}

static tn_status collect(tn_params *params, const tn_graph *graph, tn_error *error)
{
    for (size_t i = 0; i < graph->n_nodes; i++) {
        const tn_node *node = graph->nodes[i];
        for (size_t j = 0; j < node->n_inputs && !node->folded; j++) {
            const tn_value *value = node->inputs[j];
            if (!value || !value->constant || is_setting(node, j) ||
                value->constant->dtype == TN_STRING ||
                tn_params_find(params, value->name) != SIZE_MAX)
                continue;
            tn_status status = append(params, value, node, j, error);
            if (status != TN_OK)
                return status;
        }
    }
    return TN_OK;
}

static tn_status upload(tn_params *params, const tn_graph *graph, tn_error *error)
{
    for (size_t i = 0; i < params->n; i++) {
        const tn_param *p = &params->params[i];
        const tn_value *value = tn_graph_value(graph, p->name);
        bool direct = params->device->host_memory; /* and the staging stays untouched */
        tn_status status = tn_tensor_read_float(value->constant, 0, p->count,
                                                direct ? p->data : params->staging, error);
        if (status == TN_OK && !direct)
            status = params->device->type->upload(params->device, p->data, params->staging,
                                                  (size_t)p->count * sizeof(float), error);
        if (status != TN_OK) {
            tn_error_prepend(error, "parameter %s", tn_quote(p->name));
            return status;
        }
    }
    return TN_OK;
}

tn_status tn_params_create(const tn_graph *graph, tn_device *device, tn_params **params,
                           tn_error *error)
{
    int64_t most = 1;
    tn_params *p = tn_alloc_zero(1, sizeof(*p));
    if (!p)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    p->device = device;
    tn_status status = collect(p, graph, error);
    for (size_t i = 0; i < p->n; i++)
        most = p->params[i].count > most ? p->params[i].count : most;
    if (status == TN_OK) {
        p->staging = tn_alloc_array((size_t)most, sizeof(float));
        status =
            p->staging ? upload(p, graph, error) : tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    }
    if (status != TN_OK)
        tn_params_destroy(p);
    else
        *params = p;
    return status;
}

void tn_params_destroy(tn_params *params)
{
    if (!params)
        return;
    for (size_t i = 0; i < params->n; i++)
        params->device->type->release(params->device, params->params[i].data);
    params->device->type->release(params->device, params->gradients);
    tn_free(params->params);
    tn_free(params->staging);
    tn_free(params->host);
    tn_free(params->host_gradients);
    tn_free(params);
}

size_t tn_params_count(const tn_params *params)
{
    return params->n;
}

tn_param *tn_params_at(const tn_params *params, size_t i)
{
    return i < params->n ? &params->params[i] : NULL;
}

size_t tn_params_find(const tn_params *params, const char *name)
{
    for (size_t i = 0; i < params->n; i++)
        if (strcmp(params->params[i].name, name) == 0)
            return i;
    return SIZE_MAX;
}

tn_status tn_params_set(tn_params *params, size_t i, const float *layout, tn_error *error)
{
    tn_param *p = &params->params[i];
    p->version++;
    return params->device->type->upload(params->device, p->data, layout,
                                        (size_t)p->count * sizeof(float), error);
}

static tn_status fetch(const tn_params *params, const float *data, size_t i, float *layout,
                       tn_error *error)
{
    return params->device->type->download(params->device, layout, data,
                                          (size_t)params->params[i].count * sizeof(float), error);
}

tn_status tn_params_get(const tn_params *params, size_t i, float *layout, tn_error *error)
{
    return fetch(params, params->params[i].data, i, layout, error);
}

/* Rows lie as the model's layout does when channels come first. */
static bool rows_are_layout(const tn_param *p)
{
    return p->channel_axis == 0 || p->rank <= 1;
}

tn_status tn_params_set_rows(tn_params *params, size_t i, const float *rows, tn_error *error)
{
    const tn_param *p = &params->params[i];
    if (rows_are_layout(p))
        return tn_params_set(params, i, rows, error);
    tn_rows_to_layout(rows, p->rank, p->dims, p->channel_axis, params->staging);
    return tn_params_set(params, i, params->staging, error);
}

float *tn_params_rows(const tn_params *params, size_t i)
{
    const tn_param *p = &params->params[i];
    return params->device->host_memory && rows_are_layout(p) ? p->data : NULL;
}

const float *tn_params_gradient_rows(const tn_params *params, size_t i)
{
    const tn_param *p = &params->params[i];
    return params->device->host_memory && rows_are_layout(p) ? p->gradient : NULL;
}

static tn_status fetch_rows(const tn_params *params, const float *data, size_t i, float *rows,
                            tn_error *error)
{
    const tn_param *p = &params->params[i];
    if (rows_are_layout(p))
        return fetch(params, data, i, rows, error);
    tn_status status = fetch(params, data, i, params->staging, error);
    if (status == TN_OK)
        tn_rows_from_layout(params->staging, p->rank, p->dims, p->channel_axis, rows);
    return status;
}

tn_status tn_params_get_rows(const tn_params *params, size_t i, float *rows, tn_error *error)
{
    return fetch_rows(params, params->params[i].data, i, rows, error);
}

void tn_params_touch(tn_params *params, size_t i)
{
    params->params[i].version++;
}

void tn_params_touch_all(tn_params *params)
{
    for (size_t i = 0; i < params->n; i++)
        tn_params_touch(params, i);
}

tn_status tn_params_copy(tn_params *params, const tn_params *from, tn_error *error)
{
    for (size_t i = 0; i < params->n; i++) {
        tn_param *p = &params->params[i];
        size_t j = i < from->n && strcmp(from->params[i].name, p->name) == 0
                       ? i
                       : tn_params_find(from, p->name);
        if (j == SIZE_MAX || from->params[j].count != p->count)
            return tn_fail(error, TN_ERROR_USAGE,
                           "parameter %s is missing or of another size in the network to copy from",
                           tn_quote(p->name));
        tn_status status = fetch(from, from->params[j].data, j, params->staging, error);
        if (status == TN_OK)
            status = tn_params_set(params, i, params->staging, error);
        if (status != TN_OK)
            return status;
    }
    return TN_OK;
}

/* What a parameter takes of the gradients. */
static int64_t gradient_room(const tn_param *p)
{
    return p->trainable ? (p->count + GRADIENT_ALIGN - 1) / GRADIENT_ALIGN * GRADIENT_ALIGN : 0;
}

tn_status tn_params_place_gradients(tn_params *params, tn_error *error)
{
    int64_t count = 0, at = 0;
    if (params->gradients)
        return TN_OK;
    for (size_t i = 0; i < params->n; i++)
        count += gradient_room(&params->params[i]);
    params->gradients = params->device->type->alloc(params->device, (size_t)count * sizeof(float));
    if (!params->gradients)
        return tn_fail(error, tn_device_memory_status(params->device),
                       "no memory on %s for gradients (%lld values)", params->device->id,
                       (long long)count);
    params->n_gradients = count;
    for (size_t i = 0; i < params->n; i++) {
        tn_param *p = &params->params[i];
        if (!p->trainable)
            continue;
        p->gradient = params->gradients + at;
        at += gradient_room(p);
    }
    return tn_params_zero_gradients(params, error);
}

float *tn_params_gradients(const tn_params *params, int64_t *count)
{
    *count = params->n_gradients;
    return params->gradients;
}

static tn_status need_gradient(const tn_params *params, size_t i, tn_error *error)
{
    if (params->params[i].gradient)
        return TN_OK;
    return tn_fail(error, TN_ERROR_USAGE, "parameter %s has no gradient: it is not trainable",
                   tn_quote(params->params[i].name));
}

tn_status tn_params_get_gradient(const tn_params *params, size_t i, float *layout, tn_error *error)
{
    tn_status status = need_gradient(params, i, error);
    return status == TN_OK ? fetch(params, params->params[i].gradient, i, layout, error) : status;
}

tn_status tn_params_get_gradient_rows(const tn_params *params, size_t i, float *rows,
                                      tn_error *error)
{
    tn_status status = need_gradient(params, i, error);
    return status == TN_OK ? fetch_rows(params, params->params[i].gradient, i, rows, error)
                           : status;
}

tn_status tn_params_zero_gradients(tn_params *params, tn_error *error)
{
    return params->device->type->zero(params->device, params->gradients,
                                      (size_t)params->n_gradients * sizeof(float), error);
}

tn_status tn_params_mirror(tn_params *params, tn_error *error)
{
    size_t total = 0, at = 0;
    bool shared = params->device->host_memory;
    for (size_t i = 0; i < params->n; i++)
        total += (size_t)params->params[i].count;
    if (!shared && !params->host) {
        params->host = tn_alloc_array(total + 1, sizeof(float));
        params->host_gradients = tn_alloc_zero((size_t)params->n_gradients + 1, sizeof(float));
        if (!params->host || !params->host_gradients)
            return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the parameters' copies");
    }
    for (size_t i = 0; i < params->n; i++) {
        tn_param *p = &params->params[i];
        p->host = shared ? p->data : params->host + at;
        if (p->gradient)
            p->host_gradient =
                shared ? p->gradient : params->host_gradients + (p->gradient - params->gradients);
        at += (size_t)p->count;
        tn_status status = shared ? TN_OK : fetch(params, p->data, i, p->host, error);
        if (status != TN_OK)
            return status;
    }
    return TN_OK;
}

tn_status tn_params_send(tn_params *params, size_t i, tn_error *error)
{
    if (params->host)
        return tn_params_set(params, i, params->params[i].host, error);
    tn_params_touch(params, i);
    return TN_OK;
}

tn_status tn_params_push(tn_params *params, tn_error *error)
{
    tn_status status = TN_OK;
    for (size_t i = 0; i < params->n && params->host && status == TN_OK; i++)
        if (params->params[i].trainable)
            status = tn_params_set(params, i, params->params[i].host, error);
    return status;
}

tn_status tn_params_pull_gradients(tn_params *params, tn_error *error)
{
    if (!params->host_gradients)
        return TN_OK;
    return params->device->type->download(params->device, params->host_gradients, params->gradients,
                                          (size_t)params->n_gradients * sizeof(float), error);
}

tn_status tn_params_pull_statistics(tn_params *params, tn_error *error)
{
    tn_status status = TN_OK;
    for (size_t i = 0; i < params->n && params->host && status == TN_OK; i++)
        if (params->params[i].role == TN_PARAM_MEAN || params->params[i].role == TN_PARAM_VAR)
            status = fetch(params, params->params[i].data, i, params->params[i].host, error);
    return status;
}
