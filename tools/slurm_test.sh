#!/usr/bin/env bash
# Evaluates through SLURM with one task per GPU:
#     tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [arguments of tools/test.py]
# In the environment: GPUS (8), GPUS_PER_NODE (8), CPUS_PER_TASK (8), SRUN_ARGS.
set -euo pipefail
source "$(dirname "$0")/launchers.sh"
usage_unless $# 4 'PARTITION JOB_NAME CONFIG CHECKPOINT [arguments of tools/test.py]'
by_srun "$1" "$2" test.py "$3" "$4" --launcher slurm "${@:5}"
