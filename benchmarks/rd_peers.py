"""Measures the classical codecs on the evaluation pictures: `python -m benchmarks.rd_peers`.

Takes about an hour on one core. A run that was cut off goes on where it stopped.
"""
from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.datasets import EVALUATION_SETS, FOLDERS, evaluation_images
from benchmarks.measure import run
from benchmarks.peers import all_peers, library_versions
from benchmarks.store import RESULTS
from remac_runtime.exits import reported


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    names = [peer.name for peer in all_peers()]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rd_peers", description="Measure the classical codecs on the evaluation pictures.")
    parser.add_argument("--data", metavar="FOLDER", help="the pictures; by default $REMAC_DATA or ../shared/data/mars")
    parser.add_argument("--sets", nargs="+", choices=sorted(FOLDERS), default=list(EVALUATION_SETS))
    parser.add_argument("--codecs", nargs="+", choices=names, default=names)
    parser.add_argument("--force", action="store_true", help="measure again what is there")
    parser.add_argument("--out", type=Path, default=RESULTS / "rd_peers.json")
    return parser.parse_args(arguments)


@reported
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 1 with one line on standard error where it cannot."""
    options = parse_arguments(arguments)
    peers = [peer for peer in all_peers() if peer.name in options.codecs]
    images = evaluation_images(options.data, tuple(options.sets))
    run(peers, images, options.out, library_versions(), options.force)
    return 0


if __name__ == "__main__":
    sys.exit(main())
