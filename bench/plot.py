"""The plot of `make bench`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Readable on white and on black
TEXT = "#7a828e"
COLOURS = {"AGS": "#e07b39", "floor": "#8b95a5", "AGS fae518b": "#edb48c"}
PEER = "#3f8fd2"


def draw(figures: Mapping[str, Mapping[str, Any]], caption: str, file: Path) -> None:
    """Draw the session tokens per second of each system, and the 99th percentile of its latencies."""
    # Imported here because it is slow, and needed by a whole run only
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    names = sorted(figures, key=lambda name: figures[name]["per_second"])
    plt.rcParams.update(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "AGS",
            "font.family": "sans-serif",
            "font.size": 11,
            **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), TEXT),
        }
    )
    canvas, axes = plt.subplots(
        1, 2, figsize=(9.5, 0.9 + 0.5 * len(names)), sharey=True, layout="constrained"
    )
    colours = [COLOURS.get(name, PEER) for name in names]
    for axis, figure, title in zip(
        axes,
        ("per_second", "p99"),
        ("tokens per second (more is better)", "p99, ms (less is better)"),
        strict=True,
    ):
        values = [figures[name][figure] for name in names]
        bars = axis.barh(names, values, color=colours, height=0.62)
        axis.bar_label(bars, [f"{value:,.0f}" for value in values], padding=6)
        axis.set_title(title, loc="left", fontsize=11, color=TEXT)
        axis.set_xlim(0, max(values) * 1.18)
        axis.xaxis.set_visible(False)
        axis.tick_params(left=False)
        axis.spines[:].set_visible(False)
    canvas.supxlabel(caption, fontsize=9)
    canvas.savefig(file, transparent=True, metadata={"Date": None})
    plt.close(canvas)
