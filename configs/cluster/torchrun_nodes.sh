#!/bin/sh
# One node's part of a run on several: start it on each, with the same NODES, MASTER_ADDR and arguments.
#
#   NODES=2 NODE_RANK=0 MASTER_ADDR=first-node GPUS=8 sh torchrun_nodes.sh -m weft_rl.pipeline ...
#   NODES=2 NODE_RANK=1 MASTER_ADDR=first-node GPUS=8 sh torchrun_nodes.sh -m weft_rl.pipeline ...
#
# The run folder (out=) must lie on a file system that all nodes share.
set -eu
: "${NODES:?how many nodes}" "${NODE_RANK:?this one, from 0}" "${MASTER_ADDR:?the first node}"
# The processes that it passes a SIGTERM on to have two minutes to write a checkpoint; torch before
# 2.13 does not read this and ends them after 30 s.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT="${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-110}"
exec torchrun --nnodes "$NODES" --node-rank "$NODE_RANK" --nproc-per-node "${GPUS:-8}" \
  --master-addr "$MASTER_ADDR" --master-port "${MASTER_PORT:-29500}" "$@"
