"""Arguments of `remac bench` and `remac boards`: nothing else, since every call of the command builds them."""
from __future__ import annotations

import argparse
import math
from functools import partial
from pathlib import Path

from remac_runtime.choices import BACKENDS
from remac_runtime.format import QUALITIES

STANDARD_OUTPUT = "-"
SIDES = range(64, 16385)
BENCHMARKS, ACTIONS = ("encoder",), ("list", "fit")

BENCH_EXAMPLES = """\
examples:
  remac bench encoder                                      # a synthetic picture of 1600x1152, one thread
  remac bench encoder --image picture.png --threads 2 --json result.json
  remac bench encoder --board rpi5 --submit-file rpi5.json # one file to send back
  remac bench --import rpi5.json                           # check it, and add it to benchmarks/results/boards

"""
BOARDS_EXAMPLES = """\
examples:
  remac boards                                             # the boards that are known
  remac boards --board rpi5                                # all figures of one, with their sources
  remac boards fit                                         # what rover-m would cost on each of them
  remac boards fit --profile rover-m --image 1600x1200 --board rpi5 --threads 4

"""


def size(text: str) -> tuple[int, int]:
    """Columns and rows of WIDTHxHEIGHT."""
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) in SIDES and int(height) in SIDES):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 1600x1200, of {SIDES.start} to {SIDES.stop - 1} pixels a side")
    return int(width), int(height)


def count(text: str, most: float = math.inf) -> int:
    """A whole number from 1 on; beyond `most` none is meant."""
    if not text.isdecimal() or not 0 < int(text) <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


_count = partial(count, most=100_000)


def _quality(text: str) -> int:
    if not text.isdecimal() or int(text) >= QUALITIES:
        raise argparse.ArgumentTypeError(f"{text!r} is not in 0..{QUALITIES - 1}")
    return int(text)


def bench(parser: argparse.ArgumentParser) -> None:
    """Of `remac bench`."""
    parser.epilog = BENCH_EXAMPLES + (parser.epilog or "")
    parser.add_argument("benchmark", nargs="?", choices=BENCHMARKS, default="encoder", help="what is measured (encoder)")
    parser.add_argument("--board", metavar="NAME", help="the board this runs on, as `remac boards` names it")
    parser.add_argument("--image", type=Path, metavar="FILE", help="a picture, in place of the synthetic one")
    parser.add_argument("--size", type=size, metavar="WxH", help="of the synthetic picture (1600x1152)")
    parser.add_argument("--quality", type=_quality, default=32, metavar=f"0..{QUALITIES - 1}", help="quality (default 32)")
    parser.add_argument("--rounds", type=_count, metavar="N", help="timed encodes (default 30)")
    parser.add_argument("--warmup", type=_count, default=2, metavar="N", help="encodes before them that are not timed (default 2)")
    parser.add_argument("--model", type=Path, metavar="DIR", help="model folder (default: $REMAC_MODEL, then build/rover-m)")
    parser.add_argument("--backend", choices=BACKENDS, help="engine of the integer network (default: the fastest that works here)")
    parser.add_argument("--threads", type=_count, default=1, metavar="N", help="threads of the engine (default 1)")
    parser.add_argument("--json", nargs="?", const=STANDARD_OUTPUT, metavar="OUT", help="write the result to a file, or print it and nothing else")
    parser.add_argument("--submit-file", type=Path, metavar="FILE", help="write one file to share; needs --board")
    parser.add_argument("--import", dest="import_file", type=Path, metavar="FILE", help="check such a file, add it to the results; measures nothing")
    parser.add_argument("--results", type=Path, metavar="DIR", help="where --import puts it (benchmarks/results/boards of the checkout)")


def boards(parser: argparse.ArgumentParser) -> None:
    """Of `remac boards`."""
    parser.epilog = BOARDS_EXAMPLES + (parser.epilog or "")
    parser.add_argument("action", nargs="?", choices=ACTIONS, default="list", help="list them, or predict what an encode costs on them (list)")
    parser.add_argument("--board", metavar="NAME", help="this one only, in detail")
    parser.add_argument("--profile", default="rover-m", metavar="NAME", help="fit: the codec (rover-m)")
    parser.add_argument("--image", type=size, default=(1600, 1200), metavar="WxH", help="fit: size of the picture (1600x1200)")
    parser.add_argument("--threads", type=_count, default=1, metavar="N", help="fit: threads, at most the board's cores (1)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON on standard output, and nothing else there")
