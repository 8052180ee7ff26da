"""Plots of the report as inline SVG: matplotlib, text as text, in the colours of the page (light and dark)."""
from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from benchmarks.rd import PEER_TITLES, SET_TITLES, SVG_SALT
from benchmarks.sources import NotMeasuredError
from benchmarks.speed_blocks import OURS, of_kind

INK, FAINT = "#010203", "#040506"                   # stand for the text and line colours of the page; replaced by CSS variables
SERIES = ("#d1495b", "#00798c", "#edae49", "#66a182", "#7768ae", "#2e86ab", "#a8763e", "#8f8f8f", "#c97bbf", "#4f9d69")
OURS_COLOUR = SERIES[0]
RD_OURS = ("remac-m",)


@contextmanager
def _figure(width: float, height: float, rows: int = 1, columns: int = 1) -> Iterator[tuple[Any, Any]]:
    import matplotlib
    matplotlib.use("svg")
    from matplotlib import pyplot
    style: Any = {
        "svg.fonttype": "none", "svg.hashsalt": SVG_SALT, "font.size": 10, "font.family": "sans-serif", "axes.facecolor": "none",
        "figure.facecolor": "none", "legend.frameon": False, "axes.spines.top": False, "axes.spines.right": False, "grid.linewidth": 0.4,
        **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "legend.labelcolor"), INK),
        **dict.fromkeys(("axes.edgecolor", "grid.color"), FAINT)}
    with matplotlib.rc_context(style):
        figure, panels = pyplot.subplots(rows, columns, figsize=(width, height), squeeze=False, layout="constrained")
        yield figure, panels
        pyplot.close(figure)


def _svg(figure: Any, name: str, label: str) -> str:
    """The SVG element, its colours those of the page, its identifiers prefixed so that several fit one page."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = file.getvalue()
    text = text[text.index("<svg"):]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.S).replace(INK, "var(--ink)").replace(FAINT, "var(--line)")
    text = re.sub(r'(id="|xlink:href="#|url\(#)', lambda match: match[1] + name + "-", text)
    text = re.sub(r' width="[\d.]+pt"', "", re.sub(r' height="[\d.]+pt"', "", text, count=1), count=1)
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1).replace("font: 10px 'sans-serif'", "font: 10px sans-serif").strip()


def _plain(axis: Any) -> None:
    """Numbers in place of powers of ten on a logarithmic axis."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 300 else (1,), numticks=20))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _label(figure: Any, panel: Any, points: Sequence[tuple[str, float, float]]) -> None:
    """Write a text beside each point (text, x, y), where it meets the fewest of the texts and points so far."""
    figure.draw_without_rendering()
    taken = [panel.transData.transform((x, y)) for _, x, y in points]
    boxes: list[Any] = []

    def hits(box: Any) -> int:
        return sum(box.overlaps(other) for other in boxes) + sum(box.contains(*place) for place in taken)
    for text, x, y in sorted(points, key=lambda point: -point[2]):
        tried: list[tuple[int, int, Any]] = []
        for dx, align in ((8, "left"), (-8, "right")):
            for dy in (4, -10, 14, -20):
                note = panel.annotate(text, (x, y), xytext=(dx, dy), textcoords="offset points", fontsize=9, ha=align)
                tried.append((hits(note.get_window_extent()), len(tried), note))
        tried.sort(key=lambda entry: entry[:2])
        boxes.append(tried[0][2].get_window_extent())
        for _, _, note in tried[1:]:
            note.remove()


# ---- rate

