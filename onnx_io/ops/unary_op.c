/* Elementwise operators of one input: Relu, Sigmoid, ... The output has the input's shape. */
#include "onnx_io/ops/elements.h"
#include "onnx_io/ops/functions.h"

#include <math.h>
#include <string.h>

/* X(name): the operators that evaluate; the kernels below give their formulas. */
#define UNARY_OPERATORS(X)                                                                         \
    X(Relu)                                                                                        \
    X(Sigmoid)                                                                                     \
    X(Tanh)                                                                                        \
    X(Abs)                                                                                         \
    X(Neg)                                                                                         \
    X(Exp)                                                                                         \
    X(Log)                                                                                         \
    X(Sqrt)                                                                                        \
    X(Reciprocal)                                                                                  \
    X(Floor)                                                                                       \
    X(Ceil)                                                                                        \
    X(Round)                                                                                       \
    X(Sign)                                                                                        \
    X(Not)                                                                                         \
    X(Erf)                                                                                         \
    X(Softplus)                                                                                    \
    X(Softsign)                                                                                    \
    X(HardSwish)                                                                                   \
    X(LeakyRelu)                                                                                   \
    X(Elu)                                                                                         \
    X(Selu)                                                                                        \
    X(HardSigmoid)                                                                                 \
    X(Gelu)                                                                                        \
    X(Sin)                                                                                         \
    X(Cos)

#define AS_ENUM(name) UNARY_##name,
#define AS_TEXT(name) #name,
typedef enum unary_kind { UNARY_OPERATORS(AS_ENUM) UNARY_COUNT } unary_kind;
static const char *const unary_names[] = {UNARY_OPERATORS(AS_TEXT)};

typedef struct unary_context {
    unary_kind kind;
    float alpha, beta; /* LeakyRelu, Elu, Selu (beta is gamma), HardSigmoid; Gelu: beta 1 is tanh */
} unary_context;

tn_status tn_unary_infer(tn_node *node, tn_error *error)
{
    return tn_op_set_like(node, 0, tn_op_input(node, 0), error);
}

#define EACH(expression)                                                                           \
    for (int64_t i = 0; i < n; i++) {                                                              \
        real x = src[i];                                                                           \
        dst[i] = (expression);                                                                     \
    }                                                                                              \
    break;

/* One body for fp32 and fp64; F() picks the C library's function of the type. */
#define UNARY_BODY                                                                                 \
    const unary_context *c = context;                                                              \
    const real *src = in[0];                                                                       \
    real *dst = out, alpha = (real)c->alpha, beta = (real)c->beta, zero = 0, one = 1,              \
         half = one / 2;                                                                           \
    switch (c->kind) {                                                                             \
    case UNARY_Relu:                                                                               \
        EACH(x > zero || x != x ? x : zero)                                                        \
    case UNARY_Sigmoid:                                                                            \
        EACH(one / (one + F(exp)(-x)))                                                             \
    case UNARY_Tanh:                                                                               \
        EACH(F(tanh)(x))                                                                           \
    case UNARY_Abs:                                                                                \
        EACH(F(fabs)(x))                                                                           \
    case UNARY_Neg:                                                                                \
        EACH(-x)                                                                                   \
    case UNARY_Exp:                                                                                \
        EACH(F(exp)(x))                                                                            \
    case UNARY_Log:                                                                                \
        EACH(F(log)(x))                                                                            \
    case UNARY_Sqrt:                                                                               \
        EACH(F(sqrt)(x))                                                                           \
    case UNARY_Reciprocal:                                                                         \
        EACH(one / x)                                                                              \
    case UNARY_Floor:                                                                              \
        EACH(F(floor)(x))                                                                          \
    case UNARY_Ceil:                                                                               \
        EACH(F(ceil)(x))                                                                           \
    case UNARY_Round:                                                                              \
        EACH(F(nearbyint)(x))                                                                      \
    case UNARY_Sign:                                                                               \
        EACH((real)((x > zero) - (x < zero)))                                                      \
    case UNARY_Erf:                                                                                \
        EACH(F(erf)(x))                                                                            \
    case UNARY_Softplus:                                                                           \
        EACH(x > zero ? x + F(log1p)(F(exp)(-x)) : F(log1p)(F(exp)(x)))                            \
    case UNARY_Softsign:                                                                           \
        EACH(x / (one + F(fabs)(x)))                                                               \
    case UNARY_HardSwish:                                                                          \
        EACH(x *F(fmax)(zero, F(fmin)(one, x / 6 + half)))                                         \
    case UNARY_LeakyRelu:                                                                          \
        EACH(x >= zero ? x : alpha * x)                                                            \
    case UNARY_Elu:                                                                                \
        EACH(x >= zero ? x : alpha * F(expm1)(x))                                                  \
    case UNARY_Selu:                                                                               \
        EACH(beta *(x > zero ? x : alpha * F(expm1)(x)))                                           \
    case UNARY_HardSigmoid:                                                                        \
        EACH(F(fmax)(zero, F(fmin)(one, alpha * x + beta)))                                        \
    case UNARY_Gelu:                                                                               \
        EACH(beta > zero ? half * x *                                                              \
                               (one + F(tanh)((real)0.7978845608028654 *                           \
                                              (x + (real)0.044715 * x * x * x)))                   \
                         : half * x * (one + F(erf)(x * (real)0.7071067811865476)))                \
    case UNARY_Sin:                                                                                \
        EACH(F(sin)(x))                                                                            \
    case UNARY_Cos:                                                                                \
        EACH(F(cos)(x))                                                                            \
    default:                                                                                       \
        EACH(x)                                                                                    \
    }

