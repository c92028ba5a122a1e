#include "data/glyphs.h"

#include "core/file.h"
#include "core/memory.h"
#include "core/random.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SIDE = TN_GLYPH_SIDE, PLANE = SIDE * SIDE, MAX_POINTS = 20, N_BATCHES = 5 };

/* A symbol as polylines within [-1, 1]; a point with x = BREAK lifts the pen. */
#define BREAK 9.0f
typedef struct glyph {
    const char *name;
    int n;
    float point[MAX_POINTS][2];
} glyph;

static const glyph glyphs[TN_GLYPH_CLASSES] = {
    {"ring",
     17,
     {{1, 0},
      {0.924f, 0.383f},
      {0.707f, 0.707f},
      {0.383f, 0.924f},
      {0, 1},
      {-0.383f, 0.924f},
      {-0.707f, 0.707f},
      {-0.924f, 0.383f},
      {-1, 0},
      {-0.924f, -0.383f},
      {-0.707f, -0.707f},
      {-0.383f, -0.924f},
      {0, -1},
      {0.383f, -0.924f},
      {0.707f, -0.707f},
      {0.924f, -0.383f},
      {1, 0}}},
    {"square", 5, {{-0.9f, -0.9f}, {0.9f, -0.9f}, {0.9f, 0.9f}, {-0.9f, 0.9f}, {-0.9f, -0.9f}}},
    {"triangle", 4, {{0, -1}, {0.95f, 0.8f}, {-0.95f, 0.8f}, {0, -1}}},
    {"star",
     11,
     {{0, -1},
      {0.235f, -0.324f},
      {0.951f, -0.309f},
      {0.380f, 0.124f},
      {0.588f, 0.809f},
      {0, 0.4f},
      {-0.588f, 0.809f},
      {-0.380f, 0.124f},
      {-0.951f, -0.309f},
      {-0.235f, -0.324f},
      {0, -1}}},
    {"plus", 5, {{-1, 0}, {1, 0}, {BREAK, 0}, {0, -1}, {0, 1}}},
    {"saltire", 5, {{-0.8f, -0.8f}, {0.8f, 0.8f}, {BREAK, 0}, {-0.8f, 0.8f}, {0.8f, -0.8f}}},
    {"arrow", 6, {{-1, 0}, {1, 0}, {BREAK, 0}, {0.3f, -0.7f}, {1, 0}, {0.3f, 0.7f}}},
    {"zigzag", 5, {{-1, 0.6f}, {-0.5f, -0.6f}, {0, 0.6f}, {0.5f, -0.6f}, {1, 0.6f}}},
    {"spiral",
     14,
     {{0.1f, 0},
      {0.1f, 0.25f},
      {-0.15f, 0.3f},
      {-0.4f, 0.1f},
      {-0.4f, -0.25f},
      {-0.1f, -0.5f},
      {0.35f, -0.45f},
      {0.65f, -0.1f},
      {0.65f, 0.4f},
      {0.3f, 0.8f},
      {-0.3f, 0.9f},
      {-0.8f, 0.6f},
      {-1, 0},
      {-0.9f, -0.5f}}},
    {"hourglass", 5, {{-0.8f, -0.9f}, {0.8f, -0.9f}, {-0.8f, 0.9f}, {0.8f, 0.9f}, {-0.8f, -0.9f}}},
};

typedef struct pen { /* strokes of one picture, in pixels */
    float x[MAX_POINTS], y[MAX_POINTS];
    bool joined[MAX_POINTS]; /* to the point before */
    int n;
    float radius;
    float colour[3];
} pen;

typedef struct ground { /* two colours and how they mix over the picture */
    float from[3], to[3];
    float dx, dy, phase;
    int kind; /* 0 gradient, 1 stripes, 2 checks */
} ground;

const char *tn_glyph_class_name(int label)
{
    return glyphs[label].name;
}

static float uniform(tn_random *random, float lo, float hi)
{
    return lo + (hi - lo) * tn_random_uniform(random);
}

