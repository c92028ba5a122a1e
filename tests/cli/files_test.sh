#!/bin/sh
# What is written where: never over the input, never over another file without -f, nothing left
# behind by a run that fails.
. "$(dirname "$0")/check.sh"

run 0 create resnet8 -o m.onnx
cp m.onnx kept.onnx
mkdir folder
before="folder kept.onnx m.onnx "

run 2 create resnet8 -o m.onnx
says "exists already"
cmp -s m.onnx kept.onnx || fail "an existing file was changed without -f"
run 0 create resnet8 -o m.onnx --seed 1 -f
! cmp -s m.onnx kept.onnx || fail "-f did not overwrite"
cp kept.onnx m.onnx

# the output is the input, by whatever name
ln -s m.onnx link.onnx
ln m.onnx hard.onnx
for name in m.onnx ./m.onnx folder/../m.onnx link.onnx hard.onnx; do
    for force in "" -f; do
        run 2 quantize m.onnx -o $name $force
        cmp -s m.onnx kept.onnx || fail "the input was changed through $name"
    done
done
says "is the input itself"
rm link.onnx hard.onnx

run 2 quantize m.onnx -o folder -f
says "is a folder"
run 6 quantize m.onnx -o nowhere/o.onnx
says "nowhere"
run 6 quantize missing.onnx -o o.onnx
says "missing.onnx"
run 0 quantize m.onnx -o o.onnx --dry-run
prints "not written"
run 0 create resnet20 -o c.onnx --dry-run
run 2 quantize m.onnx -o o.onnx --form nosuch
says "expected lut"
run 2 quantize m.onnx -o o.onnx --target-runtime tensorflow
run 2 quantize m.onnx -o o.onnx --nodes-to-exclude nosuchlayer
says "conv"
run 2 quantize m.onnx -o o.onnx --layer '([=4'
run 2 quantize m.onnx -o o.onnx --nodes-to-exclude '.*'
says "nothing would be quantized"
run 3 export m.onnx -o o.onnx --form qdq
says "no quantized weights"
head -c 1000 m.onnx >cut.onnx
run 3 quantize cut.onnx -o o.onnx
rm cut.onnx
run 7 quantize m.onnx -o o.onnx --max-memory 1K
nothing_new "$before"

# names with spaces and others that are no options
run 0 quantize m.onnx -o "a b.onnx"
run 0 inspect "a b.onnx"
run 0 verify "a b.onnx" --against m.onnx
prints "a b.onnx"
mkdir "folder of models"
run 0 export "a b.onnx" -o "folder of models/ü.onnx" --form float
run 0 compare "a b.onnx" "folder of models/ü.onnx"
prints "relMSE of all weights 0"
rm -r "a b.onnx" "folder of models"

# the disk is full: exit code 6, no output, no temporary file
(
    trap '' XFSZ
    ulimit -f 64
    code=0
    "$ternion" create resnet20 -o full.onnx >../out.$$ 2>../err.$$ || code=$?
    [ "$code" -eq 6 ]
) || fail "a full disk while writing: not exit code 6"
rm -f ../out.$$ ../err.$$
nothing_new "$before"
if [ -w /dev/full ]; then
    code=0
    "$ternion" inspect m.onnx >/dev/full 2>err || code=$?
    [ "$code" -eq 6 ] || fail "standard output is full: exit code $code, expected 6"
    says "standard output"
fi
# every path that is written, against every one that is read, before any work
run 0 data generate glyphs g --train-images 50 --test-images 10
cp m.onnx teacher.onnx
mkfifo pipe
held=$(cat m.onnx teacher.onnx g/* | cksum)
refused() { # CODE WHY ARGUMENTS...
    code=$1 why=$2
    shift 2
    run "$code" "$@"
    says "$why"
    [ "$(cat m.onnx teacher.onnx g/* | cksum)" = "$held" ] || fail "$last: an input was changed"
}
refused 2 "input itself" evaluate m.onnx --data g --predictions m.onnx -f
refused 2 "data set" evaluate m.onnx --data g:val --predictions g/test_batch.bin -f
refused 2 "device or pipe" evaluate m.onnx --data g --predictions pipe -f
refused 2 "exists already" evaluate m.onnx --data g --predictions teacher.onnx
refused 6 "nowhere" evaluate m.onnx --data g --predictions nowhere/p
refused 2 "input itself" report m.onnx teacher.onnx -o teacher.onnx -f
refused 2 "data set" data g -o g/data_batch_1.bin -f
refused 2 "input itself" finetune m.onnx -o t.onnx --data g --checkpoint r --report m.onnx -f
refused 2 "input itself" finetune m.onnx --data g --distill teacher.onnx -o teacher.onnx -f
refused 2 "exists already" finetune m.onnx -o t.onnx --data g --checkpoint r --report teacher.onnx
refused 2 "written twice" finetune m.onnx -o t.html --data g --checkpoint r --report t.html
refused 2 "input itself" quantize m.onnx -o q.onnx --calibration-data synthesize \
    --save-synthesized m.onnx -f
refused 6 "nowhere" quantize m.onnx -o q.onnx --calibration-data synthesize \
    --save-synthesized nowhere/x.npy
run 0 create resnet8 -o e.onnx --external-data always
refused 2 "external data" evaluate e.onnx --data g --predictions e.onnx.data -f
rm e.onnx e.onnx.data
# a dry run writes nothing, or says that it cannot be one
before=$(ls | tr '\n' ' ')
run 0 evaluate m.onnx --data g --no-preflight --predictions p.txt --dry-run
run 0 report m.onnx teacher.onnx -o r.html --dry-run
run 0 data g -o sheet.png --dry-run
run 0 data generate glyphs h --dry-run
refused 2 "dry-run" finetune m.onnx -o t.onnx --data g --checkpoint r --dry-run
[ "$(ls | tr '\n' ' ')" = "$before" ] || fail "a dry run wrote files"
finish
