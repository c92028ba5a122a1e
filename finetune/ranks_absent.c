/* A build without MPI. */
#include "finetune/ranks.h"

#include "finetune/launcher.h"

tn_status tn_ranks_open(tn_collective **collective, tn_error *error)
{
    const tn_launch launch = tn_launcher_read();
    if (launch.size > 1)
        return tn_fail(error, TN_ERROR_USAGE,
                       "%s started %d processes, but this ternion was built without MPI: each would "
                       "do all the work and overwrite the others' files. Start it alone, or build "
                       "it with MPI (Debian's libopenmpi-dev, then meson setup --reconfigure)",
                       launch.name, launch.size);
    *collective = tn_collective_single();
    return TN_OK;
}