static float luma(const float *c)
{
    return 0.3f * c[0] + 0.59f * c[1] + 0.11f * c[2];
}

static void draw_colour(tn_random *random, float *colour)
{
    for (int k = 0; k < 3; k++)
        colour[k] = uniform(random, 0.0f, 255.0f);
}

static ground draw_ground(tn_random *random)
{
    ground g;
    draw_colour(random, g.from);
    for (int k = 0; k < 3; k++) {
        float v = g.from[k] + uniform(random, -70.0f, 70.0f);
        g.to[k] = v < 0.0f ? 0.0f : v > 255.0f ? 255.0f : v;
    }
    g.kind = (int)tn_random_below(random, 3);
    g.dx = uniform(random, -1.0f, 1.0f);
    g.dy = uniform(random, -1.0f, 1.0f);
    g.phase = uniform(random, 0.0f, 8.0f);
    return g;
}

/* The share of `to` at a pixel. */
static float ground_share(const ground *g, float x, float y)
{
    float along = (x * g->dx + y * g->dy) / 32.0f + 0.5f;
    if (g->kind == 0)
        return along < 0.0f ? 0.0f : along > 1.0f ? 1.0f : along;
    if (g->kind == 1)
        return ((int)floorf(along * 8.0f + g->phase) & 1) ? 1.0f : 0.0f;
    int cx = (int)floorf((x + g->phase) / 5.0f), cy = (int)floorf((y + g->phase) / 5.0f);
    return ((cx + cy) & 1) ? 1.0f : 0.0f;
}

/* The symbol under a random affine map. Sine and cosine by half-angle, exactly rounded. */
static pen draw_pen(tn_random *random, const glyph *symbol)
{
    pen p = {.n = symbol->n};
    float t = uniform(random, -0.2f, 0.2f); /* tan(angle / 2): up to 23 degrees */
    float cosine = (1.0f - t * t) / (1.0f + t * t), sine = 2.0f * t / (1.0f + t * t);
    float size = uniform(random, 6.0f, 12.0f);
    float stretch = uniform(random, 0.8f, 1.25f), shear = uniform(random, -0.25f, 0.25f);
    float room = 15.5f - size * 0.9f;
    float cx = 15.5f + uniform(random, -room, room), cy = 15.5f + uniform(random, -room, room);
    for (int i = 0; i < p.n; i++) {
        if (symbol->point[i][0] == BREAK)
            continue;
        float u = symbol->point[i][0] + uniform(random, -0.08f, 0.08f);
        float v = symbol->point[i][1] + uniform(random, -0.08f, 0.08f);
        u = (u + shear * v) * size * stretch;
        v = v * size / stretch;
        p.x[i] = cx + cosine * u - sine * v;
        p.y[i] = cy + sine * u + cosine * v;
        p.joined[i] = i > 0 && symbol->point[i - 1][0] != BREAK;
    }
    p.radius = uniform(random, 0.7f, 1.7f);
    return p;
}

static pen draw_distractor(tn_random *random)
{
    pen p = {.n = 2, .joined = {false, true}};
    for (int i = 0; i < 2; i++) {
        p.x[i] = uniform(random, 0.0f, 31.0f);
        p.y[i] = uniform(random, 0.0f, 31.0f);
    }
    /* short strokes, or they would be symbols themselves */
    p.x[1] = p.x[0] + (p.x[1] - p.x[0]) * 0.25f;
    p.y[1] = p.y[0] + (p.y[1] - p.y[0]) * 0.25f;
    p.radius = uniform(random, 0.6f, 1.4f);
    draw_colour(random, p.colour);
    return p;
}

/* Squared distance from (x, y) to the segment between points i - 1 and i. */
static float segment_distance2(const pen *p, int i, float x, float y)
{
    float ax = p->x[i - 1], ay = p->y[i - 1];
    float dx = p->x[i] - ax, dy = p->y[i] - ay;
    float length2 = dx * dx + dy * dy;
    float t = length2 > 0.0f ? ((x - ax) * dx + (y - ay) * dy) / length2 : 0.0f;
    t = t < 0.0f ? 0.0f : t > 1.0f ? 1.0f : t;
    float ex = x - ax - t * dx, ey = y - ay - t * dy;
    return ex * ex + ey * ey;
}

