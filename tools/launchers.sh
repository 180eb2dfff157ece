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
    exec "$python" -m torch.distributed.run \
        --nnodes "${NNODES:-1}" --node-rank "${NODE_RANK:-0}" --nproc-per-node "$gpus" \
        --master-addr "${MASTER_ADDR:-127.0.0.1}" --master-port "${PORT:-29500}" \
        "$tools/$tool" "$@"
}

# by_srun PARTITION JOB_NAME TOOL ARGUMENTS...: GPUS, GPUS_PER_NODE, CPUS_PER_TASK and SRUN_ARGS in the environment.
by_srun() {
    local partition=$1 name=$2 tool=$3
    shift 3
    # shellcheck disable=SC2086  # SRUN_ARGS is a list of words
    exec srun --partition "$partition" --job-name "$name" \
        --ntasks "${GPUS:-8}" --ntasks-per-node "${GPUS_PER_NODE:-8}" --gres "gpu:${GPUS_PER_NODE:-8}" \
        --cpus-per-task "${CPUS_PER_TASK:-8}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
        "$python" -u "$tools/$tool" "$@"
}
