#include "finetune/calibrate_chain.h"

#include <string.h>

enum { MAX_DEPTH = 64 };

static bool is(const tn_node *node, const char *type)
{
    return !strcmp(node->type, type);
}

static const tn_node *only_user(const tn_value *value)
{
    return value->n_users == 1 && !value->is_output ? value->users[0] : NULL;
}

/* Numbers along the last dimension: others of a linear layer stand for its positions. */
static bool constant_channels(const tn_value *value, int64_t channels)
{
    return value && value->constant && tn_tensor_count(value->constant) == channels &&
           (channels == 1 || (value->rank > 0 && value->dims[value->rank - 1] == channels));
}

static bool constant_bias(const tn_value *value, int64_t channels)
{
    return constant_channels(value, 1) || constant_channels(value, channels);
}

bool tn_bn_is_own(const tn_node *bn)
{
    for (size_t i = 1; i < 5; i++)
        if (i >= bn->n_inputs || !tn_value_is_own(bn->inputs[i]))
            return false;
    return true;
}

static bool is_bn_of(const tn_node *node, const tn_value *value)
{
    return node && is(node, "BatchNormalization") && node->inputs[0] == value && tn_bn_is_own(node);
}

static bool leads_to_bn(const tn_value *value, int depth)
{
    static const char *const KEEP[] = {"Concat", "AveragePool", "GlobalAveragePool", "Identity",
                                       "Dropout"};
    if (depth > MAX_DEPTH || value->n_users == 0 || value->is_output)
        return false;
    for (size_t i = 0; i < value->n_users; i++) {
        const tn_node *user = value->users[i];
        if (is_bn_of(user, value))
            continue;
        bool keeps = false;
        for (size_t k = 0; k < sizeof KEEP / sizeof KEEP[0]; k++)
            keeps = keeps || is(user, KEEP[k]);
        if (!keeps || !leads_to_bn(user->outputs[0], depth + 1))
            return false;
    }
    return true;
}

static bool is_relu(const tn_node *node)
{
    if (is(node, "Relu"))
        return true;
    double low = -1;
    const tn_value *min = node->n_inputs > 1 ? node->inputs[1] : NULL;
    return is(node, "Clip") && min && min->constant &&
           tn_tensor_read_double(min->constant, 0, 1, &low, NULL) == TN_OK && low == 0;
}

void tn_chain_find(const tn_node *node, int64_t channels, tn_chain *chain)
{
    *chain = (tn_chain){.output = node->outputs[0]};
    if (!is(node, "MatMul") && node->n_inputs > 2 && constant_bias(node->inputs[2], channels))
        chain->bias = node->inputs[2];
    const tn_node *user = only_user(chain->output);
    if (user && is(node, "MatMul") && is(user, "Add")) {
        const tn_value *added = user->inputs[user->inputs[0] == chain->output];
        if (constant_bias(added, channels)) {
            chain->bias = added;
            chain->output = user->outputs[0];
            user = only_user(chain->output);
        }
    }
    /* of a MatMul's [N, positions, channels] a BN would correct the positions */
    bool channels_second = !is(node, "MatMul") || chain->output->rank == 2;
    chain->bn_later = channels_second && leads_to_bn(chain->output, 0);
    chain->bias_is_own = tn_value_is_own(chain->bias) && constant_channels(chain->bias, channels);
    if (channels_second && is_bn_of(user, chain->output)) {
        chain->bn = user;
        user = only_user(user->outputs[0]);
    }
    if (user && is(user, "Add")) {
        const tn_value *behind = chain->bn ? chain->bn->outputs[0] : chain->output;
        const tn_value *other = user->inputs[user->inputs[0] == behind];
        if (other != behind && !other->constant)
            chain->other = other;
        user = chain->other ? only_user(user->outputs[0]) : NULL;
    }
    chain->relu = user && is_relu(user);
}
