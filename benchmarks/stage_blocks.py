"""The block of figures on the stages of the encode: from stages.json to Markdown, for the documents and the report."""
from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.sources import MISSING, Sources, number, table
from benchmarks.speed_blocks import warned
from remac_runtime.bench.stages import CODING, LOAD, STAGES, WRITE

OURS, WHOLE = "c99", "whole"
NOTHING_MS = 0.005          # what the clocks of a stage that does nothing show


def stages(sources: Sources) -> str:
    """Time of each stage before and after, and beside the least that the core could need."""
    result = sources["stages"]
    ways, machine, (width, height) = result["ways"], result["machine"], result["picture"]
    rate = result["symbols"] / ways[OURS][CODING]["p50_ms"] / 1e3
    fewest = min(len(way[WHOLE]["samples_ms"]) for way in ways.values())
    heads = ("stage", *(f"{way['title']}, ms" for way in ways.values()), *(f"{name} / {OURS}" for name in ways if name != OURS), "least, ms",
             "bound by", f"reached by {OURS}")
    return "\n".join([
        table(heads, _rows(result)), "",
        f"{width}x{height}, quality {result['quality']}, one thread; medians of {result['rounds']} rounds in turn (the slowest way: {fewest}), in "
        "brackets their spread; stages from encodes of their own, so their sum is not the whole encode. The same bytes each way. *Least*: "
        f"multiply-accumulates over {machine['mac_s'] / 1e9:.0f} GMAC/s, or bytes that must be read and written once over "
        f"{machine['bytes_s'] / 1e9:.0f} GB/s, whichever is longer, both measured on one core in the same run. c99 sums up the descriptors of the "
        f"selection within g_a. Range coding: {rate:.0f} million symbols a second; each waits for the one before it in its lane, which no bound "
        "here sees.",
        *(line for warning in warned(sources, result) for line in ("", warning))])


def _rows(result: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    ways, work = result["ways"], result["work"]
    for stage in STAGES:
        if any(way[stage]["p50_ms"] > NOTHING_MS for way in ways.values()):
            yield _row(stage, stage, ways, work.get(stage))
    least = {"least_ms": math.fsum(entry["least_ms"] for stage, entry in work.items() if stage not in (LOAD, WRITE)), "bound": ""}
    yield _row("**pixels to bytes**", WHOLE, ways, least)


def _row(title: str, stage: str, ways: Mapping[str, Any], least: Mapping[str, Any] | None) -> tuple[str, ...]:
    times = [f"{way[stage]['p50_ms']:.2f} ({100 * way[stage]['spread']:.0f} %)" for way in ways.values()]
    ratios = [number(way[stage]["times_ours"]) if ways[OURS][stage]["p50_ms"] > NOTHING_MS else MISSING for name, way in ways.items() if name != OURS]
    if least is None:
        return title, *times, *ratios, MISSING, MISSING, MISSING
    reached = f"{100 * least['least_ms'] / ways[OURS][stage]['p50_ms']:.0f} %" if ways[OURS][stage]["p50_ms"] > NOTHING_MS else MISSING
    return title, *times, *ratios, number(least["least_ms"]), least["bound"] or MISSING, reached
