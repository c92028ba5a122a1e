#!/bin/sh
# The shared library exports the functions of ternion.h and nothing else.
# usage: exports.sh LIBRARY HEADER
set -eu
nm -D --defined-only "$1" | awk '$2 ~ /[TDBRVW]/ { print $3 }' | sort >"${TMPDIR:-/tmp}/exported.$$"
sed -n '/^TERNION_API/,/;/p' "$2" | tr '\n' ' ' | sed 's/;/;\n/g' |
    sed -n 's/.*[ *]\(tn_[a-z_]*\)(.*/\1/p' | sort >"${TMPDIR:-/tmp}/declared.$$"
trap 'rm -f "${TMPDIR:-/tmp}/exported.$$" "${TMPDIR:-/tmp}/declared.$$"' EXIT
[ "$(wc -l <"${TMPDIR:-/tmp}/declared.$$")" -gt 10 ] || { echo "found no declarations"; exit 1; }
diff "${TMPDIR:-/tmp}/declared.$$" "${TMPDIR:-/tmp}/exported.$$" || {
    echo "< declared in ternion.h, > exported by the library"
    exit 1
}
