"""Figures of the documents: `python -m benchmarks.readme [--check]`.

Rewrites what stands between `<!-- figures: NAME -->` and `<!-- end -->` in the documents from the JSON files in benchmarks/results/. A block whose
file is missing, or was measured with another codec than the shipped weights, says that it was not measured. Nothing is measured here.
"""
from __future__ import annotations

import argparse
import difflib
import hashlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.blocks import BLOCKS
from benchmarks.sources import SOURCES, NotMeasuredError, Sources
from remac_runtime.errors import RemacError
from remac_runtime.exits import reported
from remac_runtime.files import write_atomically

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = (Path("README.md"), Path("weights", "rover-m", "README.md"), Path("weights", "rover-s", "README.md"), Path("docs", "experiments.md"),
             Path("boards", "README.md"))
RESULTS = Path("benchmarks", "results")
BEGIN = re.compile(r"^<!-- figures: ([a-z0-9-]+) -->$")
END = "<!-- end -->"
HASH_BYTES = 8                # of SHA-256 of the network file, as the streams carry it (FORMAT 2.1)


class DocumentError(RemacError):
    """A document whose markers cannot be used."""


@dataclass
class Loaded:
    """The results that may be shown, and in `refused` why the others may not."""

    contents: dict[str, Any] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def network_file(profile: str = "rover-m") -> Path:
    """The shipped network of a profile, in the checkout."""
    return Path("weights", profile, "network.rmn")


def shipped_hash(root: Path, profile: str = "rover-m") -> str | None:
    """The codec hash of the shipped network of a profile, 16 hex digits; None where it is not there."""
    path = root / network_file(profile)
    return hashlib.sha256(path.read_bytes()).digest()[:HASH_BYTES].hex() if path.is_file() else None


def load_results(root: Path) -> Loaded:
    """Every source that is there and of the shipped codec."""
    loaded = Loaded()
    for name, source in SOURCES.items():
        path, shipped = RESULTS / source.file, shipped_hash(root, source.profile)
        if not (root / path).is_file():
            loaded.refused[name] = f"{path} is not there"
            continue
        try:
            content = json.loads((root / path).read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise DocumentError(f"{path}: not JSON ({error})") from None
        measured = source.codec_hashes(content)
        if measured is None or measured == {shipped}:
            loaded.contents[name] = content
        else:
            loaded.refused[name] = f"{path} is of codec {', '.join(sorted(measured)) or 'unknown'}, the shipped one is {shipped or 'not there'}"
    return loaded


def render(name: str, sources: Sources) -> str:
    """The text of a block."""
    if name not in BLOCKS:
        raise DocumentError(f"no block is named '{name}': one of {', '.join(sorted(BLOCKS))}")
    try:
        return BLOCKS[name](sources)
    except NotMeasuredError as error:
        return f"*Not measured yet: needs `benchmarks/results/{error}`.*"


def rewritten(text: str, where: Path, sources: Sources) -> str:
    """The document with every block made anew. DocumentError where markers do not pair."""
    lines: list[str] = []
    inside: str | None = None
    for number, line in enumerate(text.splitlines(), 1):
        begin = BEGIN.match(line)
        if begin and inside is not None:
            raise DocumentError(f"{where}:{number}: block '{begin[1]}' begins inside '{inside}': put {END} above it")
        if begin:
            inside = begin[1]
            lines += [line, *render(inside, sources).splitlines()]
        elif line == END:
            if inside is None:
                raise DocumentError(f"{where}:{number}: {END} without a block")
            inside = None
        if inside is None:
            lines.append(line)
    if inside is not None:
        raise DocumentError(f"{where}: block '{inside}' has no {END}")
    return "\n".join(lines) + "\n"


def updates(root: Path, sources: Sources) -> dict[Path, tuple[str, str]]:
    """Text now and text as it should be, of each document that differs."""
    changed = {}
    for path in DOCUMENTS:
        try:
            old = (root / path).read_text(encoding="utf-8")
        except FileNotFoundError:
            raise DocumentError(f"{path}: no such document") from None
        new = rewritten(old, path, sources)
        if new != old:
            changed[path] = (old, new)
    return changed


def differences(changed: Mapping[Path, tuple[str, str]]) -> str:
    """What a check found, as a diff from the documents to what they should say."""
    lines: list[str] = []
    for path, (old, new) in changed.items():
        lines += difflib.unified_diff(old.splitlines(), new.splitlines(), str(path), f"{path} by the results", lineterm="", n=0)
    return "\n".join(lines)


@reported
def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrite or check; 1 where a check finds a difference or a document cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readme", description="Write the figures of the documents from the results.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 and show the difference where a document is not up to date")
    parser.add_argument("--root", type=Path, default=ROOT, metavar="FOLDER", help="another checkout")
    options = parser.parse_args(arguments)
    loaded = load_results(options.root)
    changed = updates(options.root, Sources(loaded.contents, options.root))
    for reason in loaded.refused.values():
        print(f"readme: not shown: {reason}", file=sys.stderr)
    if options.check and changed:
        print(differences(changed))
        print(f"readme: out of date: {', '.join(map(str, changed))}: run `make readme`", file=sys.stderr)
        return 1
    for path, (_, new) in changed.items():
        write_atomically(options.root / path, new)
        print(f"{path} written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
