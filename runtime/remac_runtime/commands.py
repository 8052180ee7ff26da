"""What `remac encode` and `remac decode` do: one file after the other, so that a bad one does not stop the rest."""
from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from remac_runtime import packets
from remac_runtime.choices import PATTERNS
from remac_runtime.codec import Decoded, Decoder, EncodeOptions, Encoder
from remac_runtime.enhance.enhancer import Enhancer
from remac_runtime.errors import BadInput
from remac_runtime.exits import DEBUG_VARIABLE, Exit, UsageError, describe
from remac_runtime.files import check_folder, write_atomically
from remac_runtime.format import NO_REFERENCE, SIDE_MAX
from remac_runtime.ground import GroundDecoder
from remac_runtime.images import READABLE, WRITABLE, load_picture, save_picture
from remac_runtime.model import Model, load_model
from remac_runtime.progress import watcher

STREAM_SUFFIX = ".rmc"


@dataclass(frozen=True)
class Job:
    """A file to work on and the file to make of it; `place` such as "[2/5] " in a batch."""

    source: Path
    output: Path
    place: str


@dataclass
class Outcome:
    """What became of a job: `facts` for people and JSON, or an error."""

    job: Job
    exit: Exit = Exit.OK
    facts: dict[str, Any] = field(default_factory=dict)
    error: str | None = None

    def as_json(self) -> dict[str, Any]:
        return {"input": str(self.job.source), **({"error": self.error} if self.error else {"output": str(self.job.output), **self.facts})}


def warn(message: str) -> None:
    print(f"remac: warning: {message}", file=sys.stderr)


