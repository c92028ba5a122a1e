#include "cli/layer_table.h"

#include "cli/evaluation_summary.h"
#include "cli/json_report.h"
#include "cli/terminal.h"

#include <math.h>
#include <string.h>

enum { NAME_MAX_WIDTH = 44, NAME_SIZE = 160 };

static const char *bits_text(double bits, char text[16])
{
    snprintf(text, 16, fabs(bits - 1.58) < 0.01 ? "%.2f" : "%.0f", bits);
    return text;
}

static void shape_text(const tn_report_shape *shape, char *text, size_t size)
{
    size_t used = 0;
    text[0] = '\0';
    for (int i = 0; i < shape->rank && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%lld", i ? "x" : "",
                                 (long long)shape->dims[i]);
}

static int name_width(const tn_layer_report *layers, size_t count)
{
    char name[NAME_SIZE];
    size_t width = 5;
    for (size_t i = 0; i < count; i++) {
        size_t length = strlen(tn_escape(layers[i].name, name, sizeof name));
        width = length > width ? length : width;
    }
    return width > NAME_MAX_WIDTH ? NAME_MAX_WIDTH : (int)width;
}

static void end_row(const tn_layer_report *layer)
{
    char reason[NAME_SIZE];
    if (layer->activation_bits)
        printf("  reads %d bits", layer->activation_bits);
    if (layer->bias_bits)
        printf("  bias %d bits", layer->bias_bits);
    if (layer->reason[0])
        printf("  %s", tn_escape(layer->reason, reason, sizeof reason));
    fputc('\n', stdout);
}

void cli_print_inspected_layers(const tn_layer_report *layers, size_t count)
{
    char name[NAME_SIZE], shape[64], bits[16];
    int width = name_width(layers, count);
    printf("\n%-*s %-14s %-16s %12s %5s %-7s %8s %6s\n", width, "layer", "operator", "shape",
           "weights", "bits", "scheme", "distinct", "zeros");
    for (size_t i = 0; i < count; i++) {
        const tn_layer_report *layer = &layers[i];
        shape_text(&layer->shape, shape, sizeof shape);
        printf("%-*s %-14s %-16s %12s %5s %-7s %8s %5.1f%%", width,
               tn_escape(layer->name, name, sizeof name), layer->op, shape,
               cli_count(layer->weights), bits_text(layer->bits, bits), layer->scheme,
               layer->distinct >= 65536 ? "many" : cli_count(layer->distinct), 100 * layer->zeros);
        end_row(layer);
    }
}

void cli_print_converted_layers(const tn_layer_report *layers, size_t count)
{
    char name[NAME_SIZE], shape[64], bits[16];
    int width = name_width(layers, count);
    printf("%-*s %-16s %5s %-7s %-9s %9s %8s %6s\n", width, "layer", "shape", "bits", "scheme",
           "scales", "relMSE", "SQNR dB", "zeros");
    for (size_t i = 0; i < count; i++) {
        const tn_layer_report *layer = &layers[i];
        tn_escape(layer->name, name, sizeof name);
        shape_text(&layer->shape, shape, sizeof shape);
        printf("%-*s %-16s %5s %-7s", width, name, shape, bits_text(layer->bits, bits),
               layer->scheme);
        if (layer->quantized)
            printf(" %-9s %9.4f %8.1f %5.1f%%", layer->granularity, layer->relmse, layer->sqnr_db,
                   100 * layer->zeros);
        end_row(layer);
    }
}

static void print_sensitivity(const tn_conversion_report *report)
{
    char name[NAME_SIZE];
    printf("\nKL to the float network with one layer at a width, the others float:\n%-44s",
           "layer");
    for (int w = 0; w < TN_WIDTHS; w++)
        printf(" %9s", tn_width_bits(w));
    puts("  chosen");
    for (size_t i = 0; i < report->n_sensitivity; i++) {
        const tn_sensitivity_row *row = &report->sensitivity[i];
        printf("%-44s", tn_escape(row->name, name, sizeof name));
        for (int w = 0; w < TN_WIDTHS; w++)
            printf(" %9.5f", row->kl[w]);
        printf("  %s\n", tn_width_bits(row->chosen));
    }
    printf("%-44s", "all layers at one width");
    for (int w = 0; w < TN_WIDTHS; w++)
        printf(" %9.5f", report->kl_uniform[w]);
    fputc('\n', stdout);
}

static json_t *json_sensitivity(const tn_conversion_report *report)
{
    json_t *rows = json_array();
    for (size_t i = 0; i < report->n_sensitivity; i++) {
        const tn_sensitivity_row *row = &report->sensitivity[i];
        json_t *widths = json_array();
        for (int w = 0; w < TN_WIDTHS; w++)
            json_array_append_new(widths, json_pack("{s:s, s:o, s:I}", "bits", tn_width_bits(w),
                                                    "kl", cli_json_real(row->kl[w]), "bytes",
                                                    (json_int_t)row->bytes[w]));
        json_array_append_new(rows,
                              json_pack("{s:o, s:o, s:o, s:s}", "name", cli_json_text(row->name),
                                        "weight", cli_json_text(row->weight), "widths", widths,
                                        "chosen", tn_width_bits(row->chosen)));
    }
    return rows;
}

