"""The results as pictures for the docs: SVG that follows the reader's light or dark mode."""

from __future__ import annotations

import io
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import peer_tasks, peers
from benchmarks.figures import BYTES, Row
from benchmarks.results import Results

DARK = {"#1f2328": "#e6edf3", "#656d76": "#9198a1", "#d0d7de": "#3d444d"}  # what each colour is in dark mode
INK, MUTED, LINES = DARK
COLOURS = ("#2f81f7", "#d97706", "#2da44e", "#a371f7")
SHIM, STOCK = COLOURS[:2]
STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": LINES,
    "axes.grid": True,
    "axes.labelcolor": MUTED,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "figure.constrained_layout.use": True,
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "grid.color": LINES,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "svg.fonttype": "none",
    "svg.hashsalt": "tmp_redirect",
    "text.color": INK,
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
}


def costs(results: Results, file: Path) -> None:
    """Draw the ratios beside their targets, and what peers cost."""
    _draw(file, (9, 9.5), lambda figure: _costs(figure, results.rows))


def growth(results: Results, file: Path) -> None:
    """Draw what happens with ever more tasks, threads and workspaces."""
    _draw(file, (9, 9), lambda figure: _growth(figure, [row for row in results.rows if row.at is not None]))


def _draw(file: Path, size: tuple[float, float], fill: Callable[[Any], None]) -> None:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size)
        figure.patch.set_visible(False)
        fill(figure)
        for axes in figure.axes:
            axes.patch.set_visible(False)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    rules = "".join(
        f'[style*="{what}: {light}"] {{ {what}: {dark} !important }}\n'
        for light, dark in DARK.items()
        for what in ("fill", "stroke")
    )
    style = f"<style>\n@media (prefers-color-scheme: dark) {{\n{rules}}}\n</style>\n"
    lines = text.getvalue().replace(" <defs>", f"{style} <defs>", 1).splitlines()
    file.write_text("\n".join(line.rstrip() for line in lines) + "\n")


def _costs(figure: Any, rows: Sequence[Row]) -> None:
    upper, lower = figure.subfigures(2, 1, height_ratios=(2, 1))
    for part in (upper, lower):
        part.patch.set_visible(False)
    _ratios(upper.subplots(), [row for row in rows if row.target.ratio is not None and row.at is None])
    left, right = lower.subplots(1, 2)
    starts = [row for row in rows if row.what == f"python -c pass{peers.BESIDE}"]
    _bars(left, starts, 1e3, title="added to python -c pass: ms", xscale="log")
    tasks = [row for row in rows if row.what == f"{peer_tasks.WHAT['one_file']}{peer_tasks.BESIDE}"]
    _bars(right, tasks, 1e6, title="added to a Celery task with a temp file: µs")


def _ratios(axes: Any, rows: Sequence[Row]) -> None:
    if not rows:
        axes.set_axis_off()
        return
    names = list(dict.fromkeys(row.what for row in rows))
    versions = list(dict.fromkeys(row.python for row in rows))
    for number, version in enumerate(versions):
        own = [row for row in rows if row.python == version]
        axes.errorbar(
            [row.ratio.median for row in own],
            [names.index(row.what) + (number - (len(versions) - 1) / 2) * 0.18 for row in own],
            xerr=[
                [row.ratio.median - row.ratio.low for row in own],
                [row.ratio.high - row.ratio.median for row in own],
            ],
            fmt="o",
            markersize=4,
            color=COLOURS[number % len(COLOURS)],
            label=version,
        )
    aims = [next(row.target.ratio for row in rows if row.what == name) for name in names]
    axes.plot(aims, range(len(names)), "|", color=INK, markersize=14, markeredgewidth=2, label="aim: at most")
    axes.set(title="times of the same without the shim, with 95 % intervals", xscale="log")
    axes.set_yticks(range(len(names)), names)
    axes.set_xticks([0.5, 0.6, 0.8, 1, 1.2, 1.5, 2, 3, 4], ["0.5", "0.6", "0.8", "1", "1.2", "1.5", "2", "3", "4"])
    axes.minorticks_off()
    axes.invert_yaxis()
    axes.legend(loc="upper right")


def _bars(axes: Any, rows: Sequence[Row], scale: float, **more: str) -> None:
    """A bar for each side: the median over the interpreters."""
    if not rows:
        axes.set_axis_off()
        return
    sides = list(dict.fromkeys(row.side for row in rows))
    added = [statistics.median(row.added.median for row in rows if row.side == side) * scale for side in sides]
    bars = axes.barh(sides, added, color=[COLOURS[0], *[COLOURS[1]] * len(sides)][: len(sides)], height=0.6)
    axes.bar_label(bars, [f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for value in added], padding=3)
    axes.set(**more)
    axes.margins(x=0.2)
    axes.invert_yaxis()


def _growth(figure: Any, rows: Sequence[Row]) -> None:
    panels = (
        ("prefork worker, RSS", "memory added since the first point: MiB", "tasks", 2**-20),
        ("prefork worker, a task", "a task: ms", "tasks of distinct workflows", 1e3),
        ("tempfile.gettempdir(), threads", "gettempdir(): µs", "threads", 1e6),
        ("NamedTemporaryFile create and close, threads", "NamedTemporaryFile: µs", "threads", 1e6),
        ("Thread start and join, threads", "a thread, started and joined: µs", "threads", 1e6),
        ("Celery task of a new workflow, workspaces", "a task: ms", "workspaces in the root", 1e3),
        ("sweep, all young; find -newermt", "sweep (stock: find): s", "workspaces in the root", 1),
    )
    axes = figure.subplots(4, 2).flat
    for panel, (what, title, label, scale) in zip(axes, panels, strict=False):
        own = [row for row in rows if row.what == what]
        if not own:
            panel.set_axis_off()
            continue
        for name, colour, values in (
            ("stock", STOCK, [row.stock for row in own]),
            ("shim", SHIM, [row.shim for row in own]),
        ):
            shown = [value - values[0] for value in values] if own[0].unit == BYTES else values
            panel.plot([row.at for row in own], [value * scale for value in shown], "o-", color=colour, label=name)
        panel.set(title=title, xlabel=label, xscale="log")
        panel.set_xticks([row.at for row in own], [f"{row.at:,}" for row in own])
        panel.minorticks_off()
        panel.margins(y=0.2)
        if what.startswith("sweep"):
            panel.set_yscale("log")
        elif own[0].unit != BYTES:
            panel.set_ylim(0, 1.2 * scale * max(max(row.shim, row.stock) for row in own))
    figure.axes[0].axhline(1, color=INK, linestyle=":", label="aim: at most")
    figure.axes[-1].set_axis_off()
    figure.axes[-1].legend(*figure.axes[0].get_legend_handles_labels(), loc="center")
