"""The report: `python benchmarks/report.py benchmarks/results/*.json -o report.html`. One self-contained page; nothing is measured here.

Its tables are the blocks of the documents (benchmarks/blocks.py), so README and report cannot disagree. A part whose results are missing, or were
measured with another codec than the shipped weights, says so.
"""
from __future__ import annotations

import argparse
import html
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if not __package__:     # run as a script: its own folder is on the path, the checkout is not
    sys.path[:1] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[1] / "runtime")]

from benchmarks import report_plots as plots
from benchmarks import speed_blocks
from benchmarks.blocks import BLOCKS
from benchmarks.readme import RESULTS, shipped_hash
from benchmarks.report_page import Section, figure, markdown, missing, page
from benchmarks.sources import SOURCES, NotMeasuredError, Sources
from remac_runtime import fit
from remac_runtime.bench import harness as bench
from remac_runtime.bench.command import lines
from remac_runtime.bench.files import load_result
from remac_runtime.boards import load_boards, unknown
from remac_runtime.errors import RemacError
from remac_runtime.exits import reported
from remac_runtime.files import write_atomically

ROOT = Path(__file__).resolve().parents[1]
BOARD_FIGURES = Path("boards", "figures.json")
OUT = Path("report.html")
LIMIT_BYTES = 1 << 20
TITLE = "remac: what the encoder costs, and what it gives"


@dataclass(frozen=True)
class Material:
    """What the page is made of: results by name, and runs of `remac bench`."""

    sources: Sources
    runs: tuple[Mapping[str, Any], ...]


def read(paths: Sequence[Path], root: Path) -> Material:
    """Sort the files: runs of `remac bench` are recognised by their kind, the others by their name. Raises RemacError.

    Results of another codec than the shipped weights are left out, as in the documents.
    """
    runs, contents = [], {}
    for path in [*(paths or _all_results(root)), root / BOARD_FIGURES]:
        content = _json(path)
        if isinstance(content, dict) and content.get("kind") == bench.KIND:
            runs.append(load_result(path))
        for name in (name for name, source in SOURCES.items() if Path(source.file).name == path.name):
            hashes, shipped = SOURCES[name].codec_hashes(content), shipped_hash(root, SOURCES[name].profile)
            if hashes is None or hashes == {shipped}:
                contents[name] = content
            else:
                print(f"report: {path} is of codec {', '.join(sorted(hashes))}, the shipped one is {shipped}: left out", file=sys.stderr)
    return Material(Sources(contents, root), tuple(runs))


def _all_results(root: Path) -> list[Path]:
    folder = root / RESULTS
    return [*sorted(folder.glob("*.json")), *sorted((folder / "boards").glob("*.json"))]


def _json(path: Path) -> Any:
    if not path.is_file():
        raise RemacError(f"{path}: {unknown('results file', path.name, [known.name for known in path.parent.glob('*.json')] or ['nothing here'])}")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RemacError(f"{path}: not JSON ({error}): measure it again") from None


def block(material: Material, name: str) -> str:
    """A block of the documents as HTML."""
    try:
        return markdown(BLOCKS[name](material.sources))
    except NotMeasuredError as error:
        return missing(f"benchmarks/results/{error}")


def plotted(make: Callable[[], str], caption: str) -> str:
    """A plot, or what it needs."""
    try:
        return figure(make(), caption)
    except NotMeasuredError as error:
        return missing(f"benchmarks/results/{error}")


# ---- sections

def _rate(material: Material) -> str:
    sources = material.sources
    try:
        curves = "".join(figure(svg, title) for title, svg in plots.rate_distortion(sources["rd"]))
    except NotMeasuredError as error:
        curves = missing(f"benchmarks/results/{error}")
    return f'<div class="pair">{curves}</div>' + block(material, "rd") + "<h3>By range of qualities</h3>" + block(material, "rd-ranges")


def _cost(material: Material) -> str:
    sources = material.sources
    return plotted(lambda: plots.rate_against_cost(speed_blocks.speed_of(sources)),
                   "Down and to the left is better. One picture, every codec at our PSNR on it; one thread, same run.") + block(material, "macs")


def _speed(material: Material) -> str:
    sources = material.sources
    bars = plotted(lambda: plots.latency_bars(speed_blocks.speed_of(sources), ("ours", "classic"), "speed", "encode times"),
                   "Pixels to bytes, one thread. Bar: median; whisker: fastest sample to 90th percentile.")
    return bars + block(material, "speed")


