"""Drawings of figures, as SVG to stand within a page."""

import dataclasses
import io
import re
from typing import Any

import markupsafe
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from stages.results import Row, label, percent

# Drawings are made in stand-ins for colours, and the page's style says what each of them is, so
# that one drawing is right on light and on dark paper.
_INK, _RULE, _PAPER, *_PAINTS = (f"#f0f0{number:02}" for number in range(9))
_MARKERS = "osD^vP"
_LONGEST = 24  # characters of a name beside a square, which long ones would leave no room
_STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name may hold $
    "svg.hashsalt": "report",  # the same ids in every run
    "font.size": 10,
    "legend.frameon": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    **dict.fromkeys(("axes.spines.left", "axes.spines.right", "axes.spines.top"), False),
    **dict.fromkeys(("xtick.major.size", "ytick.major.size"), 0),
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), _INK),
    **dict.fromkeys(("axes.edgecolor", "grid.color"), _RULE),
}


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of a drawing.

    Attributes:
        name: in the legend.
        points: (x, y) pairs, y from 0 to 1.
        number: which paint and marker it has.
        dashed: whether it is.
    """

    name: str
    points: list[tuple[float, float]]
    number: int
    dashed: bool = False


def dots(
    *, name: str, rows: list[Row], distances: list[str], measure: str, chance: float, **_: Any
) -> markupsafe.Markup:
    """Draw each figure with its interval, in a band for each layer's codes and for pixels."""
    bands: dict[tuple, list[Row]] = {}
    for row in rows:
        bands.setdefault((row.experiment, row.layer), []).append(row)
    paints = [(_PAINTS[index % 6], _MARKERS[index % 6]) for index in range(len(distances))]
    lines = len(distances) + 1.4  # of a band: its title, a line a distance, a gap
    with matplotlib.rc_context(_STYLE):
        figure = Figure((3.9, 1.1 + 0.18 * lines * len(bands)), layout="constrained")
        axes = figure.subplots()
        axes.set(ylim=(lines * len(bands) - 0.7, -1), yticks=[], xlabel=f"{label(measure)}, %")
        left, top = axes.get_yaxis_transform(), axes.get_xaxis_transform()
        axes.axvline(100 * chance, color=_INK, linewidth=1, linestyle=(0, (4, 3)))
        axes.text(100 * chance, 1.01, f"chance {percent(chance)} %", transform=top)
        for number, ((experiment, layer), members) in enumerate(bands.items()):
            title = f"{experiment}: {label(layer)}" if experiment else label(layer)
            behind = {"facecolor": _PAPER, "edgecolor": "none", "pad": 1}
            axes.text(0, lines * number, title, transform=left, va="center", bbox=behind)
            for row in members:
                for line, (distance, paint) in enumerate(zip(distances, paints, strict=True), 1):
                    if figures := row.figures.get(distance):
                        ends = figures["ci95_low"], figures[measure], figures["ci95_high"]
                        _dot(axes, lines * number + line, *ends, *paint, filled=row.trained)
        handles = [
            Line2D([], [], color=color, marker=marker, linestyle="", label=label(distance))
            for distance, (color, marker) in zip(distances, paints, strict=True)
        ]
        spacing = {"handletextpad": 0, "columnspacing": 1}
        figure.legend(handles=handles, loc="outside upper left", ncols=2, **spacing)
        return as_svg(figure, f"dots-{name}")


def _ends(low: float, value: float, high: float) -> list[list[float]]:
    """Return how far an interval reaches to both sides, in percent; few resamples may miss it."""
    return [[100 * max(value - low, 0)], [100 * max(high - value, 0)]]


def _dot(axes, y, low, value, high, color, marker, *, filled) -> None:
    """Draw one figure, from 0 to 1, with its interval; a hollow one stands a little lower."""
    inside = color if filled else _PAPER
    axes.errorbar(
        100 * value,
        y if filled else y + 0.3,
        xerr=_ends(low, value, high),
        fmt=marker,
        color=color,
        markersize=4.5,
        markerfacecolor=inside,
    )


