/* Elementwise operators of two inputs with numpy broadcasting: arithmetic, comparison, logic; the
 * variadic Min, Max, Sum, Mean; Where; PRelu. */
#include "onnx_io/ops/elements.h"
#include "onnx_io/ops/functions.h"

#include <limits.h>
#include <math.h>
#include <string.h>

typedef enum binary_kind {
    BINARY_ADD,
    BINARY_SUB,
    BINARY_MUL,
    BINARY_DIV,
    BINARY_MOD,
    BINARY_POW,
    BINARY_MIN,
    BINARY_MAX,
    BINARY_PRELU,
    BINARY_EQUAL,
    BINARY_GREATER,
    BINARY_LESS,
    BINARY_GREATER_EQUAL,
    BINARY_LESS_EQUAL,
    BINARY_AND,
    BINARY_OR,
    BINARY_XOR
} binary_kind;

static const struct {
    const char *type;
    binary_kind kind;
} binary_types[] = {
    {"Add", BINARY_ADD},
    {"Sub", BINARY_SUB},
    {"Mul", BINARY_MUL},
    {"Div", BINARY_DIV},
    {"Mod", BINARY_MOD},
    {"Pow", BINARY_POW},
    {"Min", BINARY_MIN},
    {"Max", BINARY_MAX},
    {"Sum", BINARY_ADD},
    {"Mean", BINARY_ADD},
    {"PRelu", BINARY_PRELU},
    {"Equal", BINARY_EQUAL},
    {"Greater", BINARY_GREATER},
    {"Less", BINARY_LESS},
    {"GreaterOrEqual", BINARY_GREATER_EQUAL},
    {"LessOrEqual", BINARY_LESS_EQUAL},
    {"And", BINARY_AND},
    {"Or", BINARY_OR},
    {"Xor", BINARY_XOR},
};

static bool is_boolean(binary_kind kind)
{
    return kind >= BINARY_EQUAL;
}

static binary_kind kind_of(const tn_node *node)
{
    size_t i = 0;
    while (strcmp(node->type, binary_types[i].type) != 0)
        i++;
    return binary_types[i].kind;
}

/* Types of all inputs but the exponent of Pow must be one. */
static tn_status check_types(const tn_node *node, size_t first, tn_dtype *dtype, tn_error *error)
{
    *dtype = TN_UNDEFINED;
    for (size_t i = first; i < node->n_inputs; i++) {
        tn_dtype own = node->inputs[i] ? node->inputs[i]->dtype : TN_UNDEFINED;
        if (own == TN_UNDEFINED)
            continue;
        if (*dtype != TN_UNDEFINED && own != *dtype)
            return tn_fail(error, TN_ERROR_MODEL, "inputs have types %s and %s: one is expected",
                           tn_dtype_name(*dtype), tn_dtype_name(own));
        *dtype = own;
    }
    return TN_OK;
}

tn_status tn_binary_infer(tn_node *node, tn_error *error)
{
    tn_dtype dtype = TN_UNDEFINED;
    tn_shape shape = tn_op_shape(tn_op_input(node, 0));
    binary_kind kind = kind_of(node);
    tn_status status = TN_OK;
    if (kind == BINARY_POW)
        dtype = node->inputs[0]->dtype;
    else
        status = check_types(node, 0, &dtype, error);
    for (size_t i = 1; status == TN_OK && i < node->n_inputs; i++) {
        tn_shape next = tn_op_shape(tn_op_input(node, i));
        status = tn_shape_broadcast(&shape, &next, &shape, error);
    }
    if (status != TN_OK)
        return status;
    tn_shape data = tn_op_shape(tn_op_input(node, 0));
    if (kind == BINARY_PRELU && data.rank >= 0 && shape.rank >= 0) {
        bool same = shape.rank == data.rank;
        for (int i = 0; same && i < data.rank; i++)
            same = tn_dims_agree(shape.dims[i], data.dims[i]);
        if (!same)
            return tn_fail(error, TN_ERROR_MODEL, "the slope does not broadcast to the input");
        shape = data;
    }
    return tn_op_set_output(node, 0, is_boolean(kind) ? TN_BOOL : dtype, &shape, error);
}

tn_status tn_where_infer(tn_node *node, tn_error *error)
{
    tn_dtype dtype;
    tn_shape shape = tn_op_shape(tn_op_input(node, 0));
    tn_status status = check_types(node, 1, &dtype, error);
    for (size_t i = 1; status == TN_OK && i < 3; i++) {
        tn_shape next = tn_op_shape(tn_op_input(node, i));
        status = tn_shape_broadcast(&shape, &next, &shape, error);
    }
    return status == TN_OK ? tn_op_set_output(node, 0, dtype, &shape, error) : status;
}

typedef struct binary_context {
    binary_kind kind;
    bool *bad; /* set on an integer division by zero */
} binary_context;

#define EACH(type, expression)                                                                     \
    for (int64_t i = 0; i < n; i++)                                                                \
        ((type *)out)[i] = (type)(expression);                                                     \
    break;

