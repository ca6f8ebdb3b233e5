"""Self-contained HTML pages from the templates."""

from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from weft_rl.io.terminal import escape
from weft_rl.runs.atomic_io import write_text


def write_page(template: str, path: Path, **values: Any) -> Path:
    """Render templates/<template> into a file atomically and return its path.

    Values are escaped unless they are markup. Raises jinja2.UndefinedError for a missing value."""
    environment = Environment(
        loader=PackageLoader("weft_rl.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (Path(__file__).parent / "templates" / "interactive.js").read_text(encoding="utf-8")
    # the content security policy allows only this script: completions are untrusted
    digest = b64encode(sha256(script.encode()).digest()).decode()
    page = environment.get_template(template).render(
        script=Markup(script), script_hash=f"sha256-{digest}", **values
    )
    write_text(path, escape(page))  # lone surrogates cannot be encoded
    return path
