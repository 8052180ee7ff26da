"""The command `remac bench`: runs a benchmark and prints it, writes it to a file to share, or imports such a file."""
from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from remac_runtime.bench import files as bench_files
from remac_runtime.bench import harness as bench
from remac_runtime.bench.arguments import STANDARD_OUTPUT
from remac_runtime.exits import Exit, UsageError
from remac_runtime.files import check_folder, write_json


def run(options: argparse.Namespace) -> int:
    """The exit code. Raises RemacError, UsageError."""
    if options.import_file is not None:
        if options.json not in (None, STANDARD_OUTPUT):
            raise UsageError("--json FILE is for what was measured; with --import it stands alone")
        path, result = bench_files.import_result(options.import_file, options.results)
        facts = {"command": "bench", "imported": str(options.import_file), "board": result["board"], "added": str(path)}
        print(json.dumps(facts) if options.json else f"{options.import_file}: {bench_files.title(result)}: added as {path}")
        return Exit.OK
    if options.submit_file is not None and options.board is None:
        raise UsageError("--submit-file needs --board NAME: `remac boards` lists the names")
    if options.image is not None and options.size is not None:
        raise UsageError("--size is of the synthetic picture, --image names another one: leave one away")
    targets = [Path(target) for target in (options.submit_file, None if options.json == STANDARD_OUTPUT else options.json) if target]
    for target in targets:
        check_folder(target)
    wanted = bench.BenchOptions(options.model, options.board, options.backend, options.threads, options.image, options.size, options.quality,
                                options.rounds, options.warmup)
    result = bench.run(wanted, lambda text: print(f"{text} ...", file=sys.stderr, flush=True))
    sealed = bench_files.sealed(result)
    for target in targets:
        write_json(target, sealed)
    if options.json == STANDARD_OUTPUT:
        print(json.dumps(sealed, indent=1))
    else:
        print("\n".join(lines(result)))
    if options.submit_file is not None and not result["valid"]:
        print(f"remac: warning: {options.submit_file} is marked as not valid: mend what the warnings name and run again", file=sys.stderr)
    return Exit.OK


def lines(result: Mapping[str, Any]) -> Iterator[str]:
    """What people want to know of a result."""
    yield _what(result)
    yield f"bytes verified against {', '.join(result['verified']['against'])}: {result['verified']['stream_bytes']:,} bytes"
    yield from _times(result)
    yield f"  memory: {_memory(result['memory'])}"
    energy = result["energy"]
    yield "  energy: " + (f"{energy['joules_per_encode']:.3f} J an encode at {energy['watts']:.1f} W ({energy['sensor']})" if energy["available"]
                          else f"not available: {energy['reason']}")
    for warning in result["warnings"]:
        yield f"  warning: {warning['warning']} ({warning['detail']}): {warning['remedy']}"
    yield "valid" if result["valid"] else "NOT VALID as a measurement: see the warnings"


def _what(result: Mapping[str, Any]) -> str:
    settings, picture = result["settings"], result["picture"]
    parts = [f"{picture['width']}x{picture['height']}{' (synthetic)' if picture['synthetic'] else ''}", f"quality {settings['quality']}",
             f"codec {result['codec']['codec_hash']}", settings["backend"], f"{settings['threads']} thread{'s' if settings['threads'] > 1 else ''}",
             result["environment"]["processor"]["model"]]
    parts += [f"board {result['board']}"] if result["board"] else []
    return ", ".join(parts) + (f", EMULATED by {result['emulated']}" if result["emulated"] else "")


def _times(result: Mapping[str, Any]) -> Iterator[str]:
    timings, kilo = result["timings"], result["cost"]["mac_per_pixel"] / 1000
    for name, title in (("pixels_to_bytes", "pixels to bytes"), ("file_to_file", "file to file")):
        timing = timings[name]
        yield (f"  {title:36} p50 {timing['p50_ms']:9.2f} ms   p90 {timing['p90_ms']:9.2f}   p99 {timing['p99_ms']:9.2f}   "
               f"spread {100 * timing['spread']:.0f} %")
    total = math.fsum(timing["p50_ms"] for timing in timings["stages"].values()) or math.inf
    for name, timing in timings["stages"].items():
        yield f"    {name:38} {timing['p50_ms']:9.2f} ms  {100 * timing['p50_ms'] / total:3.0f} %"
    yield f"  {result['mpix_per_s']:.2f} MPix/s; {kilo:.2f} kMAC/px, {kilo * result['mpix_per_s']:.1f} GMAC/s over the whole encode"


def _memory(memory: Mapping[str, Any]) -> str:
    predicted = f"{_mib(memory['predicted']['added_bytes'])} added by the picture"
    if not memory["available"]:
        return f"not available ({memory['reason']}); predicted {predicted}"
    return (f"peak {_mib(memory['peak_bytes'])}, {_mib(memory['added_bytes'])} of it added by the picture (predicted {predicted}), "
            f"{_mib(memory['held_bytes'])} held afterwards; cold start {memory['cold_start_s']:.2f} s")


def _mib(count: int) -> str:
    return f"{count / 2**20:.0f} MiB"
