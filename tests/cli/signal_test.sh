#!/bin/sh
# Ctrl-C and SIGTERM in the middle of a run: the signal's exit code, and no output.
. "$(dirname "$0")/check.sh"

interrupt() { # SIGNAL CODE ARGUMENTS...: the run must still be busy when the signal comes
    signal=$1 expected=$2
    shift 2
    last="ternion $* and SIG$signal"
    "$ternion" "$@" >out 2>err &
    pid=$!
    sleep "${delay:-0.3}"
    kill -s "$signal" $pid 2>/dev/null || { fail "$last: it was done before the signal"; return; }
    code=0
    wait $pid || code=$?
    [ "$code" -eq "$expected" ] || fail "$last: exit code $code, expected $expected"
    says "stopped\|cancelled"
}

interrupt INT 130 create vgg16 -o m.onnx --threads 1
nothing_new ""
interrupt TERM 143 create vgg16 -o m.onnx --threads 1
nothing_new ""
# a data set appears whole or not at all
interrupt INT 130 data generate glyphs g --train-images 2000000
nothing_new ""
# what a stopped training saved is told of, and not denied
run 0 data generate glyphs g --train-images 3200 --test-images 10
run 0 create resnet8 -o r.onnx
delay=2 interrupt INT 130 finetune r.onnx -o t.onnx --data g -e 1000 --checkpoint run
says "which is saved"
says "go on with: ternion finetune r.onnx"
says_not "nothing was written"
absent t.onnx
rm -r g run r.onnx
run 0 create alexnet -o a.onnx
# the slow search of 4-bit steps: seconds on any machine
interrupt INT 130 quantize a.onnx -o q.onnx --threads 1 --scheme fixed --bits 4 --last-layer 4
nothing_new "a.onnx "

# a file that is cut while it is read: an error (3 when it was cut before it was mapped), no crash
last="quantize of a file that is cut meanwhile"
"$ternion" quantize a.onnx -o q.onnx --threads 1 --scheme fixed --bits 4 --last-layer 4 >out 2>err &
pid=$!
sleep 0.2
truncate -s 1000 a.onnx
code=0
wait $pid || code=$?
[ "$code" -eq 6 ] || [ "$code" -eq 3 ] || fail "$last: exit code $code, expected 6"
nothing_new "a.onnx "
finish
