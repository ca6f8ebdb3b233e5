"""The scripts for several nodes, two of which are played by two processes of this machine."""

import os
import subprocess
import sys
from pathlib import Path
from socket import socket

from safetensors.torch import load_file
from test_distributed import SCRIPT, run
from torch.testing import assert_close

CLUSTER = Path(__file__).parents[1] / "configs" / "cluster"


def free_port():
    with socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def test_two_nodes_equal_one_process(tmp_path):
    run(SCRIPT, tmp_path / "one", "weft_exact", 4)
    common = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(SCRIPT.parents[2]),
        "OMP_NUM_THREADS": "1",
        "NODES": "2",
        "GPUS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
    }
    script = CLUSTER / "torchrun_nodes.sh"
    arguments = ["sh", script, SCRIPT, tmp_path / "two", "weft_exact", "2"]
    nodes = [
        subprocess.Popen(arguments, env=os.environ | common | {"NODE_RANK": str(rank)})
        for rank in range(2)
    ]
    try:
        assert [node.wait(timeout=200) for node in nodes] == [0, 0]
    finally:
        for node in nodes:
            node.kill()
    one, two = (load_file(tmp_path / n / "weights.safetensors") for n in ("one", "two"))
    assert one.keys() == two.keys()
    for name, weight in one.items():
        assert_close(two[name], weight, atol=1e-5, rtol=0)


def test_a_missing_variable_is_named():
    environment = {"PATH": os.environ["PATH"], "NODES": "2"}
    script = CLUSTER / "torchrun_nodes.sh"
    done = subprocess.run(["sh", script], env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    assert "NODE_RANK" in done.stderr


def test_slurm_starts_the_same_script_on_each_node(tmp_path):
    """With srun and scontrol played by two small programs."""
    programs = {
        "scontrol": "#!/bin/sh\necho node7\nsleep 0.2\necho node9\n",
        "srun": '#!/bin/sh\nshift\nfor SLURM_NODEID in 0 1; do export SLURM_NODEID; "$@"; done\n',
        "torchrun": '#!/bin/sh\necho "$TORCH_ELASTIC_SHUTDOWN_TIMEOUT s: $@"\n',
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "SLURM_JOB_NODELIST": "node[7,9]",
        "SLURM_NNODES": "2",
    }
    done = subprocess.run(
        ["bash", CLUSTER / "two_nodes.sbatch", "preset=paper", "stages=[weft,rl]"],
        env=environment,
        cwd=CLUSTER.parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    rest = "--nproc-per-node 8 --master-addr node7 --master-port 29500 -m weft_rl.pipeline "
    rest += "preset=paper stages=[weft,rl]"
    assert done.stdout.splitlines() == [
        f"110 s: --nnodes 2 --node-rank {rank} {rest}" for rank in (0, 1)
    ]
