"""Blocks of figures on exactness and flight: the matrix of processors, differential fuzzing, the flight encoder."""
from __future__ import annotations

from collections import Counter
from typing import Any

from benchmarks.sources import Sources, table


def verify(sources: Sources) -> str:
    """The outcomes of `make verify-all`, and what could not be run."""
    result = sources["verify"]
    outcomes = Counter(word.split()[0] if word[0].isalpha() else word for row in result["matrix"] for word in row)
    cells = sum(outcomes.values())
    vectors = sum(case["decoders_only"] for case in result["cases"])
    found = ", ".join(f"{count} {word}" for word, count in outcomes.most_common())
    verdict = "**nothing failed**" if result["passed"] else "**not all passed**"
    return (f"`make verify-all`: {len(result['encoders'])} encoders against {len(result['decoders'])} decoders, {cells} pairs: {found}; {verdict}. "
            f"{len(result['cases'])} cases, {vectors} of them streams for decoders alone. A pair counts as a pass only for the cases that were run; "
            "the whole matrix with recipes and reasons is in [docs/processors.md](docs/processors.md).")


def differential(sources: Sources) -> str:
    """What the differential fuzzer compared."""
    result = sources["differential"]
    bands, streams = result["bands"], result["streams"]
    return (f"Differential fuzzing: {result['cases']:,} random pictures, {result['compared']:,} streams and latents compared over "
            f"{len(result['engines'])} engines ({', '.join(result['engines'])}): {result['differences']} differences. Under the address and "
            f"undefined-behaviour sanitizers {bands['cases']:,} mutated bands and {streams['cases']:,} mutated streams: "
            f"{bands['failures'] + streams['failures']} failures; of {bands['compared_with_python'] + streams['compared_with_python']:,} of them "
            "Python and C gave the same verdict.")


def _per_pixel(build: dict[str, Any]) -> str:
    counts = build["instructions_per_pixel"]
    return f"{sum(counts.values()):,.0f}" if counts else "-"


def flight(sources: Sources) -> str:
    """Memory, sizes and instructions of the flight encoder."""
    result = sources["flight"]
    memory = result["memory"]
    rows = [(b["processor"], "same" if b["same_bytes"] else "**DIFFERENT**", f"{b['code_bytes'] / 1000:.0f} kB",
             f"{b['constant_bytes'] / 1e6:.2f} MB", f"{b['stack_bytes'] / 1024:.1f} KiB", _per_pixel(b)) for b in result["builds"]]
    predicted = "; ".join(f"{b['name']} at {b['clock_mhz']} MHz {b['seconds']:.0f} s, "
                          + ", ".join(f"{joules / 1000:.1f} kJ ({mode})" for mode, joules in b["joules"].items())
                          for b in result["prediction"]["boards"])
    return "\n".join([
        f"Working memory for {memory['width']}x{memory['height']} in strips of {memory['strip_rows']} rows: {memory['work_bytes'] / 2**20:.2f} MiB "
        f"({memory['keep_bytes'] / 2**20:.1f} MiB where all latents are kept, so that a byte target needs one pass over the picture), "
        "known when it is compiled.",
        "",
        table(("processor", "bytes", "code", "weights and tables", "stack", "instructions a pixel"), rows, left=2),
        "",
        f"For {memory['width']}x{memory['height']}: {predicted}. {result['prediction']['assumption']}"])
