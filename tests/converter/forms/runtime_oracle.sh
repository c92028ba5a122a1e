#!/bin/sh
# Packed networks in ONNX Runtime; needs TERNION_PYTHON and TERNION_SHARED. TERNION_FULL adds the
# large networks and every scheme on each.
[ -n "${TERNION_PYTHON-}" ] || exit 77
exec "$TERNION_PYTHON" "$(dirname "$0")/runtime_oracle.py" "$1" "${TERNION_FULL:+full}"
