#!/bin/sh
# Decoding, resizing and cropping against Pillow; needs TERNION_PYTHON with Pillow and numpy.
[ -n "$TERNION_PYTHON" ] || exit 77
exec "$TERNION_PYTHON" "$(dirname "$0")/pillow_identity.py" "$1"
