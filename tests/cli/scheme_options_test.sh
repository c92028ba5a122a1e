#!/bin/sh
# Every option of quantize does what it says: seen in the figures, not in an echo of the option.
. "$(dirname "$0")/check.sh"

run 0 create resnet8 -o m.onnx
quantize() {
    run 0 quantize m.onnx -o q.onnx -f -q --json "$@"
    cp out q.json
    "$ternion" verify q.onnx --against m.onnx >out 2>err || fail "$last: verify"
    "$ternion" inspect q.onnx --json >seen.json 2>err || fail "$last: inspect"
    cp q.json out
}
seen() { value "$1" seen.json; }

quantize
bytes_twn=$(value .bytes_out)
[ "$(seen '.layers[1].bits')" = 1.58 ] || fail "the default is not ternary"
for bits in 2 3 4 5 6 7 8; do
    quantize --scheme fixed --bits $bits
    equals ".layers[1].bits" $bits.0
    # a tensor of 2,304 weights with 16 scales has at most 2^bits values a scale
    holds "$(seen '.layers[1].distinct') <= 16 * 2 ^ $bits"
    holds "$(seen '.layers[1].distinct') > 2 ^ ($bits - 1)"
    last_relmse=${relmse-1}
    relmse=$(value ".layers[1].relmse")
    holds "$relmse < $last_relmse"
done
quantize --scheme fixed --bits 4 --granularity tensor
holds "$(seen '.layers[1].distinct') <= 16"
quantize --scheme fixed --bits 4 --granularity tensor --narrow
holds "$(seen '.layers[1].distinct') <= 15"
quantize --scheme fixed --bits 4 --granularity tensor --levels -2:1
holds "$(seen '.layers[1].distinct') <= 4"
quantize --granularity tensor
holds "$(seen '.layers[1].distinct') == 3"
quantize --granularity group:9
equals ".layers[1].granularity" group:9
holds "$(value .bits_per_weight) > 5"
quantize --scheme ttq --granularity tensor
equals ".layers[1].scheme" ttq
holds "$(value '.layers[1].scale_min') < $(value '.layers[1].scale_max')"
for scheme in affine dorefa; do
    quantize --scheme $scheme --bits 4
    equals ".layers[1].scheme" $scheme
done
quantize --scheme dorefa --bits 1
holds "$(seen '.layers[1].distinct') <= 2 * $(seen '.layers[1].shape[0]')"
quantize --scheme half
[ "$(seen '.layers[1].bits')" = 16.0 ] || fail "half is not 16 bits"

# compare says what B's layers are stored in, and which have no counterpart
quantize
run 0 compare m.onnx q.onnx
prints "layer1.0.conv1 .* 1.58 twn "
run 0 create resnet20 -o other.onnx
run 0 compare other.onnx q.onnx
prints "without a counterpart: 12 layers of A, 0 of B"
rm other.onnx
quantize --scheme half
run 0 export q.onnx -o h.onnx -f --form float --json
equals ".layers[1].sqnr_db" null
rm h.onnx

quantize --threshold sparsity:0.8
holds "$(value '.layers[1].zeros') > 0.78 && $(value '.layers[1].zeros') < 0.82"
quantize --threshold sparsity:0.2
holds "$(value '.layers[1].zeros') < 0.22"
quantize --threshold mean:2
many=$(value .sparsity)
quantize --threshold mean:0.1
holds "$many > $(value .sparsity)"
quantize --threshold max:0.9
holds "$(value .sparsity) > 0.9"

quantize --first-layer 8
equals ".layers[0].bits" 8.0
equals ".layers[7].quantized" false
quantize --last-layer 4
equals ".layers[7].bits" 4.0
equals ".layers[0].quantized" false
quantize --scheme fixed --conv-bits 5 --linear-bits 6 --last-layer 6
equals ".layers[1].bits" 5.0
equals ".layers[7].bits" 6.0
quantize --layer 'layer1=8' --layer 'layer1.0.conv2=keep' --layer 'layer2=fixed'
equals ".layers[1].bits" 8.0
equals ".layers[2].quantized" false
equals ".layers[3].scheme" fixed
equals ".layers[5].bits" 1.58
quantize -x 'layer3' -x 'layer2.0.conv1'
equals ".layers[3].quantized" false
equals ".layers[4].quantized" true
equals ".layers[5].quantized" false

