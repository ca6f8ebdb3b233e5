"""Hardware data: memory, peak throughput, bandwidth."""

from typing import NamedTuple


class Hardware(NamedTuple):
    """A device: memory in GiB, peak dense bfloat16 TFLOP/s, memory bandwidth in TB/s."""

    memory_gib: float
    tera_flops: float
    tera_bytes: float


# Memory as reported by torch, the rest from vendor data sheets. cpu: two server cores.
HARDWARE = {
    "h200": Hardware(139.8, 989, 4.8),
    "h100": Hardware(79.1, 989, 3.35),
    "a100": Hardware(79.1, 312, 2.0),
    "a100_40": Hardware(39.4, 312, 1.555),
    "rtx4090": Hardware(23.6, 165, 1.008),
    "cpu": Hardware(16.0, 0.1, 0.02),
}
