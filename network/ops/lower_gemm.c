/* Gemm and MatMul. */
#include "network/lowering.h"
#include "onnx_io/ops/op.h"

#include <string.h>

/* Operand b or c: a parameter when it is constant, else a plain value. */
static tn_status operand(tn_plan *plan, const tn_node *node, size_t input, size_t *src, int *n_src,
                         size_t *params, int *n_params, bool *constant, tn_error *error)
{
    const tn_value *value = node->inputs[input];
    *constant = value->constant != NULL;
    if (*constant)
        return tn_lower_param(plan, node, input, tn_tensor_count(value->constant),
                              &params[(*n_params)++], error);
    return tn_lower_input(plan, value, TN_LAYOUT_PLAIN, &src[(*n_src)++], error);
}

tn_status tn_lower_gemm(tn_plan *plan, const tn_node *node, tn_error *error)
{
    tn_gemm_params g;
    size_t src[3], dst, params[2];
    int n_src = 1, n_params = 0;
    tn_task task = {.verb = TN_VERB_GEMM};
    tn_gemm_task *t = &task.gemm;
    const tn_value *a = node->inputs[0], *b = node->inputs[1];
    const tn_value *c = node->n_inputs > 2 ? node->inputs[2] : NULL;
    tn_status status = tn_gemm_parse(node, &g, error);
    if (status == TN_OK)
        status = tn_lower_input(plan, a, TN_LAYOUT_PLAIN, &src[0], error);
    if (status == TN_OK)
        status = operand(plan, node, 1, src, &n_src, params, &n_params, &t->const_b, error);
    if (status == TN_OK && c)
        status = operand(plan, node, 2, src, &n_src, params, &n_params, &t->const_c, error);
    if (status == TN_OK)
        status = tn_lower_output(plan, node, 0, TN_LAYOUT_PLAIN, &dst, error);
    if (status == TN_OK && (a->rank != 2 || b->rank != 2))
        return tn_lower_unsupported(node, error, "operands that are no matrices");
    if (status != TN_OK)
        return status;
    t->batch = 1;
    t->m = a->dims[g.trans_a ? 1 : 0];
    t->k = a->dims[g.trans_a ? 0 : 1];
    t->n = b->dims[g.trans_b ? 0 : 1];
    if (b->dims[g.trans_b ? 1 : 0] != t->k ||
        (c && ((c->rank == 2 && c->dims[0] != 1 && c->dims[0] != t->m) || c->rank > 2 ||
               (c->rank >= 1 && c->dims[c->rank - 1] != 1 && c->dims[c->rank - 1] != t->n))))
        return tn_fail(error, TN_ERROR_MODEL, "node %s: its operands do not fit each other",
                       tn_quote(tn_node_label(node)));
    t->trans_a = g.trans_a;
    t->trans_b = g.trans_b;
    t->alpha = g.alpha;
    t->beta = g.beta;
    t->has_c = c != NULL;
    t->c_rows = c && c->rank == 2 ? c->dims[0] : 1;
    t->c_cols = c && c->rank >= 1 ? c->dims[c->rank - 1] : 1;
    return tn_lower_step(plan, node, &task, src, n_src, dst, params, n_params, error);
}

static int64_t leading(const tn_value *value, int rank)
{
    int64_t count = 1;
    for (int i = 0; i < rank; i++)
        count *= value->dims[i];
    return count;
}

tn_status tn_lower_matmul(tn_plan *plan, const tn_node *node, tn_error *error)
{
    const tn_value *a = node->inputs[0], *b = node->inputs[1];
    size_t src[2], dst, params[1];
    int n_src = 1, n_params = 0;
    tn_task task = {.verb = TN_VERB_GEMM};
    tn_gemm_task *t = &task.gemm;
    tn_status status = tn_lower_input(plan, a, TN_LAYOUT_PLAIN, &src[0], error);
    if (status == TN_OK)
        status = operand(plan, node, 1, src, &n_src, params, &n_params, &t->const_b, error);
    if (status == TN_OK)
        status = tn_lower_output(plan, node, 0, TN_LAYOUT_PLAIN, &dst, error);
    if (status != TN_OK)
        return status;
    if (a->rank < 1 || b->rank < 1)
        return tn_lower_unsupported(node, error, "a scalar");
    t->alpha = 1.0f;
    t->k = a->dims[a->rank - 1];
    t->n = b->rank == 1 ? 1 : b->dims[b->rank - 1];
    if (b->dims[b->rank == 1 ? 0 : b->rank - 2] != t->k)
        return tn_fail(error, TN_ERROR_MODEL, "node %s: its operands do not fit each other",
                       tn_quote(tn_node_label(node)));
    if (b->rank <= 2) { /* all rows of a in one product */
        t->batch = 1;
        t->m = leading(a, a->rank - 1);
    } else {
        if (a->rank != b->rank || leading(a, a->rank - 2) != leading(b, b->rank - 2) ||
            memcmp(a->dims, b->dims, (size_t)(a->rank - 2) * sizeof(int64_t)) != 0)
            return tn_lower_unsupported(node, error, "broadcast batches");
        t->batch = leading(a, a->rank - 2);
        t->m = a->dims[a->rank - 2];
    }
    return tn_lower_step(plan, node, &task, src, n_src, dst, params, n_params, error);
}
