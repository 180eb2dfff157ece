#!/usr/bin/env bash
# Trains with one process per GPU (or, on a machine without, per number given):
#     tools/dist_train.sh CONFIG GPUS [arguments of tools/train.py]
# Over several machines, on each: NNODES, NODE_RANK, MASTER_ADDR and PORT in the environment.
set -euo pipefail
source "$(dirname "$0")/launchers.sh"
usage_unless $# 2 'CONFIG GPUS [arguments of tools/train.py]'
by_torchrun "$2" train.py "$1" --launcher pytorch "${@:3}"
