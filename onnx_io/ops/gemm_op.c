/* Gemm, MatMul and MatMulInteger. */
#include "core/checked.h"
#include "core/memory.h"
#include "onnx_io/ops/elements.h"
#include "onnx_io/ops/functions.h"

tn_status tn_gemm_parse(const tn_node *node, tn_gemm_params *params, tn_error *error)
{
    int64_t trans_a = 0, trans_b = 0;
    tn_gemm_params out = {1, 1, false, false};
    tn_status status = tn_node_float(node, "alpha", 1.0f, &out.alpha, error);
    if (status == TN_OK)
        status = tn_node_float(node, "beta", 1.0f, &out.beta, error);
    if (status == TN_OK)
        status = tn_node_int(node, "transA", 0, &trans_a, error);
    if (status == TN_OK)
        status = tn_node_int(node, "transB", 0, &trans_b, error);
    if (status != TN_OK)
        return status;
    out.trans_a = trans_a != 0;
    out.trans_b = trans_b != 0;
    *params = out;
    return TN_OK;
}

tn_status tn_gemm_infer(tn_node *node, tn_error *error)
{
    tn_gemm_params params;
    tn_shape a = tn_op_shape(tn_op_input(node, 0)), b = tn_op_shape(tn_op_input(node, 1));
    tn_shape c = tn_op_shape(tn_op_input(node, 2));
    tn_shape out = {.rank = 2, .dims = {TN_DIM_UNKNOWN, TN_DIM_UNKNOWN}}, joined;
    tn_status status = tn_gemm_parse(node, &params, error);
    if (status != TN_OK)
        return status;
    if ((a.rank >= 0 && a.rank != 2) || (b.rank >= 0 && b.rank != 2))
        return tn_fail(error, TN_ERROR_MODEL, "the operands have rank %d and %d: 2 expected",
                       a.rank, b.rank);
    int64_t ka = TN_DIM_UNKNOWN, kb = TN_DIM_UNKNOWN;
    if (a.rank == 2) {
        out.dims[0] = a.dims[params.trans_a ? 1 : 0];
        ka = a.dims[params.trans_a ? 0 : 1];
    }
    if (b.rank == 2) {
        out.dims[1] = b.dims[params.trans_b ? 0 : 1];
        kb = b.dims[params.trans_b ? 1 : 0];
    }
    if (!tn_dims_agree(ka, kb))
        return tn_fail(error, TN_ERROR_MODEL, "the inner dimensions %lld and %lld differ",
                       (long long)ka, (long long)kb);
    status = tn_shape_broadcast(&out, &c, &joined, error);
    if (status == TN_OK && c.rank >= 0 &&
        (joined.rank != 2 || !tn_dims_agree(joined.dims[0], out.dims[0]) ||
         !tn_dims_agree(joined.dims[1], out.dims[1])))
        return tn_fail(error, TN_ERROR_MODEL, "C does not broadcast to the product");
    return status == TN_OK ? tn_op_set_output(node, 0, node->inputs[0]->dtype, &out, error)
                           : status;
}

static int64_t twice_product(int64_t a, int64_t b)
{
    return a >= 0 && b >= 0 && tn_checked_mul_i64(a, b, &a) && tn_checked_mul_i64(a, 2, &a) ? a
                                                                                            : -1;
}

int64_t tn_gemm_flops(const tn_node *node)
{
    tn_gemm_params params;
    tn_shape out = tn_op_shape(tn_op_output(node, 0)), a = tn_op_shape(tn_op_input(node, 0));
    if (a.rank != 2 || tn_gemm_parse(node, &params, NULL) != TN_OK)
        return -1;
    return twice_product(tn_shape_count(&out), a.dims[params.trans_a ? 0 : 1]);
}

int64_t tn_matmul_flops(const tn_node *node)
{
    tn_shape out = tn_op_shape(tn_op_output(node, 0)), a = tn_op_shape(tn_op_input(node, 0));
    return a.rank < 1 ? -1 : twice_product(tn_shape_count(&out), a.dims[a.rank - 1]);
}

/* Vectors become matrices; the axis they gain is dropped from the result. */
static tn_status matmul_shape(tn_shape a, tn_shape b, tn_shape *result, tn_error *error)
{
    bool row = a.rank == 1, column = b.rank == 1;
    tn_shape out;
    if (a.rank == 0 || b.rank == 0)
        return tn_fail(error, TN_ERROR_MODEL, "an operand is a scalar");
    if (a.rank < 0 || b.rank < 0) {
        result->rank = TN_RANK_UNKNOWN;
        return TN_OK;
    }
    if (row) {
        a = (tn_shape){.rank = 2, .dims = {1, a.dims[0]}};
    }
    if (column) {
        b = (tn_shape){.rank = 2, .dims = {b.dims[0], 1}};
    }
    int64_t m = a.dims[a.rank - 2], ka = a.dims[a.rank - 1];
    int64_t kb = b.dims[b.rank - 2], n = b.dims[b.rank - 1];
    if (!tn_dims_agree(ka, kb))
        return tn_fail(error, TN_ERROR_MODEL, "the inner dimensions %lld and %lld differ",
                       (long long)ka, (long long)kb);
    a.rank -= 2;
    b.rank -= 2;
    tn_status status = tn_shape_broadcast(&a, &b, &out, error);
    if (status != TN_OK)
        return status;
    if (!row)
        out.dims[out.rank++] = m;
    if (!column)
        out.dims[out.rank++] = n;
    *result = out;
    return TN_OK;
}

