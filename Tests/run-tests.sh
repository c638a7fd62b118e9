#!/bin/sh
# Runs the built tests and repeats at the end what failed, which several thousand lines of parallel output hide.
# Usage: Tests/run-tests.sh SWIFT
set -eu
log=$(mktemp)
status=$(mktemp)
trap 'rm -f "$log" "$status"' EXIT
{
    code=0
    "$1" test --skip-build --skip FaultTests 2>&1 || code=$?
    # These compare speeds before and after, so nothing else runs beside them.
    for suite in FaultTests NetFaultTests; do
        alone=0
        "$1" test --skip-build --filter "GuestTests\\.$suite" 2>&1 || alone=$?
        [ "$code" -ne 0 ] || code=$alone
    done
    echo "$code" >"$status"
} | tee "$log"
code=$(cat "$status")
if [ "$code" -ne 0 ]; then
    echo "What failed:" >&2
    # An issue's comment follows on lines that start with an arrow.
    grep -E '✘|↳|error:' "$log" | head -n 60 >&2 || true
fi
exit "$code"
