"""The rate-distortion report: `python -m benchmarks.rd --codec-results benchmarks/results/rd_remac.json`.

Merges our results with those of the peers and writes `rd_summary.json` and `rd.svg` beside them, and a Markdown table to
standard output. Nothing is measured here.
"""
from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.store import RESULTS, SCHEMA, Results, load, merge, write_json
from benchmarks.summary import ANCHOR, OPERATING_QUALITY, RIVAL, CodecSummary, QualityMean, SetSummary, mean, ranges, summarise
from remac_runtime.exits import reported
from remac_runtime.files import replacing

SET_TITLES = {"test": "Curiosity, test crops", "frames": "Perseverance frames", "val": "Curiosity, validation crops"}
PEER_TITLES = {"jpeg420": "JPEG 4:2:0", "jpeg444": "JPEG 4:4:4", "webp": "WebP m6", "jpeg2000": "JPEG 2000", "avif444": "AVIF s4 4:4:4",
               "avif420": "AVIF s4 4:2:0", "avif444-iq": "AVIF s4 4:4:4, tune iq", "hevc444": "HEVC intra 4:4:4", "jpegxl": "JPEG XL e7"}
RATE_DIGITS = 5
PLOT_INCHES = (11.0, 4.6)
PLOT_TICKS_BPP = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
SVG_SALT = "remac"            # makes the identifiers in the SVG, and so the file, the same in every run


def _number(value: float, digits: int = RATE_DIGITS) -> float | None:
    """A rounded number for JSON, which has no NaN."""
    return round(value, digits) if math.isfinite(value) else None


def _quality_to_json(entry: QualityMean) -> dict[str, float | None]:
    return {"quality": entry.quality, "bpp": _number(entry.bits_per_pixel), "psnr": _number(entry.psnr_db)}


def codec_to_json(codec: CodecSummary, ours: bool) -> dict[str, Any]:
    """One codec of the summary file; ours are also compared with each of the others, and name where JPEG 2000 is smaller."""
    entry: dict[str, Any] = {
        "images_measured": codec.measured,
        "complete": codec.complete,
        "covered": _number(codec.covered),
        "bd_rate_mean": _number(codec.bd_rate_mean),
        "bytes_at_jpeg_q85": _number(codec.bytes_at_operating_point),
        "psnr_range_mean": [_number(level) for level in codec.psnr_range],
        "bpp_range": [_number(rate) for rate in codec.bits_per_pixel_range],
        "qualities": [_quality_to_json(point) for point in codec.qualities],
        "bd_rate": {key: _number(rate) for key, rate in codec.bd_rate.items()},
        "worst": {key: _number(codec.bd_rate[key]) for key in codec.worst},
    }
    if ours:
        entry["bd_rate_mean_against"] = {other: _number(mean(rates.values())) for other, rates in codec.against.items()}
        entry["costlier_than_jpeg2000"] = {key: _number(codec.rival_bd_rate[key]) for key in codec.costlier_than_rival}
    return entry


def summary_to_json(summaries: Mapping[str, SetSummary], ours: Sequence[str], results: Results) -> dict[str, Any]:
    """The content of rd_summary.json. Rates are fractions of the anchor's: -0.4 means 40 % fewer bytes."""
    sets = {}
    for set_name, summary in summaries.items():
        codecs = {name: codec_to_json(codec, name in ours) for name, codec in summary.codecs.items()}
        sets[set_name] = {"images": summary.images, "codecs": codecs}
    by_range = {name: {span: {codec: _number(rate) for codec, rate in rates.items()} for span, rates in spans.items()}
                for name, spans in ranges(results).items()}
    environment = {"versions": results.versions, "codecs": results.codecs}
    return {"schema": SCHEMA, "anchor": ANCHOR, "environment": environment, "sets": sets, "ranges": by_range}


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:+.1f} %"


