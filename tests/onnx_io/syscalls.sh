#!/bin/sh
# Every system call of a rewrite fails, or kills the process, one after the other: an error, and the
# output is the old one, or whole; no other file is left. usage: syscalls.sh REWRITE-TOOL SMALL-TOOL
set -u
rewrite=$1 small=$2
export LSAN_OPTIONS=detect_leaks=0 # LeakSanitizer does not run under strace
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$small" "$work/in.onnx" 9000 || exit 1
strace -qq -o /dev/null true 2>/dev/null || exit 77
"$rewrite" "$work/in.onnx" "$work/want.onnx" || exit 1
"$rewrite" "$work/in.onnx" "$work/external.onnx" external || exit 1
mkdir "$work/out"
bad=0

complain() {
    echo "$*"
    bad=1
}

# check MODE RESULT NAME...: what stands in out/ after a run
check() {
    mode=$1 result=$2 what=$3
    [ "$result" -ne 0 ] || return 0
    case $mode in
    new) [ -z "$(ls -A "$work/out")" ] || complain "$what left: $(ls -A "$work/out")" ;;
    replace)
        cmp -s "$work/out/o.onnx" "$work/old" || cmp -s "$work/out/o.onnx" "$work/want.onnx" ||
            complain "$what damaged the old output"
        [ "$(ls -A "$work/out")" = o.onnx ] || complain "$what left: $(ls -A "$work/out")" ;;
    esac
}

echo "the old output" >"$work/old"
for call in openat write fsync linkat rename close mmap fstat; do
    for mode in new replace; do
        for fault in error=ENOSPC error=EIO; do
            n=1
            while [ $n -le 40 ]; do
                rm -rf "$work/out" && mkdir "$work/out"
                [ $mode = new ] || cp "$work/old" "$work/out/o.onnx"
                strace -qq -o "$work/trace" -e "trace=$call" -e "inject=$call:$fault:when=$n" \
                    "$rewrite" "$work/in.onnx" "$work/out/o.onnx" $mode >/dev/null 2>&1
                result=$?
                grep -q INJECTED "$work/trace" || break
                check $mode $result "$call $n $fault ($mode)"
                # 127: the dynamic loader was hit; mmap may crash it
                [ $result -le 127 ] || [ $call = mmap ] ||
                    complain "$call $n $fault ($mode): exit $result"
                n=$((n + 1))
            done
        done
    done
done
for call in write fsync linkat close; do
    n=1
    while [ $n -le 40 ]; do
        rm -rf "$work/out" && mkdir "$work/out"
        strace -qq -o "$work/trace" -e "trace=$call" -e "inject=$call:signal=KILL:when=$n" \
            "$rewrite" "$work/in.onnx" "$work/out/o.onnx" >/dev/null 2>&1
        grep -q INJECTED "$work/trace" || grep -q KILL "$work/trace" || break
        if [ -e "$work/out/o.onnx" ]; then
            cmp -s "$work/out/o.onnx" "$work/want.onnx" || complain "$call $n kill: a partial output"
        fi
        [ -z "$(ls -A "$work/out" | grep -v '^o.onnx$')" ] || complain "$call $n kill left a file"
        n=$((n + 1))
    done
done
exit $bad
