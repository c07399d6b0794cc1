"""The pages' templates: they put what they are given into words and tables, and escape it."""

from pathlib import Path
from typing import Any

import jinja2

from stages.results import label, percent


def filled(template: str, **content: Any) -> str:
    """Return a template of this folder filled with `content`; what it lacks is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"label": label, "percent": percent}
    return environment.get_template(template).render(content)
