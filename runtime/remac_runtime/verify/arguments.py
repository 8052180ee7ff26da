"""The arguments of `remac verify`, apart from what it does, so that `remac --help` loads none of it."""
from __future__ import annotations

import argparse
from pathlib import Path

from remac_runtime.format import QUALITIES

DEFAULT_LIMIT_S = 300.0

EXAMPLES = """\
examples:
  remac verify                                              # the shipped vectors, with every engine that is installed
  remac verify a.png b.png --quality 12,44 --report verify.html
  remac verify a.png --encode-with onnxruntime:level=basic,threads=2 --decode-with reference
  remac verify a.png --encode-with "flight=./rmc-encode {input} {output} {quality}" --decode-with reference
  remac verify --runtimes runtimes.json --keep build/verify --json verify.json

engines: reference, numpy, onnxruntime, torch, c99, with options such as onnxruntime:level=basic,threads=2 (verify/engines.py lists them).
commands: {input} is a PPM or PGM for an encoder, a stream for a decoder; a decoder writes the latents to {output}, as .npy or raw little-endian
  int32. Further placeholders: {quality} {band_rows} {references} {image_id} {mosaic} {depth} {width} {height} {model}. Status 77 means unsupported.
"""


def _qualities(text: str) -> tuple[int, ...]:
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = (-1,)
    if not all(0 <= quality < QUALITIES for quality in found):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of qualities 0..{QUALITIES - 1}, such as 12,44")
    return found


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return value


def add(parser: argparse.ArgumentParser) -> None:
    """Add them."""
    parser.epilog = f"{EXAMPLES}\n{parser.epilog or ''}"
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="pictures to encode (default: the vectors)")
    parser.add_argument("--encode-with", action="append", default=[], metavar="WHAT",
                        help="an encoder: an engine, a name of --runtimes, or NAME=COMMAND; "
                        "once for each (default: all)")
    parser.add_argument("--decode-with", action="append", default=[], metavar="WHAT", help="a decoder, in the same way")
    parser.add_argument("--runtimes", type=Path, metavar="FILE", help="JSON file of runtimes: other Pythons, emulators, foreign programs")
    parser.add_argument("--vectors", type=Path, metavar="DIR",
                        help="the conformance suite (default: `vectors` in the model folder, then tests/vectors)")
    parser.add_argument("--quality", type=_qualities, default=(32,), metavar="Q[,Q...]", help="qualities of the pictures (default 32)")
    parser.add_argument("--timeout", type=_seconds, default=DEFAULT_LIMIT_S, metavar="S", help=f"seconds for each case (default {DEFAULT_LIMIT_S:g})")
    parser.add_argument("--inject", metavar="LAYER.CHANNEL|byte", help="self-check: change one weight of every engine, or one byte of every stream; "
                        "all must fail")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep what has passed there, and do not run it again")
    parser.add_argument("--model", type=Path, metavar="DIR", help="model folder (default: $REMAC_MODEL, then build/rover-m)")
    parser.add_argument("--report", type=Path, metavar="OUT.html", help="write a page")
    parser.add_argument("--json", type=Path, metavar="OUT.json", help="write the result as JSON")
