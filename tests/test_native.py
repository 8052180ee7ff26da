"""The C files: they load or are done without, keep FORMAT's numbers, compile without a warning, stay within their memory on hostile input."""
from __future__ import annotations

import re
import shutil
import struct
import subprocess
import sys
import sysconfig
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coder_cases import (
    LIMIT,
    Band,
    TableRules,
    body,
    combine,
    outcome,
    pack,
    random_band,
    random_latents,
    random_params,
    random_rules,
    random_table,
)
from numpy.typing import NDArray

from remac_runtime import arithmetic, crc, format, native, rans
from remac_runtime.adaptation import Adaptation
from remac_runtime.errors import CorruptStream

CSRC = Path(native.__file__).parent / "csrc"
DRIVER = Path(__file__).with_name("native_driver.c")
STRICT = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Werror"]
SANITIZERS = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-DREMAC_NO_CLONES"]
COMPILER = shutil.which("gcc") or shutil.which("clang") or shutil.which("cc") or ""
needs_compiler = pytest.mark.skipif(not COMPILER, reason="no C compiler")
needs_native = pytest.mark.skipif(native.library is None, reason="the C extension is not built")


# ---- loading ------------------------------------------------------------------------------------------------------------------------------------

def test_the_extension_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REMAC_NATIVE", "0")
    assert native.load() is None


def test_a_missing_or_stale_extension_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REMAC_NATIVE", raising=False)
    fake = types.ModuleType("remac_runtime._native")
    monkeypatch.setitem(sys.modules, "remac_runtime._native", fake)
    assert native.load() is None
    for interface, found in ((native.INTERFACE - 1, False), (native.INTERFACE, True)):
        fake.__dict__["INTERFACE"] = interface
        assert (native.load() is fake) == found
    monkeypatch.setitem(sys.modules, "remac_runtime._native", None)     # makes the import fail
    assert native.load() is None


