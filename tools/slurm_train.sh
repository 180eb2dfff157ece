#!/usr/bin/env bash
# Trains through SLURM with one task per GPU:
#     tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [arguments of tools/train.py]
# In the environment: GPUS (8), GPUS_PER_NODE (8), CPUS_PER_TASK (8), SRUN_ARGS.
# Goes on by itself, with --resume, after SIGUSR1 or SIGTERM and two minutes before the time limit (docs/scaling.md).
set -euo pipefail
source "$(dirname "$0")/launchers.sh"
usage_unless $# 4 'PARTITION JOB_NAME CONFIG WORK_DIR [arguments of tools/train.py]'
by_srun_until_done "$1" "$2" train.py "$3" --work-dir "$4" --launcher slurm "${@:5}"
