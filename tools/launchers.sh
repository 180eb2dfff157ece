# Sourced by the launch scripts beside it: how a tool is started on several processes.
tools=$(dirname "${BASH_SOURCE[0]}")
python=${PYTHON:-python}

# usage_unless COUNT WANTED ARGUMENTS: ends with the line of usage unless at least WANTED arguments were given.
usage_unless() {
    [ "$1" -ge "$2" ] || { echo "usage: $0 $3" >&2; exit 2; }
}

# by_torchrun GPUS TOOL ARGUMENTS...: NNODES, NODE_RANK, MASTER_ADDR and PORT in the environment.
by_torchrun() {
    local gpus=$1 tool=$2
    shift 2
    exec "$python" "$tools/torchrun.py" \
        --nnodes "${NNODES:-1}" --node-rank "${NODE_RANK:-0}" --nproc-per-node "$gpus" \
        --master-addr "${MASTER_ADDR:-127.0.0.1}" --master-port "${PORT:-29500}" \
        "$tools/$tool" "$@"
}

# by_srun_until_done PARTITION JOB_NAME TOOL ARGUMENTS...: by_srun, and again with --resume whenever the run was told to
# stop (exit code 75): within a batch job through a requeue, else at once.
by_srun_until_done() {
    local pid code
    [ "${SLURM_RESTART_COUNT:-0}" = 0 ] || set -- "$@" --resume
    while true; do
        by_srun "$@" &
        pid=$!
        # shellcheck disable=SC2064  # this run's process
        trap "kill -USR1 $pid" TERM USR1
        # A signal ends the waiting, not the run.
        while kill -0 "$pid" 2>/dev/null; do wait "$pid" || true; done
        code=0
        wait "$pid" || code=$?
        [ "$code" = 75 ] || exit "$code"
        if [ -n "${SLURM_JOB_ID:-}" ]; then
            scontrol requeue "$SLURM_JOB_ID"
            exit "$code"
        fi
        set -- "$@" --resume
    done
}

# by_srun PARTITION JOB_NAME TOOL ARGUMENTS...: GPUS, GPUS_PER_NODE, CPUS_PER_TASK and SRUN_ARGS in the environment.
by_srun() {
    local partition=$1 name=$2 tool=$3
    shift 3
    # shellcheck disable=SC2086  # SRUN_ARGS is a list of words
    exec srun --partition "$partition" --job-name "$name" \
        --ntasks "${GPUS:-8}" --ntasks-per-node "${GPUS_PER_NODE:-8}" --gres "gpu:${GPUS_PER_NODE:-8}" \
        --cpus-per-task "${CPUS_PER_TASK:-8}" --kill-on-bad-exit=1 --signal=USR1@120 ${SRUN_ARGS:-} \
        "$python" -u "$tools/$tool" "$@"
}