#define COMPARISONS                                                                                \
    case BINARY_EQUAL:                                                                             \
        EACH(int64_t, a[i] == b[i])                                                                \
    case BINARY_GREATER:                                                                           \
        EACH(int64_t, a[i] > b[i])                                                                 \
    case BINARY_LESS:                                                                              \
        EACH(int64_t, a[i] < b[i])                                                                 \
    case BINARY_GREATER_EQUAL:                                                                     \
        EACH(int64_t, a[i] >= b[i])                                                                \
    case BINARY_LESS_EQUAL:                                                                        \
        EACH(int64_t, a[i] <= b[i])

/* Min and Max hand NaN on, as ONNX Runtime does. */
#define FLOATING_BODY                                                                              \
    const binary_context *c = context;                                                             \
    const real *a = in[0], *b = in[1];                                                             \
    switch (c->kind) {                                                                             \
    case BINARY_ADD:                                                                               \
        EACH(real, a[i] + b[i])                                                                    \
    case BINARY_SUB:                                                                               \
        EACH(real, a[i] - b[i])                                                                    \
    case BINARY_MUL:                                                                               \
        EACH(real, a[i] * b[i])                                                                    \
    case BINARY_DIV:                                                                               \
        EACH(real, a[i] / b[i])                                                                    \
    case BINARY_MOD:                                                                               \
        EACH(real, F(fmod)(a[i], b[i]))                                                            \
    case BINARY_POW:                                                                               \
        EACH(real, b[i] == 2 ? a[i] * a[i] : b[i] == 3 ? a[i] * a[i] * a[i] : F(pow)(a[i], b[i]))  \
    case BINARY_MIN:                                                                               \
        EACH(real, a[i] < b[i] || a[i] != a[i] ? a[i] : b[i])                                      \
    case BINARY_MAX:                                                                               \
        EACH(real, a[i] > b[i] || a[i] != a[i] ? a[i] : b[i])                                      \
    case BINARY_PRELU:                                                                             \
        EACH(real, a[i] < 0 ? a[i] * b[i] : a[i])                                                  \
        COMPARISONS                                                                                \
    default:                                                                                       \
        break;                                                                                     \
    }

#define real float
#define F(name) name##f
static void binary_float(const void *context, int64_t n, const void *const *in, void *out)
{
    FLOATING_BODY
}
#undef real
#undef F
#define real double
#define F(name) name
static void binary_double(const void *context, int64_t n, const void *const *in, void *out)
{
    FLOATING_BODY
}
#undef real
#undef F

