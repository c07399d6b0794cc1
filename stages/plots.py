"""Stage `plots`: the page into which `dvc plots show` puts its plots, without a network.

->  data/plots/offline.html. DVC's own page loads Vega from a server; this one holds it. It is made
and not committed, since it is the code of others: Vega, as the package vl-convert-python has it.
"""

from pathlib import Path

import vl_convert

from stages import files
from stages.command import run

# DVC puts its plots where {plot_divs} stands; without {scripts} it adds no script from outside.
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
{refresh_tag}
<title>Plots</title>
<style>body { font-family: system-ui, sans-serif; margin: 1rem }</style>
<script>(() => {
VEGA
})()</script>
</head>
<body>
{plot_divs}
</body>
</html>
"""


def main() -> None:
    """Write the page."""
    page = _PAGE.replace("VEGA", vl_convert.javascript_bundle())
    files.write_text(Path("data/plots/offline.html"), page)


if __name__ == "__main__":
    run(main)
