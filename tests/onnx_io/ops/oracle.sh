#!/bin/sh
# operators.sh SCRIPT PROGRAM...: runs a Python oracle; 77 (skip) without TERNION_PYTHON.
[ -n "$TERNION_PYTHON" ] || exit 77
exec "$TERNION_PYTHON" "$(dirname "$0")/$1" "$2" $3 $4
