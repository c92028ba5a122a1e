#!/bin/sh
# Runs a Python oracle of this folder. usage: python_oracle.sh SCRIPT PROGRAM...; 77 without Python.
[ -n "${TERNION_PYTHON-}" ] || exit 77
script=$(dirname "$0")/$1
shift
exec "$TERNION_PYTHON" -W ignore "$script" "$@"
