#!/bin/sh
# data, evaluate, compare --data, quantize --calibration-data and finetune on drawn images: what they
# say, write and refuse. Accuracies themselves are other tests' business.
. "$(dirname "$0")/check.sh"

run 0 data generate glyphs d --train-images 320 --test-images 60 --seed 4
run 2 data generate glyphs d --train-images 320 --test-images 60 --seed 4
run 0 data generate glyphs e --train-images 320 --test-images 60 --seed 4 --threads 1
cmp -s d/test_batch.bin e/test_batch.bin || fail "the same seed gives other pictures"
run 2 data generate nosuch x
says "glyphs"
run 0 data generate glyphs h --train-images 320 --test-images 60 --json
equals .train_images 320
equals .output h
run 0 data d
prints "320 images"
run 0 data d:val --json
equals .command data
equals .images 60
equals .bad 0
equals .classes.length 10
equals ".classes[3].images" 6
run 2 data d --show 9
run 0 data d --show 9 -o "sheet of nine.png"
[ "$(head -c 4 "sheet of nine.png" | tail -c 3)" = PNG ] || fail "no PNG"
run 2 data d --show 9 -o "sheet of nine.png"
run 0 data d --show 9 -o "sheet of nine.png" -f
mkdir -p formats/a
cp "sheet of nine.png" formats/a/0.png
touch formats/a/1.bmp
run 0 data formats
says "pictures left out.*: 1; convert"
mkdir empty
run 4 data empty
run 6 data nowhere

run 0 create resnet8 -o m.onnx --seed 2
run 2 evaluate m.onnx
says "give a data set"
run 4 evaluate m.onnx --data empty
run 0 evaluate m.onnx --data d --json --predictions p.txt --no-preflight -k 1,3
equals .schema 1
equals .images 60
equals .device cpu
for key in model data correct_top1 top1 top1_low top1_high loss images_per_s precision correct_top3; do
    [ "$(value .$key)" != "no-.$key" ] || fail "$last: no key $key"
done
[ "$(wc -l <p.txt)" -eq 60 ] || fail "not a line an image in the predictions"
right=$(awk '$2 == $3' p.txt | wc -l)
equals .correct_top1 "$right"
holds "$(value .top1_low) <= $(value .top1) && $(value .top1) <= $(value .top1_high)"
run 0 evaluate m.onnx --data d:train --limit 20 --json --no-preflight
equals .images 20
run 2 evaluate m.onnx --data d --preprocess nosuch
run 2 evaluate m.onnx --data d --device toaster
run 2 evaluate m.onnx --data d --output nosuch --no-preflight
run 2 evaluate m.onnx --data d -k 0
run 0 evaluate m.onnx --data d --input 3x24x24 --no-preflight --json
equals .images 60
run 2 evaluate m.onnx --data d --input 1x24x24
says "has 3 channels"
run 2 finetune m.onnx -o g.onnx --data d --freeze nosuch --epochs 1
says "conv1.weight"
run 2 finetune m.onnx -o g.onnx --data d --warmup-epochs 30
says "--warmup-epochs 30"
# a setting changes what the network sees
run 0 evaluate m.onnx --data d --json --no-preflight
loss=$(value .loss)
for setting in "--channel-order bgr" "--mean 0,0,0" "--std 1,1,1" "--std 255 --scale 1/255" "--preprocess none"; do
    run 0 evaluate m.onnx --data d --json --no-preflight $setting
    [ "$(value .loss)" != "$loss" ] || fail "$setting changes nothing"
done

run 0 finetune m.onnx -o f.onnx --data d --scheme float --epochs 2 --lr 0.05 --json --checkpoint run
[ "$(sed -n 's/.*"event":"\([a-z]*\)".*/\1/p' out | sort -u | tr '\n' ' ')" = "checkpoint end epoch result start " ] ||
    fail "$last: other events on standard output"
[ "$(grep -c '"event":"epoch"' out)" -eq 2 ] || fail "$last: not a line an epoch"
grep '"event":"result"' out >line && mv line out
equals .command finetune
equals .epochs 2
exists run/run.jsonl
"$json_query" .event <run/run.jsonl >/dev/null 2>&1 || head -1 run/run.jsonl | "$json_query" .event >/dev/null ||
    fail "run.jsonl has no events"
