"""`remac bench encoder`: what an encode costs here. Verifies the bytes first, then times (benchmarks/RULES.md). Needs numpy; onnxruntime for speed.

The result is one JSON structure, `SCHEMA` its version; files.py checks, shares and imports it.
"""
from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from remac_runtime.bench import cost as bench_cost
from remac_runtime.bench import energy as bench_energy
from remac_runtime.bench import environment as bench_environment
from remac_runtime.bench import memory as bench_memory
from remac_runtime.bench import stages as bench_stages
from remac_runtime.bench import stats as bench_stats
from remac_runtime.codec import EncodeOptions, Encoder
from remac_runtime.errors import RemacError
from remac_runtime.files import write_atomically
from remac_runtime.images import Picture, load_picture
from remac_runtime.model import Model, load_model

SCHEMA = 1
KIND = "remac bench encoder"
SIZE = (1600, 1152)                # of the synthetic picture: columns and rows
SEED = 1
QUALITY, ROUNDS, WARMUP = 32, 30, 2
WINDOW = (64, 128)                 # rows and columns that the int64 reference codec encodes, too
EMULATED_SIZE, EMULATED_ROUNDS = (192, 128), 3
ENERGY_REPEATS = 20
BACKEND_STRIPS = {"c99": 64}       # rows that a backend works on at a time, where it never holds the tensors of a whole picture


@dataclass(frozen=True)
class BenchOptions:
    """What a run may choose. `image` None: the synthetic picture of `size` (columns, rows)."""

    model: Path | None = None
    board: str | None = None
    backend: str | None = None
    threads: int = 1
    image: Path | None = None
    size: tuple[int, int] | None = None
    quality: int = QUALITY
    rounds: int | None = None
    warmup: int = WARMUP


@dataclass(frozen=True)
class Subject:
    """What is measured: an open encoder, a picture and the file it lies in."""

    encoder: Encoder
    picture: Picture
    file: Path
    wanted: EncodeOptions

    def encode(self) -> bytes:
        return self.encoder.encode(self.picture, self.wanted)


class BenchFailed(RemacError):
    """The bytes are wrong, so nothing was timed."""


