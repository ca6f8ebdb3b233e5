"""What is free is what the machine has, or less where a cgroup around the process is limited."""

import pytest
from weft_rl.models.cgroups import available_memory

KIB, MIB = 2**10, 2**20
V1 = "sys/fs/cgroup/memory"
V2 = "sys/fs/cgroup"


def machine(root, available_mib, cgroup):
    (root / "proc/self").mkdir(parents=True)
    text = f"MemTotal: 64000000 kB\nMemAvailable: {available_mib * MIB // KIB} kB\n"
    (root / "proc/meminfo").write_text(text)
    (root / "proc/self/cgroup").write_text(cgroup)


def limited(folder, names, limit, used_mib, stat):
    """A cgroup with a limit, in the files that a version of them has."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in zip(names, (limit, used_mib * MIB, stat), strict=True):
        (folder / name).write_text(f"{content}\n")


def second_version(folder, limit, used_mib, cached=(0, 0), slab=0):
    inactive, active = (part * MIB for part in cached)
    stat = f"anon 7\nfile 9\ninactive_file {inactive}\nactive_file {active}\n"
    stat += f"slab_reclaimable {slab * MIB}\nslab_unreclaimable 5"
    limited(folder, ("memory.max", "memory.current", "memory.stat"), limit, used_mib, stat)


def first_version(folder, limit, used_mib, cached=(0, 0)):
    inactive, active = (part * MIB for part in cached)
    # of the cgroup alone, and with all below
    stat = "inactive_file 0\nactive_file 0\n"
    stat += f"total_inactive_file {inactive}\ntotal_active_file {active}"
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat")
    limited(folder, names, limit, used_mib, stat)


def test_the_kernels_tables_are_given_back_too(tmp_path):
    machine(tmp_path, 8000, "0::/\n")
    second_version(tmp_path / V2, 512 * MIB, 200, cached=(10, 20), slab=50)
    assert available_memory(tmp_path) == (512 - 200 + 10 + 20 + 50) * MIB


def test_a_container_has_less_than_its_machine(tmp_path):
    machine(tmp_path, 8000, "0::/\n")
    second_version(tmp_path / V2, 512 * MIB, 200, cached=(60, 40))
    # 512 less 200 in use, of which 100 are pages of files
    assert available_memory(tmp_path) == 412 * MIB


def test_the_machine_may_have_less_than_the_container_is_allowed(tmp_path):
    machine(tmp_path, 300, "0::/\n")
    second_version(tmp_path / V2, 512 * MIB, 100)
    assert available_memory(tmp_path) == 300 * MIB


def test_no_limit(tmp_path):
    machine(tmp_path, 300, "0::/user.slice/a.scope\n")
    second_version(tmp_path / V2 / "user.slice/a.scope", "max", 100)
    assert available_memory(tmp_path) == 300 * MIB


@pytest.mark.parametrize("tight", ["job", "job/step"])
def test_every_level_limits_what_is_below(tmp_path, tight):
    """A batch system limits a job, and the process is in a step of it."""
    machine(tmp_path, 8000, "0::/job/step\n")
    for name in ("job", "job/step"):
        limit = 512 if name == tight else 4000
        second_version(tmp_path / V2 / name, limit * MIB, 100)
    assert available_memory(tmp_path) == 412 * MIB


@pytest.mark.parametrize("path", ["/job", "/docker/as-the-host-calls-it"])
def test_the_first_version(tmp_path, path):
    machine(tmp_path, 8000, f"9:cpu,cpuacct:/other\n4:memory:{path}\n0::/\n")
    first_version(tmp_path / V1, 512 * MIB if "docker" in path else 2**63 - 4096, 200, (60, 40))
    if path == "/job":
        first_version(tmp_path / V1 / "job", 256 * MIB, 30, cached=(6, 4))
    wanted = 412 if "docker" in path else 236
    assert available_memory(tmp_path) == wanted * MIB


def test_a_cgroup_over_its_limit_has_nothing(tmp_path):
    machine(tmp_path, 8000, "0::/\n")
    second_version(tmp_path / V2, 100 * MIB, 120)
    assert available_memory(tmp_path) == 0


def test_a_system_that_says_nothing(tmp_path):
    assert available_memory(tmp_path) is None


def test_this_machine():
    assert available_memory() > 0
