"""Imports are declared in pyproject.toml, and the constraints files fit the declarations."""

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
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
DISTRIBUTIONS = packages_distributions()


def requirements(lines):
    """Requirements by normalized name."""
    return {canonicalize_name(item.name): item for item in map(Requirement, lines)}


DECLARED = requirements(PROJECT["dependencies"])
OPTIONAL = requirements(line for lines in EXTRAS.values() for line in lines)


def imported(nodes):
    """Top-level names of absolute imports."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.split(".")[0]


def undeclared(module, declared):
    """Whether a module belongs to a package that is not declared."""
    packages = DISTRIBUTIONS.get(module, [module])  # a missing package is named like its module
    return module not in sys.stdlib_module_names and not any(
        canonicalize_name(name) in declared for name in packages
    )


def guarded(tree):
    """Modules that a file checks with find_spec("name") before it imports them."""
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    specs = (call for call in calls if ast.unparse(call.func) == "find_spec")
    return {call.args[0].value for call in specs if isinstance(call.args[0], ast.Constant)}


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["configs", "rewards", "stages", "weft_rl"])
def test_imports_of_the_package_are_declared(folder):
    wrong = []
    for path in (ROOT / folder).rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for module in {*imported(ast.walk(tree))} - {"weft_rl"}:
            declared = DECLARED | OPTIONAL if module in guarded(tree) else DECLARED
            if undeclared(module, declared):
                wrong.append(f"{path.relative_to(ROOT)}: {module}")
    assert sorted(wrong) == []


@pytest.mark.parametrize("folder", ["benchmarks", "experiments", "tests"])
def test_top_level_imports_of_tests_and_benchmarks_are_declared(folder):
    """An import within a test may be of an extra: that test is skipped without it."""
    local = {path.stem for name in (folder, "tests") for path in (ROOT / name).rglob("*.py")}
    local |= {"benchmarks", "experiments", "helpers", "weft_rl"}
    declared = DECLARED | requirements(EXTRAS["dev"])
    wrong = [
        f"{path.relative_to(ROOT)}: {module}"
        for path in (ROOT / folder).rglob("*.py")
        for module in {*imported(ast.parse(path.read_text(encoding="utf-8")).body)} - local
        if undeclared(module, declared)
    ]
    assert sorted(wrong) == []


def pins(name):
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if "==" in line and line[0] != "#"]
    return {canonicalize_name(package): Version(version) for package, version in pairs}


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-py312.txt"])
def test_pinned_versions_fit_the_declarations(name):
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
