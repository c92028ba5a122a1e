#!/bin/sh
# --json: the keys that other programs rely on, as numbers, and nothing else on standard output.
. "$(dirname "$0")/check.sh"

keys() { # PATH KEYS...
    path=$1
    shift
    found=" $(value "$path.keys")"
    for key in "$@"; do
        case $found in *" $key "*) ;; *) fail "$last: $path lacks the key $key" ;; esac
    done
}
head_keys() { # COMMAND
    equals .schema 1
    equals .command "$1"
    equals .ternion "$("$ternion" --version | cut -d' ' -f2)"
    [ "$(wc -l <out)" -eq 1 ] || fail "$last: more than one line"
}

run 0 create resnet8 -o m.onnx --json --classes 7 --input 1x28x28 --seed 5
head_keys create
equals .parameters 74807
equals .classes 7
equals .input "[1,28,28]"
equals .seed 5
equals .bytes "$(stat -c %s m.onnx)"

run 0 inspect m.onnx --json
head_keys inspect
keys "" file bytes ir opset producer inputs outputs parameters flops layers
keys ".layers[0]" name op shape weights bits scheme distinct zeros eligible reason
equals .bytes "$(stat -c %s m.onnx)"
equals .parameters 74807
equals ".inputs[0].shape" "[-1,1,28,28]"
equals ".layers[0].shape" "[16,1,3,3]"
equals ".layers[0].bits" 32.0
equals ".layers[0].eligible" true
equals .layers.length 8
run 0 inspect m.onnx --json --tensors
keys "" tensors

run 0 quantize m.onnx -o q.onnx --json -q
head_keys quantize
keys "" input output bytes_in bytes_out form opset ir weights_total weights_quantized \
    bits_per_weight sparsity needs layers
keys ".layers[1]" name scheme bits granularity quantized reason relmse sqnr_db zeros scale_min \
    scale_max
equals .bytes_in "$(stat -c %s m.onnx)"
equals .bytes_out "$(stat -c %s q.onnx)"
equals .form lut
equals ".layers[0].quantized" false
equals ".layers[1].quantized" true
equals ".layers[1].bits" 1.58
equals ".layers[1].scheme" twn
equals ".layers[7].reason" "last layer"
relmse=$(value ".layers[1].relmse")
holds "$relmse > 0.1 && $relmse < 0.3"
sparsity=$(value .sparsity)
holds "$sparsity > 0.3 && $sparsity < 0.6"

run 0 inspect q.onnx --json
equals .parameters 74807
equals ".layers[1].bits" 1.58
equals ".layers[1].scheme" twn

run 0 export q.onnx -o f.onnx --form float --json
head_keys export
equals .form float
equals ".layers[1].relmse" 0.0
equals ".layers[1].sqnr_db" null
run 0 compare m.onnx f.onnx --json
head_keys compare
keys "" a b layers relmse
again=$(value ".layers[1].relmse")
holds "($relmse - $again)^2 < 1e-14"
run 0 compare q.onnx f.onnx --json
equals .relmse 0.0
run 0 verify q.onnx --against m.onnx --json
head_keys verify
equals .layers 6
# the warning about accuracy stays on standard error
run 0 quantize m.onnx -o q.onnx --json -f
says "chance"
finish