cp out f.json
run 0 finetune m.onnx -o g.onnx --data d --scheme float --epochs 1 --lr 0.05 --no-preflight
prints "^g.onnx: .* bytes"
prints "^written: top-1"
rm g.onnx
run 2 finetune m.onnx -o f.onnx --data d
says "exists already"
run 2 finetune m.onnx -o g.onnx
says "give a training set"
run 2 finetune m.onnx -o g.onnx --data d --save-every soon
# what is trained on is not judged on as well
mkdir alone
cp d/test_batch.bin alone
run 0 finetune m.onnx -o alone.onnx --data alone --scheme float --epochs 1 --batch-size 32
says "no validation part .*trained on.*give --val"
run 0 evaluate m.onnx --data alone --no-preflight
run 2 finetune m.onnx -o g.onnx --data d --schedule nosuch
run 0 finetune m.onnx -o g.onnx --data d --scheme float --epochs 2 --lr 0.05 --checkpoint run --resume -f
cmp -s f.onnx g.onnx || fail "a finished run, resumed, gives another file"
run 0 finetune m.onnx -o g.onnx --data d --scheme float --epochs 2 --lr 0.05 --threads 1 -f
cmp -s f.onnx g.onnx || fail "one thread gives another file"

run 0 quantize f.onnx -o c.onnx --calibration-data d --calibration-samples 32 --val d --json --no-preflight
equals .calibration.images 32
[ "$(value .float.top1)" != no-.float.top1 ] || fail "no float accuracy"
[ "$(value .quantized.top1)" != no-.quantized.top1 ] || fail "no quantized accuracy"
says_not chance
equals .calibration.unseen.images 64
run 0 verify c.onnx
# a KL says which images it is from: further ones, some held out, or none
run 0 data generate glyphs few --train-images 50 --test-images 10 --seed 4
run 0 quantize f.onnx -o c.onnx -f --calibration-data few --calibration-samples 3
prints "KL to the float network .* on 47 images that come next"
run 0 quantize f.onnx -o c.onnx -f --calibration-data d --calibration-samples 320
prints "on 80 calibration images held out"
run 0 quantize f.onnx -o c.onnx -f --calibration-data few
prints "on other images: unknown"
run 0 quantize f.onnx -o c.onnx -f --calibration-data few --bn affine --json
equals .calibration.unseen null
run 0 quantize f.onnx -o c.onnx -f --calibration-data few --target-size 60K --json
equals .calibration.unseen.images 12
run 0 quantize f.onnx --calibration-data few --calibration-samples 3 --sensitivity
run 2 quantize f.onnx -o c.onnx -f --calibration-data few:val --target-size 60K
says "at least 8 are needed"
run 2 quantize f.onnx -o c.onnx -f --calibration-data synthesize --calibration-samples 3 --target-size 60K
says "here that is 0, and at least 8 are needed"
# a broken picture beside those calibrated with costs the figure, not the network
run 0 data d --show 9 -o p1.png
mkdir pictures
cp p1.png pictures/a.png
for i in b c d e f g; do head -c 200 p1.png >pictures/$i.png; done
for seed in 1 2 3 4 5 6 7 8 9; do
    "$ternion" quantize f.onnx -o broken.onnx -f --calibration-data pictures --calibration-samples 1 --seed $seed \
        --preprocess cifar10 --resize 32 --crop 32 >out 2>err && break
done
last="quantize beside broken pictures"
exists broken.onnx
says "not measured on further images"
prints "on other images: unknown"
run 0 quantize f.onnx -o c.onnx -f --calibration-data d
run 2 quantize f.onnx -o c.onnx -f --calibration-data d --method guess
run 0 evaluate c.onnx --data d --no-preflight
prints "the model's record"
# bits per layer under a budget of bytes; the table alone writes nothing
run 2 quantize f.onnx -o b.onnx --target-size 60K
says "calibration-data"
run 0 quantize f.onnx -o b.onnx --calibration-data d --calibration-samples 32 --target-size 60K --json
holds "$(value .bytes_out) <= 61440 && $(value .bytes_out) == $(stat -c %s b.onnx)"
equals .sensitivity.length 6
holds "$(value .bits_per_weight) > 2.2"
run 0 verify b.onnx
rm b.onnx
run 2 quantize f.onnx -o b.onnx --calibration-data d --calibration-samples 32 --target-size 20K
says "20480 asked for"
says "ask for [0-9]* bytes or more"
run 2 quantize f.onnx -o b.onnx --calibration-data synthesize --target-size 20K
says "20480 asked for"
says_not synthesizing
run 0 quantize f.onnx --calibration-data d --calibration-samples 32 --sensitivity
prints "all layers at one width"
absent b.onnx
# B is worse than A by any measure when B's weights are all but gone
run 0 quantize f.onnx -o z.onnx --threshold sparsity:0.99
run 0 compare f.onnx f.onnx --data d --fail-if-drop 0 --json
equals .agreement 1.0
equals .kl 0.0
run 1 compare f.onnx z.onnx --data d --fail-if-drop -90
prints "same class on"
run 0 finetune f.onnx -o t.onnx --data d --epochs 1 --no-preflight --json
run 0 verify t.onnx
prints "6 layers"
run 0 recipe list
finish
