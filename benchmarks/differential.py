"""The same bytes from everything, for random pictures: `python -m benchmarks.differential`.

Seeded pictures of all kinds, sizes, qualities, strip heights, bands and depths, with and without references, go through every engine that is at hand;
streams must be equal byte for byte and latents number for number. Then mutated bands and streams are decoded by the C code under the address and
undefined-behaviour sanitizers (differential_fuzz.py). Results go to results/differential.json; a run that was cut off goes on where it was.
"""
from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import differential_fuzz as fuzz
from benchmarks.differential_cases import KINDS, Case, case_of, picture_of
from benchmarks.store import RESULTS, write_json
from remac_runtime import native, reference
from remac_runtime.backends import open_backend
from remac_runtime.choices import PATTERNS
from remac_runtime.codec import Decoder, Encoder
from remac_runtime.errors import RemacError
from remac_runtime.exits import reported
from remac_runtime.images import Picture, save_picture
from remac_runtime.model import Model, load_model
from remac_runtime.progress import Progress

COUNT, FUZZ_COUNT, SEED = 2000, 20000, 1
BACKENDS = ("numpy", "onnxruntime", "c99")           # the first one is what the others are compared with
REFERENCE_EVERY, REFERENCE_PIXELS = 20, 1 << 14      # the slow reference takes part in every 20th case, where it is small
SAVE_EVERY = 50
EXAMPLES = """\
examples:
  python -m benchmarks.differential                              # 2,000 cases, then 20,000 mutated bands and streams
  python -m benchmarks.differential --count 50 --fuzz 500 --out /tmp/differential.json
  python -m benchmarks.differential --case 1234                  # one case again, after a difference
"""

Encode = Callable[[Case, Picture], bytes]


@dataclass(frozen=True)
class Engine:
    """An encoder by name, and what it decodes with where it does: stream -> (y_hat, lost bands)."""

    name: str
    encode: Encode
    decode: Callable[[bytes], tuple[Any, tuple[int, ...]]] | None = None


# ---- engines

def _backend_engines(model: Model, names: tuple[str, ...], stack: ExitStack) -> Iterator[Engine]:
    for name in names:
        try:
            backend = stack.enter_context(open_backend(name, model.folder, model.network))
            backend.run("side", np.zeros((1, 1, 1, model.network.hyper), np.uint8))          # graphs are opened when they are first run
        except RemacError as error:
            print(f"differential: without {name}: {error}", file=sys.stderr)
            continue
        encoder, decoder = Encoder(model, backend), Decoder(model, backend)

        def decode(data: bytes, decoder: Decoder = decoder) -> tuple[Any, tuple[int, ...]]:
            decoded = decoder.decode(data)
            return decoded.y_hat, decoded.report.lost_bands

        def whole(case: Case, picture: Picture, encoder: Encoder = encoder) -> bytes:
            return encoder.encode(picture, case.options(None))

        def strips(case: Case, picture: Picture, encoder: Encoder = encoder, plain: bool = name == "numpy") -> bytes:
            with native.switched_off() if plain and not case.c_part else nullcontext():
                return encoder.encode(picture, case.options(case.strip_rows))

        yield Engine(name, whole, decode)
        yield Engine(f"{name}, strips", strips)


