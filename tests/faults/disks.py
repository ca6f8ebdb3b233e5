"""A small disk in place of a folder."""

import os
import subprocess
from contextlib import contextmanager

import pytest


@contextmanager
def small_disk(folder, kib):
    """Yields the folder; `grow` makes its disk larger."""
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "none", folder]
    if os.getuid() or subprocess.run(mount, check=False).returncode:
        pytest.skip("only root may mount a disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def grow(folder):
    subprocess.run(["mount", "-o", "remount,size=100m", folder], check=True)
