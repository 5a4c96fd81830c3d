#!/usr/bin/env bash
# What a machine with an NVIDIA GPU can tell of flowkit, in nine minutes, with one command and no network:
#
#     bash benchmarks/device.sh                    # all steps, the most telling first; results go to device-results/
#     STEPS="sanitizer ncu" bash benchmarks/device.sh
#
# It takes the python3 on PATH as it is: no virtual environment, nothing to install but what you carry along in .whl/.
# benchmarks/device.py says which steps there are and what may be set (--help prints it); this file only finds a Python.
set -u
PY=${PY:-python3}
"$PY" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
code=$?
if [ "$code" -gt 128 ]; then exit "$code"; fi # by a signal
if [ "$code" -ne 0 ]; then
    echo "device: PY must name a Python, 3.11 or newer, that runs; got $PY. Name one: PY=/path/to/python bash benchmarks/device.sh" >&2
    exit 3
fi
exec "$PY" "$(dirname "${BASH_SOURCE[0]}")/device.py" "$@"
