"""What a worker of `remac ground` does with one file, here or elsewhere: nothing if its picture is there and whole, else decode and write it.

A picture says in its own text what it was made from and by what (`png.png_text`), so no list of what is done can go stale, a file that was changed or
cut off is made again, and a task that a scheduler runs twice writes once.
"""
from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from remac_runtime.choices import MAX_PIXELS
from remac_runtime.codec import Decoder
from remac_runtime.enhance.enhancer import PICTURE_SUFFIXES, Enhancer
from remac_runtime.errors import BadInput, RemacError
from remac_runtime.exits import DEBUG_VARIABLE, describe
from remac_runtime.files import temporary_prefix
from remac_runtime.ground import GroundDecoder, GroundFile
from remac_runtime.images import Picture, save_picture
from remac_runtime.model import load_model
from remac_runtime.png import png_text

STREAM_SUFFIXES = (".rmc",)
DECODER, ENHANCER = "decoder", "enhancer"       # keys of the networks' hashes
SOURCE, LOST, SKIPPED, WARNINGS = "remac-source", "remac-lost-bands", "remac-skipped-bytes", "remac-warnings"
UNFINISHED_S = 600      # a file that is being written is touched within seconds: what is half-written and older was left by a process that is gone


@dataclass(frozen=True)
class Settings:
    """How all files of a run are done. Networks are NAME@VERSION; `enhancer` is None where files are not enhanced; `hashes` are what
    `digests` gives. Streams and pictures of more than `max_pixels` are refused."""

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
    """What became of a task. `skipped`: its picture was there; `lost_bands` were concealed; with an `error` no picture was written.

    `skipped_bytes` of a stream belonged to no intact packet; `warnings` are the enhancer's.
    """

    source: str
    output: str
    skipped: bool = False
    lost_bands: tuple[int, ...] = ()
    error: str | None = None
    seconds: float = 0.0
    skipped_bytes: int = 0
    warnings: tuple[str, ...] = ()


class Station:
    """The open networks of one thread of a worker. Raises BadInput where this machine has others than those of the settings."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.model = load_model(settings.model)
        ground = GroundDecoder(self.model, settings.threads, settings.decoder, settings.engine)
        self.decoder = Decoder(self.model, settings.backend, settings.threads, ground)
        self.enhancer = Enhancer(self.model, settings.enhancer, threads=settings.threads, engine=settings.engine,
                                 backend=settings.backend) if settings.enhancer else None
        here = digests(settings.engine, ground.file, self.enhancer)
        for key, file in ((DECODER, ground.file), *([(ENHANCER, self.enhancer.file)] if self.enhancer else [])):
            if here[key] != settings.hashes[key]:
                beside = ", or has other files to work with" if key == ENHANCER else ""
                raise BadInput(f"{file.path}: is another {file.label} than where the run was started{beside}: "
                               "copy the model folder to all machines")

    def picture(self, source: Path, data: bytes) -> tuple[Picture, dict[str, str]]:
        """The picture of a file and the notes to write into it. Raises RemacError."""
        if is_picture(source):
            assert self.enhancer, "pictures are collected only to be enhanced"
            enhanced = self.enhancer.enhance_jpeg(data, self.settings.max_pixels)
            return enhanced.picture, {**enhanced.notes, **_findings((), 0, enhanced.warnings)}
        decoded = self.decoder.decode(data, False, self.settings.max_pixels)
        lost, skipped = decoded.report.lost_bands, decoded.report.skipped_bytes
        if not self.enhancer:
            return decoded.picture, {**decoded.notes, **_findings(lost, skipped, ())}
        enhanced = self.enhancer.enhance_decoded(decoded)
        return enhanced.picture, {**decoded.notes, **enhanced.notes, **_findings(lost, skipped, enhanced.warnings)}


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


def digests(engine: str, decoder: GroundFile, enhancer: Enhancer | None) -> dict[str, str]:
    """SHA-256, by DECODER or ENHANCER, over the name of the engine and every file that pictures depend on. Raises BadNetwork."""
    files = {DECODER: (decoder.path,), **({ENHANCER: enhancer.files} if enhancer else {})}
    return {key: sha256(" ".join([engine, *(sha256(path.read_bytes()) for path in paths)]).encode()) for key, paths in files.items()}


def made_from(data: bytes, source: Path, settings: Settings) -> str:
    """Names the content of a source, and by `digests` all that its picture depends on beside: the text that a picture which is done carries."""
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


def remove_unfinished(output: Path, processes: Collection[int]) -> None:
    """Remove what these processes of this machine, which write no more, have left half-written of a picture. Others may be writing it now."""
    for process in processes:
        for left in output.parent.glob(f"{temporary_prefix(output)}{process}-*.tmp"):
            left.unlink(missing_ok=True)


def remove_forgotten(folders: Collection[Path]) -> None:
    """Remove what processes that were killed, on whatever machine, have left half-written in these folders: all that is older than UNFINISHED_S."""
    for folder in folders:
        for left in folder.glob(".remac-*.tmp"):
            try:
                if time.time() - left.stat().st_mtime > UNFINISHED_S:
                    left.unlink()
            except OSError:         # gone meanwhile, or another's
                continue


def abandon() -> None:
    """Remove what is half-written of the picture that this worker process, which does one at a time, is writing."""
    for output in _written[-1:]:
        remove_unfinished(output, [os.getpid()])


def _perform(task: Task, start: float) -> Result:
    source, output = Path(task.source), Path(task.output)
    try:
        data = source.read_bytes()
    except OSError as error:
        raise BadInput(f"cannot be read ({(error.strerror or str(error)).lower()}): check the path and its permissions") from None
    wanted = made_from(data, source, task.settings)
    there = png_text(output)
    if there is not None and there.get(SOURCE) == wanted:
        return _result(task, there, True, start)
    picture, notes = station(task.settings).picture(source, data)
    output.parent.mkdir(parents=True, exist_ok=True)
    _written.append(output)
    save_picture(picture, output, {**notes, SOURCE: wanted})
    return _result(task, notes, False, start)


def _findings(lost: Collection[int], skipped_bytes: int, warnings: Collection[str]) -> dict[str, str]:
    """What is reported of a picture, as notes in it, so that a run that finds it there already reports it too."""
    found = {LOST: " ".join(map(str, lost)), SKIPPED: str(skipped_bytes or ""), WARNINGS: "\n".join(warnings)}
    return {key: value for key, value in found.items() if value}


def _result(task: Task, notes: Mapping[str, str], skipped: bool, start: float) -> Result:
    return Result(task.source, task.output, skipped, _numbers(notes, LOST), seconds=time.perf_counter() - start,
                  skipped_bytes=sum(_numbers(notes, SKIPPED)), warnings=tuple(notes.get(WARNINGS, "").splitlines()))


def _numbers(notes: Mapping[str, str], key: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in notes.get(key, "").split())
    except ValueError:
        raise RemacError(f"the picture's {key} is {notes[key]!r}: remove the picture and run again") from None
