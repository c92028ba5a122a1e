# Sourced by the tests of the program: runs it in a folder of its own and compares.
# usage of a test: NAME_test.sh TERNION JSON_QUERY
set -eu
ternion=$(realpath "$1")
json_query=$(realpath "$2")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
failures=0
code=0

fail() {
    echo "FAILED: $1"
    [ ! -s err ] || sed 's/^/    stderr: /' err | head -5
    [ ! -s out ] || sed 's/^/    stdout: /' out | head -5
    failures=$((failures + 1))
}

# run EXPECTED-CODE ARGUMENTS...: leaves standard output in `out`, standard error in `err`
run() {
    expected=$1
    shift
    last="ternion $*"
    code=0
    "$ternion" "$@" >out 2>err || code=$?
    [ "$code" -eq "$expected" ] || fail "$last: exit code $code, expected $expected"
}

says() { grep -q -e "$1" err || fail "$last: standard error lacks \"$1\""; }
says_not() { ! grep -q -e "$1" err || fail "$last: standard error has \"$1\""; }
prints() { grep -q -e "$1" out || fail "$last: standard output lacks \"$1\""; }
prints_nothing() { [ ! -s out ] || fail "$last: standard output is not empty"; }
exists() { [ -e "$1" ] || fail "$last: there is no $1"; }
absent() { [ ! -e "$1" ] || fail "$last: there is a $1"; }
value() { "$json_query" "$1" <"${2-out}" || echo "no-$1"; }
equals() { # PATH EXPECTED
    found=$(value "$1")
    [ "$found" = "$2" ] || fail "$last: $1 is $found, expected $2"
}
# holds AWK-EXPRESSION: a comparison of numbers
holds() { awk "BEGIN { exit !($1) }" || fail "$last: not $1"; }
# The folder holds nothing but what it held (temporary files of an interrupted write).
nothing_new() {
    found=$(ls -A | grep -v -e '^out$' -e '^err$' | sort | tr '\n' ' ')
    [ "$found" = "$1" ] || fail "$last: the folder holds \"$found\", expected \"$1\""
}
finish() {
    [ "$failures" -eq 0 ] || { echo "$failures checks failed"; exit 1; }
    echo "all checks passed"
}
