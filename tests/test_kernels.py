"""csrc/kernels.c: every instruction set gives the integers of reference.run_layer, stays within its memory, and compiles without a warning.

The kernels run in kernel_driver.c, built here with each compiler at hand, and under qemu for processors that this machine is not.
"""
from __future__ import annotations

import platform
import re
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from remac_runtime import native, packing, reference
from remac_runtime.backends.c99_backend import KERNELS
from remac_runtime.errors import RemacError
from remac_runtime.format import ACCUMULATOR_LIMIT, WEIGHT_MAX
from remac_runtime.network import Layer

CSRC = Path(native.__file__).parent / "csrc"
DRIVER = Path(__file__).with_name("kernel_driver.c")
STRICT = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Wsign-conversion", "-Werror"]
SANITIZERS = ["-O0", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
COMPILERS = [name for name in ("gcc", "clang") if shutil.which(name)]
ARM = "aarch64-linux-gnu-gcc"
needs_compiler = pytest.mark.skipif(not COMPILERS, reason="no C compiler")
needs_arm = pytest.mark.skipif(not (shutil.which(ARM) and shutil.which("qemu-aarch64")), reason=f"needs {ARM} and qemu-aarch64")
Ints = NDArray[np.int64]


# ---- cases: a row of a layer, and what the reference makes of it ----------------------------------------------------------------------------------

@dataclass(frozen=True)
class Case:
    """A layer on row `row` of taps (offset into data, step, channels); `expected` int64[positions,out]."""

    layer: Layer
    taps: tuple[tuple[int, int, int], ...]
    data: NDArray[np.uint8]
    expected: Ints

    def encoded(self, path: int, order: str) -> bytes:
        layer, weight = self.layer, packing.packed_weight(self.layer)
        numbers = [path, layer.head, len(layer.bias), layer.weight[0].size, len(self.expected), len(self.taps), self.data.size]
        return b"".join((np.array(numbers, order + "u4").tobytes(), np.array(self.taps, order + "u4").tobytes(), weight.tobytes(),
                         layer.bias.astype(order + "i4").tobytes(), layer.shift.astype(np.int8).tobytes(), self.data.tobytes()))


def random_layer(rng: np.random.Generator, outputs: int, kernel: int, channels: int, stride: int, head: bool) -> Layer:
    low, high = (-8, 8) if head else (0, 17)
    return Layer("layer", rng.integers(-WEIGHT_MAX, WEIGHT_MAX + 1, (outputs, kernel, kernel, channels)).astype(np.int8),
                 rng.integers(-20_000, 20_000, outputs).astype(np.int32), rng.integers(low, high, outputs).astype(np.int8), stride, head)


def window_case(rng: np.random.Generator, layer: Layer, columns: int) -> Case:
    """The middle row of a picture of few rows: the rows of the window are three taps, or one, in a picture with its margin of zeros."""
    kernel, channels, rows = layer.weight.shape[1], layer.weight.shape[3], 2 * layer.stride
    x = rng.integers(0, 256, (rows, columns * layer.stride, channels), dtype=np.uint8)
    margin = kernel // 2
    data = np.ascontiguousarray(np.pad(x, ((margin, margin), (margin, margin), (0, 0))))
    taps = tuple(((layer.stride + dy) * data[0].size, layer.stride * channels, kernel * channels) for dy in range(kernel))
    last = taps[-1][0] + (columns - 1) * taps[-1][1] + taps[-1][2]
    return Case(layer, taps, data.reshape(-1)[:last], reference.run_layer(layer, x.astype(np.int64))[1])


def depth_case(rng: np.random.Generator, layer: Layer, columns: int, block: int, before: int) -> Case:
    """A 1x1 layer on `before` channels of its own, then on space-to-depth of RGB pixels."""
    pixels, extra = rng.integers(0, 256, (block, block * columns, 3), dtype=np.uint8), rng.integers(0, 256, (1, columns, before), dtype=np.uint8)
    taps = [(pixels.size, before, before)] * (before > 0) + [(dy * pixels[0].size, 3 * block, 3 * block) for dy in range(block)]
    x = np.concatenate([extra, reference.space_to_depth(pixels.astype(np.int64), block)], axis=2)
    return Case(layer, tuple(taps), np.concatenate([pixels.reshape(-1), extra.reshape(-1)]), reference.run_layer(layer, x.astype(np.int64))[0])


def random_cases(seed: int) -> Iterator[Case]:
    """Numbers of outputs and positions around the sizes of every tile, both kinds of output, every kind of tap."""
    rng = np.random.default_rng(seed)
    for outputs, columns in ((1, 1), (4, 2), (15, 3), (16, 4), (17, 5), (31, 6), (32, 7), (33, 8), (48, 9), (64, 11), (3, 13), (40, 17), (19, 25)):
        for head in (False, True):
            yield window_case(rng, random_layer(rng, outputs, 1, 4 * int(rng.integers(1, 9)), 1, head), columns)
            yield window_case(rng, random_layer(rng, outputs, 3, 4 * int(rng.integers(1, 5)), int(rng.integers(1, 3)), head), columns)
            block, before = int(rng.choice((4, 8, 16))), 4 * int(rng.integers(0, 3))
            yield depth_case(rng, random_layer(rng, outputs, 1, before + 3 * block * block, 1, head), columns, block, before)


def half_even(acc: int, shift: int) -> int:
    """FORMAT 5.1 in words: a * 2^-s, rounded half to even."""
    return round(Fraction(acc) / Fraction(2) ** shift)


def exact_case(layer: Layer, x: NDArray[np.uint8]) -> Case:
    """A 1x1 layer on x uint8[positions,in]; the expected values come from Python's integers and fractions, not from the reference."""
    weight = layer.weight.reshape(len(layer.bias), -1)
    expected = np.zeros((len(x), len(weight)), np.int64)
    for p, o in np.ndindex(*expected.shape):
        acc = int(layer.bias[o]) + sum(int(w) * int(v) for w, v in zip(weight[o], x[p], strict=True))
        value = half_even(acc, int(layer.shift[o]))
        expected[p, o] = value if layer.head else min(max(value, 0), 255)
    return Case(layer, ((0, x.shape[1], x.shape[1]),), x.reshape(-1), expected)


def extreme_cases() -> Iterator[Case]:
    """Sums that would saturate int16 lanes, accumulators next to the limit, inputs of all one value."""
    inputs = 1024
    signs = np.array([np.ones(inputs), -np.ones(inputs), np.tile((1, -1), inputs // 2), np.tile((1, 1, -1, -1), inputs // 4)])
    weight = (WEIGHT_MAX * signs).astype(np.int8).reshape(4, 1, 1, inputs)
    room = ACCUMULATOR_LIMIT - 1 - inputs * WEIGHT_MAX * 255
    bias = np.array([room, -room, room, -room], np.int32)
    x = np.stack([np.full(inputs, value) for value in (0, 1, 127, 128, 254, 255)] + [np.tile((255, 0), inputs // 2), np.tile((0, 255), inputs // 2)])
    for head in (False, True):
        for shift in ((0, 2, -2) if head else (0, 8, 16)):
            yield exact_case(Layer("extreme", weight, bias, np.full(4, shift, np.int8), 1, head), x.astype(np.uint8))


def tie_cases() -> Iterator[Case]:
    """Accumulators at, just below and just above halves, of both signs, for every shift."""
    for head in (False, True):
        for shift in range(-8 if head else 0, 17):
            step = 2 ** max(shift, 0)
            points = [k * step + step // 2 + near for k in (-3, -2, -1, 0, 1, 2, 126, 127, 254, 255, 256) for near in (-1, 0, 1)]
            points = [point for point in points if abs(point) < ACCUMULATOR_LIMIT - 3 * 255]
            weight = np.zeros((len(points), 1, 1, 4), np.int8)
            weight[:, 0, 0, 3] = 1
            yield exact_case(Layer("ties", weight, np.array(points, np.int32), np.full(len(points), shift, np.int8), 1, head),
                             np.array([[9, 9, 9, value] for value in (0, 1, 3)], np.uint8))


@lru_cache(1)
def all_cases() -> tuple[Case, ...]:
    return (*random_cases(1), *extreme_cases(), *tie_cases())


# ---- building and running -------------------------------------------------------------------------------------------------------------------------

def build(folder: Path, compiler: str, *options: str, change: Callable[[str, str], str] | None = None) -> Path:
    """kernel_driver.c with the kernels; `change(file name, text)` may mutate a source."""
    for name in ("kernels.c", "kernels.h", "kernels_simd.h", "kernels_tile.h"):
        text = (CSRC / name).read_text()
        (folder / name).write_text(change(name, text) if change else text)
    program = folder / "driver"
    built = subprocess.run([compiler, *STRICT, *options, "-I", str(folder), str(DRIVER), str(folder / "kernels.c"), "-o", str(program)],
                           check=False, capture_output=True, text=True, timeout=300)
    if built.returncode and ("asan" in built.stderr or "ubsan" in built.stderr):
        pytest.skip("the compiler has no sanitizers")
    assert built.returncode == 0, built.stderr
    return program


def answers(command: Sequence[str], cases: Sequence[Case], paths: Sequence[int], order: str = "=") -> tuple[int, list[list[Ints] | None]]:
    """The best path, and per path the results of the cases, None where the processor does not have it. `order` of its bytes."""
    data = b"".join(case.encoded(path, order) for path in paths for case in cases)
    result = subprocess.run(command, input=data, check=False, capture_output=True, timeout=300, env={"ASAN_OPTIONS": "detect_leaks=0"})
    assert result.returncode == 0, result.stderr.decode()[-2000:]
    words, at, found = result.stdout, 4, []
    for _ in paths:
        results: list[Ints] = []
        for case in cases:
            usable, at = struct.unpack_from(order + "I", words, at)[0], at + 4
            if usable:
                values: NDArray[Any] = np.frombuffer(words, order + "i4" if case.layer.head else "u1", case.expected.size, at)
                results.append(values.reshape(case.expected.shape).astype(np.int64))
                at += values.nbytes
        found.append(results or None)
    assert at == len(words)
    return struct.unpack_from(order + "I", words)[0], found


def differing(results: Sequence[Ints], cases: Sequence[Case]) -> int:
    return sum(not np.array_equal(result, case.expected) for result, case in zip(results, cases, strict=True))


def checked(command: Sequence[str], cases: Sequence[Case], order: str = "=") -> set[str]:
    """All paths that this processor has give what is expected; their names."""
    best, found = answers(command, cases, range(len(KERNELS)), order)
    usable = {KERNELS[path] for path, results in enumerate(found) if results is not None}
    assert KERNELS[best] in usable and best == max(path for path, results in enumerate(found) if results is not None)
    for path, results in enumerate(found):
        assert results is None or differing(results, cases) == 0, KERNELS[path]
    return usable


# ---- tests ----------------------------------------------------------------------------------------------------------------------------------------

def test_the_names_of_the_paths_are_those_of_the_header() -> None:
    text = (CSRC / "kernels.h").read_text()
    paths = {name.lower(): int(value) for name, value in re.findall(r"REMAC_PATH_(\w+) = (\d+)", text)}
    assert paths.pop("count") == len(KERNELS)
    assert paths == {name: number for number, name in enumerate(KERNELS)}
    assert f"#define REMAC_OUT_BLOCK {packing.OUT_BLOCK} " in text and f"#define REMAC_INPUT_QUAD {packing.INPUT_QUAD} " in text


def test_packing_is_what_the_header_says() -> None:
    rng = np.random.default_rng(3)
    layer = random_layer(rng, 21, 3, 8, 1, False)
    packed = packing.packed_weight(layer)
    assert packed.shape == (2, 18, 16, 4) and packed.dtype == np.int8 and packed.flags.c_contiguous
    for o in range(32):
        for i in range(72):
            dy, dx, channel = i // 24, i // 8 % 3, i % 8
            assert packed[o // 16, i // 4, o % 16, i % 4] == (layer.weight[o, dy, dx, channel] if o < 21 else 0)


def test_channels_that_do_not_fit_are_refused() -> None:
    with pytest.raises(RemacError, match=r"layer: takes 6 channels.*multiple of 4.*numpy backend"):
        packing.packed_weight(random_layer(np.random.default_rng(0), 4, 1, 6, 1, False))


@needs_compiler
@pytest.mark.parametrize("compiler", COMPILERS)
def test_every_path_gives_the_reference(compiler: str, tmp_path: Path) -> None:
    usable = checked([str(build(tmp_path, compiler, "-O2", "-DREMAC_SIMD=2"))], all_cases())
    assert "portable" in usable


@needs_compiler
@pytest.mark.parametrize("options", [["-O3"], ["-O0", "-DREMAC_SIMD=1"]])
def test_what_the_compiler_was_told_decides(options: list[str], tmp_path: Path) -> None:
    """Without REMAC_SIMD there is portable C alone; with 1 nothing beyond the target's instruction sets, here the oldest x86-64 or ARMv8."""
    usable = checked([str(build(tmp_path, COMPILERS[0], *options))], all_cases())
    assert usable <= {"best", "portable"} | ({"neon", "dotprod"} if options[-1] == "-DREMAC_SIMD=1" else set())


@needs_compiler
@pytest.mark.parametrize("options", [[], ["-DREMAC_SIMD=2"]])
def test_the_kernels_stay_within_memory(options: list[str], tmp_path: Path) -> None:
    checked([str(build(tmp_path, COMPILERS[0], *SANITIZERS, *options))], all_cases())


@pytest.mark.skipif(platform.machine() != "x86_64" or not COMPILERS or not shutil.which("qemu-x86_64"), reason="needs a compiler and qemu-x86_64")
def test_the_path_follows_the_processor(tmp_path: Path) -> None:
    program = build(tmp_path, COMPILERS[0], "-O1", "-DREMAC_SIMD=2", "-static")
    for processor, wanted in (("Conroe", {"portable"}), ("Nehalem", {"sse41"}), ("Haswell", {"avx2", "sse41"})):      # qemu before 7.2 has no AVX2
        found, _ = answers(["qemu-x86_64", "-cpu", processor, str(program)], [], [])
        assert KERNELS[found] in wanted


@needs_arm
@pytest.mark.parametrize(("processor", "paths"), [("cortex-a53", {"neon"}), ("neoverse-n1", {"neon", "dotprod"})])
def test_arm_gives_the_reference(processor: str, paths: set[str], tmp_path: Path) -> None:
    program = build(tmp_path, ARM, "-O2", "-DREMAC_SIMD=2", "-static")
    assert checked(["qemu-aarch64", "-cpu", processor, str(program)], all_cases()) == {"best", "portable"} | paths


@pytest.mark.parametrize(("compiler", "emulator", "order"), [
    ("powerpc-linux-gnu-gcc", "qemu-ppc", ">"), ("riscv64-linux-gnu-gcc", "qemu-riscv64", "<")])
def test_other_processors_give_the_reference(compiler: str, emulator: str, order: str, tmp_path: Path) -> None:
    """Registers of 32 bits with the other order of bytes, and of 64 bits without vectors."""
    if not (shutil.which(compiler) and shutil.which(emulator)):
        pytest.skip(f"needs {compiler} and {emulator}")
    assert checked([emulator, str(build(tmp_path, compiler, "-O2", "-DREMAC_SIMD=2", "-static"))], all_cases(), order) == {"best", "portable"}


MUTATIONS = {
    "half up instead of half to even": ("kernels.c", "((acc >> shift) & 1)", "1", {"portable"}),
    "no clamp below": ("kernels.c", "value < 0 ? 0 : ", "", {"portable"}),
    "a wrong input": ("kernels.c", "b3 += w23 * x3", "b3 += w23 * x2", {"portable"}),
    "no borrow between halves": ("kernels.c", "(sum - (uint64_t)acc[0]) >> 32", "sum >> 32", {"portable"}),
    "no tie in vectors of 8": ("kernels_simd.h", "_mm256_and_si256(_mm256_srav_epi32(a, right), LOAD_256(steps->odd + j))", "_mm256_setzero_si256()",
                               {"avx2", "avxvnni"}),
    "no tie in vectors of 16": ("kernels_simd.h", "_mm512_and_si512(_mm512_srav_epi32(a, right), _mm512_loadu_si512(steps->odd))",
                                "_mm512_setzero_si512()", {"avx512vnni"}),
    "no tie in plain loops": ("kernels_simd.h", "((a >> steps->right[j]) & steps->odd[j])", "0", {"sse41"}),
    "the last tile begins late": ("kernels_tile.h", "x[0] = taps[t].base + at * step;", "x[0] = taps[t].base + (at > 0 ? at - 1 : at) * step;",
                                  {"sse41", "avx2", "avxvnni", "avx512vnni"}),
}


@needs_compiler
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_mutation_is_seen(mutation: str, tmp_path: Path) -> None:
    name, before, after, concerned = MUTATIONS[mutation]

    def change(file: str, text: str) -> str:
        assert file != name or before in text, "the mutation no longer fits the source"
        return text.replace(before, after) if file == name else text

    cases = all_cases()
    program = build(tmp_path, COMPILERS[0], "-O0", "-Wno-unused-parameter", "-Wno-unused-variable", "-DREMAC_SIMD=2", change=change)
    _, found = answers([str(program)], cases, range(len(KERNELS)))
    seen = [KERNELS[path] for path, results in enumerate(found) if results is not None and KERNELS[path] in concerned]
    if not seen:
        pytest.skip("this processor has none of these paths")
    assert all(differing(found[KERNELS.index(path)] or [], cases) > 0 for path in seen)


@needs_compiler
@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("source", ["kernels.c", "layers.c"])
def test_the_sources_compile_without_a_warning(compiler: str, source: str, tmp_path: Path) -> None:
    for options in (["-O2"], ["-O2", "-DREMAC_SIMD=1", "-march=native"], ["-O2", "-DREMAC_SIMD=2"]):
        subprocess.run([compiler, *STRICT, "-Wshadow", *options, "-c", str(CSRC / source), "-o", str(tmp_path / "object.o")], check=True, timeout=300)


@needs_compiler
def test_kernels_use_no_heap_and_no_changing_globals(tmp_path: Path) -> None:
    if shutil.which("nm") is None:
        pytest.skip("no nm")
    for source, known in (("kernels.c", set()), ("layers.c", {"remac_row_u8", "remac_row_i32"})):
        command = [COMPILERS[0], "-std=c99", "-O2", "-fno-stack-protector", "-c", str(CSRC / source), "-o", str(tmp_path / "object.o")]
        subprocess.run(command, check=True, timeout=120)
        listing = subprocess.run(["nm", str(tmp_path / "object.o")], check=True, capture_output=True, text=True).stdout
        symbols = [(line.split()[-2], line.split()[-1]) for line in listing.splitlines()]
        outside = {name for kind, name in symbols if kind == "U" and not name.startswith("remac_analysis")}
        assert outside <= {"memset", "memcpy", "_GLOBAL_OFFSET_TABLE_"} | known
        assert not [name for kind, name in symbols if kind in "dDbBC"]
