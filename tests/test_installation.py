"""An editable installation beside a user's own files of the same names; for the wheel: .ci/."""

import os
import subprocess
import sys

import pytest

NAMES = ("rewards", "stages", "configs")


def run(folder, *command):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True
    )


@pytest.fixture(params=["modules", "packages"])
def folder(request, tmp_path):
    for name in NAMES:
        path = tmp_path / (f"{name}.py" if request.param == "modules" else f"{name}/__init__.py")
        path.parent.mkdir(exist_ok=True)
        path.write_text("raise SystemExit(7)")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ("-m", "weft_rl.pipeline", "--print-config"),
        ("-m", "weft_rl.plan", "preset=llada_8b"),
        ("-m", "weft_rl", "score", "--help"),
        ("-c", "import weft_rl.stages.rl, weft_rl.rewards.sudoku, weft_rl.configs"),
        ("-c", "from weft_rl.rewards.math500 import is_equivalent; is_equivalent('1/2', '.5', '')"),
    ],
)
def test_commands_do_not_import_files_of_the_current_folder(folder, command):
    done = run(folder, *command)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_an_installation_adds_one_top_level_package(tmp_path, name):
    done = run(tmp_path, "-c", f"import {name}")
    assert done.returncode == 1
    assert "ModuleNotFoundError" in done.stderr
