#!/bin/sh
# Parsing, help, and messages about what was typed.
sources=$(realpath "$(dirname "$0")/../..")
. "$(dirname "$0")/check.sh"

run 2
says "usage: ternion COMMAND"
prints_nothing
run 0 --help
prints "usage: ternion COMMAND"
run 0 --version
prints "^ternion [0-9]"
run 0 help
for command in inspect quantize finetune evaluate export compare verify report create data recipe; do
    prints "^  $command "
    "$ternion" "$command" --help >page 2>/dev/null || fail "$command --help"
    "$ternion" help "$command" | cmp -s - page || fail "help $command differs from $command --help"
    "$ternion" help "$command" --man >page 2>/dev/null || fail "help $command --man"
    grep -q '^.SH SYNOPSIS' page || fail "the manual page of $command"
done
# help leads with examples
run 0 quantize --help
[ "$(grep -n '  ternion quantize' out | head -1 | cut -d: -f1)" -lt "$(grep -n '^usage' out | cut -d: -f1)" ] ||
    fail "help does not lead with examples"
prints "keep|1.58|2"

run 2 quantise m.onnx -o o.onnx
says "did you mean quantize"
run 2 xyzzyplugh
says_not "did you mean"
run 2 quantize m.onnx -o o.onnx --granularty tensor
says "did you mean --granularity"
run 2 quantize m.onnx -o o.onnx --zzzzzzzz
says "unknown option"
says_not "did you mean"
run 2 quantize m.onnx -Z
says '"-Z"'
run 2 quantize m.onnx -o o.onnx --bits
says "needs an argument"
run 2 quantize m.onnx -o o.onnx --bits 9
says "1.58|2|3"
run 2 quantize m.onnx -o o.onnx --json=yes
says "takes no argument"
run 2 quantize -o o.onnx
says "operand is missing"
run 2 quantize a.onnx b.onnx -o o.onnx
says "too many operands"
run 2 quantize m.onnx
says "give the file to write"
run 2 create resnet20 -o r.onnx --classes 0
says "not in 1"
run 2 create resnet20 -o r.onnx --classes ten
says "whole number"
run 2 create resnet20 -o r.onnx --input 32x32
says "CxHxW"
run 2 create resnet20 -o r.onnx --max-memory lots
says "BYTES"
run 2 create resnet21 -o r.onnx
says "known are alexnet"
absent r.onnx

# options that would say nothing without another, or beside one
alone() { # WHAT ARGUMENTS...
    what=$1
    shift
    run 2 "$@"
    says "$what"
}
alone "--fail-if-drop: .*--data" compare a.onnx b.onnx --fail-if-drop 1
for given in "--method cd" "--bn keep" "--calibration-samples 9" "--save-synthesized x.npy"; do
    alone "${given%% *}: .*--calibration-data" quantize m.onnx -o o.onnx $given
done
alone "--activation-range: .*--activation-bits" quantize m.onnx -o o.onnx --activation-range mse
alone "scheme fixed has none" quantize m.onnx -o o.onnx -s fixed --threshold mean:0.7
alone "scheme lsq has none" finetune m.onnx -o o.onnx --data d --threshold mean:0.7
alone "threshold sparsity" finetune m.onnx -o o.onnx --data d -s twn --sparsity-ramp
alone "--bits says nothing beside --target-size" quantize m.onnx -o o.onnx --target-size 9K -b 4
alone "--scheme says nothing" quantize m.onnx -o o.onnx --target-drop 1 -s ttq
alone "0 points or more" quantize m.onnx -o o.onnx --calibration-data d --target-drop -1
alone "1 byte or more" quantize m.onnx -o o.onnx --calibration-data d --target-size 0
alone "one K" evaluate m.onnx --data d --topk 1,3,20

# messages name what exists; folders are no recipes
export TERNION_RECIPES="$PWD/recipes"
mkdir recipes
echo 'command: traine' >recipes/odd.yaml
run 2 recipe run odd m.onnx
says 'unknown command "traine"'
run 6 recipe show ./recipes
says "directory"
run 0 recipe show odd --json
prints '"text":"command: traine'
rm -r recipes
run 2 help --json
says "catalog"
run 0 help --catalog
[ "$(grep -c '^  MaxPool ' out)" -eq 1 ] || fail "an operator is listed twice"
run 7 create resnet20 -o r.onnx --max-memory 1K
says "--max-memory allows 1024 bytes"
: >empty.onnx
run 3 inspect empty.onnx
[ "$(grep -o "empty.onnx" err | wc -l)" -eq 1 ] || fail "$last: the file is named twice"
rm empty.onnx
run 2 recipe run nosuch
run 0 recipe --help
recipe=$(sed -n 's/.*ternion recipe run \([^ ]*\) .*/\1/p' out | head -1)
export TERNION_RECIPES="$sources/recipes"
run 0 recipe show "$recipe"
unset TERNION_RECIPES

# '_' stands for '-', anywhere in a name but not in a value
run 0 create resnet8 -o under_score.onnx --no_progress --max_memory=1G --external_data never
exists under_score.onnx
run 0 create -o=x resnet8 --dry-run
rm -f under_score.onnx

# an escape sequence in a name does not reach the terminal
run 6 inspect "$(printf '\033[31mred')"
! grep -q "$(printf '\033')" err || fail "an escape sequence reached the terminal"
run 2 "$(printf '\033[31mred')"
! grep -q "$(printf '\033')" err || fail "an escape sequence reached the terminal"

# colours: only where asked for
run 2 create resnet21 -o r.onnx --color always
grep -q "$(printf '\033')" err || fail "--color always gives no colour"
run 2 create resnet21 -o r.onnx --color never
! grep -q "$(printf '\033')" err || fail "--color never gives colour"

# of models: those that are there
run 6 report one.onnx two.onnx
says "cannot open 'one.onnx'"
absent report.html

run 0 help --completion bash
! command -v bash >/dev/null || bash -n out || fail "bash completion"
offers() { # WORD, LINE...: completion of the line's last word offers it
    word=$1
    shift
    ! command -v bash >/dev/null ||
        bash -c '. ./script; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _ternion
                 printf "%s\n" "${COMPREPLY[@]}"' bash "" "$@" | grep -q -x -e "$word" ||
        fail "bash completion of \"$*\" lacks $word"
}
cp out script
offers lsq ternion quantize m.onnx --scheme ""
offers 1.58 ternion quantize m.onnx -b ""
offers qdq ternion quantize m.onnx --form ""
offers resnet20 ternion create ""
offers show ternion recipe s
rm script
for shell in zsh fish; do
    run 0 help --completion $shell
    prints quantize
done
run 0 help --catalog
for id in twn ttq fixed affine dorefa lut qdq int2 planes resnet20 squeezenet-bn; do
    prints "^  $id "
done
run 0 help --catalog --json
equals .schema 1
equals .command help
finish