#define real float
#define F(name) name##f
static void unary_float(const void *context, int64_t n, const void *const *in, void *out)
{
    UNARY_BODY
}
#undef real
#undef F
#define real double
#define F(name) name
static void unary_double(const void *context, int64_t n, const void *const *in, void *out)
{
    UNARY_BODY
}
#undef real
#undef F

static void unary_integer(const void *context, int64_t n, const void *const *in, void *out)
{
    const unary_context *c = context;
    const int64_t *src = in[0];
    int64_t *dst = out;
    for (int64_t i = 0; i < n; i++) {
        int64_t x = src[i], negated = (int64_t)(0 - (uint64_t)x);
        switch (c->kind) {
        case UNARY_Relu:
            dst[i] = x > 0 ? x : 0;
            break;
        case UNARY_Abs:
            dst[i] = x < 0 ? negated : x;
            break;
        case UNARY_Neg:
            dst[i] = negated;
            break;
        case UNARY_Not:
            dst[i] = x == 0;
            break;
        default: /* Sign */
            dst[i] = (x > 0) - (x < 0);
        }
    }
}

static bool has_integer_kernel(unary_kind kind)
{
    return kind == UNARY_Relu || kind == UNARY_Abs || kind == UNARY_Neg || kind == UNARY_Not ||
           kind == UNARY_Sign;
}

static tn_status unary_parse(const tn_node *node, unary_context *context, tn_error *error)
{
    float alpha = 1, beta = 0;
    char approximate[16];
    unary_context out = {.kind = UNARY_COUNT};
    for (int i = 0; i < UNARY_COUNT; i++)
        if (!strcmp(node->type, unary_names[i]))
            out.kind = (unary_kind)i;
    tn_status status = TN_OK;
    if (out.kind == UNARY_COUNT)
        return tn_fail(error, TN_ERROR_USAGE, "not evaluated");
    if (out.kind == UNARY_LeakyRelu)
        alpha = 0.01f;
    if (out.kind == UNARY_Selu) {
        alpha = 1.67326319217681884765625f;
        beta = 1.05070102214813232421875f;
        status = tn_node_float(node, "gamma", beta, &beta, error);
    }
    if (out.kind == UNARY_HardSigmoid) {
        alpha = 0.2f;
        status = tn_node_float(node, "beta", 0.5f, &beta, error);
    }
    if (out.kind == UNARY_Gelu) {
        status =
            tn_node_string(node, "approximate", "none", approximate, sizeof approximate, error);
        beta = status == TN_OK && !strcmp(approximate, "tanh") ? 1.0f : 0.0f;
    }
    if (status == TN_OK)
        status = tn_node_float(node, "alpha", alpha, &out.alpha, error);
    out.beta = beta;
    if (status == TN_OK)
        *context = out;
    return status;
}

tn_status tn_unary_evaluate(const tn_node *node, const tn_tensor *const *inputs, tn_tensor *outputs,
                            tn_error *error)
{
    unary_context context;
    tn_status status = unary_parse(node, &context, error);
    if (status != TN_OK)
        return status;
    tn_work work = tn_work_of(inputs[0]->dtype);
    bool fits = work == TN_WORK_INT ? has_integer_kernel(context.kind) : context.kind != UNARY_Not;
    if (work == TN_WORK_NONE || !fits)
        return tn_fail(error, TN_ERROR_USAGE, "type %s is not evaluated",
                       tn_dtype_name(inputs[0]->dtype));
    tn_map map = {.n_inputs = 1,
                  .in = {work},
                  .out = work,
                  .kernel = work == TN_WORK_FLOAT    ? unary_float
                            : work == TN_WORK_DOUBLE ? unary_double
                                                     : unary_integer,
                  .context = &context};
    status = tn_op_output_init(node, 0, &outputs[0], error);
    return status == TN_OK ? tn_map_run(&map, inputs, &outputs[0], error) : status;
}
