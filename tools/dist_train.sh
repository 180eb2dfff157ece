#!/usr/bin/env bash
# Trains with one process per GPU (or, on a machine without, per number given):
#     tools/dist_train.sh CONFIG GPUS [arguments of tools/train.py]
# Over several machines, on each: NNODES, NODE_RANK, MASTER_ADDR and PORT in the environment.
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: $0 CONFIG GPUS [arguments of tools/train.py]" >&2; exit 2; }
config=$1 gpus=$2
shift 2
exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes "${NNODES:-1}" --node-rank "${NODE_RANK:-0}" --nproc-per-node "$gpus" \
    --master-addr "${MASTER_ADDR:-127.0.0.1}" --master-port "${PORT:-29500}" \
    "$(dirname "$0")/train.py" "$config" --launcher pytorch "$@"