def rate_distortion(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """A plot a set of pictures: title, SVG."""
    for set_name, entry in summary["sets"].items():
        with _figure(5.8, 4.4) as (figure, panels):
            panel = panels[0][0]
            codecs = entry["codecs"]
            names = [name for name in (*RD_OURS, *PEER_TITLES) if name in codecs and len(codecs[name]["bd_rate"]) == entry["images"]]
            for number, name in enumerate(names):
                ours = name in RD_OURS
                panel.plot([point["bpp"] for point in codecs[name]["qualities"]], [point["psnr"] for point in codecs[name]["qualities"]],
                           marker="o", markersize=2.6, color=SERIES[number % len(SERIES)], linewidth=2.4 if ours else 1.1,
                           label=PEER_TITLES.get(name, "remac, rover-m"), zorder=3 if ours else 2)
            panel.set(xlabel="bits per pixel (mean)", ylabel="PSNR of RGB, dB (mean)", xscale="log")
            _plain(panel.xaxis)
            panel.grid(True, which="major")
            panel.legend(fontsize=8.5, ncols=2, loc="upper left")
            title = f"{SET_TITLES.get(set_name, set_name)} ({entry['images']} pictures)"
            yield title, _svg(figure, f"rd-{set_name}", f"PSNR over bits per pixel, {title}")


def rate_against_cost(speed: Mapping[str, Any]) -> str:
    """Bytes at equal PSNR on the timed picture, of JPEG's, over the time of an encode as a multiple of ours. Raises NotMeasuredError."""
    names = [name for name in of_kind(speed, "ours", "classic") if speed["systems"][name]["psnr"] is not None]
    if "jpeg" not in names or OURS not in names:
        raise NotMeasuredError("speed.json")
    with _figure(7.2, 4.2) as (figure, panels):
        panel, labels = panels[0][0], []
        for name in names:
            time, share = speed["pixels_to_bytes"][name]["times_ours"], 100 * speed["systems"][name]["bytes"] / speed["systems"]["jpeg"]["bytes"]
            panel.errorbar(time["p50"], share, xerr=[[time["p50"] - time["q25"]], [time["q75"] - time["p50"]]], fmt="o", markersize=7, elinewidth=1.2,
                           color=OURS_COLOUR if name.startswith(OURS) else SERIES[1])
            labels.append((speed["systems"][name]["title"], time["p50"], share))
        panel.set(xlabel="time of an encode, as a multiple of ours (log)", ylabel="bytes at equal PSNR, % of JPEG's", xscale="log")
        _plain(panel.xaxis)
        panel.grid(True, which="major")
        panel.margins(x=0.16, y=0.12)
        _label(figure, panel, labels)
        return _svg(figure, "cost", "rate over encode time")


# ---- time

def latency_bars(speed: Mapping[str, Any], kinds: Sequence[str], name: str, label: str) -> str:
    """Median encode times, whiskers from the fastest sample to the 90th percentile."""
    names = of_kind(speed, *kinds)
    names.sort(key=lambda system: -speed["pixels_to_bytes"][system]["p50_ms"])
    with _figure(7.2, 0.9 + 0.34 * len(names)) as (figure, panels):
        panel = panels[0][0]
        times = [speed["pixels_to_bytes"][system] for system in names]
        colours = [OURS_COLOUR if system.startswith((OURS, "analysis")) else SERIES[1] for system in names]
        panel.barh(range(len(names)), [time["p50_ms"] for time in times], color=colours, height=0.62)
        whiskers = [[time["p50_ms"] - time["min_ms"] for time in times], [max(0.0, time["p90_ms"] - time["p50_ms"]) for time in times]]
        panel.errorbar([time["p50_ms"] for time in times], range(len(names)), xerr=whiskers, fmt="none", ecolor=INK, elinewidth=1, capsize=2.5)
        for row, time in enumerate(times):
            panel.annotate(f"{time['p50_ms']:,.0f} ms", (max(time["p90_ms"], time["p50_ms"]), row), xytext=(6, -3.5), textcoords="offset points",
                           fontsize=9, color=INK)
        panel.set_yticks(range(len(names)), [speed["systems"][system]["title"] for system in names])
        panel.set(xlabel="milliseconds (log)", xscale="log")
        _plain(panel.xaxis)
        panel.grid(True, axis="x", which="major")
        panel.margins(x=0.12)
        return _svg(figure, name, label)


def stage_bars(results: Sequence[Mapping[str, Any]]) -> str:
    """Stages of our encoder, a bar a run of `remac bench`."""
    with _figure(7.2, 1.7 + 0.42 * len(results)) as (figure, panels):
        panel = panels[0][0]
        stages = list(results[0]["timings"]["stages"])
        left = [0.0] * len(results)
        for number, stage in enumerate(stages):
            widths = [result["timings"]["stages"][stage]["p50_ms"] / _megapixels(result) for result in results]
            panel.barh(range(len(results)), widths, left=left, color=SERIES[number % len(SERIES)], height=0.62, label=stage)
            left = [a + b for a, b in zip(left, widths, strict=True)]
        panel.set_yticks(range(len(results)), [_run_title(result) for result in results])
        panel.invert_yaxis()
        panel.set(xlabel="milliseconds per megapixel")
        panel.grid(True, axis="x")
        figure.legend(*panel.get_legend_handles_labels(), loc="outside upper left", ncols=3, fontsize=8.5)
        return _svg(figure, "stages", "time by stage")


def _megapixels(result: Mapping[str, Any]) -> float:
    return float(result["picture"]["width"] * result["picture"]["height"] / 1e6)


def _run_title(result: Mapping[str, Any]) -> str:
    picture, settings = result["picture"], result["settings"]
    return f"{settings['backend']}, {settings['threads']} thr., {picture['width']}x{picture['height']}"


# ---- memory, boards

def memory_bars(results: Sequence[Mapping[str, Any]]) -> str:
    """Memory that a picture adds, measured and predicted, a pair of bars a run."""
    with _figure(7.2, 1.4 + 0.5 * len(results)) as (figure, panels):
        panel, mib = panels[0][0], 2**20
        rows = range(len(results))
        measured = [result["memory"]["added_bytes"] / mib for result in results]
        predicted = [result["memory"]["predicted"]["added_bytes"] / mib for result in results]
        panel.barh([row - 0.19 for row in rows], measured, height=0.36, color=OURS_COLOUR, label="measured")
        panel.barh([row + 0.19 for row in rows], predicted, height=0.36, color=SERIES[1], label="predicted")
        panel.set_yticks(list(rows), [_run_title(result) for result in results])
        panel.invert_yaxis()
        panel.set(xlabel="MiB that a picture adds to the loaded codec")
        panel.grid(True, axis="x")
        figure.legend(*panel.get_legend_handles_labels(), loc="outside upper left", ncols=2, fontsize=9)
        return _svg(figure, "memory", "memory of an encode")


def board_bars(predictions: Sequence[tuple[str, str, float]]) -> str:
    """Predicted latency by board: (board, basis, seconds)."""
    with _figure(7.2, 1.0 + 0.25 * len(predictions)) as (figure, panels):
        panel = panels[0][0]
        basis = sorted({entry[1] for entry in predictions})
        for number, kind in enumerate(basis):
            rows = [row for row, entry in enumerate(predictions) if entry[1] == kind]
            panel.barh(rows, [predictions[row][2] for row in rows], color=SERIES[(number + 1) % len(SERIES)], height=0.66, label=kind)
        panel.set_yticks(range(len(predictions)), [entry[0] for entry in predictions])
        panel.invert_yaxis()
        panel.set(xlabel="seconds an encode, predicted (log)", xscale="log")
        _plain(panel.xaxis)
        panel.grid(True, axis="x", which="major")
        panel.legend(fontsize=9, loc="upper right", title="basis")
        return _svg(figure, "boards", "predicted latency by board")
