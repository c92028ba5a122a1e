/* Quantizes and packs a model, or changes the form of a packed one, through the library's own
 * functions: what the tests in Python call.
 *
 *   pack_tool MODEL OUT FORM [SCHEME BITS GRANULARITY] [key=value ...]
 *
 * SCHEME "-" changes the form alone (unpack and pack). Keys: runtime, first, last, threshold, rule,
 * prune=1, rest=1, preprocess, levels. Prints "opset ir bytes needs", then a line per layer:
 * weight, form. Exits with the status code. */
#include "converter/convert.h"
#include "converter/pack.h"
#include "converter/unpack.h"

#include <stdio.h>
#include <string.h>

enum { MOST_RULES = 4 };

typedef struct request {
    const char *model, *output, *scheme;
    tn_policy policy;
    const char *rule[MOST_RULES];
    tn_pack_options options;
} request;

static void warn(void *context, tn_log_level level, const char *message)
{
    (void)context;
    if (level == TN_LOG_WARNING)
        fprintf(stderr, "warning: %s\n", message);
}

static const tn_reporter reporter = {.log = warn};

static int parse_option(request *r, char *text)
{
    char *value = strchr(text, '=');
    if (!value)
        return 0;
    *value++ = '\0';
    if (strcmp(text, "runtime") == 0) {
        r->options.runtime = tn_runtime_find(value);
        return r->options.runtime != NULL;
    }
    if (strcmp(text, "first") == 0)
        r->policy.first_layer = value;
    else if (strcmp(text, "last") == 0)
        r->policy.last_layer = value;
    else if (strcmp(text, "threshold") == 0)
        r->policy.threshold = value;
    else if (strcmp(text, "levels") == 0)
        r->policy.levels = value;
    else if (strcmp(text, "rule") == 0) {
        if (r->policy.n_layer_rules == MOST_RULES)
            return 0;
        r->rule[r->policy.n_layer_rules++] = value;
    } else if (strcmp(text, "prune") == 0)
        r->options.prune_dead = true;
    else if (strcmp(text, "rest") == 0)
        r->options.rest_float16 = true;
    else if (strcmp(text, "preprocess") == 0)
        r->options.preprocess = value;
    else
        return 0;
    return 1;
}

static tn_status pack_items(const request *r, tn_graph *graph, const tn_pack_item *items,
                            size_t count, tn_error *error)
{
    const tn_write_options write = {.replace = true};
    tn_pack_plan plan;
    tn_model *packed = NULL;
    uint64_t bytes = 0;
    tn_status status = tn_pack(graph, items, count, &r->options, &plan, &packed, error);
    if (status == TN_OK)
        status = tn_pack_write(packed, items, count, r->output, &write, &bytes, error);
    if (status == TN_OK) {
        printf("%lld %lld %llu %s\n", (long long)plan.opset, (long long)plan.ir,
               (unsigned long long)bytes, plan.needs);
        for (size_t i = 0; i < count; i++)
            printf("%s %s\n", items[i].layer->weight->name,
                   plan.choice[i].form ? plan.choice[i].form->id : "half");
    }
    tn_model_destroy(packed);
    return status;
}

static tn_status quantize(const request *r, tn_graph *graph, tn_error *error)
{
    enum { MOST = 512 };
    static tn_pack_item items[MOST];
    tn_layers layers;
    tn_conversion conversion = {0};
    tn_status status = tn_layers_select(graph, &r->policy, &layers, error);
    if (status == TN_OK)
        status = tn_convert(&layers, NULL, &conversion, error);
    if (status == TN_OK && conversion.count > MOST)
        status = tn_fail(error, TN_ERROR_LIMIT, "too many layers for this tool");
    for (size_t i = 0; status == TN_OK && i < conversion.count; i++)
        items[i] = (tn_pack_item){conversion.item[i].layer, &conversion.item[i].weight};
    if (status == TN_OK)
        status = pack_items(r, graph, items, conversion.count, error);
    tn_conversion_done(&conversion);
    return status;
}

static tn_status change_form(const request *r, tn_graph *graph, tn_error *error)
{
    tn_unpacked unpacked = {0};
    tn_status status = tn_unpack(graph, &reporter, &unpacked, error);
    if (status == TN_OK) {
        fprintf(stderr, "%zu layers %s\n", unpacked.count,
                unpacked.from_record ? "from the record" : "recognized");
        status = pack_items(r, graph, unpacked.item, unpacked.count, error);
    }
    tn_unpacked_done(&unpacked);
    return status;
}

int main(int argc, char **argv)
{
    tn_error error = {0};
    tn_model *model = NULL;
    tn_graph *graph = NULL;
    int next = 4;
    if (argc < 4)
        return TN_ERROR_USAGE;
    request r = {.model = argv[1], .output = argv[2], .scheme = "-"};
    r.policy.layer_rules = r.rule;
    r.options.form = tn_form_find(argv[3]);
    r.options.reporter = &reporter;
    if (argc >= 7 && !strchr(argv[4], '=')) {
        r.policy.scheme = r.scheme = argv[4];
        r.policy.bits = strcmp(argv[5], "-") == 0 ? NULL : argv[5];
        r.policy.granularity = argv[6];
        next = 7;
    }
    for (; next < argc; next++) {
        if (!parse_option(&r, argv[next]))
            return TN_ERROR_USAGE;
    }
    tn_status status = r.options.form ? tn_model_read(r.model, NULL, &model, &error)
                                      : tn_fail(&error, TN_ERROR_USAGE, "no such form");
    if (status == TN_OK)
        status = tn_graph_create(model, NULL, &graph, &error);
    if (status == TN_OK)
        status = strcmp(r.scheme, "-") == 0 ? change_form(&r, graph, &error)
                                            : quantize(&r, graph, &error);
    if (status != TN_OK)
        fprintf(stderr, "%s\n", error.message);
    tn_graph_destroy(graph);
    tn_model_destroy(model);
    return (int)status;
}