def _networks(material: Material) -> str:
    def bars() -> str:
        result = speed_blocks.speed_of(material.sources)
        if not speed_blocks.of_kind(result, "network"):
            raise NotMeasuredError("speed.json")
        return plots.latency_bars(result, ("network",), "networks", "times of networks")
    return plotted(bars, "Networks only, no entropy coder, one thread.") + block(material, "networks")


def _runs(material: Material) -> list[Mapping[str, Any]]:
    return sorted((run for run in material.runs if run["emulated"] is None), key=lambda run: (
        run["board"] or "", run["settings"]["backend"], run["settings"]["threads"], -run["picture"]["width"]))


def _stages(material: Material) -> str:
    runs = _runs(material)
    if not runs:
        return missing("benchmarks/results/boards/*.json")
    spoilt = [run for run in runs if not run["valid"]]
    warning = f'<p class="warning">{len(spoilt)} of {len(runs)} runs are not valid measurements: see their warnings.</p>' if spoilt else ""
    return warning + figure(plots.stage_bars(runs), "Medians of each stage; exclusive times of runs with probes.") + _emulated(material) \
        + "<h3>Before, after, and the least that the core could need</h3>" + block(material, "stages")


def _emulated(material: Material) -> str:
    runs = [run for run in material.runs if run["emulated"] is not None]
    return "".join(f"<p>{html.escape(next(lines(run)))}: bytes verified; emulated, so its times are not shown.</p>" for run in runs)


def _memory(material: Material) -> str:
    runs = [run for run in _runs(material) if run["memory"]["available"]]
    if not runs:
        return missing("benchmarks/results/boards/*.json")
    return figure(plots.memory_bars(runs), "Measured in a fresh process; predicted from the sizes and life times of the tensors.")


def _boards(material: Material) -> str:
    def bars() -> str:
        packed = fit.from_json(material.sources["boards"])
        found = [(board.id, prediction.basis, prediction.seconds) for board in load_boards()
                 for prediction in fit.predict(board, speed_blocks.PROFILE, *speed_blocks.FRAME, figures=packed)[:1]]
        return plots.board_bars(sorted(found, key=lambda entry: entry[2]))
    return plotted(bars, "Predictions, one thread, the fastest runtime that needs no building.") + block(material, "boards") \
        + "<h3>Where predictions can be checked</h3>" + block(material, "prediction-error")


def _checks(material: Material) -> str:
    return block(material, "checks") + "<h3>Damaged streams</h3>" + block(material, "corruption")


SECTIONS: Mapping[str, tuple[str, Callable[[Material], str]]] = {
    "rate": ("Rate and distortion", _rate), "cost": ("Rate against encode cost", _cost), "speed": ("Encode time", _speed),
    "networks": ("Beside float and other networks", _networks), "stages": ("Where the time goes", _stages), "memory": ("Memory", _memory),
    "boards": ("Boards", _boards), "limits": ("Limits", lambda material: block(material, "limits")), "checks": ("Checks", _checks),
}


def _sections(material: Material) -> Iterator[Section]:
    yield Section("summary", "In short", block(material, "headline"))
    for anchor, (title, body) in SECTIONS.items():
        yield Section(anchor, title, body(material))


def make(material: Material) -> str:
    """The page."""
    lead = (f"Codec <code>{shipped_hash(material.sources.root) or 'unknown'}</code>. Every figure comes from a results file of the checkout; how "
            "they are measured is in <code>benchmarks/RULES.md</code>. Figures of boards are predictions unless they say otherwise.")
    return page(TITLE, lead, list(_sections(material)), "Made by <code>python benchmarks/report.py</code>.")


@reported
def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page; 1 with one line on standard error where it cannot."""
    parser = argparse.ArgumentParser(prog="python benchmarks/report.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     epilog="example:\n  python benchmarks/report.py benchmarks/results/*.json benchmarks/results/boards/*.json "
                                            "-o docs/report.html\n")
    parser.add_argument("results", nargs="*", type=Path, metavar="RESULT.json",
                        help="results files; by default all of the checkout")
    parser.add_argument("-o", "--output", type=Path, default=OUT, metavar="FILE.html")
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    content = make(read(options.results, options.root)).encode()
    if len(content) > LIMIT_BYTES:
        print(f"report: warning: {len(content)} bytes, meant to be below {LIMIT_BYTES}", file=sys.stderr)
    write_atomically(options.output, content)
    print(f"{options.output}: {len(content) / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
