#!/bin/sh
# Images made for a network, kept in a file and read again: the same quantized network, and a file that
# is taken as it is whatever the model's record says.
. "$(dirname "$0")/check.sh"

# Codes, scales and corrected parameters; the record keeps the options, which differ.
same() { # A B WHY
    grep -ao '"hash":"[^"]*"' "$1" >hashes
    [ "$(wc -l <hashes)" -eq 6 ] || fail "$1 has no six layers in its record"
    grep -ao '"hash":"[^"]*"' "$2" | cmp -s hashes - || fail "$3"
    run 0 compare "$1" "$2" --data "made of m.npy" --json
    equals .kl 0.0
}

run 0 create resnet8 -o m.onnx --seed 2
few="--calibration-samples 8 --seed 5"
run 0 quantize m.onnx -o a.onnx --calibration-data synthesize $few --save-synthesized "made of m.npy"
exists "made of m.npy"
[ "$(stat -c %s "made of m.npy")" -eq $((128 + 8 * 3 * 32 * 32 * 4)) ] || fail "not the images and a header"
run 0 quantize m.onnx -o b.onnx --calibration-data synthesize $few
same a.onnx b.onnx "saving changes the result"
run 0 quantize m.onnx -o c.onnx --calibration-data "made of m.npy" $few
same a.onnx c.onnx "the saved images give another network"
run 0 quantize m.onnx -o d.onnx --calibration-data "made of m.npy" $few --threads 1
same a.onnx d.onnx "one thread gives another network"
run 0 quantize m.onnx -o d.onnx --calibration-data "made of m.npy" --calibration-samples 8 --seed 6 -f --scheme fixed --bits 4
run 0 data "made of m.npy"
prints "network inputs"
prints "8 of 32x32x3"

# a record of another preprocessing does not touch them
run 0 data generate glyphs g --train-images 160 --test-images 20 --seed 4
run 0 finetune m.onnx -o f.onnx --data g --scheme float --epochs 1 --no-preflight --preprocess cifar10
run 0 quantize f.onnx -o e.onnx --calibration-data synthesize $few --save-synthesized f.npy
run 0 quantize f.onnx -o h.onnx --calibration-data f.npy $few
same e.onnx h.onnx "the record's preprocessing was applied to the saved images"
run 2 quantize f.onnx -o i.onnx --calibration-data f.npy --preprocess cifar10
says "leave out --preprocess"
run 0 quantize f.onnx -o i.onnx --calibration-data f.npy $few --preprocess cifar10 --val g
# budgets and activations read them like any other set
run 0 quantize f.onnx -o k.onnx --calibration-data f.npy $few --activation-bits 8 --form int8-lut
run 0 compare f.onnx e.onnx --data f.npy --json
equals .on_a.preprocess "none (none: the data set holds network inputs)"
# they have no labels, so there is no accuracy to report or to lose
equals .images 8
equals .drop_top1 no-.drop_top1
equals .on_a.top1 no-.on_a.top1
run 0 compare f.onnx e.onnx --data f.npy
prints "same class on"
! grep -q top-1 out || fail "$last: an accuracy without labels"
run 4 compare f.onnx e.onnx --data f.npy --fail-if-drop 1
says "without labels"

touch after before; rm hashes; ls >before
run 2 quantize m.onnx -o n.onnx --calibration-data g --save-synthesized n.npy
says "synthesize"
run 2 quantize m.onnx -o n.onnx --calibration-data synthesize --save-synthesized n.bin
says "n.bin.npy"
run 2 quantize m.onnx -o n.onnx --calibration-data synthesize --save-synthesized "made of m.npy"
says "exists already"
run 2 quantize m.onnx -o n.npy --calibration-data synthesize --save-synthesized n.npy
run 6 quantize m.onnx -o n.onnx --calibration-data synthesize $few --save-synthesized nowhere/n.npy
run 0 quantize m.onnx -o n.onnx --calibration-data synthesize $few --save-synthesized n.npy --dry-run
run 4 evaluate m.onnx --data "made of m.npy"
run 4 quantize m.onnx -o n.onnx --calibration-data "made of m.npy:val"
run 0 create resnet8 -o big.onnx --input 3x64x64

run 4 quantize big.onnx -o n.onnx --calibration-data "made of m.npy"
says "another network"
rm big.onnx
ls >after
diff before after || fail "a refused run leaves something behind"
finish
