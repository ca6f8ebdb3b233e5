"""Peak memory of loading and converting a sharded checkpoint, each in a separate process.

Usage: python benchmarks/loading_memory.py [LAYERS]. Excludes the imports."""

import json
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PEAK = r"""
import re, sys
from pathlib import Path
def peak():
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])
"""
LOAD = """
import torch
import weft_rl.models.loading as loading
before = peak()
model = loading.load_model(sys.argv[1], torch.device("cpu"), getattr(torch, sys.argv[2]))
# files are mapped: what was not read has taken nothing yet
print(sum(float(parameter.sum()) for parameter in model.parameters()))
print(peak() - before)
"""
CONVERT = """
from weft_rl.convert import convert
before = peak()
convert(Path(sys.argv[1]), Path(sys.argv[2]), "transformers", 2**28)
print(peak() - before)
"""


def measure(code: str, *arguments: Path | str) -> int:
    """Bytes reported by the process."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK + code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return int(done.stdout.split()[-1])


def main(layers: int) -> None:
    """Measure and write the results."""
    sys.path.insert(0, str(ROOT / "tests" / "helpers"))
    import torch
    from upstream_checkpoint import llada_folder

    sizes = {"d_model": 1024, "n_heads": 8, "n_kv_heads": 8, "mlp_hidden_size": 3072}
    rows = {"vocab_size": 32768, "embedding_size": 32768, "n_layers": layers}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        source, tensors = llada_folder(place / "a", torch.bfloat16, 4, **rows, **sizes)
        shards = [path.stat().st_size for path in source.glob("*.safetensors")]
        result = {
            "checkpoint_bytes": sum(tensor.nbytes for tensor in tensors.values()),
            "largest_shard_bytes": max(shards),
            "load_peak_bytes": measure(LOAD, source, "bfloat16"),
            "load_as_float32_peak_bytes": measure(LOAD, source, "float32"),
            "convert_peak_bytes": measure(CONVERT, source, place / "b"),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "machine": platform.machine(),
        }
    text = json.dumps(result, indent=2)
    path = ROOT / "benchmarks" / "results" / "loading_memory.json"
    path.write_text(text + "\n", encoding="utf-8")
    print(re.sub(r"\s+", " ", text))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 24)
