#!/bin/sh
# The examples of README.md and of every command's help run as they are printed, on small stand-ins
# of the same names.
# usage: readme_test.sh TERNION JSON_QUERY README
readme=$(realpath "$3")
. "$(dirname "$0")/check.sh"

mkdir bin
ln -s "$ternion" bin/ternion
PATH=$work/bin:$PATH
stand_ins() {
    rm -rf models && mkdir models && cd models
    ternion create resnet8 -o resnet18.onnx -q >/dev/null
    for name in resnet20 model small r m; do cp resnet18.onnx $name.onnx; done
    for data in photos cifar10 imagenet glyphs; do
        ternion data generate glyphs $data --train-images 160 --test-images 32 -q
    done
    ternion quantize model.onnx -o t.onnx -q >/dev/null 2>&1
    cp t.onnx model-t.onnx
}
stand_ins
run_line() { # as printed
    sh -c "$1" >../out 2>../err || { last=$1; cd ..; fail "$2: $1"; cd models; }
}
sed -n 's/^    \(ternion .*\)$/\1/p' "$readme" >../commands
[ "$(wc -l <../commands)" -ge 5 ] || { echo "found no examples in $readme"; exit 1; }
while read -r line; do
    run_line "$line" README
done <../commands

# what needs minutes here is tested elsewhere
for command in inspect quantize evaluate export compare verify create data help; do
    cd "$work" && stand_ins
    ternion help $command | sed -n '2,/^usage/s/^  \(ternion .*\)$/\1/p' >../commands
    [ -s ../commands ] || { echo "no examples in the help of $command"; exit 1; }
    while read -r line; do
        case $line in *fail-if-drop*) continue ;; esac # its exit code depends on accuracy
        case $line in "ternion data generate glyphs glyphs"*) rm -r glyphs ;; esac
        # the examples of a help page stand side by side: each output is new
        output=$(echo "$line" | sed -n 's/.* -o \([^ ]*\).*/\1/p')
        [ -z "$output" ] || rm -f "$output"
        run_line "$line" "help $command"
    done <../commands
done
cd "$work"
finish