@needs_native
def test_sizes_are_checked() -> None:
    """A wrong size, a wrong number of arguments or a read-only output is an exception, never an access beyond an array."""
    library: Any = native.library
    i32 = np.zeros(8, np.int32)
    u8, u16, empty = np.zeros(8, np.uint8), np.zeros(8, np.uint16), np.zeros(0, np.int32)
    frozen = np.zeros(8, np.uint16)
    frozen.flags.writeable = False
    row, rounding, score = i32[:4], np.zeros(64, np.int32), np.zeros(64 * 16, np.int16)
    state = np.zeros(library.DECODER_WORDS, np.uint32)
    tables = (i32[:1], i32[:2], u16, np.zeros(256, np.uint16))
    wrong: list[tuple[Any, ...]] = [
        (library.requantise, i32[:3], i32), (library.requantise, empty, i32), (library.requantise, row, i32[:7]),
        (library.requantise, row, np.zeros(9, np.uint8)), (library.scale_level, i32, row, u16[:7]), (library.scale_level, i32[:7], row, u16[:7]),
        (library.quantise, row, row, row, row, rounding, i32, i32, i32, i32, u16, u8, i32[:7], 0),
        (library.quantise, row, row, row, row[:3], rounding, i32, i32, i32, i32, u16, u8, i32, 0),
        (library.quantise, row, row, row, row, rounding[:63], i32, i32, i32, i32, u16, u8, i32, 0),
        (library.quantise, row, row, row, row, rounding, i32, i32, i32, i32, u16, u8, i32, 64),
        (library.dequantise, row, row, i32, i32[:7], i32, u8), (library.dequantise, empty, empty, i32, i32, i32, u8),
        (library.collect, score[:-1], row, i32, u16, i32, u16, 0, 0), (library.collect, score, i32[:3], i32, u16, i32, u16, 0, 0),
        (library.collect, score, empty, i32, u16, i32, u16, 0, 0), (library.collect, score, row, i32, u16[:4], i32, u16, 0, 0),
        (library.collect, score, row, i32, u16, i32[:7], u16, 0, 0), (library.collect, score, row, i32, u16, i32, u16[:7], 0, 0),
        (library.collect, score, row, i32, u16, i32, u16, 64, 0), (library.collect, score, row, i32, u16, i32, u16, 0, 65500),
        (library.collect, score, row, i32, i32, i32, u16, 0, 0), (library.collect, score.astype(np.int8), row, i32, u16, i32, u16, 0, 0),
        (library.encode, i32, u16[:7], i32[:1], i32[:2], u16, np.zeros(8, np.uint64), u8, 0),
        (library.encode, i32, u16, i32[:1], i32[:3], u16, np.zeros(8, np.uint64), u8, 0),
        (library.encode, i32, u16, i32[:1], i32[:2], u16, np.zeros(7, np.uint64), u8, 0),
        (library.decoder_start, state[:-1], b"", 0), (library.decode, state[:-1], b"", u16, i32, *tables), (library.decoder_finish, state[:-1], b""),
        (library.decode, state, b"", u16[:7], i32, *tables), (library.decode, state, b"", u16, i32, i32[:1], i32[:2], u16, np.zeros(255, np.uint16)),
        (library.decode_latents, state[:-1], b"", score, row, u16, i32, *tables, 0, 0),
        (library.decode_latents, state, b"", score[:-1], row, u16, i32, *tables, 0, 0),
        (library.decode_latents, state, b"", score, i32[:3], u16, i32, *tables, 0, 0),
        (library.decode_latents, state, b"", score, row, u16, i32[:7], *tables, 0, 0),
        (library.decode_latents, state, b"", score, row, u16, i32, i32[:1], i32[:3], u16, tables[3], 0, 0),
        (library.decode_latents, state, b"", score, row, u16, i32, i32[:1], i32[:2], u16, np.zeros(255, np.uint16), 0, 0),
        (library.decode_latents, state, b"", score, row, u16, i32, *tables, 64, 0),
        (library.decode_latents, state, b"", score, row, u16, i32, *tables, 0, 65500),
    ]
    for function, *arguments in wrong:
        with pytest.raises(ValueError):
            function(*arguments)
    with pytest.raises((BufferError, ValueError)):
        library.scale_level(i32, row, frozen)
    with pytest.raises((BufferError, ValueError)):
        library.scale_level(np.zeros((8, 2), np.int32)[:, 0], row, u16)
    for function, *arguments in wrong:
        with pytest.raises(TypeError):
            function(*arguments, 1, 2)
    with pytest.raises((TypeError, OverflowError)):
        library.collect(score, row, i32, u16, i32, u16, -1, 0)


# ---- numbers ------------------------------------------------------------------------------------------------------------------------------------

def defines() -> dict[str, int]:
    text = re.sub(r"/\*.*?\*/", "", (CSRC / "remac.h").read_text(), flags=re.S)
    found: dict[str, int] = {}
    for name, value in re.findall(r"#define REMAC_(\w+) (.+)", text):
        expression = re.sub(r"REMAC_(\w+)", lambda m: str(found[m[1]]), re.sub(r"U?INT32_C\((\d+)\)|(\w+)u\b", r"\1\2", value))
        found[name] = int(eval(expression))
    return found


def test_the_header_has_the_numbers_of_the_format() -> None:
    found = defines()
    for name in ("GAIN_BITS", "SCALE_FRACTION_BITS", "SCALE_LEVELS", "LEVEL_MAX", "LATENT_OFFSET", "HYPER_CONTEXTS", "SCORE_SIZES", "ADAPTATION_BITS",
                 "ADAPTATION_LIMIT", "CHANNEL_SHIFT", "POSITION_SHIFT", "PROBABILITY_BITS", "STATE_LOW", "SYMBOL_LIMIT", "LANES_LOG2_MAX"):
        assert found[name] == getattr(format, name), name
    assert found["ESCAPE_ZEROS_MAX"] == rans.ESCAPE_ZEROS_MAX
    assert found["LOOKUP_SIZE"] == 256 == combine(random_band(0, 1).tables).lookup.shape[1]


