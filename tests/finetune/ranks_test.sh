#!/bin/sh
# A program under mpirun; exit 77 without one.
# usage: ranks_test.sh PROCESSES PROGRAM ARGUMENTS...
command -v mpirun >/dev/null 2>&1 || { echo "no mpirun"; exit 77; }
# root in a container, and more processes than processors: fine for a test
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
processes=$1
shift
exec timeout 1500 mpirun --oversubscribe --bind-to none -np "$processes" "$@"
