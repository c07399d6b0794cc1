"""The pages' templates: they put what they are given into words and tables, and escape it."""

import datetime
import hashlib
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import jinja2

from stages import params
from stages.results import label, minutes, percent, points

_PACKAGES = ("numpy", "scipy", "scikit-learn", "matplotlib", "pillow")  # that figures come from


def provenance(settings: params.Params, datasets: list[str]) -> dict[str, str]:
    """Return what a page was made from: revision, params, seed, pixels, and how and when."""
    digest = hashlib.sha256(Path("params.yaml").read_bytes()).hexdigest()
    pixels = {
        f"sha256 of the pixels of {name}, {part}": found
        for name in datasets
        for part, found in settings.dataset(name).pixels.items()
    }
    return {
        "git revision": revision(),
        "sha256 of params.yaml": digest,
        "seed": str(settings.seed),
        **pixels,
        "packages": f"Python {platform.python_version()}, "
        + ", ".join(f"{name} {metadata.version(name)}" for name in _PACKAGES),
        "machine": f"{platform.system()}, {platform.machine()}, {os.cpu_count()} cores",
        "made": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def revision() -> str:
    """Return the revision of this checkout, and whether anything that is tracked was changed."""
    try:
        head, changed = (
            subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout
            for words in (
                ("rev-parse", "HEAD"),
                ("status", "--porcelain", "--untracked-files=no", "--", "stages", "params.yaml"),
            )
        )
    except (OSError, subprocess.CalledProcessError):
        return "none: not in a git checkout"
    return head.strip() + (", with changes" if changed else "")


def filled(template: str, **content: Any) -> str:
    """Return a template of this folder filled with `content`; what it lacks is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    filters = {"label": label, "minutes": minutes, "percent": percent, "points": points}
    environment.filters |= filters
    return environment.get_template(template).render(content)
