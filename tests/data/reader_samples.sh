#!/bin/sh
# Every layout as its usual writer makes it; needs TERNION_PYTHON with Pillow and numpy.
[ -n "$TERNION_PYTHON" ] || exit 77
exec "$TERNION_PYTHON" "$(dirname "$0")/reader_samples.py" "$1"
