"""What a benchmark ran on, for its results."""

import os
import platform

import torch
import transformers
import trl


def machine() -> dict[str, object]:
    """Machine, threads and versions."""
    return {
        "machine": platform.processor() or platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "trl": trl.__version__,
    }
