/* quantize with images: calibration at the widths asked for, or at widths chosen under a budget. */
#ifndef TERNION_API_CALIBRATED_H
#define TERNION_API_CALIBRATED_H

#include "api/images.h"
#include "api/packing.h"

/* Converts, writes and reports; nothing is written where only the sensitivities were asked for. */
tn_status tn_calibrated_convert(tn_packing *packing, const tn_network_file *file,
                                const tn_quantize_request *request, tn_conversion_report **report,
                                tn_error *error) TN_MUST_CHECK;

#endif