/* null where nothing tells. */
static json_t *json_unseen(const tn_conversion_report *report)
{
    if (report->unseen == 0)
        return json_null();
    return json_pack("{s:I, s:s, s:o, s:o, s:b}", "images", (json_int_t)report->unseen, "which",
                     report->unseen_which, "kl", cli_json_real(report->kl_unseen), "agreement",
                     report->agreement_unseen < 0 ? json_null()
                                                  : cli_json_real(report->agreement_unseen),
                     "weights_alone", (int)report->unseen_weights_alone);
}

json_t *cli_json_conversion(const cli_context *context, const tn_conversion_report *report)
{
    json_t *layers = json_array(), *object = cli_json_open(context);
    for (size_t i = 0; i < report->n_layers; i++)
        json_array_append_new(layers, cli_json_converted_layer(&report->layers[i]));
    json_t *figures =
        json_pack("{s:o, s:o, s:I, s:I, s:s, s:I, s:I, s:I, s:I, s:o, s:o, s:s, s:o}", "input",
                  cli_json_text(report->input), "output", cli_json_text(report->output), "bytes_in",
                  (json_int_t)report->bytes_in, "bytes_out", (json_int_t)report->bytes_out, "form",
                  report->form, "opset", (json_int_t)report->opset, "ir", (json_int_t)report->ir,
                  "weights_total", (json_int_t)report->weights_total, "weights_quantized",
                  (json_int_t)report->weights_quantized, "bits_per_weight",
                  cli_json_real(report->bits_per_weight), "sparsity",
                  cli_json_real(report->sparsity), "needs", report->needs, "layers", layers);
    json_object_update(object, figures);
    json_decref(figures);
    if (report->activations)
        json_object_set_new(object, "activations", json_integer((json_int_t)report->activations));
    if (report->biases)
        json_object_set_new(object, "biases", json_integer((json_int_t)report->biases));
    if (report->images > 0) {
        json_t *calibration =
            json_pack("{s:I, s:I, s:s, s:s, s:o, s:o, s:o, s:o}", "images",
                      (json_int_t)report->images, "held_out", (json_int_t)report->held_out,
                      "method", report->method, "bn", report->bn, "kl", cli_json_real(report->kl),
                      "kl_round", cli_json_real(report->kl_round), "agreement",
                      cli_json_real(report->agreement), "seconds", cli_json_real(report->seconds));
        json_object_set_new(calibration, "unseen", json_unseen(report));
        json_object_set_new(object, "calibration", calibration);
    }
    if (report->n_sensitivity)
        json_object_set_new(object, "sensitivity", json_sensitivity(report));
    if (report->before)
        json_object_set_new(object, "float", cli_json_evaluation(report->before));
    if (report->after)
        json_object_set_new(object, "quantized", cli_json_evaluation(report->after));
    return object;
}

/* A KL on the images that codes were fitted to says little about others, with few images nothing.
 */
static void print_calibration(const tn_conversion_report *report)
{
    printf("calibrated on %s images in %.1f s, method %s, BatchNormalization %s\n",
           cli_count(report->images), report->seconds, report->method, report->bn);
    fputs("KL to the float network ", stdout);
    if (report->unseen == 0) {
        puts("on other images: unknown, there are none and these are too few to hold some out");
    } else {
        printf("%.4f on %s %s", report->kl_unseen, cli_count(report->unseen), report->unseen_which);
        if (report->agreement_unseen >= 0)
            printf(", same class on %.1f %%", 100 * report->agreement_unseen);
        if (report->unseen_weights_alone)
            fputs(", of the weights alone, before activations were quantized", stdout);
        fputc('\n', stdout);
    }
    printf("  on the calibration images themselves %.4f (%s: %.4f), same class on %.1f %%\n",
           report->kl,
           report->activations ? "rounding the weights alone, activations in floating point"
                               : "rounding alone",
           report->kl_round, 100 * report->agreement);
}

void cli_print_conversion(const cli_context *context, const tn_conversion_report *report)
{
    char in[512], out[512];
    if (context->arguments->json) {
        cli_json_print(cli_json_conversion(context, report));
        return;
    }
    if (report->n_sensitivity)
        print_sensitivity(report);
    if (!report->output[0]) /* the table is all that was asked for */
        return;
    if (report->n_layers)
        cli_print_converted_layers(report->layers, report->n_layers);
    if (report->weights_quantized == 0)
        puts("\nno weight is quantized");
    else
        printf("\n%s weights of %s quantized, %.2f bits each with their scales, %.1f %% zeros\n",
               cli_count(report->weights_quantized), cli_count(report->weights_total),
               report->bits_per_weight, 100 * report->sparsity);
    if (report->activations)
        printf("%s activations quantized\n", cli_count(report->activations));
    if (report->biases)
        printf("%s biases quantized\n", cli_count(report->biases));
    if (report->images > 0)
        print_calibration(report);
    printf("%s: %s bytes\n", tn_escape(report->input, in, sizeof in),
           cli_count((int64_t)report->bytes_in));
    if (context->arguments->dry_run)
        printf("%s: not written (--dry-run)\n", tn_escape(report->output, out, sizeof out));
    else
        printf("%s: %s bytes (%.1f %%), form %s, opset %lld, IR %lld\n",
               tn_escape(report->output, out, sizeof out), cli_count((int64_t)report->bytes_out),
               100.0 * (double)report->bytes_out / (double)report->bytes_in, report->form,
               (long long)report->opset, (long long)report->ir);
    printf("needs %s\n", report->needs);
    if (report->before)
        cli_print_accuracy("float", report->before);
    if (report->after)
        cli_print_accuracy(report->weights_quantized ? "quantized" : "written", report->after);
}