/* How much of a pixel a pen covers, 0 .. 1. */
static float coverage(const pen *p, float x, float y)
{
    float nearest = 1e9f;
    for (int i = 1; i < p->n; i++) {
        if (!p->joined[i])
            continue;
        float d = segment_distance2(p, i, x, y);
        nearest = d < nearest ? d : nearest;
    }
    float a = p->radius + 0.5f - sqrtf(nearest);
    return a < 0.0f ? 0.0f : a > 1.0f ? 1.0f : a;
}

/* A colour that stands out from both of the background's. */
static void choose_ink(tn_random *random, const ground *g, float *ink)
{
    for (int attempt = 0; attempt < 64; attempt++) {
        draw_colour(random, ink);
        if (fabsf(luma(ink) - luma(g->from)) > 45.0f && fabsf(luma(ink) - luma(g->to)) > 45.0f)
            return;
    }
    float value = luma(g->from) + luma(g->to) > 255.0f ? 0.0f : 255.0f;
    for (int k = 0; k < 3; k++)
        ink[k] = value;
}

static void blend(float *v, const float *ink, float share)
{
    for (int k = 0; k < 3; k++)
        v[k] += (ink[k] - v[k]) * share;
}

void tn_glyph_draw(uint64_t seed, uint64_t sample, int label, unsigned char *pixels)
{
    tn_random random = tn_random_make(seed, TN_PURPOSE_GLYPHS, 0, sample);
    pen strokes[3];
    ground g = draw_ground(&random);
    int n = 1 + (int)tn_random_below(&random, 3);
    for (int i = 0; i + 1 < n; i++)
        strokes[i] = draw_distractor(&random);
    strokes[n - 1] = draw_pen(&random, &glyphs[label]); /* over the others */
    choose_ink(&random, &g, strokes[n - 1].colour);
    float noise = uniform(&random, 4.0f, 24.0f);
    for (int y = 0; y < SIDE; y++)
        for (int x = 0; x < SIDE; x++) {
            float v[3] = {g.from[0], g.from[1], g.from[2]};
            blend(v, g.to, ground_share(&g, (float)x - 15.5f, (float)y - 15.5f));
            for (int i = 0; i < n; i++)
                blend(v, strokes[i].colour, coverage(&strokes[i], (float)x, (float)y));
            for (int k = 0; k < 3; k++) {
                /* the sum of four uniforms is normal enough */
                float z = -2.0f;
                for (int j = 0; j < 4; j++)
                    z += tn_random_uniform(&random);
                float value = v[k] + noise * z * 1.732f;
                *pixels++ = (unsigned char)(value < 0.0f     ? 0.0f
                                            : value > 255.0f ? 255.0f
                                                             : floorf(value + 0.5f));
            }
        }
}

/* What the folder holds: batches of pictures, then the classes' names. */
enum { N_FILES = N_BATCHES + 2 };

static void file_path(const char *folder, size_t which, char path[4096])
{
    if (which < N_BATCHES)
        snprintf(path, 4096, "%s/data_batch_%zu.bin", folder, which + 1);
    else
        snprintf(path, 4096, "%s/%s", folder,
                 which == N_BATCHES ? "test_batch.bin" : "batches.meta.txt");
}

static tn_status write_batch(tn_file_writer *writer, const tn_glyphs_options *o, uint64_t first,
                             size_t count, tn_error *error)
{
    unsigned char pixels[3 * PLANE], record[1 + 3 * PLANE];
    tn_status status = TN_OK;
    for (size_t i = 0; i < count && status == TN_OK; i++) {
        int label = (int)((first + i) % TN_GLYPH_CLASSES);
        if (i % 256 == 0 && tn_cancelled(o->reporter))
            return tn_fail(error, TN_ERROR_CANCELLED, "drawing was stopped");
        tn_glyph_draw(o->seed, first + i, label, pixels);
        record[0] = (unsigned char)label;
        for (size_t p = 0; p < PLANE; p++)
            for (size_t c = 0; c < 3; c++)
                record[1 + c * PLANE + p] = pixels[3 * p + c];
        status = tn_file_writer_write(writer, record, sizeof record, error);
    }
    return status;
}

