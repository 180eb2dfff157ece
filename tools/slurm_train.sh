#!/usr/bin/env bash
# Trains through SLURM with one task per GPU:
#     tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [arguments of tools/train.py]
# In the environment: GPUS (8), GPUS_PER_NODE (8), CPUS_PER_TASK (8), SRUN_ARGS.
set -euo pipefail
[ $# -ge 4 ] || { echo "usage: $0 PARTITION JOB_NAME CONFIG WORK_DIR [arguments of tools/train.py]" >&2; exit 2; }
partition=$1 name=$2 config=$3 work_dir=$4
shift 4
# shellcheck disable=SC2086  # SRUN_ARGS is a list of words
exec srun --partition "$partition" --job-name "$name" \
    --ntasks "${GPUS:-8}" --ntasks-per-node "${GPUS_PER_NODE:-8}" --gres "gpu:${GPUS_PER_NODE:-8}" \
    --cpus-per-task "${CPUS_PER_TASK:-8}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -u "$(dirname "$0")/train.py" "$config" --work-dir "$work_dir" --launcher slurm "$@"