def flight_engine(program: Path, folder: Path) -> Engine:
    """The C99 flight encoder as a program; it takes strips of whole blocks of 16 rows."""
    source, target = folder / "picture", folder / "stream.rmc"

    def encode(case: Case, picture: Picture) -> bytes:
        path = source.with_suffix(".pgm" if picture.grey else ".ppm")
        save_picture(picture, path)
        target.unlink(missing_ok=True)
        options = ["--quality", case.quality, "--band-rows", case.band_rows, "--references", "chosen" if case.references else "none",
                   "--strip-rows", -(-case.strip_rows // 16) * 16, "--mosaic", case.mosaic]
        options += [] if case.image_id is None else ["--image-id", case.image_id]
        options += ["--keep"] if case.c_part else []
        done = subprocess.run([program, *map(str, options), path, target], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RemacError(f"the flight encoder ends with {done.returncode}: {done.stderr.strip()[-500:]}")
        return target.read_bytes()

    return Engine("flight", encode)


def open_engines(model: Model, flight: Path | None, stack: ExitStack, names: tuple[str, ...] = BACKENDS) -> list[Engine]:
    """What works here, the one that others are compared with first."""
    engines = list(_backend_engines(model, names, stack))
    if flight is not None:
        engines.append(flight_engine(flight, Path(stack.enter_context(tempfile.TemporaryDirectory()))))
    return engines


# ---- one case

def _first_byte(a: bytes, b: bytes) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


class DifferentError(Exception):
    """Two engines differ; the text says in what."""


def _same_stream(name: str, other: bytes, stream: bytes) -> None:
    if other != stream:
        raise DifferentError(f"{name}: {len(other)} bytes, expected {len(stream)}; the first difference is at byte {_first_byte(stream, other)}")


def _same_latents(name: str, other: tuple[Any, tuple[int, ...]], latents: Any) -> None:
    y_hat, lost = other
    if lost or not np.array_equal(y_hat, latents):
        raise DifferentError(f"{name}: other latents, lost bands {lost}")


def compare(case: Case, picture: Picture, model: Model, engines: list[Engine]) -> int:
    """How many streams and latents of a case were compared. Raises DifferentError."""
    first, compared = engines[0], 0
    assert first.decode is not None
    stream = first.encode(case, picture)
    latents, lost = first.decode(stream)
    _same_latents(first.name, (latents, lost), latents)
    for engine in engines[1:]:
        try:
            _same_stream(engine.name, engine.encode(case, picture), stream)
            if engine.decode is not None:
                _same_latents(engine.name, engine.decode(stream), latents)
        except RemacError as error:
            raise DifferentError(f"{engine.name}: {type(error).__name__}: {error}") from None
        compared += 1 + (engine.decode is not None)
    if case.number % REFERENCE_EVERY == 0 and case.height * case.width <= REFERENCE_PIXELS:
        bank = model.bank if case.references else None
        _same_stream("the reference", reference.encode(picture.samples, picture.depth, model.network, bank, case.quality, band_rows=case.band_rows,
                                                       image_id=case.image_id, mosaic=PATTERNS.index(case.mosaic)), stream)
        decoded = reference.decode_latents(stream, model.network, model.bank)
        _same_latents("the reference", (decoded.y_hat, decoded.lost), latents)
        compared += 2
    return compared


def judged(case: Case, picture: Picture, model: Model, engines: list[Engine]) -> tuple[str | None, int]:
    """(what differs first, or None; how many streams and latents were compared)."""
    try:
        return None, compare(case, picture, model, engines)
    except DifferentError as found:
        return str(found), 0


# ---- the run

def fresh(model: Model, seed: int, engines: list[Engine]) -> dict[str, Any]:
    return {"schema": 1, "codec_hash": model.network.hash.hex(), "bank_hash": model.bank.hash.hex() if model.bank else None, "seed": seed,
            "engines": [engine.name for engine in engines], "cases": 0, "cases_by_kind": dict.fromkeys(KINDS, 0), "pixels": 0, "compared": 0,
            "differences": 0, "first_difference": None, "bands": fuzz.fresh(), "streams": fuzz.fresh()}


def resumed(path: Path, start: dict[str, Any]) -> dict[str, Any]:
    """The state of an earlier run of the same network, seed and engines, else the start."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return start
    same = isinstance(found, dict) and found.keys() == start.keys() and all(found[key] == start[key] for key in (
        "schema", "codec_hash", "bank_hash", "seed", "engines"))
    return found if same else start


def run_cases(state: dict[str, Any], model: Model, engines: list[Engine], count: int, save: Callable[[], None]) -> None:
    """Cases from where the state is up to `count`; the state is saved now and then."""
    with Progress(count, "case") as bar:
        bar.advance(state["cases"])
        for number in range(state["cases"], count):
            case = case_of(state["seed"], number)
            found, compared = judged(case, picture_of(state["seed"], case), model, engines)
            state["cases"] += 1
            state["cases_by_kind"][case.kind] += 1
            state["pixels"] += case.height * case.width
            state["compared"] += compared
            if found:
                bar.say(f"differential: case {number}: {found}")
                state["differences"] += 1
                state["first_difference"] = state["first_difference"] or {"what": found, **case.as_json()}
            bar.advance()
            if state["cases"] % SAVE_EVERY == 0:
                save()
    save()


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(prog="python -m benchmarks.differential", description=__doc__, epilog=EXAMPLES,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--model", type=Path, help="the model folder (as `remac` finds it)")
    result.add_argument("--count", type=int, default=COUNT, help=f"pictures ({COUNT})")
    result.add_argument("--fuzz", type=int, default=FUZZ_COUNT, help=f"mutated bands, and as many streams ({FUZZ_COUNT}); 0: none")
    result.add_argument("--seed", type=int, default=SEED)
    result.add_argument("--case", type=int, help="run this one case and write nothing")
    result.add_argument("--no-flight", action="store_true", help="leave the C99 flight encoder out")
    result.add_argument("--force", action="store_true", help="begin with the first case whatever an earlier run did")
    result.add_argument("--out", type=Path, default=RESULTS / "differential.json")
    return result


@reported
def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        model = load_model(options.model)
        tools = fuzz.build_tools(model, flight=not options.no_flight)
        with ExitStack() as stack:
            engines = open_engines(model, tools.flight_encode, stack)
            if options.case is not None:
                case = case_of(options.seed, options.case)
                found, compared = judged(case, picture_of(options.seed, case), model, engines)
                print(f"{case}: {found or f'no difference in {compared} comparisons'}")
                return 1 if found else 0
            start = fresh(model, options.seed, engines)
            state = start if options.force else resumed(options.out, start)
            save = lambda: write_json(options.out, state)  # noqa: E731
            run_cases(state, model, engines, options.count, save)
            if options.fuzz:
                fuzz.run_bands(state["bands"], model, tools, options.fuzz, options.seed, save)
                fuzz.run_streams(state["streams"], model, tools, options.fuzz, options.seed, save)
    except KeyboardInterrupt:
        print(f"differential: interrupted; the same command goes on from {options.out}", file=sys.stderr)
        return 130
    print(f"{state['cases']} cases, {state['compared']} streams and latents compared over {len(engines)} engines: "
          f"{state['differences']} differences; {fuzz.summary(state['bands'])} bands, {fuzz.summary(state['streams'])} streams")
    return 1 if state["differences"] or state["bands"]["failures"] or state["streams"]["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
