"""Packages that some options need and an installation need not have."""

from importlib.util import find_spec

from weft_rl.errors import UserError


def require_package(package: str, asked: str) -> None:
    """Raise UserError unless the package, which is an extra of that name, is installed.

    asked: the option that needs it, as `key=value`. Nothing is imported."""
    if find_spec(package) is None:
        raise UserError(
            f"{asked}: {package} is not installed; pip install 'weft-rl[{package}]', "
            "or leave it out"
        )
