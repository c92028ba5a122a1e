#!/bin/sh
# --activation-bits, --input-bits, --bias-bits: what they leave in the file, and what they refuse.
. "$(dirname "$0")/check.sh"

run 0 create resnet8 -o m.onnx
run 0 data generate glyphs g --train-images 50 --test-images 10
quantize() {
    run 0 quantize m.onnx -o q.onnx -f -q --json --method round --bn keep --calibration-data g \
        --calibration-samples 16 "$@"
    cp out q.json
    "$ternion" verify q.onnx >out 2>err || fail "$last: verify"
    "$ternion" inspect q.onnx --json >seen.json 2>err || fail "$last: inspect"
    cp q.json out
}
seen() { value "$1" seen.json; }
is() { [ "$(seen "$1")" = "$2" ] || fail "$last: $1 is $(seen "$1"), expected $2"; }

for bits in 2 4 8 16; do
    quantize --activation-bits $bits
    equals .form int8-lut
    equals .opset $([ $bits -gt 8 ] && echo 21 || echo 13)
    is .layers[1].activation_bits $bits
    is .layers[0].activation_bits 0
done
for range in minmax percentile entropy mse; do
    quantize --activation-bits 8 --activation-range $range
done
quantize --activation-bits 6 --input-bits 8 --bias-bits 8 --scheme fixed --bits 3
is .layers[0].activation_bits 8
is .layers[1].activation_bits 6
is .layers[1].bits 3.0
quantize --input-bits 8
equals .form lut
is .layers[0].activation_bits 8
is .layers[1].activation_bits 0
quantize --activation-bits 8 --scheme fixed --bits 8 --form qdq
cp q.onnx q8.onnx

# the KL is that of the file: it grows as activations get fewer bits
quantize --scheme fixed --bits 8 --activation-bits 8
weights=$(value .calibration.kl_round)
eight=$(value .calibration.kl)
unseen=$(value .calibration.unseen.kl)
equals .calibration.unseen.weights_alone false
quantize --scheme fixed --bits 8 --activation-bits 2
equals .calibration.kl_round "$weights"
holds "$(value .calibration.kl) > 2 * $eight && $(value .calibration.unseen.kl) > 2 * $unseen"
run 0 quantize m.onnx -o all.onnx -f --scheme fixed --bits 8 --activation-bits 2 --bn affine \
    --calibration-data g --calibration-samples 50 --preprocess none --json
kl=$(value .calibration.kl)
run 0 compare m.onnx all.onnx --data g:train --preprocess none --json
holds "$(value .kl) / $kl > 0.99 && $(value .kl) / $kl < 1.01"

# exported to another form, it stays what it is
run 0 evaluate q8.onnx --data g --json --preprocess none
before=$(value .loss)
run 0 export q8.onnx -o e.onnx --form int8-lut -f
run 0 verify e.onnx
run 0 evaluate e.onnx --data g --json --preprocess none
[ "$(value .loss)" = "$before" ] || fail "the exported network computes something else"
run 2 export q8.onnx -o l.onnx --form lut
says "quantize the decoded weights once more"

# biases need no images
run 0 quantize m.onnx -o b.onnx -f --json --bias-bits 4 --last-layer 4
equals .biases 1
run 0 verify b.onnx --against m.onnx
run 0 inspect b.onnx --json
equals .layers[7].bias_bits 4
run 0 export b.onnx -o c.onnx --form float -f
run 0 verify c.onnx

run 2 quantize m.onnx -o n.onnx --activation-bits 8
says "needs images"
run 2 quantize m.onnx -o n.onnx --input-bits 8
says "calibration-data"
run 2 quantize m.onnx -o n.onnx --activation-bits 17 --calibration-data g
says "not in 2 to 16"
run 2 quantize m.onnx -o n.onnx --bias-bits 9
run 2 quantize m.onnx -o n.onnx --activation-bits 8 --form lut --calibration-data g
says "int8-lut or qdq"
run 2 quantize m.onnx -o n.onnx --activation-bits 8 --form qdq --calibration-data g --method round
says "INT2 and INT4"
run 2 quantize m.onnx -o n.onnx --activation-bits 8 --scheme ttq --calibration-data g --method round
says "two scales"
run 2 quantize m.onnx -o n.onnx --activation-bits 16 --target-runtime ort-1.10 --calibration-data g \
    --method round
says "activations of these bits need opset 21"
absent n.onnx
finish