def lines(
    name: str, drawn: list[Line], *, x: str, y: str, scale: str = "linear", top: float | None = None
) -> markupsafe.Markup:
    """Draw lines.

    Args:
        name: of the drawing.
        drawn: the lines.
        x: what the horizontal axis shows; whole numbers if they are `ways`.
        y: what the vertical one shows, in percent.
        scale: of the horizontal axis: linear, log, or symlog, which has a place for 0.
        top: the highest figure of several drawings side by side; None for a drawing by itself.
    """
    with matplotlib.rc_context(_STYLE):
        longest = max((len(line.name) for line in drawn), default=0)
        size = max(4.2, 0.5 + 0.061 * longest), 2.9 + 0.2 * len(drawn)  # so names are not cut off
        figure = Figure(size, layout="constrained")
        axes = figure.subplots()
        for line in drawn:
            axes.plot(
                [point[0] for point in line.points],
                [100 * point[1] for point in line.points],
                "--" if line.dashed else ("-", "-.", ":")[line.number // 6 % 3],
                color=_PAINTS[line.number % 6],
                marker=_MARKERS[line.number % 6],
                markersize=3.5,
                label=line.name,
            )
        if scale != "linear":
            axes.set_xscale(scale, base=2)
            ticks = sorted({point[0] for line in drawn for point in line.points})
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.minorticks_off()
        else:
            axes.xaxis.set_major_locator(MaxNLocator(integer=x == "ways"))
        if top:
            axes.set_ylim(0, 105 * top)
        axes.set(xlabel=x, ylabel=f"{y}, %")
        figure.legend(fontsize=8, loc="outside lower left")
        return as_svg(figure, name)


def searches(name: str, found: dict[str, dict[str, float]]) -> markupsafe.Markup:
    """Draw how many of the ten nearest images each index finds, by the time of a query.

    Args:
        name: of the drawing.
        found: by index, its figures, `recall_at_10` and `query_milliseconds` among them.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure((4.8, 3.8), layout="constrained")
        axes = figure.subplots()
        for number, (index, figures) in enumerate(found.items()):
            place = figures["query_milliseconds"], 100 * figures["recall_at_10"]
            paint = _PAINTS[(number + number // 6) % 6]  # so that 36 differ in one of the two
            axes.plot(*place, _MARKERS[number % 6], color=paint, markersize=5, label=index)
        axes.set(xscale="log", ylim=(0, 110), xlabel="milliseconds a query")
        axes.set(yticks=range(0, 101, 20), ylabel=f"{label('recall_at_10')}, %")
        figure.legend(fontsize=8, loc="outside lower left", ncols=2)
        return as_svg(figure, name)


def heat(name: str, rates: np.ndarray, names: list[str]) -> markupsafe.Markup:
    """Draw a square of rates from 0 to 1, a row and a column for each name.

    The more, the denser; rates of a tenth and more stand in it as numbers, in percent.

    Args:
        name: of the drawing.
        rates: float (n, n).
        names: of its rows and, the same, of its columns.
    """
    count = len(names)
    densest = 0.5 / max(np.nanmax(rates), 0.01)  # so that ink is read on it
    with matplotlib.rc_context(_STYLE):
        figure = Figure((1.6 + 0.26 * count,) * 2, layout="constrained")
        axes = figure.subplots()
        axes.set(xlim=(-0.5, count - 0.5), ylim=(count - 0.5, -0.5), aspect="equal")
        axes.grid(visible=False)
        for row, column in np.argwhere(rates >= 0.005):
            rate = rates[row, column]
            style = {"color": _PAINTS[0], "alpha": rate * densest, "linewidth": 0}
            axes.add_patch(Rectangle((column - 0.46, row - 0.46), 0.92, 0.92, **style))
            if rate >= 0.095:
                axes.text(column, row, f"{100 * rate:.0f}", ha="center", va="center", fontsize=6.5)
        words = [_shortened(label(each)) for each in names]
        axes.set_xticks(range(count), words, rotation=90, fontsize=8)
        axes.set_yticks(range(count), words, fontsize=8)
        axes.set(xlabel="chosen", ylabel="query")
        return as_svg(figure, name)


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1].rstrip()}…"


def curves(history: list[dict[str, float]], name: str) -> markupsafe.Markup:
    """Draw the course of loss and, where there is one, of accuracy over the epochs."""
    quantities = [each for each in ("loss", "accuracy") if each in history[0]]
    epochs = [row["epoch"] for row in history]
    with matplotlib.rc_context(_STYLE):
        figure = Figure((3.6, 0.6 + 1.3 * len(quantities)), layout="constrained")
        panels = figure.subplots(len(quantities), sharex=True, squeeze=False)[:, 0]
        for axes, quantity in zip(panels, quantities, strict=True):
            for key, title, line in (
                (quantity, "training", ".-"),
                (f"val_{quantity}", "validation", ".--"),
            ):
                if key in history[0]:
                    values = [row[key] for row in history]
                    axes.plot(
                        epochs,
                        values,
                        line,
                        color=_PAINTS[key != quantity],
                        label=title,
                        markersize=4,
                    )
            axes.set_ylabel(quantity)
            axes.grid(axis="x", visible=False)
        handles, titles = panels[0].get_legend_handles_labels()
        figure.legend(handles, titles, loc="outside upper right", ncols=2)
        panels[-1].set_xlabel("epoch")
        panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
        return as_svg(figure, f"curves-{name}")


def ranges(
    name: str, rows: list[tuple[str, dict[str, float], float]], measure: str
) -> markupsafe.Markup:
    """Draw figures with their intervals, a line each, beside their chance.

    Args:
        name: of the drawing.
        rows: what is measured, its figures, and chance.
        measure: the name of the figure.
    """
    with matplotlib.rc_context(_STYLE):
        longest = max((len(row[0]) for row in rows), default=0)
        size = 3.8 + 0.07 * longest, 0.9 + 0.3 * len(rows)  # so names leave the bars their room
        figure = Figure(size, layout="constrained")
        axes = figure.subplots()
        highest = max((row[1]["ci95_high"] for row in rows), default=1)
        axes.set(ylim=(len(rows) - 0.4, -0.6), xlabel=f"{label(measure)}, %")
        axes.set_xlim(0, min(100, 110 * highest))
        axes.set_yticks(range(len(rows)), [row[0] for row in rows])
        axes.grid(axis="y", visible=False)
        for place, (_, figures, chance) in enumerate(rows):
            value = 100 * figures[measure]
            axes.barh(place, value, height=0.55, color=_PAINTS[0])
            ends = _ends(figures["ci95_low"], figures[measure], figures["ci95_high"])
            axes.errorbar(value, place, xerr=ends, fmt="none", ecolor=_INK, capsize=3)
            axes.plot([100 * chance] * 2, [place - 0.4, place + 0.4], color=_INK, linestyle="--")
        return as_svg(figure, name)


def as_svg(figure: Figure, name: str) -> markupsafe.Markup:
    """Return a figure as SVG to stand within a page, its colours left to the page's style."""
    text = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    svg = text.getvalue()
    svg = re.sub(r"#f0f0(\d\d)", r"var(--paint-\1)", svg[svg.index("<svg") :])
    # An id is to be the only one of a page that holds many drawings.
    return markupsafe.Markup(re.sub(r'( id="|url\(#|href="#)', rf"\1{name}-", svg))
