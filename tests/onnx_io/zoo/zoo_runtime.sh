#!/bin/sh
# usage: zoo_runtime.sh SCRIPT TERNION: skips without the Python oracles
[ -n "${TERNION_PYTHON-}" ] || exit 77
exec "$TERNION_PYTHON" "$1" "$2"
