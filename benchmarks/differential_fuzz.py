"""Mutated bands and streams through the C code under the address and undefined-behaviour sanitizers, for benchmarks/differential.py.

Bands go to csrc/remac.c's decoder by way of tests/native_driver.c, each array in heap memory of exactly its size; streams to the decode-to-symbols
program of the flight encoder by way of tests/flight_fuzz.c, each in a process of its own. A failure is a report of a sanitizer (which ends the
process), a crash, a hang, or a verdict that differs from Python's where it is asked.
"""
from __future__ import annotations

import hashlib
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

from benchmarks import corruption
from benchmarks.flight_checks import ToolError
from remac_runtime import native, rans
from remac_runtime.backends import open_backend
from remac_runtime.choices import MAX_PIXELS
from remac_runtime.codec import Decoder, EncodeOptions, Encoder
from remac_runtime.crc import crc32c
from remac_runtime.errors import CorruptStream, RemacError
from remac_runtime.files import replacing
from remac_runtime.images import Picture
from remac_runtime.model import Model
from remac_runtime.progress import Progress
from remac_runtime.terrain import terrain

ROOT = Path(__file__).resolve().parents[1]
CSRC = ROOT / "runtime" / "remac_runtime" / "csrc"
BUILD = ROOT / "build" / "differential"
SANITIZE = ("-std=c99", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-DREMAC_NO_CLONES")
SANITIZED = 99                          # exit code of a program that a sanitizer ended
CHUNK = 500                             # cases a process, after which the state is saved
PYTHON_EVERY = 20                       # of the bands, Python's verdict is asked for
SYMBOLS = 3000
TIME_LIMIT_S = 300
STATUS = {0: "decoded", 4: "too many lanes", 5: "words run out", 6: "escape", 7: "state", 8: "length"}
PICTURES = ((130, 70, 64), (64, 64, 128), (200, 96, 64), (65, 200, 64))     # height, width, rows a band
COMPARED = ("payload_changed", "payload_of_noise", "bands_exchanged")       # kinds that leave the packets whole


@dataclass(frozen=True)
class Tools:
    """What was built: `flight_*` are None without the flight encoder, `bands` and `streams` without a compiler."""

    bands: Path | None = None
    streams: Path | None = None
    flight_encode: Path | None = None


def fresh() -> dict[str, Any]:
    return {"cases": 0, "outcomes": {}, "compared_with_python": 0, "failures": 0, "first_failure": None}


def summary(state: dict[str, Any]) -> str:
    return f"{state['failures']} failures in {state['cases']} mutated"


# ---- building

def _build(compiler: str, name: str, sources: Sequence[Path], includes: Sequence[Path], flags: Sequence[str]) -> Path:
    """Compile unless the same sources were compiled before: the name of a program ends in their digest. Raises ToolError."""
    read = sorted({path for source in (*sources, *includes) for path in ([source] if source.is_file() else source.glob("*.[ch]"))})
    digest = hashlib.sha256(b"\0".join([compiler.encode(), *map(str.encode, flags), *(path.read_bytes() for path in read)])).hexdigest()[:12]
    program = BUILD / f"{name}-{digest}"
    if not program.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        with replacing(program) as temporary:
            command = [compiler, *flags, *(f"-I{path}" for path in includes), *map(str, sources), "-o", str(temporary)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise ToolError(f"{' '.join(command)}: {done.stderr.strip().splitlines()[0] if done.stderr.strip() else done.returncode}")
    return program


def build_tools(model: Model, flight: bool = True) -> Tools:
    """Compile what the checkout has sources for. Raises ToolError."""
    compiler = shutil.which("gcc") or shutil.which("clang") or shutil.which("cc")
    if compiler is None:
        print("differential: no C compiler: without the flight encoder and without mutated bands and streams", file=sys.stderr)
        return Tools()
    bands = _build(compiler, "bands", [ROOT / "tests" / "native_driver.c", CSRC / "remac.c"], [CSRC], SANITIZE)
    if not flight:
        return Tools(bands)
    folder = BUILD / f"flight-{model.network.hash.hex()}-{model.bank.hash.hex() if model.bank else 'none'}"
    command = [sys.executable, str(ROOT / "export" / "flight_c.py"), "--model", str(model.folder), "-o", str(folder)]
    done = subprocess.run([*command, *([] if model.bank else ["--no-bank"])], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ToolError(f"{' '.join(command)}: {done.stderr.strip()[-500:]}: or leave it out with --no-flight")
    encode = _build(compiler, "flight_encode", [folder / "flight_encode.c", folder / "remac_flight.c"], [folder], ("-std=c99", "-O2"))
    streams = _build(compiler, "flight_fuzz", [ROOT / "tests" / "flight_fuzz.c"], [folder], (*SANITIZE, "-D_POSIX_C_SOURCE=200809L"))
    return Tools(bands, streams, encode)


def _environment() -> dict[str, str]:
    common = f"exitcode={SANITIZED}"
    return {**os.environ, "ASAN_OPTIONS": f"{common}:allocator_may_return_null=1:max_allocation_size_mb=512:detect_leaks=1", "UBSAN_OPTIONS": common,
            "LSAN_OPTIONS": common}


def _run(command: Sequence[str | Path], data: bytes) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run([str(part) for part in command], input=data, capture_output=True, check=False, timeout=TIME_LIMIT_S, env=_environment())
    except subprocess.TimeoutExpired as late:
        return subprocess.CompletedProcess(late.cmd, -1, late.stdout or b"", f"not done after {TIME_LIMIT_S} s".encode())


def _report(done: subprocess.CompletedProcess[bytes]) -> str:
    """The line of a sanitizer's report that says what is wrong."""
    lines = done.stderr.decode(errors="replace").splitlines()
    return next((line for line in lines if "ERROR" in line or "runtime error" in line), lines[-1] if lines else f"ends with {done.returncode}")[:300]


def _fail(state: dict[str, Any], what: str, number: int) -> None:
    state["failures"] += 1
    state["first_failure"] = state["first_failure"] or {"case": number, "what": what}


def _chunks(state: dict[str, Any], count: int, unit: str, save: Callable[[], None]) -> Iterator[tuple[int, int]]:
    """(first case, how many) from where the state is; the state is saved behind each."""
    with Progress(count, unit) as bar:
        bar.advance(state["cases"])
        while state["cases"] < count:
            first, size = state["cases"], min(CHUNK - state["cases"] % CHUNK, count - state["cases"])
            yield first, size
            state["cases"] += size
            state["outcomes"] = dict(sorted(state["outcomes"].items()))
            bar.advance(size)
            save()


# ---- bands

@dataclass(frozen=True)
class Band:
    """A coded band and the tables of its symbols uint16[n], in two calls of which the first takes `split`."""

    payload: bytes
    lanes_log2: int
    tables: Any
    split: int


def _symbols(rng: Generator, combined: rans.CombinedTables, tables: Any) -> Any:
    """As likely as the tables say, escapes included; some of those reach as far as symbols go."""
    entries = combined.entry_of_slot[(tables.astype(np.int64) << 14) + rng.integers(0, 1 << 14, len(tables))]
    symbols = combined.first[tables].astype(np.int64) + entries - combined.start[tables]
    escaped = np.flatnonzero(entries == combined.start[tables + 1] - 2)
    far = np.exp2(rng.uniform(0, 20, len(escaped))).astype(np.int64)
    above = rng.random(len(escaped)) < 0.5
    symbols[escaped] = np.where(above, symbols[escaped] + far - 1, combined.first[tables[escaped]] - far)
    return np.clip(symbols, -(1 << 20) + 1, (1 << 20) - 1).astype(np.int32)


def _band(rng: Generator, combined: rans.CombinedTables) -> Band:
    n, scale, lanes_log2 = int(rng.integers(1, SYMBOLS)), int(rng.integers(64)), int(rng.choice([0, 0, 0, 1, 2, 3, 5, 8]))
    window = np.clip(rng.normal(scale, 8, n), 0, 63).astype(np.int64) + combined.hyper
    tables = np.where(np.arange(n) < n // 10, np.arange(n) % combined.hyper, window).astype(np.uint16)
    return Band(rans.encode(_symbols(rng, combined, tables), tables, combined, lanes_log2), lanes_log2, tables, int(rng.integers(n + 1)))


def _mutated(rng: Generator, band: Band) -> Band:
    """One way of damage, or none for one case in ten."""
    data, kind = bytearray(band.payload), int(rng.integers(10))
    size = len(data)
    states = min(4 << band.lanes_log2, size)
    at = int(rng.integers(size))
    if kind == 0:
        return band
    if kind in (1, 2):
        for _ in range(int(rng.integers(1, 8))):
            data[int(rng.integers(size))] ^= 1 << int(rng.integers(8)) if kind == 1 else int(rng.integers(256))
    elif kind == 3:
        data[at:at + size // 4] = bytes(len(data[at:at + size // 4])) if rng.random() < 0.5 else b"\xff" * len(data[at:at + size // 4])
    elif kind == 4:
        del data[at:]
    elif kind == 5:
        data[at:at] = rng.integers(0, 256, int(rng.integers(1, 9)), np.uint8).tobytes()
    elif kind == 6:
        data = bytearray(rng.integers(0, 256, size, np.uint8).tobytes())
    elif kind == 7:
        place = int(rng.integers(states))
        data[place] = int(rng.choice([0, 1, 255, int(rng.integers(256))]))
    elif kind == 8:
        tail = min(size, 1 + int(rng.integers(16)))
        data[-tail:] = bytes(tail) if rng.random() < 0.5 else rng.integers(0, 256, tail, np.uint8).tobytes()
    else:
        return Band(bytes(data), int(rng.integers(10)), band.tables, band.split)
    return Band(bytes(data), band.lanes_log2, band.tables, band.split)


def band_of(seed: int, number: int, combined: rans.CombinedTables) -> Band:
    rng = np.random.default_rng([seed, number, 2])
    return _mutated(rng, _band(rng, combined))


def _tables_block(combined: rans.CombinedTables) -> bytes:
    parts = [np.array([len(combined.first), len(combined.cdf)], np.uint32), combined.first, combined.start, combined.cdf, combined.reciprocal,
             combined.lookup]
    return b"".join(np.ascontiguousarray(part).tobytes() for part in parts)


def _band_block(band: Band) -> bytes:
    return struct.pack("=5I", 1, band.lanes_log2, len(band.payload), len(band.tables), band.split) + band.payload + band.tables.tobytes()


def python_verdict(band: Band, combined: rans.CombinedTables) -> tuple[bool, int]:
    """(whether the band decodes, CRC of its symbols) by the NumPy body of the coder."""
    with native.switched_off():
        try:
            decoder = rans.BandDecoder(band.payload, combined, band.lanes_log2)
            symbols = np.concatenate([decoder.decode(band.tables[:band.split]), decoder.decode(band.tables[band.split:])])
            decoder.finish()
        except CorruptStream:
            return False, 0
        return True, crc32c(symbols.astype(np.int32).tobytes())


def _first_bad(program: Path, head: bytes, blocks: Sequence[bytes]) -> int:
    """Number of the first case that the program does not survive alone."""
    return next((i for i, block in enumerate(blocks) if _run([program], head + block).returncode), 0)


def run_bands(state: dict[str, Any], model: Model, tools: Tools, count: int, seed: int, save: Callable[[], None]) -> None:
    """Mutated bands up to `count`."""
    if tools.bands is None:
        return
    combined = rans.combine(model.network)
    head = _tables_block(combined)
    for first, size in _chunks(state, count, "band", save):
        bands = [band_of(seed, number, combined) for number in range(first, first + size)]
        blocks = [_band_block(band) for band in bands]
        done = _run([tools.bands], head + b"".join(blocks))
        if done.returncode or len(done.stdout) != 8 * size:
            _fail(state, _report(done), first + _first_bad(tools.bands, head, blocks))
            continue
        for i, (status, crc) in enumerate(struct.iter_unpack("=2I", done.stdout)):
            name = STATUS.get(status, f"status {status}")
            state["outcomes"][name] = state["outcomes"].get(name, 0) + 1
            if (first + i) % PYTHON_EVERY == 0:
                state["compared_with_python"] += 1
                if python_verdict(bands[i], combined) != (status == 0, crc):
                    _fail(state, f"C says {name}, Python something else", first + i)


# ---- streams

def _sources(model: Model, decoder: Decoder) -> list[corruption.Source]:
    """Streams to mutate, each with one of another picture."""
    def decode(data: bytes) -> corruption.DecodedLatents:
        decoded = decoder.decode(data)
        return corruption.DecodedLatents(decoded.header.image_id or 0, decoded.y_hat, decoded.report.lost_bands)

    with Encoder(model, decoder.backend) as encoder:
        made = []
        for number, (height, width, band_rows) in enumerate(PICTURES):
            pair = [encoder.encode(Picture(terrain(height, width, seed), 8), EncodeOptions(quality=12 + 14 * number, band_rows=band_rows))
                    for seed in (number, number + 50)]
            made.append(corruption.open_source(pair[0], pair[1], decode))
    return made


def stream_verdict(data: bytes, decoder: Decoder) -> tuple[bool, int]:
    """(whether the stream decodes without loss, CRC of its latents) by the runtime."""
    try:
        decoded = decoder.decode(data, strict=True, max_pixels=MAX_PIXELS)
        return True, crc32c(np.ascontiguousarray(decoded.y_hat, "<i4").tobytes())
    except RemacError:
        return False, 0


def run_streams(state: dict[str, Any], model: Model, tools: Tools, count: int, seed: int, save: Callable[[], None]) -> None:
    """Mutated streams up to `count`: through the flight encoder's decode-to-symbols program, where there is one."""
    if tools.streams is None:
        return
    backend = open_backend("c99" if native.library is not None else "numpy", model.folder, model.network)
    with backend, Decoder(model, backend) as decoder, tempfile.TemporaryDirectory() as folder:
        sources = _sources(model, decoder)
        for first, size in _chunks(state, count, "stream", save):
            source = sources[first // CHUNK % len(sources)]
            cases = list(corruption.cases(source, first % CHUNK + size, seed + first // CHUNK))[first % CHUNK:]
            done = _run([tools.streams, folder], b"".join(struct.pack("=I", len(case.data)) + case.data for case in cases))
            answers = [line.split() for line in done.stdout.decode().splitlines()]
            if done.returncode or len(answers) != size:
                _fail(state, _report(done), first + len(answers))
                continue
            for i, (case, (status, crc)) in enumerate(zip(cases, answers, strict=True)):
                name = {"0": "decoded", "1": "refused"}.get(status, f"status {status}")
                state["outcomes"][name] = state["outcomes"].get(name, 0) + 1
                if name.startswith("status"):
                    _fail(state, f"{case.kind}: {name}: {_report(done)}", first + i)
                elif case.kind in COMPARED and case.data.startswith(source.packets[0]):
                    state["compared_with_python"] += 1
                    if stream_verdict(case.data, decoder) != (status == "0", int(crc, 16)):
                        _fail(state, f"{case.kind}: C has {name}, Python something else", first + i)
