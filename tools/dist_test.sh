#!/usr/bin/env bash
# Evaluates with one process per GPU (or, on a machine without, per number given):
#     tools/dist_test.sh CONFIG CHECKPOINT GPUS [arguments of tools/test.py]
# Over several machines, on each: NNODES, NODE_RANK, MASTER_ADDR and PORT in the environment.
set -euo pipefail
source "$(dirname "$0")/launchers.sh"
usage_unless $# 3 'CONFIG CHECKPOINT GPUS [arguments of tools/test.py]'
by_torchrun "$3" test.py "$1" "$2" --launcher pytorch "${@:4}"