def test_every_status_has_a_message() -> None:
    body_text = re.search(r"typedef enum \{(.*?)\} remac_status", (CSRC / "remac.h").read_text(), re.S)
    assert body_text is not None
    statuses = {int(value): name for name, value in re.findall(r"REMAC_(\w+) = (\d+)", body_text[1])}
    assert {n for n, name in statuses.items() if name.startswith("CORRUPT_")} == set(rans._CORRUPT)
    assert set(statuses) == {0, *rans._CORRUPT, *rans._BUGS}


def bitwise_crc(data: bytes, value: int = 0) -> int:
    register = value ^ 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


@pytest.mark.parametrize("name", ["c", "numpy"])
def test_crc32c(name: str) -> None:
    """The published values (RFC 3720, B.4), and long data against the definition bit by bit."""
    published = {b"123456789": 0xE3069283, bytes(32): 0x8A9136AA, b"\xff" * 32: 0x62A8AB43, bytes(range(32)): 0x46DD794E,
                 bytes(range(31, -1, -1)): 0x113FDB5C, b"": 0}
    data = np.random.default_rng(0).bytes(40_000)
    with body("c" if name == "c" else "singly"):
        for content, value in published.items():
            assert bitwise_crc(content) == crc.crc32c(content) == value
        assert crc.crc32c(data) == crc.crc32c(memoryview(data)) == bitwise_crc(data)
        for size in (16_383, 16_384, 16_385, 16_640, 39_999):
            assert crc.crc32c(data[:size]) == bitwise_crc(data[:size])
            assert crc.crc32c(data[size:], crc.crc32c(data[:size])) == bitwise_crc(data)
        assert crc.crc32c(data[:-1] + bytes([data[-1] ^ 1])) != crc.crc32c(data)


# ---- the C files themselves ---------------------------------------------------------------------------------------------------------------------

@needs_compiler
@pytest.mark.parametrize("options", [["-O3"], ["-O3", "-DREMAC_NO_CLONES"], ["-O0"]])
def test_remac_c_compiles_without_a_warning(options: list[str], tmp_path: Path) -> None:
    subprocess.run([COMPILER, *STRICT, *options, "-c", str(CSRC / "remac.c"), "-o", str(tmp_path / "remac.o")], check=True, timeout=120)


@needs_compiler
@pytest.mark.parametrize("source", ["module.c", "module_layers.c"])
def test_module_c_compiles_without_a_warning(source: str, tmp_path: Path) -> None:
    include = sysconfig.get_paths()["include"]
    if not (Path(include) / "Python.h").is_file():
        pytest.skip("no Python headers")
    subprocess.run([COMPILER, *STRICT, "-DPy_LIMITED_API=0x030B0000", "-isystem", include, "-c", str(CSRC / source), "-o",
                    str(tmp_path / "module.o")], check=True, timeout=120)


@needs_compiler
def test_remac_c_uses_no_heap_and_no_changing_globals(tmp_path: Path) -> None:
    if shutil.which("nm") is None:
        pytest.skip("no nm")
    subprocess.run([COMPILER, "-std=c99", "-O2", "-DREMAC_NO_CLONES", "-fno-stack-protector", "-c", str(CSRC / "remac.c"), "-o",
                    str(tmp_path / "remac.o")], check=True, timeout=120)
    listing = subprocess.run(["nm", str(tmp_path / "remac.o")], check=True, capture_output=True, text=True).stdout
    symbols = [(line.split()[-2], line.split()[-1]) for line in listing.splitlines()]
    assert {name for kind, name in symbols if kind == "U"} <= {"memset", "memcpy", "memmove", "_GLOBAL_OFFSET_TABLE_"}
    assert not [name for kind, name in symbols if kind in "dDbBC"]


