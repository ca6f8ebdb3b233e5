"""The scripts for several nodes; two processes of this machine stand in for two nodes."""

import os
import subprocess
import sys
from pathlib import Path
from socket import socket

import pytest

CLUSTER = Path(__file__).parents[1] / "configs" / "cluster"
# Each process adds 2^rank and writes the sum over all of them.
PROGRAM = """
import os, pathlib, sys, torch, torch.distributed as dist
dist.init_process_group("gloo")
value = torch.tensor(2.0 ** dist.get_rank())
dist.all_reduce(value)
pathlib.Path(sys.argv[1], f"rank{dist.get_rank()}").write_text(str(value.item()))
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_nodes_form_one_process_group(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    with socket() as server:
        server.bind(("127.0.0.1", 0))
        port = str(server.getsockname()[1])  # free
    common = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    common |= {"NODES": "2", "GPUS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    arguments = ["sh", CLUSTER / "torchrun_nodes.sh", tmp_path / "program.py", tmp_path]
    nodes = [
        subprocess.Popen(arguments, env=os.environ | common | {"NODE_RANK": str(rank)})
        for rank in range(2)
    ]
    try:
        assert [node.wait(timeout=120) for node in nodes] == [0, 0]
    finally:
        for node in nodes:
            node.kill()
    assert [(tmp_path / f"rank{rank}").read_text() for rank in range(2)] == ["3.0", "3.0"]


def test_a_missing_variable_is_named():
    environment = {"PATH": os.environ["PATH"], "NODES": "2"}
    script = CLUSTER / "torchrun_nodes.sh"
    done = subprocess.run(["sh", script], env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    assert "NODE_RANK" in done.stderr


def test_slurm_starts_the_script_on_each_node(tmp_path):
    """Small programs stand in for srun, scontrol and torchrun."""
    programs = {
        "scontrol": "#!/bin/sh\necho node7\nsleep 0.2\necho node9\n",
        "srun": '#!/bin/sh\nshift\nfor SLURM_NODEID in 0 1; do export SLURM_NODEID; "$@"; done\n',
        "torchrun": '#!/bin/sh\necho "$TORCH_ELASTIC_SHUTDOWN_TIMEOUT s: $@"\n',
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_NODELIST": "node[7,9]", "SLURM_NNODES": "2"}
    script = ["bash", CLUSTER / "two_nodes.sbatch", "preset=paper", "stages=[weft,rl]"]
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"} | slurm
    printed = subprocess.check_output(script, env=environment, cwd=CLUSTER.parents[1], text=True)
    arguments = "--nproc-per-node 8 --master-addr node7 --master-port 29500 -m weft_rl.pipeline "
    arguments += "preset=paper stages=[weft,rl]"
    assert printed.splitlines() == [
        f"110 s: --nnodes 2 --node-rank {rank} {arguments}" for rank in (0, 1)
    ]
