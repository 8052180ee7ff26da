"""`python -m benchmarks.processors.run`: every runtime and processor against the reference, on pictures of several sizes and all vectors.

Sets up what is missing (with --install also Debian packages, where it is run by root), runs `remac verify`, checks that a changed weight and a
changed byte are noticed, and writes benchmarks/results/verify.json and .html and docs/processors.md. A run that was cut off goes on: what has passed
is kept.
"""
from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.processors import document
from benchmarks.processors.catalogue import GROUPS, model_folder
from benchmarks.processors.setup import ROOT, Setup, say
from benchmarks.store import RESULTS, write_json
from remac_runtime import cli
from remac_runtime.errors import BadNetwork
from remac_runtime.exits import reported
from remac_runtime.files import copy
from remac_runtime.images import Picture, load_picture, save_picture
from remac_runtime.verify.runtimes import Runtime

FOLDER = Path("build", "processors")
QUALITIES = "12,44"
# Windows of the sample pictures (rows, columns, grey): small ones for emulators, odd sizes, and both pictures whole.
WINDOWS = (("spirit_husband_hill_summit", 260, 900, 64, 64, False), ("spirit_husband_hill_terrain", 40, 200, 75, 100, True),
           ("spirit_husband_hill_summit", 150, 700, 192, 256, False), ("spirit_husband_hill_terrain", 0, 0, 200, 640, False),
           ("spirit_husband_hill_summit", 0, 0, 380, 2048, False))
SMALL = 3           # of them, with --quick
# The check of the check: engines with one weight changed in each part of the network, and with one byte of the stream changed. Not every weight
# matters on every picture, so channels are tried until one does.
CHANGED_LAYERS = ("stem", "deep", "hyper_out", "side_mid", "hidden2", "scale1")
CHANGED_CHANNELS = range(1, 12)
INJECTED_ENGINES = ("numpy", "onnxruntime", "onnxruntime:packaging=float", "torch")
INJECTED_PICTURE = 2        # of the windows


def pictures(folder: Path) -> list[Path]:
    """The windows as PPM and PGM."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, top, left, rows, columns, grey in WINDOWS:
        samples = load_picture(ROOT / "samples" / f"{name}.png").samples[top:top + rows, left:left + columns]
        samples = np.ascontiguousarray(samples[..., 1] if grey else samples)
        path = folder / f"{name}-{columns}x{rows}.{'pgm' if grey else 'ppm'}"
        save_picture(Picture(samples), path)
        paths.append(path)
    return paths


def catalogue(setup: Setup, chosen: list[str]) -> list[Runtime]:
    """The runtimes of the chosen groups, set up."""
    problem = setup.run([sys.executable, str(ROOT / "export" / "packaging.py"), "--model", str(model_folder())])
    if problem:
        say(f"packagings: {problem}")
    runtimes = []
    for group in chosen:
        for runtime in GROUPS[group][1](setup):
            runtimes.append(runtime)
            if runtime.unsupported:
                say(f"{runtime.name}: unsupported: {runtime.unsupported}")
    return runtimes


def injected(path: Path, folder: Path) -> dict[str, Any]:
    """{fault: {"noticed": [...], "missed": [...], "place": ...}} of the engines, on one picture. Everything must be noticed by encoder or decoder."""
    found: dict[str, Any] = {}
    for layer in CHANGED_LAYERS:
        faults = [f"{layer}.{channel}" for channel in CHANGED_CHANNELS]
        fault = next((fault for fault in faults if _inject(path, folder, fault, INJECTED_ENGINES[:1])["noticed"]), faults[0])
        found[fault] = _inject(path, folder, fault, INJECTED_ENGINES)
    return {**found, "byte": _inject(path, folder, "byte", INJECTED_ENGINES)}


def _inject(path: Path, folder: Path, fault: str, engines: Sequence[str]) -> dict[str, Any]:
    out = folder / "injected.json"
    out.unlink(missing_ok=True)
    options = [option for engine in engines for option in ("--encode-with", engine, "--decode-with", engine)]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        cli.main(["verify", str(path), "--quality", "40", "--model", str(model_folder()), *options, "--inject", fault, "--json", str(out),
                  "--keep", str(folder / "kept")])
    runtimes = json.loads(out.read_text(encoding="utf-8"))["runtimes"]
    bad = {name: any("fail" in results["counts"] for results in entry["results"].values()) for name, entry in runtimes.items()}
    return {"noticed": [name for name in bad if bad[name]], "missed": [name for name in bad if not bad[name]], "place": _place(runtimes)}


def _place(runtimes: dict[str, Any]) -> str:
    """What the first runtime says of it."""
    return next((group["detail"] for entry in runtimes.values() for results in entry["results"].values() for group in results["others"]
                 if group["outcome"] == "fail"), "")


@reported
def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.processors.run", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="*", type=Path, metavar="IMAGE", help="other pictures than the windows of the samples")
    parser.add_argument("--quick", action="store_true", help="only the small pictures, no vectors; nothing is written into the documents")
    parser.add_argument("--group", nargs="+", choices=tuple(GROUPS), help="only these (then nothing is written into the documents)")
    parser.add_argument("--install", action="store_true", help="install missing Debian packages (root)")
    parser.add_argument("--fresh", action="store_true", help="run again what has passed before")
    parser.add_argument("--out", type=Path, default=RESULTS / "verify.json")
    options = parser.parse_args(arguments)
    os.chdir(ROOT)
    if not (model_folder() / "network.rmn").exists():
        raise BadNetwork(f"no model in {model_folder()}: run `make encoder`")
    setup = Setup(FOLDER, options.install)
    FOLDER.mkdir(parents=True, exist_ok=True)
    runtimes = catalogue(setup, options.group or list(GROUPS))
    listed = FOLDER / "runtimes.json"
    write_json(listed, {"runtimes": [runtime.as_json() for runtime in runtimes]})
    shown = options.images or pictures(FOLDER / "pictures")[:SMALL if options.quick else None]
    result, page = FOLDER / "verify.json", FOLDER / "verify.html"
    keep = FOLDER / "kept"
    if options.fresh and keep.exists():
        for path in keep.glob("runs/*/passed.json"):
            path.unlink()
    vectors = [] if options.quick else ["--vectors", "tests/vectors"]
    result.unlink(missing_ok=True)
    code = cli.main(["verify", *map(str, shown), "--quality", QUALITIES, *vectors, "--model", str(model_folder()), "--runtimes", str(listed),
                     "--keep", str(keep), "--json", str(result), "--report", str(page)])
    if not result.exists():
        return code or 1
    say("self-check: faults put in on purpose")
    faults = injected(shown[min(INJECTED_PICTURE, len(shown) - 1)], FOLDER)
    missed = [f"{fault} by {', '.join(entry['missed'])}" for fault, entry in faults.items() if entry["missed"]]
    say(f"self-check: {f'NOT noticed: {missed}' if missed else 'every fault was noticed'}")
    if not options.group and not options.quick:
        content = {**json.loads(result.read_text(encoding="utf-8")), "self_check": faults}
        write_json(options.out, content)
        copy(page, options.out.with_suffix(".html"))
        document.write(runtimes, content)
    return code or bool(missed)


if __name__ == "__main__":
    sys.exit(main())