def run(options: BenchOptions, say: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """Verify, time, and gather the result. Raises RemacError; BenchFailed where the bytes differ between engines."""
    emulated = bench_environment.emulation()
    size, rounds = options.size or (EMULATED_SIZE if emulated else SIZE), options.rounds or (EMULATED_ROUNDS if emulated else ROUNDS)
    if options.board is not None:
        from remac_runtime.boards import find_board
        find_board(options.board)
    model = load_model(options.model)
    with tempfile.TemporaryDirectory() as scratch, Encoder(model, options.backend, options.threads) as encoder:
        say("preparing the picture")
        file = options.image or _synthetic(Path(scratch), size)
        subject = Subject(encoder, load_picture(file), file, EncodeOptions(quality=options.quality))
        say("verifying the bytes")
        verified = verify(subject)
        before = bench_environment.state()
        say(f"timing {rounds} rounds")
        timings, share = _timings(subject, Path(scratch), rounds, options.warmup)
        after = bench_environment.state()
        say("measuring memory and energy")
        memory = _memory(model, subject, encoder.backend.name, options.threads)
        energy = bench_energy.measure(subject.encode, 1 if emulated else ENERGY_REPEATS)
        backend = encoder.backend.name
    cautions = [*bench_stats.of_machine(before, after, share if options.threads == 1 else None, emulated),
                *bench_stats.of_samples(timings["pixels_to_bytes"])]
    spoilt = [found.caution.word for found in cautions if found.caution in bench_stats.SPOILS]
    height, width = subject.picture.samples.shape[:2]
    return {
        "schema": SCHEMA, "kind": KIND, "board": options.board, "emulated": emulated, "valid": not spoilt,
        "warnings": [found.to_json() for found in cautions],
        "codec": {"profile": model.network.profile, "codec_hash": model.network.hash.hex(),
                  "bank_hash": model.bank.hash.hex() if model.bank else None, "artefacts": bench_environment.artefacts(model)},
        "picture": {"width": width, "height": height, "synthetic": options.image is None, "name": options.image.name if options.image else None,
                    "sha256": hashlib.sha256(np.ascontiguousarray(subject.picture.samples).tobytes()).hexdigest()},
        "settings": {"backend": backend, "threads": options.threads, "quality": options.quality, "rounds": rounds, "warmup": options.warmup},
        "verified": verified, "timings": _as_json(timings), "mpix_per_s": round(height * width / timings["pixels_to_bytes"].median / 1e6, 4),
        "processor_share": None if share is None else round(share, 4), "memory": memory, "cost": _cost(model, height, width), "energy": energy,
        "environment": {**bench_environment.environment(), "before": before, "after": after},
    }


def _synthetic(scratch: Path, size: tuple[int, int]) -> Path:
    """The synthetic picture as PPM, which needs no further package to read."""
    from remac_runtime.terrain import terrain
    width, height = size
    path = scratch / "terrain.ppm"
    path.write_bytes(b"P6 %d %d 255\n" % (width, height) + terrain(height, width, SEED).tobytes())
    return path


# ---- bytes first

def verify(subject: Subject) -> dict[str, Any]:
    """The stream equals that of the NumPy backend, or of strips where that is the one measured; a window equals the int64 reference codec's.

    Raises BenchFailed.
    """
    stream, encoder, against = subject.encode(), subject.encoder, []
    if encoder.backend.name != "numpy":
        with Encoder(encoder.model, "numpy") as other:
            _same(stream, other.encode(subject.picture, subject.wanted), f"{encoder.backend.name} and numpy")
        against.append("numpy backend")
    strips = EncodeOptions(quality=subject.wanted.quality, strip_rows=64)
    _same(stream, encoder.encode(subject.picture, strips), "the whole picture and strips of 64 rows")
    against.append("strips of 64 rows")
    _same(*_window(subject), f"{encoder.backend.name} and the reference codec")
    against.append(f"reference codec, {WINDOW[1]}x{WINDOW[0]}")
    return {"stream_bytes": len(stream), "stream_sha256": hashlib.sha256(stream).hexdigest(), "against": against}


def _window(subject: Subject) -> tuple[bytes, bytes]:
    """A window of the picture, by the encoder and by the reference codec."""
    from remac_runtime import reference
    cut = Picture(np.ascontiguousarray(subject.picture.samples[:WINDOW[0], :WINDOW[1]]), subject.picture.depth)
    model = subject.encoder.model
    return subject.encoder.encode(cut, subject.wanted), reference.encode(cut.samples, cut.depth, model.network, model.bank, subject.wanted.quality)


def _same(a: bytes, b: bytes, who: str) -> None:
    if a != b:
        at = next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
        raise BenchFailed(f"the streams of {who} differ from byte {at} on: nothing was timed; run `remac verify` or the tests")


# ---- times

def _timings(subject: Subject, scratch: Path, rounds: int, warmup: int) -> tuple[dict[str, bench_stats.Summary], float | None]:
    """Whole encodes, from file to file and from pixels, in turn with the stages of another one; and processor time over wall time."""
    target, clock = scratch / "stream.rmc", bench_stages.StageClock()
    stages: list[dict[str, float]] = []

    def file_to_file() -> None:
        write_atomically(target, subject.encoder.encode(load_picture(subject.file), subject.wanted))

    def staged() -> None:
        clock.reset()
        with bench_stages.attached(clock, subject.encoder), clock.stage(bench_stages.OTHER):
            with clock.stage(bench_stages.LOAD):
                picture = load_picture(subject.file)
            stream = subject.encoder.encode(picture, subject.wanted)
            with clock.stage(bench_stages.WRITE):
                write_atomically(target, stream)
        stages.append(clock.seconds)

    wall, processor = time.perf_counter(), time.process_time()
    timings = bench_stats.timed_in_turn({"pixels_to_bytes": subject.encode, "file_to_file": file_to_file, "staged": staged}, rounds, warmup)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    del timings["staged"]
    timings |= {f"stage: {name}": bench_stats.Summary(tuple(seconds[name] for seconds in stages[-rounds:])) for name in bench_stages.STAGES}
    return timings, processor / wall if wall > 0 else None


def _as_json(timings: dict[str, bench_stats.Summary]) -> dict[str, Any]:
    whole = {name: timing.to_json() for name, timing in timings.items() if not name.startswith("stage: ")}
    return {**whole, "stages": {name.removeprefix("stage: "): timing.to_json() for name, timing in timings.items() if name.startswith("stage: ")}}


# ---- memory and cost

def _memory(model: Model, subject: Subject, backend: str, threads: int) -> dict[str, Any]:
    height, width = subject.picture.samples.shape[:2]
    need = bench_cost.memory(bench_cost.shape_of(model.network, model.bank), height, width, BACKEND_STRIPS.get(backend))
    predicted = {**asdict(need), "added_bytes": need.added_bytes(backend), "arena_bytes": need.arena_bytes}
    picture = f"{bench_memory.NOISE}{width}x{height}"
    try:
        settled = bench_memory.fresh_process(model.folder, picture, subject.wanted.quality, backend, threads)
        cold = bench_memory.fresh_process(model.folder, picture, subject.wanted.quality, backend, threads, settled=False)
    except OSError as error:        # an emulator cannot start a process of its own kind
        return {"available": False, "reason": f"a process of its own cannot be started ({error.strerror})", "predicted": predicted}
    return {"available": True, **asdict(settled), "added_bytes": settled.added_bytes, "held_bytes": settled.held_bytes,
            "cold_start_s": cold.cold_start_s, "predicted": predicted}


def _cost(model: Model, height: int, width: int) -> dict[str, Any]:
    shape = bench_cost.shape_of(model.network, model.bank)
    costs, scale = bench_cost.layer_costs(shape, height, width), bench_cost.padded_pixels(height, width) / (height * width)
    return {"mac_per_pixel": round(scale * sum(layer.mac for layer in costs), 3), "parameters": shape.parameters, "model_bytes": shape.model_bytes,
            "stages": {name: round(mac * scale, 3) for name, mac in bench_cost.by_stage(costs).items()}}
