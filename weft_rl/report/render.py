"""Self-contained HTML pages from the templates, for the reports."""

from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from weft_rl.io.terminal import escape
from weft_rl.runs.atomic_io import write_text


def write_page(template: str, path: Path, **values: Any) -> Path:
    """Render templates/<template> into a file, whole or not at all; returns its path.

    Values are escaped unless they are markup. Raises jinja2.UndefinedError for a name that the
    template uses and `values` lacks."""
    environment = Environment(
        loader=PackageLoader("weft_rl.report"),
        autoescape=True,
        undefined=StrictUndefined,  # a misspelt name must not become an empty place
        trim_blocks=True,
        lstrip_blocks=True,
    )
    loader = environment.loader
    script = "" if loader is None else loader.get_source(environment, "interactive.js")[0]
    # the page allows this script and no other, whatever a model wrote
    digest = b64encode(sha256(script.encode()).digest()).decode()
    page = environment.get_template(template).render(
        script=Markup(script), script_hash=f"sha256-{digest}", **values
    )
    write_text(path, escape(page))  # half a surrogate pair, for one, has no encoding
    return path
