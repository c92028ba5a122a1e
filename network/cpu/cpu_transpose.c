#include "network/cpu/cpu.h"

#include <string.h>

enum { TILE = 16 };

TN_HOT static void tile(const float *src, float *dst, int64_t rows, int64_t cols, int64_t n_rows,
                        int64_t n_cols)
{
    if (n_rows == TILE && n_cols == TILE) {
        float t[TILE][TILE];
        for (int64_t r = 0; r < TILE; r++)
            for (int64_t c = 0; c < TILE; c++)
                t[c][r] = src[r * cols + c];
        for (int64_t c = 0; c < TILE; c++)
            memcpy(dst + c * rows, t[c], sizeof(t[c]));
        return;
    }
    for (int64_t c = 0; c < n_cols; c++)
        for (int64_t r = 0; r < n_rows; r++)
            dst[c * rows + r] = src[r * cols + c];
}

void tn_cpu_transpose(const float *src, float *dst, int64_t n, int64_t rows, int64_t cols)
{
    int64_t bands = (cols + TILE - 1) / TILE;
#pragma omp parallel for collapse(2) schedule(static) if (n * rows * cols > TN_CPU_GRAIN)
    for (int64_t i = 0; i < n; i++)
        for (int64_t band = 0; band < bands; band++) {
            int64_t c = band * TILE, n_cols = cols - c < TILE ? cols - c : TILE;
            const float *s = src + i * rows * cols + c;
            float *d = dst + i * rows * cols + c * rows;
            for (int64_t r = 0; r < rows; r += TILE)
                tile(s + r * cols, d + r, rows, cols, rows - r < TILE ? rows - r : TILE, n_cols);
        }
}

/* Axes that stay together merged: returns the rank, fills dims (of src) and permutation. */
static int merge(const tn_transpose_task *t, int64_t *dims, int *permutation)
{
    int n = 0, of[TN_MAX_RANK]; /* merged group of each src axis */
    int first[TN_MAX_RANK];     /* src axis a group begins with, in dst order */
    int64_t size[TN_MAX_RANK];
    for (int i = 0; i < t->src.rank; i++) {
        int axis = t->permutation[i];
        if (i > 0 && axis == t->permutation[i - 1] + 1) {
            size[n - 1] *= t->src.dims[axis];
        } else {
            first[n] = axis;
            size[n++] = t->src.dims[axis];
        }
    }
    for (int i = 0; i < n; i++) { /* rank of the group among src axes */
        of[i] = 0;
        for (int j = 0; j < n; j++)
            of[i] += first[j] < first[i];
    }
    for (int i = 0; i < n; i++) {
        permutation[i] = of[i];
        dims[of[i]] = size[i];
    }
    return n;
}

static void permute(const int64_t *dims, const int *permutation, int rank, const float *src,
                    float *dst)
{
    int64_t stride[TN_MAX_RANK], extent[TN_MAX_RANK], step[TN_MAX_RANK], count = 1;
    for (int i = rank - 1; i >= 0; i--) {
        stride[i] = count;
        count *= dims[i];
    }
    for (int i = 0; i < rank; i++) {
        extent[i] = dims[permutation[i]];
        step[i] = stride[permutation[i]];
    }
    int64_t inner = extent[rank - 1], rows = inner ? count / inner : 0;
#pragma omp parallel for schedule(static) if (count > TN_CPU_GRAIN)
    for (int64_t row = 0; row < rows; row++) {
        int64_t rest = row, offset = 0;
        for (int i = rank - 2; i >= 0; i--) {
            offset += rest % extent[i] * step[i];
            rest /= extent[i];
        }
        for (int64_t j = 0; j < inner; j++)
            dst[row * inner + j] = src[offset + j * step[rank - 1]];
    }
}

static void run(const tn_transpose_task *t, const float *src, float *dst)
{
    int64_t dims[TN_MAX_RANK];
    int permutation[TN_MAX_RANK];
    int rank = merge(t, dims, permutation);
    if (rank <= 1)
        memcpy(dst, src, (size_t)tn_extent_count(&t->src) * sizeof(float));
    else if (rank == 2)
        tn_cpu_transpose(src, dst, 1, dims[0], dims[1]);
    else if (rank == 3 && permutation[0] == 0)
        tn_cpu_transpose(src, dst, dims[0], dims[1], dims[2]);
    else
        permute(dims, permutation, rank, src, dst);
}

static tn_status transpose_forward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    (void)error;
    run(&kernel->task.transpose, args->src[0], args->dst);
    return TN_OK;
}

static tn_status transpose_backward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    const tn_transpose_task *t = &kernel->task.transpose;
    tn_transpose_task inverse;
    if (!args->dsrc[0])
        return TN_OK;
    inverse.src.rank = t->src.rank;
    for (int i = 0; i < t->src.rank; i++) {
        inverse.src.dims[i] = t->src.dims[t->permutation[i]];
        inverse.permutation[t->permutation[i]] = i;
    }
    if (!args->accumulate[0]) {
        run(&inverse, args->ddst, args->dsrc[0]);
        return TN_OK;
    }
    run(&inverse, args->ddst, args->workspace);
    return kernel->device->type->add(kernel->device, args->dsrc[0], args->workspace,
                                     tn_extent_count(&t->src), error);
}

static const tn_kernel_class transpose_class = {tn_kernel_free, NULL, transpose_forward,
                                                transpose_backward};

tn_status tn_cpu_transpose_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                                   tn_error *error)
{
    tn_kernel *k;
    tn_status status =
        tn_kernel_create(device, task, &transpose_class, "omp", sizeof(tn_kernel), &k, error);
    if (status != TN_OK)
        return status;
    if (task->backward)
        k->workspace_bytes = (size_t)tn_extent_count(&task->transpose.src) * sizeof(float);
    *kernel = k;
    return TN_OK;
}