def sanitized(tmp_path: Path, source: str, *options: str) -> Path:
    """native_driver.c with remac.c of this text, under AddressSanitizer and UndefinedBehaviorSanitizer."""
    (tmp_path / "remac.c").write_text(source)
    program = tmp_path / "driver"
    built = subprocess.run([COMPILER, *STRICT, *SANITIZERS, *options, "-I", str(CSRC), str(DRIVER), str(tmp_path / "remac.c"), "-o", str(program)],
                           check=False, capture_output=True, text=True, timeout=120)
    if built.returncode and ("asan" in built.stderr or "ubsan" in built.stderr):
        pytest.skip("the compiler has no sanitizers")
    assert built.returncode == 0, built.stderr
    return program


def run(program: Path, data: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([str(program)], input=data, check=False, capture_output=True, timeout=120, env={"ASAN_OPTIONS": "detect_leaks=0"})


def model_bytes(combined: rans.CombinedTables) -> bytes:
    return struct.pack("=2I", len(combined.first), len(combined.cdf)) + b"".join(
        array.tobytes() for array in (combined.first, combined.start, combined.cdf, combined.reciprocal, combined.lookup))


def decode_case(payload: bytes, lanes_log2: int, numbers: NDArray[np.uint16]) -> bytes:
    split = len(numbers) // 3
    return struct.pack("=5I", 1, lanes_log2, len(payload), len(numbers), split) + payload + numbers.tobytes()


def damaged_bands(band: Band, rng: np.random.Generator) -> list[tuple[int, bytes]]:
    return damaged_payloads({lanes_log2: band.scalar(lanes_log2) for lanes_log2 in (0, 2, 8)}, rng)


def damaged_payloads(payloads: dict[int, bytes], rng: np.random.Generator) -> list[tuple[int, bytes]]:
    """(lanes_log2, payload) of payloads by lanes_log2: whole, cut, flipped, with zeros or ones at the end where escapes are read, and garbage."""
    cases = [(9, bytes.fromhex("00000100") * 1024)]
    for lanes_log2, payload in payloads.items():
        cases += [(n, payload) for n in (lanes_log2, 9, 0xFFFFFFFF)]
        cases += [(lanes_log2, payload[:size]) for size in rng.integers(0, len(payload), 20)]
        for at in rng.integers(0, len(payload), 40):
            flipped = bytearray(payload)
            flipped[at] ^= int(rng.integers(1, 256))
            cases.append((lanes_log2, bytes(flipped)))
        for filler in (b"\0", b"\xff", b"\x01"):
            cases.append((lanes_log2, payload[:-20] + filler * 20))
        states = (2 ** 16 + np.arange(2 ** lanes_log2, dtype="<u4")).tobytes()
        cases += [(lanes_log2, rng.bytes(n)) for n in range(12)] + [(lanes_log2, states + rng.bytes(int(n))) for n in rng.integers(0, 200, 20)]
    return cases


@needs_compiler
def test_hostile_bands_stay_within_memory(tmp_path: Path) -> None:
    """And what the sanitized decoder says is what the NumPy body says."""
    program = sanitized(tmp_path, (CSRC / "remac.c").read_text())
    accepted = 0
    for seed in range(4):
        band, rng = random_band(seed, 150), np.random.default_rng(seed)
        combined = combine(band.tables)
        cases = damaged_bands(band, rng)
        result = run(program, model_bytes(combined) + b"".join(decode_case(payload, lanes, band.numbers) for lanes, payload in cases))
        assert result.returncode == 0, result.stderr.decode()
        answers = list(struct.iter_unpack("=2I", result.stdout))
        with body("singly"):
            expected = [outcome(payload, combined, lanes, [band.numbers]) if lanes < 32 else None for lanes, payload in cases]
        for (status, value), symbols in zip(answers, expected, strict=True):
            assert (status == 0) == (symbols is not None)
            assert symbols is None or value == bitwise_crc(np.array(symbols, np.int32).tobytes())
            accepted += symbols is not None
    assert accepted >= 12      # the whole bands at the least: the comparison above was not about nothing


def latents_case(payload: bytes, lanes_log2: int, rules: TableRules, level: NDArray[np.uint16]) -> bytes:
    """Two phases, the first of a third of the positions."""
    return struct.pack("=8I", 4, lanes_log2, len(payload), len(level), len(level) // 3, rules.latents, rules.coded_from, len(rules.z_tables)) \
        + rules.score.tobytes() + payload + level.tobytes()


def latents_outcome(payload: bytes, combined: rans.CombinedTables, lanes_log2: int, rules: TableRules, level: NDArray[np.uint16]) -> bytes | None:
    """Symbols, tables and what the channels have learnt, or None if the band is found corrupt."""
    adaptation, split = Adaptation(rules.network), len(level) // 3
    try:
        decoder = rans.BandDecoder(payload, combined, lanes_log2)
        phases = [decoder.decode_latents(part, adaptation) for part in (level[:split], level[split:])]
        decoder.finish()
    except CorruptStream:
        return None
    return b"".join(part.tobytes() for parts in zip(*phases, strict=True) for part in parts) + adaptation.channel.tobytes()


@needs_compiler
def test_hostile_latents_stay_within_memory(tmp_path: Path) -> None:
    """The same of tables that adapt: damage leads them astray, but never out of the tables of y."""
    program = sanitized(tmp_path, (CSRC / "remac.c").read_text())
    accepted = 0
    for seed in range(4):
        rng = np.random.default_rng(seed)
        rules = random_rules(rng, 7, (0, 5, 30, 63)[seed])
        tables = pack([random_table(rng) for _ in range(64)])
        combined, level = rans.combine_tables(rules.z_tables, tables), rng.integers(0, 1024, (30, 7)).astype(np.uint16)
        symbols = rng.integers(-300, 300, level.shape).astype(np.int32)
        with body("singly"):
            coded = Adaptation(rules.network).collect(symbols, level)
            cases = damaged_payloads({lanes: rans.encode(*coded, combined, lanes) for lanes in (0, 2, 8)}, rng)
            expected = [latents_outcome(payload, combined, lanes, rules, level) if lanes < 32 else None for lanes, payload in cases]
        result = run(program, model_bytes(combined) + b"".join(latents_case(payload, lanes, rules, level) for lanes, payload in cases))
        assert result.returncode == 0, result.stderr.decode()
        for (status, value), outcome_ in zip(struct.iter_unpack("=2I", result.stdout), expected, strict=True):
            assert (status == 0) == (outcome_ is not None)
            assert outcome_ is None or value == bitwise_crc(outcome_)
            accepted += outcome_ is not None
    assert accepted >= 12


@needs_compiler
def test_the_encoder_stays_within_its_room(tmp_path: Path) -> None:
    program = sanitized(tmp_path, (CSRC / "remac.c").read_text())
    band = random_band(9, 100)
    combined = combine(band.tables)
    cases, expected = [], []
    for lanes_log2 in (0, 3, 8):
        payload = band.scalar(lanes_log2)
        bound = (4 << lanes_log2) + 8 * 100
        for room in (bound, bound - 1, len(payload), len(payload) - 1, 7, 1, 0):
            cases.append((lanes_log2, room, band.symbols, band.numbers))
            expected.append(payload if room >= bound else None)
    out_of_range = [np.where(np.arange(100) == 50, k, band.symbols).astype(np.int32) for k in (LIMIT, -LIMIT, -2 ** 31, 2 ** 31 - 1)]
    cases += [(0, 2000, symbols, band.numbers) for symbols in out_of_range] + [(0, 2000, band.symbols, band.numbers + np.uint16(60000)),
                                                                              (9, 9000, band.symbols, band.numbers)]
    data = b"".join(struct.pack("=4I", 2, lanes, 100, room) + symbols.tobytes() + numbers.tobytes() for lanes, room, symbols, numbers in cases)
    result = run(program, model_bytes(combined) + data)
    assert result.returncode == 0, result.stderr.decode()
    answers = list(struct.iter_unpack("=2I", result.stdout))
    for (status, value), payload_or_none in zip(answers, expected, strict=False):
        assert status in (0, 1)
        assert payload_or_none is None or (status, value) == (0, bitwise_crc(payload_or_none))
    assert [status for status, _ in answers[len(expected):]] == [2, 2, 2, 2, 3, 4]
    worst = np.full(100, -LIMIT + 1, np.int32)      # 42 escape bits a symbol: the bound must hold
    result = run(program, model_bytes(combined) + struct.pack("=4I", 2, 0, 100, 804) + worst.tobytes() + band.numbers.tobytes())
    assert struct.unpack("=2I", result.stdout)[0] == 0


@needs_compiler
def test_element_wise_steps_are_defined_for_every_input(tmp_path: Path) -> None:
    """No overflow at the edges of int32, and the integers of the NumPy bodies."""
    program = sanitized(tmp_path, (CSRC / "remac.c").read_text())
    data, expected = b"", []
    for seed, (positions, channels) in enumerate([(20, 32), (3, 600), (1, 1), (0, 8), (50, 7)]):
        rng = np.random.default_rng(seed)
        params, shape = random_params(rng, channels), (positions, channels)
        y, mu, scale = (random_latents(rng, shape) for _ in range(3))
        rows = (params.gain, params.inverse_gain, params.scale_offset, params.context_shift, params.rounding)
        rules = random_rules(rng, channels, params.coded_from, 96)
        data += struct.pack("=4I", 3, positions, channels, params.coded_from)
        data += b"".join(array.tobytes() for array in (*rows, rules.score, y, mu, scale))
        with body("singly"):
            q = arithmetic.quantise(y, mu, scale, params)
            adaptation = Adaptation(rules.network)
            coded, tables = adaptation.collect(q.symbols, q.level)
            acc = y >> 7
            arithmetic.requantise(acc, params.context_shift)
        arrays = (q.level, tables, coded, adaptation.channel, q.symbols, q.y_hat, q.plane, acc)
        expected.append((0, bitwise_crc(b"".join(array.tobytes() for array in arrays))))
    result = run(program, model_bytes(combine(random_band(0, 1).tables)) + data)
    assert result.returncode == 0, result.stderr.decode()
    assert list(struct.iter_unpack("=2I", result.stdout)) == expected


@needs_compiler
@pytest.mark.parametrize(("check", "without"), [
    ("if (*end - d->next < 2)", "if (0)"),
    ("if (byte >= size - d->next)", "if (0)"),
    ("if (size < 4 * lanes)", "if (0)"),
    ("if (lanes_log2 > REMAC_LANES_LOG2_MAX)", "if (lanes_log2 > 31)"),
])
def test_sanitizers_see_a_missing_check(check: str, without: str, tmp_path: Path) -> None:
    """Without any one of the decoder's checks the tests above would fail."""
    source = (CSRC / "remac.c").read_text()
    assert check in source
    program = sanitized(tmp_path, source.replace(check, without), "-Wno-error")
    reports = []
    for seed in range(4):
        band = random_band(seed, 150)
        cases = damaged_bands(band, np.random.default_rng(seed))
        result = run(program, model_bytes(combine(band.tables)) + b"".join(decode_case(payload, lanes, band.numbers) for lanes, payload in cases))
        reports.append(result.returncode != 0 and (b"Sanitizer" in result.stderr or b"runtime error" in result.stderr))
    assert any(reports)
