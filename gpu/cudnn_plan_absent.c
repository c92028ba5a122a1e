/* In builds without cuDNN's headers. */
#include "gpu/cudnn_plan.h"

tn_status tn_cudnn_open(const char *profile, const char *gpu, tn_cudnn **cudnn, tn_error *error)
{
    (void)profile, (void)gpu, (void)cudnn;
    return tn_fail(error, TN_ERROR_DEVICE, "this build has no cuDNN");
}

void tn_cudnn_close(tn_cudnn *cudnn)
{
    (void)cudnn;
}

size_t tn_cudnn_version(const tn_cudnn *cudnn)
{
    (void)cudnn;
    return 0;
}

size_t tn_cudnn_from_cache(const tn_cudnn *cudnn)
{
    (void)cudnn;
    return 0;
}

tn_status tn_cudnn_plan(tn_cudnn *cudnn, const tn_conv_task *task, tn_conv_pass pass,
                        tn_precision precision, size_t most, tn_gpu_convolution **plan,
                        tn_error *error)
{
    (void)cudnn, (void)task, (void)pass, (void)precision, (void)most, (void)plan;
    return tn_fail(error, TN_ERROR_DEVICE, "this build has no cuDNN");
}

void tn_cudnn_plan_destroy(tn_gpu_convolution *plan)
{
    (void)plan;
}

tn_status tn_cudnn_run(const tn_gpu_convolution *plan, void *stream, const void *x, const void *w,
                       const void *y, void *workspace, tn_error *error)
{
    (void)plan, (void)stream, (void)x, (void)w, (void)y, (void)workspace;
    return tn_fail(error, TN_ERROR_DEVICE, "this build has no cuDNN");
}

size_t tn_cudnn_plan_workspace(const tn_gpu_convolution *plan)
{
    (void)plan;
    return 0;
}

int64_t tn_cudnn_plan_engine(const tn_gpu_convolution *plan)
{
    (void)plan;
    return -1;
}