def _times(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def markdown_table(summaries: Mapping[str, SetSummary], names: Sequence[str]) -> str:
    """BD-rate and bytes at the operating point, a row a codec, two columns a set; "-" where not all pictures were measured."""
    heads = [f"{SET_TITLES.get(name, name)}: BD-rate | bytes at JPEG q{OPERATING_QUALITY}" for name in summaries]
    lines = ["| codec | " + " | ".join(heads) + " |", "|---|" + "--:|--:|" * len(summaries)]
    for name in names:
        cells = [PEER_TITLES.get(name, name)]
        for summary in summaries.values():
            codec = summary.codecs.get(name)
            cells += [_percent(codec.bd_rate_mean), _times(codec.bytes_at_operating_point)] if codec and codec.complete else ["-", "-"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def remarks(summaries: Mapping[str, SetSummary], ours: Sequence[str]) -> str:
    """Below the table: the weak spots of our codecs, by name."""
    lines = []
    for set_name, summary in summaries.items():
        for name in ours:
            codec = summary.codecs.get(name)
            if codec is None:
                continue
            low, high = codec.bits_per_pixel_range
            pairs = ", ".join(f"{PEER_TITLES.get(other, other)} {_percent(mean(rates.values()))}" for other, rates in codec.against.items())
            lines.append(f"- {name} on {set_name}, BD-rate against each: {pairs}")
            lines.append(f"- {name} on {set_name}: {codec.measured} of {summary.images} pictures, {low:.2f} to {high:.2f} bits a pixel; worst "
                         + ", ".join(f"{key} {_percent(codec.bd_rate[key])}" for key in codec.worst))
            costlier = ", ".join(f"{key} {_percent(codec.rival_bd_rate[key])}" for key in codec.costlier_than_rival) or "none"
            lines.append(f"- {name} on {set_name}, costlier than {PEER_TITLES[RIVAL]}: {costlier}")
    return "\n".join(lines)


def plot(summaries: Mapping[str, SetSummary], names: Sequence[str], ours: Sequence[str], path: Path) -> None:
    """Mean PSNR against mean bits a pixel, a panel a set; an SVG with text as text."""
    import matplotlib
    matplotlib.use("svg")
    from matplotlib import pyplot
    from matplotlib.ticker import NullFormatter
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": SVG_SALT, "font.size": 9}):
        figure, panels = pyplot.subplots(1, len(summaries), figsize=PLOT_INCHES, sharey=True, squeeze=False, layout="constrained")
        for panel, (set_name, summary) in zip(panels[0], summaries.items(), strict=True):
            for name in (name for name in names if name in summary.codecs and summary.codecs[name].complete):
                points = summary.codecs[name].qualities
                panel.plot([point.bits_per_pixel for point in points], [point.psnr_db for point in points], marker="o", markersize=3,
                           color=f"C{names.index(name)}", linewidth=2.2 if name in ours else 1.0, label=PEER_TITLES.get(name, name))
            panel.set(title=f"{SET_TITLES.get(set_name, set_name)} ({summary.images} pictures)", xlabel="bits per pixel (mean)", xscale="log")
            panel.set_xticks(PLOT_TICKS_BPP, [f"{tick:g}" for tick in PLOT_TICKS_BPP])
            panel.xaxis.set_minor_formatter(NullFormatter())
            panel.grid(True, which="both", linewidth=0.3)
        panels[0][0].set_ylabel("PSNR of RGB, dB (mean)")
        panels[0][-1].legend(fontsize=8)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as place:
            figure.savefig(place, format="svg", metadata={"Date": None})
        pyplot.close(figure)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rd", description="Compare remac with the classical codecs.")
    parser.add_argument("--codec-results", type=Path, nargs="*", default=[], metavar="FILE", help="results of ours, as rd_remac writes them")
    parser.add_argument("--peers", type=Path, default=RESULTS / "rd_peers.json", metavar="FILE")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="FOLDER", help="of rd_summary.json and rd.svg")
    return parser.parse_args(arguments)


@reported
def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report; 1 with one line on standard error where it cannot."""
    options = parse_arguments(arguments)
    peers = load(options.peers)
    own = merge(load(path) for path in options.codec_results)
    results = merge([own, peers])
    ours = sorted(own.codecs)
    names = ours + [name for name in PEER_TITLES if name in peers.codecs]
    summaries = summarise(results, names)
    write_json(options.out / "rd_summary.json", summary_to_json(summaries, ours, results))
    plot(summaries, names, ours, options.out / "rd.svg")
    print(markdown_table(summaries, names))
    print(remarks(summaries, ours))
    return 0


if __name__ == "__main__":
    sys.exit(main())
