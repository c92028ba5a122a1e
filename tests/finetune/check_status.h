/* A status that must be TN_OK, in tests by cmocka, which is included before. */
#ifndef TERNION_TESTS_FINETUNE_CHECK_STATUS_H
#define TERNION_TESTS_FINETUNE_CHECK_STATUS_H

#include "core/status.h"

static inline void check(tn_status status, const tn_error *error)
{
    if (status != TN_OK)
        fail_msg("status %d: %s", (int)status, error->message);
}

#endif
