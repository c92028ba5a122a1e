#!/bin/sh
# Folders stand in one line; each may include only what stands to its left. Quoted includes name the
# folder, so that a reader sees the direction. usage: include_line.sh SOURCE-ROOT
set -eu
cd "$1"
line="core data proto onnx_io converter network gpu finetune api cli"
bad=0
seen=0
allowed=
for folder in $line; do
    allowed="$allowed $folder"
    files=$(find "$folder" -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh')
    [ -n "$files" ] || continue
    seen=$((seen + 1))
    for file in $files; do
        for target in $(sed -n 's/^ *# *include *"\([^"]*\)".*/\1/p' "$file"); do
            case " $allowed " in *" ${target%%/*} "*) ;; *)
                echo "$file includes \"$target\": only$allowed may be included from $folder/"
                bad=1 ;;
            esac
        done
    done
done
# the program uses the public header alone
if grep -n '#include "' cli/*.[ch] 2>/dev/null | grep -v -e '"cli/' -e '"api/ternion.h"'; then
    echo "cli/ may include only cli/ and api/ternion.h"
    bad=1
fi
[ "$seen" -ge 3 ] || { echo "found sources in $seen folders only: wrong root?"; bad=1; }
exit $bad
