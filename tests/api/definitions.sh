#!/bin/sh
# ternion.h stands alone, so it repeats two definitions of core/: they must stay the same, word for
# word. It must also compile alone, as C and as C++.
# usage: definitions.sh SOURCE-ROOT COMPILER
set -eu
root=$1
shift
block() { # FILE MACRO
    sed -n "/^#ifndef $2\$/,/^#endif\$/p" "$root/$1"
}
check() {
    a=$(block api/ternion.h "$2")
    b=$(block "$1" "$2")
    [ -n "$a" ] || { echo "api/ternion.h has no block $2"; exit 1; }
    [ "$a" = "$b" ] || { echo "$2 differs between api/ternion.h and $1"; exit 1; }
}
check core/status.h TERNION_STATUS_DEFINED
check core/reporter.h TERNION_REPORTER_DEFINED
! grep -q '^#include "' "$root/api/ternion.h" || { echo "ternion.h includes a header of ours"; exit 1; }
cp "$root/api/ternion.h" "${TMPDIR:-/tmp}/ternion.$$.h"
trap 'rm -f "${TMPDIR:-/tmp}/ternion.$$.h"' EXIT
"$@" -std=c11 -Wall -Wextra -Wpedantic -Werror -fsyntax-only -x c "${TMPDIR:-/tmp}/ternion.$$.h"
if echo | "$@" -x c++ -fsyntax-only - 2>/dev/null; then
    "$@" -std=c++17 -Wall -Wextra -Wpedantic -Werror -fsyntax-only -x c++ "${TMPDIR:-/tmp}/ternion.$$.h"
fi