static tn_status write_names(tn_file_writer *writer, tn_error *error)
{
    tn_status status = TN_OK;
    for (int i = 0; status == TN_OK && i < TN_GLYPH_CLASSES; i++) {
        status = tn_file_writer_write(writer, glyphs[i].name, strlen(glyphs[i].name), error);
        if (status == TN_OK)
            status = tn_file_writer_write(writer, "\n", 1, error);
    }
    return status;
}

static tn_status write_file(tn_file_writer *writer, const tn_glyphs_options *o, size_t which,
                            tn_error *error)
{
    size_t first = o->train * which / N_BATCHES, last = o->train * (which + 1) / N_BATCHES;
    if (which < N_BATCHES)
        return write_batch(writer, o, first, last - first, error);
    return which == N_BATCHES ? write_batch(writer, o, UINT64_C(10) << 32, o->test, error)
                              : write_names(writer, error);
}

/* All files at once or none: a run that is stopped leaves no part of a data set. */
static tn_status write_files(const char *folder, const tn_glyphs_options *o, tn_error *error)
{
    tn_file_writer *writer[N_FILES] = {NULL};
    char path[4096];
    tn_status status = TN_OK;
    for (size_t i = 0; i < N_FILES && status == TN_OK; i++) {
        file_path(folder, i, path);
        status = tn_file_writer_open(path, o->replace, &writer[i], error);
    }
    for (size_t i = 0; i < N_FILES && status == TN_OK; i++)
        status = write_file(writer[i], o, i, error);
    for (size_t i = 0; i < N_FILES && status == TN_OK; i++) {
        status = tn_file_writer_commit(writer[i], error);
        writer[i] = NULL;
    }
    for (size_t i = 0; i < N_FILES; i++)
        tn_file_writer_discard(writer[i]);
    return status;
}

/* What writing would refuse. */
static tn_status check_files(const char *folder, const tn_glyphs_options *o, tn_error *error)
{
    char path[4096];
    struct stat info;
    for (size_t i = 0; i < N_FILES && !o->replace; i++) {
        file_path(folder, i, path);
        if (stat(path, &info) == 0)
            return tn_fail(error, TN_ERROR_USAGE, "%s exists already: give -f to overwrite it",
                           tn_quote(path));
    }
    return TN_OK;
}

tn_status tn_glyphs_write(const char *folder, const tn_glyphs_options *options, tn_error *error)
{
    tn_glyphs_options o = options ? *options : (tn_glyphs_options){0};
    o.train = o.train ? o.train : TN_GLYPHS_TRAIN;
    o.test = o.test ? o.test : TN_GLYPHS_TEST;
    if (o.train < N_BATCHES * TN_GLYPH_CLASSES || o.test < TN_GLYPH_CLASSES || o.train > 10000000 ||
        o.test > 10000000)
        return tn_fail(error, TN_ERROR_USAGE,
                       "%zu training and %zu test glyphs; %d and %d to 10,000,000 can be drawn",
                       o.train, o.test, N_BATCHES * TN_GLYPH_CLASSES, TN_GLYPH_CLASSES);
    if (strlen(folder) + 32 > 4096)
        return tn_fail(error, TN_ERROR_USAGE, "the path %s is too long", tn_quote(folder));
    if (o.dry_run)
        return check_files(folder, &o, error);
    const bool made = mkdir(folder, 0777) == 0;
    if (!made && errno != EEXIST)
        return tn_fail(error, TN_ERROR_IO, "cannot make the folder %s: %s", tn_quote(folder),
                       strerror(errno));
    tn_status status = write_files(folder, &o, error);
    if (status != TN_OK && made)
        rmdir(folder);
    return status;
}
