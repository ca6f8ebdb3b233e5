"""What is imported is declared in pyproject.toml, and the pinned sets fit what is declared."""

import ast
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
FOLDERS = ("configs", "rewards", "stages", "weft_rl")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
DISTRIBUTIONS = packages_distributions()


def requirements(lines):
    """By name, as PyPI spells it."""
    return {canonicalize_name(item.name): item for item in map(Requirement, lines)}


DECLARED = requirements(PROJECT["dependencies"])
OPTIONAL = requirements(line for lines in EXTRAS.values() for line in lines)


def imported(nodes):
    """First names of the modules that import statements name, but for relative ones."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.split(".")[0]


def undeclared(module, declared):
    """Whether a module is another project's, and of one that is not declared."""
    names = DISTRIBUTIONS.get(module, [module])  # what is not installed is called like its module
    return module not in sys.stdlib_module_names and not any(
        canonicalize_name(name) in declared for name in names
    )


def looked_for(tree):
    """Modules that a file looks for before it imports them, as find_spec("name")."""
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    found = (call for call in calls if ast.unparse(call.func) == "find_spec")
    return {call.args[0].value for call in found if isinstance(call.args[0], ast.Constant)}


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_a_folder_imports_is_declared(folder):
    wrong = []
    for path in (ROOT / folder).rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for module in {*imported(ast.walk(tree))} - {"weft_rl"}:
            # an extra's, where the file says what to install when it is not there
            declared = DECLARED | OPTIONAL if module in looked_for(tree) else DECLARED
            if undeclared(module, declared):
                wrong.append(f"{path.relative_to(ROOT)}: {module}")
    assert sorted(wrong) == []


@pytest.mark.parametrize("folder", ["benchmarks", "tests"])
def test_what_tests_and_benchmarks_import_is_declared(folder):
    """At the top of their files; a test that needs more imports it itself, and is skipped."""
    paths = [*(ROOT / folder).rglob("*.py")]
    tests = [*(ROOT / "tests").rglob("*.py")]
    own = {path.stem for path in [*paths, *tests]} | {"weft_rl"}
    own |= {path.parent.name for path in tests}  # helpers
    declared = DECLARED | requirements(EXTRAS["dev"])
    wrong = []
    for path in paths:
        tops = ast.parse(path.read_text(encoding="utf-8")).body
        wrong += [
            f"{path.relative_to(ROOT)}: {module}"
            for module in {*imported(tops)} - own
            if undeclared(module, declared)
        ]
    assert sorted(wrong) == []


def pins(name):
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if "==" in line and line[0] != "#"]
    return {canonicalize_name(package): Version(version) for package, version in pairs}


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-py312.txt"])
def test_the_pinned_sets_fit_what_is_declared(name):
    pinned = pins(name)
    for package, item in (DECLARED | requirements(EXTRAS["dev"])).items():
        assert pinned[package] in item.specifier, item


def test_the_lowest_versions_are_the_lower_bounds():
    pinned = pins("constraints-min.txt")
    lowest = {
        package: Version(bound.version)
        for package, item in DECLARED.items()
        for bound in item.specifier
        if bound.operator == ">="
    }
    assert {package: pinned.get(package) for package in DECLARED} == lowest