def read_stream(path: Path) -> bytes:
    """The bytes of a stream. Raises BadInput."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file: check the path") from None
    except IsADirectoryError:
        raise BadInput(f"{path}: is a folder: name the streams in it ({path}/*{STREAM_SUFFIX})") from None


# ---- which file goes where

def plan(sources: Sequence[str], output: str, suffix: str) -> list[Job]:
    """One job a source; the output is a folder where it is one, ends in a slash, or there are several sources. Raises UsageError, BadInput."""
    target = Path(output)
    folder = len(sources) > 1 or output.endswith(("/", os.sep)) or target.is_dir()
    if folder and target.exists() and not target.is_dir():
        raise UsageError(f"-o {output} is a file; {len(sources)} inputs need a folder")
    if folder and target.suffix.lower() in {suffix, *READABLE} and not target.exists() and not output.endswith("/"):
        raise UsageError(f"-o {output} looks like a file; {len(sources)} inputs need a folder (end its name with / if it is one)")
    if not folder and suffix == STREAM_SUFFIX and target.suffix.lower() in READABLE:
        raise UsageError(f"-o {output} is named like a picture, encode writes a stream: name it {target.with_suffix(suffix)}")
    if not folder and suffix in WRITABLE and target.suffix.lower() not in WRITABLE:
        raise UsageError(f"-o {output}: pictures are written as {', '.join(WRITABLE)}: name it {target.with_suffix(suffix)}")
    jobs: list[Job] = []
    taken: dict[Path, Path] = {}
    for number, source in enumerate(map(Path, sources), 1):
        path = target / (source.stem + suffix) if folder else target
        if path in taken:
            same = taken[path].absolute() == source.absolute()
            raise UsageError(f"{source} is given twice: name it once" if same
                             else f"{taken[path]} and {source} would both be written to {path}: use two output folders")
        refuse_itself(source, path)
        taken[path] = source
        jobs.append(Job(source, path, f"[{number}/{len(sources)}] " if len(sources) > 1 else ""))
    if folder:
        target.mkdir(parents=True, exist_ok=True)
    else:
        check_folder(target)
    return jobs


def refuse_itself(source: Path, output: Path) -> None:
    """Raises UsageError where the output is the file that is read."""
    if output.exists() and source.exists() and output.samefile(source):
        raise UsageError(f"{source} would overwrite itself: name another output")


# ---- one job after the other

def run_jobs(jobs: Sequence[Job], work: Callable[[Job], Outcome], options: argparse.Namespace, verb: str) -> int:
    """Work on every job, whatever happens to the others; print lines, a summary and JSON. Returns the exit code."""
    outcomes = []
    for job in jobs:
        outcome = _attempt(job, work)
        outcomes.append(outcome)
        if outcome.error:
            print(f"remac: error: {job.place}{outcome.error}", file=sys.stderr)
        elif not options.json:
            print(f"{job.place}{job.source} -> {job.output}: {outcome.facts['text']}", flush=True)
        outcome.facts.pop("text", None)
    failed = [outcome for outcome in outcomes if outcome.error]
    if options.json:
        print(json.dumps({"command": options.command, "failed": len(failed), "files": [outcome.as_json() for outcome in outcomes]}, indent=1))
    if len(jobs) > 1:
        names = f"; failed: {', '.join(str(outcome.job.source) for outcome in failed)}" if failed else ""
        print(f"{len(jobs) - len(failed)} of {len(jobs)} {verb}{names}", file=sys.stderr if failed or options.json else sys.stdout)
    if failed:
        return Exit.FAILED
    return max((outcome.exit for outcome in outcomes), default=Exit.OK)


def _attempt(job: Job, work: Callable[[Job], Outcome]) -> Outcome:
    try:
        return work(job)
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        return Outcome(job, Exit.FAILED, error=about(job.source, describe(error)))


def about(source: Path, message: str) -> str:
    """The message with the name of the file, unless it has it."""
    return message if str(source) in message else f"{source}: {message}"


# ---- encode

def encode(options: argparse.Namespace) -> int:
    if options.image_id is not None and len(options.images) > 1:
        raise UsageError("--image-id names one picture, not several")
    jobs = plan(options.images, options.output, STREAM_SUFFIX)
    model = load_model(options.model)
    if model.bank is None and not options.no_reference:
        warn(f"encoding without references: {model.bank_problem or 'the model has no bank'}")
    wanted = EncodeOptions(quality=options.quality, target_bytes=options.target_bytes, target_psnr=options.target_psnr, strip_rows=options.strip_rows,
                           band_rows=options.band_rows, mosaic=options.mosaic, references=not options.no_reference,
                           image_id=options.image_id)
    with Encoder(model, options.backend, options.threads) as encoder:
        return run_jobs(jobs, lambda job: _encode_one(job, encoder, wanted, options.depth), options, "encoded")


def _encode_one(job: Job, encoder: Encoder, wanted: EncodeOptions, depth: int | None) -> Outcome:
    picture = load_picture(job.source, depth)
    start = time.perf_counter()
    data = encoder.encode(picture, wanted)
    seconds = time.perf_counter() - start
    header = packets.scan(data, header_limit()).header
    write_atomically(job.output, data)
    bits_per_pixel = 8 * len(data) / (header.width * header.height)
    kind = f"{picture.depth}-bit {'grey' if picture.grey else 'colour'}{f' of a {PATTERNS[header.mosaic]} mosaic' if header.mosaic else ''}"
    text = f"{picture.size} {kind}, {len(data):,} bytes, {bits_per_pixel:.3f} bit/pixel, quality {header.quality}, {seconds:.2f} s"
    facts = {"bytes": len(data), "bits_per_pixel": round(bits_per_pixel, 5), "width": header.width, "height": header.height, "depth": header.depth,
             "grey": header.grey, "mosaic": PATTERNS[header.mosaic], "quality": header.quality, "image_id": header.image_id,
             "semantic_reference": reference(header.semantic), "texture_reference": reference(header.texture), "seconds": round(seconds, 4)}
    return Outcome(job, facts={**facts, "text": text})


def header_limit() -> int:
    """The largest picture of the format: for streams that are only looked at, or were written here."""
    return SIDE_MAX ** 2


def reference(entry: int) -> int | None:
    """Bank entry, or None where there is none."""
    return None if entry == NO_REFERENCE else entry


# ---- decode

def decode(options: argparse.Namespace) -> int:
    jobs = plan(options.streams, options.output, ".png")
    model = load_model(options.model)
    enhancer = _enhancer(model, options) if options.enhance else None
    wanted = options.decoder or (enhancer.behind if enhancer else None)
    ground = GroundDecoder(model, options.threads, wanted, options.ground_engine)
    with Decoder(model, options.backend, options.threads, ground) as decoder:
        return run_jobs(jobs, lambda job: _decode_one(job, decoder, enhancer, options), options, "decoded")


def _enhancer(model: Model, options: argparse.Namespace) -> Enhancer:
    enhancer = Enhancer(model, threads=options.threads, engine=options.ground_engine, backend=options.backend)
    enhancer.watch = watcher("tile")
    return enhancer


def _decode_one(job: Job, decoder: Decoder, enhancer: Enhancer | None, options: argparse.Namespace) -> Outcome:
    data = read_stream(job.source)
    start = time.perf_counter()
    decoded = decoder.decode(data, options.strict, options.max_pixels)
    picture, notes = decoded.picture, decoded.notes
    if enhancer is not None:
        enhanced = enhancer.enhance_decoded(decoded)
        picture, notes = enhanced.picture, {**notes, **enhanced.notes}
        for line in enhanced.warnings:
            warn(f"{job.place}{job.source}: {line}")
    seconds = time.perf_counter() - start
    save_picture(picture, job.output, notes)
    report = decoded.report
    for line in loss_lines(decoded):
        warn(f"{job.place}{job.source}: {line}")
    lost = f", {len(report.lost_bands)} of {counted(report.bands, 'band')} lost" if report.lost_bands else ""
    facts = {"width": decoded.header.width, "height": decoded.header.height, "depth": picture.depth, "grey": picture.grey,
             "quality": decoded.header.quality, "image_id": decoded.header.image_id,
             "decoder": notes["remac-decoder"], "enhancer": notes.get("remac-enhancer"),
             "bands": report.bands, "lost_bands": list(report.lost_bands),
             "lost_rows": [list(rows) for rows in lost_rows(decoded)], "skipped_bytes": report.skipped_bytes, "seconds": round(seconds, 4)}
    text = f"{picture.size} {picture.depth}-bit {'grey' if picture.grey else 'colour'}, quality {decoded.header.quality}{lost}, {seconds:.2f} s"
    return Outcome(job, Exit.LOSS if report.lost_bands else Exit.OK, {**facts, "text": text})


def lost_rows(decoded: Decoded) -> list[tuple[int, int]]:
    """First and last row of the picture of each lost band."""
    spans = (decoded.header.rows_of(band) for band in decoded.report.lost_bands)
    return [(first, min(end, decoded.header.height) - 1) for first, end in spans]


def loss_lines(decoded: Decoded) -> list[str]:
    """What damage cost, in words: nothing for an intact stream."""
    report, lines = decoded.report, []
    if report.lost_bands:
        rows = ", ".join(f"{first}-{last}" for first, last in lost_rows(decoded))
        concealed, them = ("is lost and was", "it") if report.bands == 1 else ("are lost and were", "them")
        lines.append(f"{len(report.lost_bands)} of {counted(report.bands, 'band')} {concealed} concealed (rows {rows}): "
                     f"receive {them} again for the whole picture")
    if report.skipped_bytes:
        verbs = "belongs to no intact packet and was" if report.skipped_bytes == 1 else "belong to no intact packet and were"
        lines.append(f"{counted(report.skipped_bytes, 'byte')} {verbs} skipped")
    return lines


def counted(number: int, noun: str) -> str:
    """The number and its noun, `1 band` or `2 bands`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
