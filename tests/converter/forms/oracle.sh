#!/bin/sh
# Packed models in ONNX Runtime: oracle.sh SCRIPT PACK_TOOL. Needs TERNION_PYTHON, and TERNION_SHARED
# where trained networks are asked for. TERNION_FULL adds large networks and every scheme on each.
[ -n "${TERNION_PYTHON-}" ] || exit 77
folder=$(dirname "$0")
case $1 in
runtime) exec "$TERNION_PYTHON" "$folder/runtime_oracle.py" "$2" "${TERNION_FULL:+full}" ;;
layers) exec "$TERNION_PYTHON" "$folder/layers_oracle.py" "$2" ;;
exports)
    [ -n "${TERNION_FULL-}" ] && [ -d "${TERNION_EXPORTS-}" ] || exit 77
    exec "$TERNION_PYTHON" "$folder/exports_oracle.py" "$2" "$TERNION_EXPORTS" ;;
esac
exit 2
