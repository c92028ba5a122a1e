#!/bin/sh
# `mpirun -np 2 ternion finetune`: one result, a clear end whatever happens to a process, a resume
# that is the run, and refusals instead of processes that overwrite each other's files.
command -v mpirun >/dev/null 2>&1 || { echo "no mpirun"; exit 77; }
. "$(dirname "$0")/check.sh"
# root in a container, and more processes than processors: fine for a test
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

mpi() { # CODE COMMAND...: under mpirun, each process's id in pid.RANK; CODE like "130|143"
    expected=$1
    shift
    last="mpirun: $*"
    code=0
    timeout 120 mpirun --oversubscribe --bind-to none -np 2 \
        sh -c 'echo $$ >"pid.$OMPI_COMM_WORLD_RANK"; exec "$@"' sh "$@" >out 2>err || code=$?
    case "|$expected|" in *"|$code|"*) ;; *) fail "$last: exit code $code, expected $expected" ;; esac
}
train() { # CODE OUT RUN-FOLDER MORE...
    expected=$1 out=$2 folder=$3
    shift 3
    mpi "$expected" "$ternion" finetune r.onnx -o "$out" --data g --batch-size 32 -e 3 --threads 1 \
        --checkpoint "$folder" "$@"
}
strike() { # SIGNAL RANK RUN-FOLDER: when the first checkpoint is there
    for _ in $(seq 600); do
        [ -e "$3/step-0000000000.safetensors" ] && [ -s "pid.$2" ] && break
        sleep 0.05
    done
    kill -s "$1" "$(cat "pid.$2")"
}

run 0 data generate glyphs g --train-images 960 --test-images 64 -q
run 0 create resnet8 -o r.onnx --seed 3 -q

# several processes give one result, told once
train 0 whole.onnx whole
[ "$(grep -c '^epoch 3/3' err)" -eq 1 ] || fail "$last: the last epoch is not told once"
[ "$(grep -c '^whole.onnx:' out)" -eq 1 ] || fail "$last: the result is not printed once"
grep -q '"processes":2' whole/run.jsonl || fail "$last: the journal does not count the processes"
run 0 verify whole.onnx

# a process asked to stop: all stop, the state is saved, and the resume is the run
for rank in 0 1; do
    rm -rf k k.onnx pid.*
    strike TERM $rank k & striker=$!
    train "130|143" k.onnx k
    wait $striker
    absent k.onnx
    says "go on with: mpirun -np 2 ternion finetune"
    ls k | grep -v step-0000000000 | grep -q '^step-.*\.safetensors$' || fail "$last: nothing was saved"
    train 0 k.onnx k --resume
    cmp -s whole.onnx k.onnx || fail "$last: after SIGTERM for process $rank another file"
done

# a process that dies ends the run, with no file and nothing damaged
for rank in 0 1; do
    rm -rf k k.onnx pid.*
    strike KILL $rank k & striker=$!
    train 137 k.onnx k
    wait $striker
    absent k.onnx
    says "rank $rank .*signal 9"
    train 0 k.onnx k --resume
    cmp -s whole.onnx k.onnx || fail "$last: after SIGKILL of process $rank another file"
done

# what one process cannot do fails on all, and process 0 says which
mkdir elsewhere1
mpi 6 sh -c 'cd "$1$OMPI_COMM_WORLD_RANK" 2>/dev/null || true; exec "$2" finetune "$3/r.onnx" -o "$3/n.onnx" --data g' \
    sh "$work/elsewhere" "$ternion" "$work"
says "process 1: no data set at 'g'"
absent n.onnx

# checkpoints go from two processes to one, with a warning
cp -r whole again && rm -f again/step-0000000090.safetensors
run 0 finetune r.onnx -o one.onnx --data g --batch-size 32 -e 3 --threads 1 --checkpoint again --resume
says "was made by '2' process"

# refusals
train 2 n.onnx n --batch-size 33 -f
says "cannot be divided among 2 processes"
mpi 2 "$ternion" quantize r.onnx -o n.onnx
says "run it without mpirun"
[ "$(grep -c 'ternion: error' err)" -eq 1 ] || fail "$last: the error is not told once"
last="two processes announced, one there"
code=0
OMPI_COMM_WORLD_SIZE=2 "$ternion" finetune r.onnx -o n.onnx --data g >out 2>err || code=$?
[ "$code" -eq 2 ] || fail "$last: exit code $code, expected 2"
absent n.onnx
finish
