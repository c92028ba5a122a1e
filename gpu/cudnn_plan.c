#include "gpu/cudnn_plan.h"

#include "core/memory.h"
#include "gpu/plan_cache.h"

#include <cudnn.h>
#include <dlfcn.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { CANDIDATES = 32, X = 1, W = 2, Y = 3, MAX_DIMS = 5 };

typedef cudnnBackendDescriptor_t descriptor;

struct tn_cudnn {
    void *library;
    cudnnHandle_t handle; /* NULL with a profile */
    descriptor profile;   /* NULL on a GPU */
    tn_plan_cache *cache; /* NULL: none */
    size_t from_cache;    /* plans */
    __typeof__(&cudnnGetVersion) version;
    __typeof__(&cudnnCreate) create;
    __typeof__(&cudnnDestroy) destroy;
    __typeof__(&cudnnBackendCreateDescriptor) make;
    __typeof__(&cudnnBackendDestroyDescriptor) drop;
    __typeof__(&cudnnBackendFinalize) finalize;
    __typeof__(&cudnnBackendSetAttribute) set;
    __typeof__(&cudnnBackendGetAttribute) get;
    __typeof__(&cudnnSetStream) set_stream;
    __typeof__(&cudnnBackendExecute) execute;
};

struct tn_gpu_convolution {
    tn_cudnn *cudnn;
    descriptor plan;
    int64_t workspace, engine;
};

static bool load_symbols(tn_cudnn *c)
{
    const struct {
        void *to;
        const char *name;
    } symbols[] = {{&c->version, "cudnnGetVersion"},
                   {&c->create, "cudnnCreate"},
                   {&c->destroy, "cudnnDestroy"},
                   {&c->make, "cudnnBackendCreateDescriptor"},
                   {&c->drop, "cudnnBackendDestroyDescriptor"},
                   {&c->finalize, "cudnnBackendFinalize"},
                   {&c->set, "cudnnBackendSetAttribute"},
                   {&c->get, "cudnnBackendGetAttribute"},
                   {&c->set_stream, "cudnnSetStream"},
                   {&c->execute, "cudnnBackendExecute"}};
    for (size_t i = 0; i < sizeof(symbols) / sizeof(symbols[0]); i++) {
        void *address = dlsym(c->library, symbols[i].name);
        if (!address)
            return false;
        memcpy(symbols[i].to, &address, sizeof(address)); /* POSIX's way around ISO C */
    }
    return true;
}

/* --- descriptors: each step does nothing after one that failed -------------------------------- */

typedef struct builder {
    tn_cudnn *cudnn;
    bool ok;
    descriptor made[24]; /* all of one graph, destroyed together */
    int n;
} builder;

static descriptor make(builder *b, cudnnBackendDescriptorType_t type)
{
    descriptor d = NULL;
    b->ok = b->ok && b->n < (int)(sizeof(b->made) / sizeof(b->made[0])) &&
            b->cudnn->make(type, &d) == CUDNN_STATUS_SUCCESS;
    if (b->ok)
        b->made[b->n++] = d;
    return d;
}

static void set(builder *b, descriptor d, cudnnBackendAttributeName_t name,
                cudnnBackendAttributeType_t type, int64_t count, const void *values)
{
    b->ok = b->ok && b->cudnn->set(d, name, type, count, values) == CUDNN_STATUS_SUCCESS;
}

static void set_integers(builder *b, descriptor d, cudnnBackendAttributeName_t name, int64_t count,
                         const int64_t *values)
{
    set(b, d, name, CUDNN_TYPE_INT64, count, values);
}

static void set_descriptor(builder *b, descriptor d, cudnnBackendAttributeName_t name,
                           descriptor value)
{
    set(b, d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, (const void *)&value);
}

static void finalize(builder *b, descriptor d)
{
    b->ok = b->ok && b->cudnn->finalize(d) == CUDNN_STATUS_SUCCESS;
}

static void drop_all(builder *b)
{
    while (b->n > 0)
        (void)b->cudnn->drop(b->made[--b->n]);
}

