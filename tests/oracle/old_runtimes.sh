#!/bin/sh
# Makes an environment per old ONNX Runtime under FOLDER: 1.20.1 (the first with INT4), 1.24.3 (the
# first with INT2) and the oldest release that this Python can install. What is there is kept.
#
# usage: old_runtimes.sh FOLDER
set -eu
folder=$1
mkdir -p "$folder"
oldest=$(python3 -m pip index versions onnxruntime 2>/dev/null |
    sed -n 's/^Available versions: .*, *//p')
for version in ${oldest:-1.15.0} 1.20.1 1.24.3; do
    venv=$folder/$version
    [ ! -e "$venv/ready" ] || continue
    python3 -m venv "$venv"
    "$venv/bin/pip" install -q "onnxruntime==$version" 'numpy<2'
    touch "$venv/ready"
done
