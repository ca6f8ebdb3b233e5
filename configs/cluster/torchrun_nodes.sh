#!/bin/sh
# Run on several nodes: start this on each node with the same NODES, MASTER_ADDR and arguments.
#
#   NODES=2 NODE_RANK=0 MASTER_ADDR=first-node GPUS=8 sh torchrun_nodes.sh -m weft_rl.pipeline ...
#   NODES=2 NODE_RANK=1 MASTER_ADDR=first-node GPUS=8 sh torchrun_nodes.sh -m weft_rl.pipeline ...
#
# The run directory (out=) must be on a shared file system.
set -eu
: "${NODES:?number of nodes}" "${NODE_RANK:?this node, from 0}" "${MASTER_ADDR:?host of node 0}"
# Seconds between SIGTERM and SIGKILL, to write a checkpoint. torch before 2.13 ignores it (30 s).
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT="${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-110}"
exec torchrun --nnodes "$NODES" --node-rank "$NODE_RANK" --nproc-per-node "${GPUS:-8}" \
  --master-addr "$MASTER_ADDR" --master-port "${MASTER_PORT:-29500}" "$@"