tn_status tn_matmul_infer(tn_node *node, tn_error *error)
{
    tn_shape shape, a = tn_op_shape(tn_op_input(node, 0)), b = tn_op_shape(tn_op_input(node, 1));
    tn_status status = matmul_shape(a, b, &shape, error);
    tn_dtype dtype = node->n_inputs > 2 || node->type[6] ? TN_INT32 : node->inputs[0]->dtype;
    return status == TN_OK ? tn_op_set_output(node, 0, dtype, &shape, error) : status;
}

/* c[m, n] = scale * a[m, k] b[k, n] with element strides, summed in double. */
typedef struct product {
    int64_t m, n, k, a_row, a_column, b_row, b_column;
    float scale;
} product;

static void multiply(const product *p, const float *a, const float *b, float *c)
{
    for (int64_t i = 0; i < p->m; i++)
        for (int64_t j = 0; j < p->n; j++) {
            double sum = 0;
            for (int64_t l = 0; l < p->k; l++)
                sum += (double)a[i * p->a_row + l * p->a_column] *
                       (double)b[l * p->b_row + j * p->b_column];
            c[i * p->n + j] = (float)(sum * (double)p->scale);
        }
}

/* Both operands as fp32 arrays, to be freed. */
static tn_status load_pair(const tn_tensor *const *inputs, float *arrays[2], tn_error *error)
{
    arrays[0] = arrays[1] = NULL;
    for (int i = 0; i < 2; i++) {
        int64_t count = tn_tensor_count(inputs[i]);
        if (tn_work_of(inputs[i]->dtype) != TN_WORK_FLOAT)
            return tn_fail(error, TN_ERROR_USAGE, "type %s is not evaluated",
                           tn_dtype_name(inputs[i]->dtype));
        arrays[i] = tn_alloc_array((size_t)count, sizeof(float));
        if (!arrays[i])
            return tn_fail(error, TN_ERROR_LIMIT, "out of memory for %lld elements",
                           (long long)count);
        tn_status status = tn_tensor_read_float(inputs[i], 0, count, arrays[i], error);
        if (status != TN_OK)
            return status;
    }
    return TN_OK;
}

tn_status tn_gemm_evaluate(const tn_node *node, const tn_tensor *const *inputs, tn_tensor *outputs,
                           tn_error *error)
{
    float *arrays[2] = {NULL, NULL};
    tn_gemm_params params;
    tn_status status = tn_gemm_parse(node, &params, error);
    if (status == TN_OK && (inputs[0]->dtype != TN_FLOAT || (node->n_inputs > 2 && inputs[2])))
        return tn_fail(error, TN_ERROR_USAGE, "only fp32 products without C are evaluated");
    if (status == TN_OK)
        status = load_pair(inputs, arrays, error);
    if (status == TN_OK)
        status = tn_op_output_init(node, 0, &outputs[0], error);
    if (status == TN_OK) {
        const int64_t *da = inputs[0]->dims, *db = inputs[1]->dims;
        product p = {outputs[0].dims[0],         outputs[0].dims[1],
                     da[params.trans_a ? 0 : 1], params.trans_a ? 1 : da[1],
                     params.trans_a ? da[1] : 1, params.trans_b ? 1 : db[1],
                     params.trans_b ? db[1] : 1, params.alpha};
        multiply(&p, arrays[0], arrays[1], outputs[0].data);
    }
    tn_free(arrays[0]);
    tn_free(arrays[1]);
    return status;
}

/* Offset of matrix `index` of the broadcast batch in an operand of `rank`. */
static int64_t matrix_offset(const tn_tensor *operand, int batch_rank, const int64_t *batch,
                             int64_t index)
{
    int own = operand->rank - 2;
    int64_t offset = 0, stride = operand->dims[own] * operand->dims[own + 1];
    for (int i = batch_rank - 1; i >= 0; i--) {
        int64_t position = index % batch[i];
        index /= batch[i];
        int axis = i - (batch_rank - own);
        if (axis < 0)
            continue;
        offset += operand->dims[axis] == 1 ? 0 : position * stride;
        stride *= operand->dims[axis];
    }
    return offset;
}

tn_status tn_matmul_evaluate(const tn_node *node, const tn_tensor *const *inputs,
                             tn_tensor *outputs, tn_error *error)
{
    float *arrays[2] = {NULL, NULL};
    if (inputs[0]->rank < 2 || inputs[1]->rank < 2 || inputs[0]->dtype != TN_FLOAT)
        return tn_fail(error, TN_ERROR_USAGE, "only fp32 matrices are evaluated");
    tn_status status = load_pair(inputs, arrays, error);
    if (status == TN_OK)
        status = tn_op_output_init(node, 0, &outputs[0], error);
    if (status == TN_OK) {
        int rank = outputs[0].rank;
        const int64_t *dims = outputs[0].dims;
        int64_t k = inputs[0]->dims[inputs[0]->rank - 1], batches = 0;
        product p = {dims[rank - 2], dims[rank - 1], k, k, 1, dims[rank - 1], 1, 1};
        if (!tn_dims_count(rank - 2, dims, &batches))
            batches = 0;
        for (int64_t i = 0; i < batches; i++)
            multiply(&p, arrays[0] + matrix_offset(inputs[0], rank - 2, dims, i),
                     arrays[1] + matrix_offset(inputs[1], rank - 2, dims, i),
                     (float *)outputs[0].data + i * p.m * p.n);
    }
    tn_free(arrays[0]);
    tn_free(arrays[1]);
    return status;
}
