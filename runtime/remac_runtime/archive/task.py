"""What a worker of `remac ground` does with one file, here or elsewhere: nothing if its picture is there and whole, else decode and write it.

A picture says in its own text what it was made from and by what (`png.png_text`), so no list of what is done can go stale, a file that was changed or
cut off is made again, and a task that a scheduler runs twice writes once.
"""
from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from remac_runtime.choices import MAX_PIXELS
from remac_runtime.codec import Decoder
from remac_runtime.enhance.enhancer import PICTURE_SUFFIXES, Enhancer
from remac_runtime.errors import BadInput, RemacError
from remac_runtime.exits import DEBUG_VARIABLE, describe
from remac_runtime.files import temporary_prefix
from remac_runtime.ground import GroundDecoder
from remac_runtime.images import Picture, save_picture
from remac_runtime.model import load_model
from remac_runtime.png import png_text

STREAM_SUFFIXES = (".rmc",)
DECODER, ENHANCER = "decoder", "enhancer"       # keys of the networks' hashes
SOURCE, LOST = "remac-source", "remac-lost-bands"


@dataclass(frozen=True)
class Settings:
    """How all files of a run are done. Networks are NAME@VERSION; `enhancer` is None where files are not enhanced; `hashes` are the SHA-256 of
    their files by DECODER or ENHANCER. Streams of more than `max_pixels` are refused."""

    model: str
    decoder: str
    enhancer: str | None
    hashes: Mapping[str, str]
    engine: str = "onnxruntime"
    backend: str | None = None
    threads: int = 1
    max_pixels: int = MAX_PIXELS


@dataclass(frozen=True)
class Task:
    """One file: absolute paths, which the worker must see too."""

    source: str
    output: str
    settings: Settings


@dataclass(frozen=True)
class Result:
    """What became of a task. `skipped`: its picture was there; `lost_bands` were concealed; with an `error` no picture was written."""

    source: str
    output: str
    skipped: bool = False
    lost_bands: tuple[int, ...] = ()
    error: str | None = None
    seconds: float = 0.0


class Station:
    """The open networks of one thread of a worker. Raises BadInput where this machine has others than those of the settings."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.model = load_model(settings.model)
        ground = GroundDecoder(self.model, settings.threads, settings.decoder, settings.engine)
        self.decoder = Decoder(self.model, settings.backend, settings.threads, ground)
        self.enhancer = settings.enhancer and Enhancer(self.model, settings.enhancer, threads=settings.threads, engine=settings.engine,
                                                       backend=settings.backend)
        for key, file in ((DECODER, ground.file), *([(ENHANCER, self.enhancer.file)] if self.enhancer else [])):
            if sha256(file.path.read_bytes()) != settings.hashes[key]:
                raise BadInput(f"{file.path}: is another {file.label} than where the run was started: copy the model folder to all machines")

    def picture(self, source: Path, data: bytes) -> tuple[Picture, dict[str, str]]:
        """The picture of a file and the notes to write into it. Raises RemacError."""
        if is_picture(source):
            assert self.enhancer, "pictures are collected only to be enhanced"
            enhanced = self.enhancer.enhance_jpeg(data)
            return enhanced.picture, enhanced.notes
        decoded = self.decoder.decode(data, False, self.settings.max_pixels)
        lost = {LOST: " ".join(map(str, decoded.report.lost_bands))} if decoded.report.lost_bands else {}
        if not self.enhancer:
            return decoded.picture, {**decoded.notes, **lost}
        enhanced = self.enhancer.enhance_decoded(decoded)
        return enhanced.picture, {**decoded.notes, **enhanced.notes, **lost}


def is_picture(source: Path) -> bool:
    """Whether a file is enhanced without being decoded by us."""
    return source.suffix.lower() in PICTURE_SUFFIXES


_thread = threading.local()
_written: list[Path] = []       # the pictures that this process has begun to write, for a worker process that is told to end


def station(settings: Settings) -> Station:
    """The calling thread's networks, opened when the settings are new to it: a worker process does file after file."""
    held: Station | None = getattr(_thread, "station", None)
    if held is None or held.settings != settings:
        _thread.station = held = Station(settings)
    return held


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def made_from(data: bytes, source: Path, settings: Settings) -> str:
    """Names the content of a source and all that its picture depends on beside: the text that a picture which is done carries."""
    stages = [] if is_picture(source) else [(DECODER, settings.decoder)]
    if settings.enhancer:
        stages.append((ENHANCER, settings.enhancer))
    return " ".join([sha256(data), *(f"{label}:{settings.hashes[key][:16]}" for key, label in stages)])


def perform(task: Task) -> Result:
    """Do a task. All that can go wrong with the file becomes a result; nothing half-written is left."""
    start = time.perf_counter()
    try:
        return _perform(task, start)
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        message = describe(error)
        return Result(task.source, task.output, error=message.removeprefix(f"{task.source}: "), seconds=time.perf_counter() - start)


def _remove_unfinished(output: Path) -> None:
    for left in output.parent.glob(f"{temporary_prefix(output)}*.tmp"):
        left.unlink(missing_ok=True)


def abandon() -> None:
    """Remove what is half-written of the picture that a worker process, which does one at a time, is writing."""
    for output in _written[-1:]:
        _remove_unfinished(output)


def _perform(task: Task, start: float) -> Result:
    source, output = Path(task.source), Path(task.output)
    try:
        data = source.read_bytes()
    except OSError as error:
        raise BadInput(f"cannot be read ({(error.strerror or str(error)).lower()}): check the path and its permissions") from None
    wanted = made_from(data, source, task.settings)
    there = png_text(output)
    if there is not None and there.get(SOURCE) == wanted:
        return Result(task.source, task.output, True, _lost(there), seconds=time.perf_counter() - start)
    picture, notes = station(task.settings).picture(source, data)
    output.parent.mkdir(parents=True, exist_ok=True)
    _written.append(output)
    _remove_unfinished(output)      # of a worker that was killed while it wrote
    save_picture(picture, output, {**notes, SOURCE: wanted})
    return Result(task.source, task.output, lost_bands=_lost(notes), seconds=time.perf_counter() - start)


def _lost(notes: Mapping[str, str]) -> tuple[int, ...]:
    try:
        return tuple(int(band) for band in notes.get(LOST, "").split())
    except ValueError:
        raise RemacError(f"the picture's {LOST} is {notes[LOST]!r}: remove the picture and run again") from None
