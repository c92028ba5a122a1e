#!/bin/sh
# What is worth checking on a machine with a GPU. usage: gpu-check.sh [--list] BUILD [PART...]
# BUILD: a build with -Dgpu=enabled. Each part has a limit of 10 minutes. 77 without a GPU.
set -u
parts="parity parity-bf16 memcheck racecheck evaluate"
if [ "${1-}" = --list ]; then
    echo "parity       a training step of six networks in fp32 against the CPU"
    echo "parity-bf16  the same in bf16"
    echo "memcheck     parity under compute-sanitizer"
    echo "racecheck    parity under compute-sanitizer --tool racecheck"
    echo "evaluate     MODEL and DATA (environment) on cuda and on cpu"
    exit 0
fi
build=${1:?usage: gpu-check.sh [--list] BUILD [PART...]}
shift
[ $# -gt 0 ] || set -- $parts
test_program=$build/tests/gpu/gpu_parity_test
one() {
    case $1 in
    parity) timeout 600 "$test_program" ;;
    parity-bf16) timeout 600 "$test_program" bf16 ;;
    memcheck) timeout 600 compute-sanitizer --error-exitcode 1 "$test_program" ;;
    racecheck) timeout 600 compute-sanitizer --tool racecheck --error-exitcode 1 "$test_program" ;;
    evaluate)
        [ -n "${MODEL-}" ] && [ -n "${DATA-}" ] || return 77
        for device in cuda cpu; do
            timeout 300 "$build/cli/ternion" evaluate "$MODEL" --data "$DATA" --device $device ||
                return 1
        done ;;
    *) echo "no part $1"; return 2 ;;
    esac
}
table=
bad=0
for part; do
    start=$(date +%s)
    one "$part"
    code=$?
    result="failed ($code)"
    [ $code -eq 0 ] && result=ok
    [ $code -eq 77 ] && result=skipped
    [ $code -eq 0 ] || [ $code -eq 77 ] || bad=1
    table="$table$(printf '%-12s %-12s %4d s' "$part" "$result" $(($(date +%s) - start)))
"
done
printf '\n%s' "$table"
exit $bad
