"""The results files that figures of the documents come from, and how numbers are written."""
from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MISSING = "-"
SMALL, SMALL_PROFILE = "remac-s", "rover-s"        # codec of rd_summary.json and speed.json, and its profile
EARLIER = "Times are of an earlier encoder of the same network{}: to be measured again."
_CODEC_HASH = re.compile(r"codec hash ([0-9a-f]{16})")


class NotMeasuredError(Exception):
    """A block needs a results file that is not there; the message is its name."""


def _own(content: Any) -> set[str]:
    return {str(content.get("codec_hash"))}


def _of_summary(content: Any, codec: str = "remac-m") -> set[str]:
    """Of a profile's codecs in rd_summary.json; empty where none is."""
    settings = content["environment"]["codecs"].items()
    return {found for name, text in settings if name.startswith(codec) for found in _CODEC_HASH.findall(text)}


@dataclass(frozen=True)
class Source:
    """A results file, the codec hashes it was measured with (None for a file that names none), and the profile whose hash that must be."""

    file: str
    codec_hashes: Callable[[Any], set[str] | None]
    profile: str = "rover-m"


SOURCES: Mapping[str, Source] = {
    "rd": Source("rd_summary.json", _of_summary),
    "speed": Source("speed.json", _own),
    "stages": Source("stages.json", _own),
    "corruption": Source("corruption.json", _own),
    "encoder": Source("encoder.json", _own),
    "example": Source("example.json", _own),
    "float-gap": Source("float_gap.json", _own),
    "adaptation": Source("adaptation.json", _own),
    "mosaics": Source("mosaics.json", _own),
    "boards": Source("../../boards/figures.json", _own),        # packed by board_figures.py; it travels with the board files
    "verify": Source("verify.json", _own),
    "differential": Source("differential.json", _own),
    "flight": Source("flight.json", _own),
    "enhance": Source("enhance.json", _own),
    "enhance-modules": Source("enhance_modules.json", lambda content: None),
    "enhance-pictures": Source("enhance_pictures.json", _own),
    "ground": Source("ground.json", _own),
    "engines": Source("engines.json", _own),
    "training": Source("training.json", lambda content: None),
    "encoder-s": Source("encoder_s.json", _own, SMALL_PROFILE),
    "training-s": Source("training_s.json", lambda content: None, SMALL_PROFILE),
    "rd-s": Source("rd_summary.json", lambda content: _of_summary(content, SMALL), SMALL_PROFILE),
}


@dataclass(frozen=True)
class Sources:
    """Results by name, as `SOURCES` has them, of the checkout `root`."""

    contents: Mapping[str, Any]
    root: Path

    def __getitem__(self, name: str) -> Any:
        if name not in self.contents:
            raise NotMeasuredError(SOURCES[name].file)
        return self.contents[name]


def earlier(sources: Sources, result: Mapping[str, Any]) -> str | None:
    """A sentence where times are not of today's encoder of the network: where its streams of the probes (rd_remac.py) are others than those that
    board_figures.py packed last, or were not kept yet. None where they are its own, or where nothing is there to compare them with."""
    if "streams" not in result:
        return EARLIER.format(" (lower bands, no search for mosaics, other rounding)")
    packed = sources.contents.get("boards", {}).get("streams", result["streams"])
    return None if packed == result["streams"] else EARLIER.format("")


def percent(fraction: float | None) -> str:
    """A difference: -0.4 -> "-40.0 %"."""
    return MISSING if fraction is None else f"{100 * fraction:+.1f} %"


def share(fraction: float | None) -> str:
    """A part of something: 0.4 -> "40 %"."""
    return MISSING if fraction is None else f"{100 * fraction:.0f} %"


def number(value: float | None, digits: int = 2) -> str:
    """A plain number."""
    return MISSING if value is None else f"{value:.{digits}f}"


def mebibytes(count: float) -> str:
    """Memory."""
    return f"{count / 2**20:.0f} MiB"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A Markdown table, the first `left` columns to the left and the others to the right; bars within cells are escaped."""
    rule = ["---"] * left + ["--:"] * (len(heads) - left)
    lines = [list(heads), rule, *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
