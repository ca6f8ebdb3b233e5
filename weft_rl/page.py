"""Self-contained HTML pages from the templates, for the reports."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from weft_rl.runs import write_text


def write_page(template: str, path: Path, **values: Any) -> Path:
    """Render templates/<template> into a file, whole or not at all; returns its path.

    Values are escaped unless they are markup. Raises jinja2.UndefinedError for a name that the
    template uses and `values` lacks."""
    environment = Environment(
        loader=PackageLoader("weft_rl"),
        autoescape=True,
        undefined=StrictUndefined,  # a misspelt name must not become an empty place
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(template).render(**values)
    # a model's text may hold half a surrogate pair, which no encoding writes
    write_text(path, page.encode("utf-8", "replace").decode("utf-8"))
    return path
