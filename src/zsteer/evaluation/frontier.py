"""The frontier of steering: what else changed, against how much the judge saw the target change."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from zsteer.pictures import Png, png_of

MAX_LABELLED = 10  # lines whose points have room for labels

Interval = tuple[float, float]


@dataclass(frozen=True)
class Point:
    """Mean attribute dependency at a mean judged gain, in σ, with 95 % intervals; a gain that was set has none."""

    gain: float
    dependency: float
    dependency_interval: Interval
    gain_interval: Interval | None = None
    label: str = ""


def draw_frontier(
    lines: Mapping[str, Sequence[Point]], bold: Collection[str] = (), black: str | None = None, title: str = ""
) -> Png:
    """Attribute dependency against judged gain, a line for each name: bands where the gain was set, else error bars.

    Args:
        bold: names of lines that are drawn wider; `black`: of the one that is drawn in black.
    """
    import matplotlib  # here, because that takes a second
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5.5), dpi=120, layout="constrained")
    axes = figure.subplots()
    few = len(lines) <= MAX_LABELLED
    colours = matplotlib.colormaps["tab10" if few else "tab20" if len(lines) <= 20 else "gist_ncar"]
    for number, (name, points) in enumerate(lines.items()):
        gains, dependencies = [point.gain for point in points], [point.dependency for point in points]
        colour = "black" if name == black else colours(number if len(lines) <= 20 else 0.95 * number / len(lines))
        width = 2 if name in bold else 1
        if any(point.gain_interval is None for point in points):
            low, high = zip(*(point.dependency_interval for point in points), strict=True)
            axes.plot(gains, dependencies, marker="o", markersize=3, linewidth=width, label=name, color=colour)
            axes.fill_between(gains, low, high, alpha=0.12, color=colour, linewidth=0)
            continue
        errors = [
            _distances(gains, [point.gain_interval or (point.gain, point.gain) for point in points]),
            _distances(dependencies, [point.dependency_interval for point in points]),
        ]
        axes.errorbar(
            gains,
            dependencies,
            xerr=errors[0],
            yerr=errors[1],
            marker="o",
            markersize=4,
            linewidth=width + 0.5,
            color=colour,
            elinewidth=0.5,
            label=name,
        )
        for point in points if few else ():
            at = (point.gain, point.dependency)
            axes.annotate(point.label, at, xytext=(4, 4), textcoords="offset points", fontsize=7)
    axes.set_xlabel("judged gain (σ of the target's logit)")
    axes.set_ylabel("attribute dependency (mean |Δ|/σ of the others)")
    axes.grid(alpha=0.3)
    if lines:
        figure.legend(loc="outside right upper", fontsize=8 if len(lines) <= 20 else 5)
    axes.set_title(title)
    return png_of(figure)


def _distances(means: Sequence[float], intervals: Sequence[Interval]) -> list[list[float]]:
    """How far the ends of intervals lie from their means, as matplotlib wants error bars: `[2, points]`."""
    return [[abs(mean - interval[end]) for mean, interval in zip(means, intervals, strict=True)] for end in (0, 1)]