for form in lut int2 qdq planes int8-lut float; do
    quantize --form $form
    equals .form $form
    "$ternion" compare m.onnx q.onnx --json >out
    holds "$(value .layers.length) == 8"
    form_relmse=$(value .relmse)
    [ "$form_relmse" = "${first_relmse=$form_relmse}" ] || fail "form $form has other values"
done
run 0 quantize m.onnx -o q.onnx -f -q --json --form float
float_bytes=$(value .bytes_out)
holds "$bytes_twn * 3 < $float_bytes"
quantize --prune-dead
holds "$(value .bytes_out) <= $bytes_twn + 32" # the recipe is in the record
quantize --rest float16
holds "$(value .bytes_out) < $bytes_twn + 2000"
quantize --external-data always
exists q.onnx.data
rm q.onnx.data
run 2 quantize m.onnx -o t.onnx --form int2 --target-runtime ort-1.10
absent t.onnx
quantize --target-runtime ort-1.10
run 2 quantize m.onnx -o t.onnx --scheme twn --bits 4

# recipes: the same names, and the command line wins
cat >mine.yaml <<'END'
description: four bits, mostly
command: quantize
scheme: fixed
bits: 4
first-layer: 8
layer: ['layer1=6', 'layer1.0.conv2=keep']
narrow: true
END
quantize --recipe mine.yaml
equals ".layers[0].bits" 8.0
equals ".layers[1].bits" 6.0
equals ".layers[2].quantized" false
equals ".layers[3].bits" 4.0
quantize --recipe mine.yaml --bits 3
equals ".layers[3].bits" 3.0
cp q.onnx by_option.onnx
cp mine.yaml renamed.yaml
run 0 recipe run ./renamed.yaml m.onnx -o by_run.onnx --bits 3 -q
cmp -s by_option.onnx by_run.onnx || fail "recipe run differs from --recipe"
mkdir recipes
cp mine.yaml recipes/four.yaml
TERNION_RECIPES=$PWD/recipes
export TERNION_RECIPES
run 0 recipe list
prints "four .*four bits, mostly"
run 0 recipe show four
cmp -s out mine.yaml || fail "recipe show"
run 2 recipe show nosuch
echo 'bitz: 4' >bad.yaml
run 2 quantize m.onnx -o t.onnx --recipe bad.yaml
says "did you mean --bits"
echo 'bits: 9' >bad.yaml
run 2 quantize m.onnx -o t.onnx --recipe bad.yaml
says "bad.yaml: bits"
echo 'out: t.onnx' >bad.yaml
run 2 quantize m.onnx -o t.onnx --recipe bad.yaml
echo '[1, 2' >bad.yaml
run 2 quantize m.onnx -o t.onnx --recipe bad.yaml
run 6 quantize m.onnx -o t.onnx --recipe renamed.yam
absent t.onnx

# same seed, same file; threads change nothing
run 0 create resnet8 -o a.onnx --seed 3 --threads 1
run 0 create resnet8 -o b.onnx --seed 3 --threads 2
cmp -s a.onnx b.onnx || fail "threads change create"
run 0 create resnet8 -o c.onnx --seed 4
! cmp -s a.onnx c.onnx || fail "the seed does nothing"
run 0 quantize a.onnx -o a1.onnx -q --threads 1
run 0 quantize a.onnx -o a2.onnx -q --threads 2
cmp -s a1.onnx a2.onnx || fail "threads change quantize"
# -q leaves warnings, and nothing else
run 0 quantize a.onnx -o a1.onnx -f -q --scheme fixed --bits 8
[ ! -s err ] || fail "-q is not quiet"
# tables that codes are looked up in are counted with the scales, whatever the form
for form in "lut" "planes --scheme fixed --bits 3" "lut --scheme fixed --bits 4" "lut --scheme ttq --granularity tensor" \
    "qdq --scheme fixed --bits 4" "int8-lut"; do
    run 0 quantize m.onnx -o tables.onnx -f --form $form
    run 0 inspect tables.onnx --tensors
    sum=$(awk '/^tensor .*(_scale|_values|_zero|ternion_table)/ { gsub(",", ""); sum += $(NF - 1) } END { print sum + 0 }' out)
    run 0 inspect tables.onnx --json
    equals .stored.scales "$sum"
done
finish
