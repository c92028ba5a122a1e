#!/bin/sh
# Installs what the tests need, builds and runs them: once as released, once under ASan + UBSan.
#
# usage: tools/test.sh [--full]
#   --full   adds what needs torch, large networks or all images (hours, several GB)
#
# Tests against ONNX Runtime need PyPI; tests on trained networks and real images need the folder
# TERNION_SHARED (default: ../shared) with models/ and data/. Without them those tests are skipped.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
. tools/packages.sh

full=
case "${1-}" in
"") ;;
--full) full=1 ;;
*) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac

install_packages $build_packages libcmocka-dev python3-venv strace libopenmpi-dev openmpi-bin
work=$root/build-tests
mkdir -p "$work"
export TERNION_SHARED="${TERNION_SHARED:-$root/../shared}"
[ -d "$TERNION_SHARED/models" ] || unset TERNION_SHARED

# The oracles live outside the C program: an independent environment of Python packages.
packages="numpy onnx onnxruntime pillow"
[ -z "$full" ] || packages="$packages qonnx onnxsim onnxscript torch torchvision"
if [ -z "${TERNION_PYTHON-}" ]; then
    venv=$work/venv${full:+-full}
    if [ ! -e "$venv/ready" ]; then
        python3 -m venv "$venv" && "$venv/bin/pip" install -q $packages && touch "$venv/ready" ||
            echo "no Python oracles: tests that compare with ONNX Runtime will be skipped" >&2
    fi
    [ ! -e "$venv/ready" ] || TERNION_PYTHON=$venv/bin/python
fi
[ -z "${TERNION_PYTHON-}" ] || export TERNION_PYTHON

if [ -n "${TERNION_SHARED-}" ] && [ -n "${TERNION_PYTHON-}" ] && [ -z "${TERNION_DATA-}" ]; then
    [ -e "$work/data/ready" ] ||
        { "$TERNION_PYTHON" "$TERNION_SHARED/data/unpack" "$work/data" && touch "$work/data/ready"; }
    TERNION_DATA=$work/data
fi
[ -z "${TERNION_DATA-}" ] || export TERNION_DATA
if [ -n "$full" ]; then
    export TERNION_FULL=1 TERNION_EXPORTS="${TERNION_EXPORTS:-$work/exports}"
    [ -z "${TERNION_PYTHON-}" ] || "$TERNION_PYTHON" tests/oracle/export_torch.py "$TERNION_EXPORTS"
    sh tests/oracle/old_runtimes.sh "$work/runtimes" && export TERNION_OLD_RUNTIMES="$work/runtimes" ||
        echo "no old ONNX Runtimes: packed models run in the newest alone" >&2
fi
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY-passive}"

passed=0 failed=0 skipped=0
count() { # what meson says of a run, e.g. "Ok:   12"
    value=$(sed -n "s/^$1: *\([0-9]*\).*/\1/p" "$work/log" | tail -n 1)
    echo "${value:-0}"
}
run_suite() { # NAME BUILD-FOLDER MESON-OPTIONS...
    name=$1 folder=$2
    shift 2
    echo "== $name"
    [ -e "$folder/build.ninja" ] || meson setup "$folder" "$@" >"$work/log" || { cat "$work/log"; exit 1; }
    ninja -C "$folder" >"$work/log" || { tail -n 50 "$work/log"; exit 1; }
    meson test -C "$folder" --no-rebuild --print-errorlogs $test_options >"$work/log" 2>&1 || true
    cat "$work/log"
    grep -q '^Ok:' "$work/log" || { echo "$name: the tests did not run"; failed=$((failed + 1)); }
    passed=$((passed + $(count Ok) + $(count 'Expected Fail')))
    failed=$((failed + $(count Fail) + $(count 'Unexpected Pass') + $(count Timeout)))
    skipped=$((skipped + $(count Skipped)))
}

test_options=
run_suite "release build" build-release --buildtype=release -Dwerror=true
# slow suites prove numbers, not memory safety
test_options="--no-suite slow --timeout-multiplier 6"
export ASAN_OPTIONS="${ASAN_OPTIONS-detect_leaks=1:allocator_may_return_null=1}"
export UBSAN_OPTIONS="${UBSAN_OPTIONS-halt_on_error=1:print_stacktrace=1}"
run_suite "ASan + UBSan" build-sanitize --buildtype=debugoptimized -Db_sanitize=address,undefined -Db_lundef=false
if [ -n "$full" ] && command -v clang >/dev/null 2>&1; then
    test_options=
    CC=clang run_suite "clang" build-clang --buildtype=debugoptimized -Dwerror=true
fi

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
