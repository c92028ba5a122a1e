#!/bin/sh
# Runs onnx_package.py where there is a Python with the onnx package. usage: onnx_package.sh TOOL PY
set -eu
[ -n "${TERNION_PYTHON-}" ] || exit 77
exec "$TERNION_PYTHON" "$2" "$1"