/* [n, c, spatial...] in the library's order of axes, channels last in memory. */
static descriptor tensor(builder *b, int64_t id, tn_precision precision, int spatial, int64_t n,
                         int64_t c, const int64_t *sizes)
{
    int64_t dims[MAX_DIMS] = {n, c}, strides[MAX_DIMS] = {0, 1}, stride = c, alignment = 16;
    cudnnDataType_t type = precision == TN_PRECISION_BF16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT;
    for (int i = spatial - 1; i >= 0; i--) {
        dims[2 + i] = sizes[i];
        strides[2 + i] = stride;
        stride *= sizes[i];
    }
    strides[0] = stride;
    descriptor d = make(b, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    set(b, d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    set_integers(b, d, CUDNN_ATTR_TENSOR_DIMENSIONS, 2 + spatial, dims);
    set_integers(b, d, CUDNN_ATTR_TENSOR_STRIDES, 2 + spatial, strides);
    set_integers(b, d, CUDNN_ATTR_TENSOR_UNIQUE_ID, 1, &id);
    set_integers(b, d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, 1, &alignment);
    finalize(b, d);
    return d;
}

static descriptor convolution(builder *b, const tn_conv_task *t)
{
    cudnnDataType_t type = CUDNN_DATA_FLOAT;
    cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    int64_t spatial = t->spatial;
    descriptor d = make(b, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    set(b, d, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    set(b, d, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
    set_integers(b, d, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, 1, &spatial);
    set_integers(b, d, CUDNN_ATTR_CONVOLUTION_DILATIONS, spatial, t->dilation);
    set_integers(b, d, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, spatial, t->stride);
    set_integers(b, d, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, spatial, t->pad_begin);
    set_integers(b, d, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, spatial, t->pad_end);
    finalize(b, d);
    return d;
}

/* Names of a pass's attributes. */
static const struct {
    cudnnBackendDescriptorType_t type;
    cudnnBackendAttributeName_t convolution, x, w, y, alpha, beta;
} passes[TN_N_CONV_PASSES] = {
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA},
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA},
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA}};

/* The graph of one convolution. */
static descriptor graph_of(builder *b, const tn_conv_task *t, tn_conv_pass pass,
                           tn_precision precision)
{
    const float one = 1.0f, zero = 0.0f;
    int64_t per_group = t->in_channels / t->group;
    descriptor x = tensor(b, X, precision, t->spatial, t->batch, t->in_channels, t->in);
    descriptor w = tensor(b, W, precision, t->spatial, t->out_channels, per_group, t->kernel);
    descriptor y = tensor(b, Y, precision, t->spatial, t->batch, t->out_channels, t->out);
    descriptor c = convolution(b, t);
    descriptor operation = make(b, passes[pass].type);
    set_descriptor(b, operation, passes[pass].convolution, c);
    set_descriptor(b, operation, passes[pass].x, x);
    set_descriptor(b, operation, passes[pass].w, w);
    set_descriptor(b, operation, passes[pass].y, y);
    set(b, operation, passes[pass].alpha, CUDNN_TYPE_FLOAT, 1, &one);
    set(b, operation, passes[pass].beta, CUDNN_TYPE_FLOAT, 1, &zero);
    finalize(b, operation);
    descriptor graph = make(b, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    set_descriptor(b, graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, operation);
    if (b->cudnn->handle)
        set(b, graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1,
            (const void *)&b->cudnn->handle);
    finalize(b, graph);
    return graph;
}

/* --- choosing an engine ------------------------------------------------------------------------
 */

/* Whether the engine of a configuration keeps the promises of the header. */
static bool is_allowed(tn_cudnn *c, descriptor configuration, tn_precision precision,
                       int64_t *number)
{
    cudnnBackendNumericalNote_t notes[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
    descriptor engine = NULL;
    int64_t count = 0;
    bool ok = c->make(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine) == CUDNN_STATUS_SUCCESS &&
              c->get(configuration, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                     &count, (void *)&engine) == CUDNN_STATUS_SUCCESS &&
              c->get(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &count, number) ==
                  CUDNN_STATUS_SUCCESS &&
              c->get(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                     CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &count, notes) == CUDNN_STATUS_SUCCESS;
    for (int64_t i = 0; ok && i < count; i++) {
        bool rounds = notes[i] == CUDNN_NUMERICAL_NOTE_TENSOR_CORE ||
                      notes[i] == CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS;
        ok = notes[i] != CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC &&
             notes[i] != CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION &&
             !(precision == TN_PRECISION_FP32 && rounds);
    }
    if (engine)
        (void)c->drop(engine);
    return ok;
}

/* A plan of the configuration; NULL when the library cannot or it needs too much workspace. */
static descriptor finish(tn_cudnn *c, descriptor configuration, size_t most, int64_t *workspace)
{
    descriptor plan = NULL;
    int64_t count = 0;
    bool ok = c->make(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &plan) == CUDNN_STATUS_SUCCESS &&
              c->set(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                     1, (const void *)&configuration) == CUDNN_STATUS_SUCCESS;
    if (ok && c->handle)
        ok = c->set(plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1,
                    (const void *)&c->handle) == CUDNN_STATUS_SUCCESS;
    if (ok && c->profile)
        ok = c->set(plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                    (const void *)&c->profile) == CUDNN_STATUS_SUCCESS;
    ok = ok && c->finalize(plan) == CUDNN_STATUS_SUCCESS &&
         c->get(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &count,
                workspace) == CUDNN_STATUS_SUCCESS &&
         *workspace >= 0 && (size_t)*workspace <= most;
    if (ok)
        return plan;
    if (plan)
        (void)c->drop(plan);
    return NULL;
}

/* A configuration's settings; false when they do not fit. */
static bool describe_choice(tn_cudnn *c, descriptor configuration, tn_plan_choice *choice)
{
    descriptor knobs[TN_PLAN_KNOBS] = {NULL};
    int64_t count = 0, one = 0;
    bool ok = true;
    for (int i = 0; i < TN_PLAN_KNOBS && ok; i++)
        ok = c->make(CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR, &knobs[i]) == CUDNN_STATUS_SUCCESS;
    ok = ok &&
         c->get(configuration, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                TN_PLAN_KNOBS, &count, (void *)knobs) == CUDNN_STATUS_SUCCESS &&
         count <= TN_PLAN_KNOBS;
    for (int64_t i = 0; i < count && ok; i++) {
        cudnnBackendKnobType_t type = CUDNN_KNOB_TYPE_COUNTS;
        ok = c->get(knobs[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, &one,
                    &type) == CUDNN_STATUS_SUCCESS &&
             c->get(knobs[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, 1, &one,
                    &choice->value[i]) == CUDNN_STATUS_SUCCESS;
        choice->type[i] = type;
    }
    choice->knobs = (int)count;
    for (int i = 0; i < TN_PLAN_KNOBS; i++)
        if (knobs[i])
            (void)c->drop(knobs[i]);
    return ok;
}

/* A plan of what was chosen in an earlier run; NULL when it is not possible now. */
static descriptor remake(tn_cudnn *c, descriptor graph, const tn_plan_choice *choice,
                         tn_precision precision, size_t most, tn_gpu_convolution *out)
{
    builder b = {.cudnn = c, .ok = true};
    descriptor plan = NULL, knobs[TN_PLAN_KNOBS];
    descriptor engine = make(&b, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    set_descriptor(&b, engine, CUDNN_ATTR_ENGINE_OPERATION_GRAPH, graph);
    set_integers(&b, engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, 1, &choice->engine);
    if (c->profile)
        set_descriptor(&b, engine, CUDNN_ATTR_ENGINE_DEVICEPROP, c->profile);
    finalize(&b, engine);
    for (int i = 0; i < choice->knobs; i++) {
        cudnnBackendKnobType_t type = (cudnnBackendKnobType_t)choice->type[i];
        knobs[i] = make(&b, CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR);
        set(&b, knobs[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, &type);
        set_integers(&b, knobs[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, 1, &choice->value[i]);
        finalize(&b, knobs[i]);
    }
    descriptor configuration = make(&b, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    set_descriptor(&b, configuration, CUDNN_ATTR_ENGINECFG_ENGINE, engine);
    if (choice->knobs > 0)
        set(&b, configuration, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_TYPE_BACKEND_DESCRIPTOR,
            choice->knobs, (const void *)knobs);
    finalize(&b, configuration);
    if (b.ok && is_allowed(c, configuration, precision, &out->engine))
        plan = finish(c, configuration, most, &out->workspace);
    drop_all(&b);
    return plan;
}

/* Tries the library's candidates of one mode in order. */
static descriptor choose(builder *b, descriptor graph, cudnnBackendHeurMode_t mode,
                         tn_precision precision, size_t most, tn_gpu_convolution *out,
                         tn_plan_choice *choice)
{
    tn_cudnn *c = b->cudnn;
    descriptor candidates[CANDIDATES] = {NULL}, plan = NULL;
    int64_t count = 0;
    descriptor heuristic = make(b, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    set_descriptor(b, heuristic, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
    set(b, heuristic, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    if (c->profile)
        set_descriptor(b, heuristic, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, c->profile);
    finalize(b, heuristic);
    for (int i = 0; i < CANDIDATES && b->ok; i++)
        b->ok = c->make(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &candidates[i]) == CUDNN_STATUS_SUCCESS;
    b->ok = b->ok && c->get(heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                            CANDIDATES, &count, (void *)candidates) == CUDNN_STATUS_SUCCESS;
    for (int64_t i = 0; i < count && b->ok && !plan; i++)
        if (is_allowed(c, candidates[i], precision, &out->engine)) {
            plan = finish(c, candidates[i], most, &out->workspace);
            choice->engine = plan && describe_choice(c, candidates[i], choice) ? out->engine : -1;
        }
    for (int i = 0; i < CANDIDATES; i++)
        if (candidates[i])
            (void)c->drop(candidates[i]);
    return plan;
}

static int write_sizes(char *text, size_t size, const int64_t *sizes, int n)
{
    int used = 0;
    for (int i = 0; i < n; i++)
        used += snprintf(text + used, size - (size_t)used, "%c%" PRId64, i ? 'x' : ' ', sizes[i]);
    return used;
}

/* All that a choice depends on, besides the GPU and the library. */
static void write_key(const tn_conv_task *t, tn_conv_pass pass, tn_precision precision, size_t most,
                      char *key)
{
    const int64_t *const sizes[] = {t->in,       t->out,       t->kernel, t->stride,
                                    t->dilation, t->pad_begin, t->pad_end};
    int used = snprintf(
        key, TN_PLAN_KEY, "%d %s %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %zu", (int)pass,
        tn_precision_name(precision), t->batch, t->in_channels, t->out_channels, t->group, most);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        used += write_sizes(key + used, TN_PLAN_KEY - (size_t)used, sizes[i], t->spatial);
}

/* The plan of an earlier run, else by the library's ranking, which later runs then find. */
static void find_plan(builder *b, descriptor graph, const char *key, tn_precision precision,
                      size_t most, tn_gpu_convolution *p)
{
    static const cudnnBackendHeurMode_t modes[] = {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK};
    tn_cudnn *c = b->cudnn;
    tn_plan_choice choice = {0};
    if (tn_plan_cache_find(c->cache, key, &choice)) {
        p->plan = remake(c, graph, &choice, precision, most, p);
        c->from_cache += p->plan != NULL;
    }
    for (int i = 0; i < 2 && !p->plan; i++) {
        b->ok = true;
        p->plan = choose(b, graph, modes[i], precision, most, p, &choice);
        if (p->plan && choice.engine >= 0)
            tn_plan_cache_keep(c->cache, key, &choice);
    }
}

tn_status tn_cudnn_plan(tn_cudnn *cudnn, const tn_conv_task *task, tn_conv_pass pass,
                        tn_precision precision, size_t most, tn_gpu_convolution **plan,
                        tn_error *error)
{
    static const char *const names[] = {"forward", "data gradient", "weight gradient"};
    char key[TN_PLAN_KEY];
    builder b = {.cudnn = cudnn, .ok = true};
    tn_gpu_convolution *p = tn_alloc_zero(1, sizeof(*p));
    if (!p)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    p->cudnn = cudnn;
    descriptor graph = graph_of(&b, task, pass, precision);
    bool described = b.ok;
    write_key(task, pass, precision, most, key);
    if (described)
        find_plan(&b, graph, key, precision, most, p);
    drop_all(&b);
    if (p->plan) {
        *plan = p;
        return TN_OK;
    }
    tn_free(p);
    return tn_fail(error, TN_ERROR_USAGE,
                   "cuDNN %s the %s of a convolution %lld -> %lld, kernel %lld, group %lld, batch "
                   "%lld in %s%s",
                   described ? "has no plan for" : "does not take", names[pass],
                   (long long)task->in_channels, (long long)task->out_channels,
                   (long long)task->kernel[task->spatial - 1], (long long)task->group,
                   (long long)task->batch, tn_precision_name(precision),
                   described ? " within the workspace" : "");
}

void tn_cudnn_plan_destroy(tn_gpu_convolution *plan)
{
    if (!plan)
        return;
    (void)plan->cudnn->drop(plan->plan);
    tn_free(plan);
}

tn_status tn_cudnn_run(const tn_gpu_convolution *plan, void *stream, const void *x, const void *w,
                       const void *y, void *workspace, tn_error *error)
{
    tn_cudnn *c = plan->cudnn;
    const int64_t ids[3] = {X, W, Y};
    const void *pointers[3] = {x, w, y};
    builder b = {.cudnn = c, .ok = c->handle != NULL};
    b.ok = b.ok && c->set_stream(c->handle, (cudaStream_t)stream) == CUDNN_STATUS_SUCCESS;
    descriptor pack = make(&b, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    set_integers(&b, pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, 3, ids);
    set(&b, pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, 3,
        (const void *)pointers);
    set(&b, pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1,
        (const void *)&workspace);
    finalize(&b, pack);
    bool ok = b.ok && c->execute(c->handle, plan->plan, pack) == CUDNN_STATUS_SUCCESS;
    drop_all(&b);
    return ok ? TN_OK : tn_fail(error, TN_ERROR_DEVICE, "cuDNN: a convolution failed");
}

size_t tn_cudnn_plan_workspace(const tn_gpu_convolution *plan)
{
    return (size_t)plan->workspace;
}

int64_t tn_cudnn_plan_engine(const tn_gpu_convolution *plan)
{
    return plan->engine;
}

/* --- opening -----------------------------------------------------------------------------------
 */

static tn_status read_profile(tn_cudnn *c, const char *profile, tn_error *error)
{
    if (c->make(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, &c->profile) == CUDNN_STATUS_SUCCESS &&
        c->set(c->profile, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
               (int64_t)strlen(profile) + 1, profile) == CUDNN_STATUS_SUCCESS &&
        c->finalize(c->profile) == CUDNN_STATUS_SUCCESS)
        return TN_OK;
    return tn_fail(error, TN_ERROR_DEVICE, "cuDNN does not take the device profile");
}

tn_status tn_cudnn_open(const char *profile, const char *gpu, tn_cudnn **cudnn, tn_error *error)
{
    enum { OLDEST = 90800 };
    tn_cudnn *c = tn_alloc_zero(1, sizeof(*c));
    if (!c)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    tn_status status = TN_OK;
    c->library = dlopen("libcudnn.so.9", RTLD_NOW | RTLD_LOCAL);
    if (!c->library || !load_symbols(c))
        status = tn_fail(error, TN_ERROR_DEVICE, "libcudnn.so.9 is not on the loader's path");
    else if (c->version() < OLDEST)
        status =
            tn_fail(error, TN_ERROR_DEVICE, "cuDNN is %zu: 9.8 or newer is needed", c->version());
    else if (profile)
        status = read_profile(c, profile, error);
    else if (c->create(&c->handle) != CUDNN_STATUS_SUCCESS)
        status = tn_fail(error, TN_ERROR_DEVICE, "cuDNN does not start on this GPU");
    if (status == TN_OK && gpu)
        c->cache = tn_plan_cache_open(gpu, c->version());
    if (status == TN_OK)
        *cudnn = c;
    else
        tn_cudnn_close(c);
    return status;
}

void tn_cudnn_close(tn_cudnn *c)
{
    if (!c)
        return;
    tn_plan_cache_close(c->cache);
    if (c->profile)
        (void)c->drop(c->profile);
    if (c->handle)
        (void)c->destroy(c->handle);
    if (c->library)
        (void)dlclose(c->library);
    tn_free(c);
}

size_t tn_cudnn_version(const tn_cudnn *c)
{
    return c->version();
}

size_t tn_cudnn_from_cache(const tn_cudnn *c)
{
    return c->from_cache;
}