/* Div truncates; Mod takes the sign of the divisor. */
static int64_t integer_quotient(int64_t a, int64_t b, bool remainder, bool *bad)
{
    if (b == 0) {
        *bad = true;
        return 0;
    }
    if (b == -1)
        return remainder ? 0 : (int64_t)(0 - (uint64_t)a);
    if (!remainder)
        return a / b;
    int64_t rest = a % b;
    return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

static void binary_integer(const void *context, int64_t n, const void *const *in, void *out)
{
    const binary_context *c = context;
    const int64_t *a = in[0], *b = in[1];
    switch (c->kind) {
    case BINARY_ADD:
        EACH(int64_t, (uint64_t)a[i] + (uint64_t)b[i])
    case BINARY_SUB:
        EACH(int64_t, (uint64_t)a[i] - (uint64_t)b[i])
    case BINARY_MUL:
        EACH(int64_t, (uint64_t)a[i] * (uint64_t)b[i])
    case BINARY_DIV:
        EACH(int64_t, integer_quotient(a[i], b[i], false, c->bad))
    case BINARY_MOD:
        EACH(int64_t, integer_quotient(a[i], b[i], true, c->bad))
    case BINARY_MIN:
        EACH(int64_t, a[i] < b[i] ? a[i] : b[i])
    case BINARY_MAX:
        EACH(int64_t, a[i] > b[i] ? a[i] : b[i])
    case BINARY_PRELU:
        EACH(int64_t, a[i] < 0 ? (int64_t)((uint64_t)a[i] * (uint64_t)b[i]) : a[i])
    case BINARY_AND:
        EACH(int64_t, a[i] && b[i])
    case BINARY_OR:
        EACH(int64_t, a[i] || b[i])
    case BINARY_XOR:
        EACH(int64_t, !a[i] != !b[i])
        COMPARISONS
    default:
        break;
    }
}

static tn_status run(binary_kind kind, tn_work work, const tn_tensor *const *inputs,
                     tn_tensor *output, tn_error *error)
{
    bool bad = false;
    binary_context context = {kind, &bad};
    tn_map map = {.n_inputs = 2,
                  .in = {work, work},
                  .out = is_boolean(kind) ? TN_WORK_INT : work,
                  .kernel = work == TN_WORK_FLOAT    ? binary_float
                            : work == TN_WORK_DOUBLE ? binary_double
                                                     : binary_integer,
                  .context = &context};
    tn_status status = tn_map_run(&map, inputs, output, error);
    if (status == TN_OK && bad)
        return tn_fail(error, TN_ERROR_USAGE, "integer division by zero");
    return status;
}

tn_status tn_binary_evaluate(const tn_node *node, const tn_tensor *const *inputs,
                             tn_tensor *outputs, tn_error *error)
{
    binary_kind kind = kind_of(node);
    tn_work work = tn_work_of(inputs[0]->dtype);
    int64_t fmod_mode = 0;
    tn_status status = TN_OK;
    if (kind == BINARY_MOD)
        status = tn_node_int(node, "fmod", 0, &fmod_mode, error);
    if (status == TN_OK && (work == TN_WORK_NONE || (fmod_mode && work == TN_WORK_INT)))
        return tn_fail(error, TN_ERROR_USAGE, "type %s is not evaluated",
                       tn_dtype_name(inputs[0]->dtype));
    if (kind == BINARY_POW && work == TN_WORK_INT)
        work = TN_WORK_DOUBLE;
    if (status == TN_OK)
        status = tn_op_output_init(node, 0, &outputs[0], error);
    return status == TN_OK ? run(kind, work, inputs, &outputs[0], error) : status;
}

/* dst = src broadcast to it. */
static tn_status broadcast_copy(const tn_tensor *src, tn_tensor *dst, tn_error *error)
{
    int64_t strides[TN_MAX_RANK];
    tn_block block = {.rank = dst->rank};
    tn_strides_of(src->rank, src->dims, strides);
    tn_strides_of(dst->rank, dst->dims, block.dst_stride);
    for (int i = 0; i < dst->rank; i++) {
        int own = i - (dst->rank - src->rank);
        block.dims[i] = dst->dims[i];
        block.src_stride[i] = own < 0 || src->dims[own] == 1 ? 0 : strides[own];
    }
    return tn_block_copy(&block, src, dst, error);
}

tn_status tn_expand_evaluate(const tn_node *node, const tn_tensor *const *inputs,
                             tn_tensor *outputs, tn_error *error)
{
    tn_status status = tn_op_output_init(node, 0, &outputs[0], error);
    return status == TN_OK ? broadcast_copy(inputs[0], &outputs[0], error) : status;
}

tn_status tn_variadic_evaluate(const tn_node *node, const tn_tensor *const *inputs,
                               tn_tensor *outputs, tn_error *error)
{
    tn_work work = tn_work_of(inputs[0]->dtype);
    binary_kind kind = kind_of(node);
    if (work == TN_WORK_NONE)
        return tn_fail(error, TN_ERROR_USAGE, "type %s is not evaluated",
                       tn_dtype_name(inputs[0]->dtype));
    tn_status status = tn_op_output_init(node, 0, &outputs[0], error);
    if (status == TN_OK)
        status = broadcast_copy(inputs[0], &outputs[0], error);
    for (size_t i = 1; status == TN_OK && i < node->n_inputs; i++) {
        const tn_tensor *pair[2] = {&outputs[0], inputs[i]};
        status = run(kind, work, pair, &outputs[0], error);
    }
    if (status == TN_OK && !strcmp(node->type, "Mean")) {
        float count = (float)node->n_inputs;
        tn_tensor divisor = {.dtype = TN_FLOAT, .data = &count, .bytes = sizeof count};
        const tn_tensor *pair[2] = {&outputs[0], &divisor};
        status = run(BINARY_DIV, work, pair, &outputs[0], error);
    }
    return status;
}

static void where_kernel(const void *context, int64_t n, const void *const *in, void *out)
{
    const int64_t *condition = in[0];
    if (*(const tn_work *)context == TN_WORK_FLOAT) {
        const float *x = in[1], *y = in[2];
        for (int64_t i = 0; i < n; i++)
            ((float *)out)[i] = condition[i] ? x[i] : y[i];
    } else { /* double and int64 alike: bits are moved */
        const uint64_t *x = in[1], *y = in[2];
        for (int64_t i = 0; i < n; i++)
            ((uint64_t *)out)[i] = condition[i] ? x[i] : y[i];
    }
}

tn_status tn_where_evaluate(const tn_node *node, const tn_tensor *const *inputs, tn_tensor *outputs,
                            tn_error *error)
{
    tn_work work = tn_work_of(inputs[1]->dtype);
    if (work == TN_WORK_NONE)
        return tn_fail(error, TN_ERROR_USAGE, "type %s is not evaluated",
                       tn_dtype_name(inputs[1]->dtype));
    tn_map map = {.n_inputs = 3,
                  .in = {TN_WORK_INT, work, work},
                  .out = work,
                  .kernel = where_kernel,
                  .context = &work};
    tn_status status = tn_op_output_init(node, 0, &outputs[0], error);
    return status == TN_OK ? tn_map_run(&map, inputs, &outputs[0], error) : status;
}
