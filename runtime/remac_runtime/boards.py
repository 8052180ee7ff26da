"""Board descriptions: one TOML file a board, checked as it is read.

The files are the folder boards/ of the checkout, and the folder data/ of the installed package. A figure that a file leaves out is not there or not
known. Every figure must be named by a source of the file, or by a source that names its table (`figures = ["memory"]`); it is confirmed if one of
those is.
"""
from __future__ import annotations

import dataclasses
import difflib
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from remac_runtime.errors import RemacError

FOLDER = Path(__file__).resolve().parent / "data"
CLASSES = ("flight", "jetson", "sbc", "riscv", "desktop", "server")
INT8_DOT = ("none", "smull", "dotprod", "i8mm", "vnni")     # instructions for products of bytes, weakest first
ENDIANS = ("little", "big")
FAMILIES = {"PowerPC": "power", "Power": "power", "SPARC": "sparc", "RV": "riscv", "ARMv7": "arm32", "ARMv8": "arm64", "ARMv9": "arm64",
            "x86": "x86"}                                     # start of `cpu.isa`: what it is called elsewhere
RUNTIMES = ("onnxruntime", "numpy", "torch", "c99", "tensorrt")
VERSIONS = ("accelerator.sm", "software.python", "software.jetpack", "software.cuda", "software.tensorrt")
YEARS = range(1990, 2100)
LARGEST = {"cores": 1024, "clock_mhz": 10_000, "issue_width": 16}

Part = TypeVar("Part")


class BadBoard(RemacError):
    """A board file that breaks the schema, or a board that is not there. The message names file and key."""


@dataclass(frozen=True)
class Cpu:
    """`clock_mhz`: highest of the fastest core; caches of one core or shared, as the maker counts; `issue_width`: instructions a cycle at most."""

    model: str
    isa: str
    cores: int
    clock_mhz: int
    issue_width: int
    simd: str
    int8_dot: str
    fpu: str
    endian: str
    l1d_kib: int | None = None
    l2_kib: int | None = None
    l3_kib: int | None = None


@dataclass(frozen=True)
class Memory:
    """`bandwidth_gb_s`: of the memory chips, in theory."""

    size_mib: int
    bandwidth_gb_s: float
    ecc: bool


@dataclass(frozen=True)
class Accelerator:
    """A GPU, NPU, DSP or FPGA beside the processor. `sm`: NVIDIA's compute capability."""

    model: str
    sm: str | None = None
    int8_tops: float | None = None
    fp16_tflops: float | None = None
    fp32_tflops: float | None = None


@dataclass(frozen=True)
class Peaks:
    """Of one core, in theory; `derived` says how."""

    int8_gmac_s_1core: float
    fp32_gflop_s_1core: float
    derived: str


@dataclass(frozen=True)
class Software:
    """`python`: versions that come with the system; `onnxruntime_wheel`: whether pip finds one for the processor."""

    os: str
    onnxruntime_wheel: bool
    python: str | None = None
    jetpack: str | None = None
    cuda: str | None = None
    tensorrt: str | None = None


@dataclass(frozen=True)
class Measured:
    """What others measured: bytes copied and filled a second by one core, and double-precision Linpack on all."""

    memcpy_gb_s: float | None = None
    memset_gb_s: float | None = None
    hpl_gflops: float | None = None


@dataclass(frozen=True)
class PowerMode:
    """`watts`: of the module or board in that mode or state."""

    name: str
    watts: float


@dataclass(frozen=True)
class Source:
    """`figures` that it covers, what it `says` on them, where it is, and whether a reader can confirm it there."""

    figures: tuple[str, ...]
    source: str
    confirmed: bool
    says: str = ""


@dataclass(frozen=True)
class Board:
    """One board; `id` is the name of its file."""

    id: str
    name: str
    vendor: str
    year: int
    kind: str
    runtimes: tuple[str, ...]
    cpu: Cpu
    memory: Memory
    peaks: Peaks
    software: Software
    sources: tuple[Source, ...]
    accelerator: Accelerator | None = None
    measured: Measured = Measured()
    power_modes: tuple[PowerMode, ...] = ()
    note: str = ""

    @property
    def family(self) -> str:
        """The instruction set in one word, one of FAMILIES."""
        return next(name for start, name in FAMILIES.items() if self.cpu.isa.startswith(start))

    @property
    def watts(self) -> PowerMode | None:
        """The mode that takes most power; None where no power is known."""
        return max(self.power_modes, key=lambda mode: mode.watts, default=None)

    def confirmed(self, figure: str) -> bool:
        """Whether a source that covers `cpu.clock_mhz`, say, or its whole table is confirmed."""
        return any(source.confirmed for source in self.sources if {figure, figure.partition(".")[0]} & set(source.figures))


# ---- reading

def unknown(what: str, name: str, names: Iterable[str]) -> str:
    """A message for a name that is not there, with those that are nearest to it."""
    known = sorted(names)
    close = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(close)}?" if close else f"choose one of {', '.join(known)}"
    return f"no {what} named {name!r}: {hint}"


def load_board(path: Path) -> Board:
    """Read and check one file. Raises BadBoard."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise BadBoard(f"{path}: not TOML ({error})") from None
    except OSError as error:
        raise BadBoard(f"{path}: {(error.strerror or 'cannot be read').lower()}") from None
    if "kind" in content or "id" in content:
        raise BadBoard(f"{path}: {'kind' if 'kind' in content else 'id'}: no such key: the class is `class`, the name is the file's")
    if "class" in content:
        content["kind"] = content.pop("class")
    else:
        raise BadBoard(f"{path}: class: missing")
    board = _build(Board, {**content, "id": path.stem}, path, "")
    _check_values(board, path)
    _check_sources(board, path)
    return board


def board_names(folder: Path = FOLDER) -> list[str]:
    """Of all boards, sorted. Raises BadBoard where there are none."""
    names = sorted(path.stem for path in folder.glob("*.toml"))
    if not names:
        raise BadBoard(f"{folder}: no board files: install remac-runtime from a whole checkout")
    return names


def find_board(name: str, folder: Path = FOLDER) -> Board:
    """The board of that name. Raises BadBoard, with the nearest names."""
    names = board_names(folder)
    if name not in names:
        raise BadBoard(unknown("board", name, names))
    return load_board(folder / f"{name}.toml")


def load_boards(folder: Path = FOLDER) -> list[Board]:
    """All boards: by class in the order of CLASSES, then by name. Raises BadBoard."""
    boards = [load_board(folder / f"{name}.toml") for name in board_names(folder)]
    return sorted(boards, key=lambda board: (CLASSES.index(board.kind), board.year, board.id))


# ---- the schema: keys and types are those of the dataclasses

def _build(kind: type[Part], content: Any, path: Path, prefix: str) -> Part:
    if not isinstance(content, dict):
        raise BadBoard(f"{path}: {prefix.rstrip('.')}: expected a table, found {content!r}")
    types, fields = get_type_hints(kind), {field.name: field for field in dataclasses.fields(kind)}     # type: ignore[arg-type]
    for key in content:
        if key not in fields:
            raise BadBoard(f"{path}: {prefix}{key}: {unknown('key', key, fields)}")
    values: dict[str, Any] = {}
    for name, field in fields.items():
        if name in content:
            values[name] = _value(types[name], content[name], path, prefix + name)
        elif field.default is dataclasses.MISSING:
            raise BadBoard(f"{path}: {prefix}{'class' if name == 'kind' else name}: missing")
    return kind(**values)


def _value(kind: Any, value: Any, path: Path, key: str) -> Any:
    if get_origin(kind) is UnionType:
        (kind,) = (option for option in get_args(kind) if option is not NoneType)
    if get_origin(kind) is tuple:
        item = get_args(kind)[0]
        if not isinstance(value, list):
            raise BadBoard(f"{path}: {key}: expected a list, found {value!r}")
        return tuple(_value(item, entry, path, f"{key}[{n}]") for n, entry in enumerate(value))
    if dataclasses.is_dataclass(kind):
        return _build(kind, value, path, f"{key}.")     # type: ignore[arg-type]
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise BadBoard(f"{path}: {key}: expected {kind.__name__}, found {value!r}")
    if kind is str and not value.strip():
        raise BadBoard(f"{path}: {key}: is empty: leave it out where it is not known")
    if kind in (int, float) and not 0 < value < float("inf"):
        raise BadBoard(f"{path}: {key}: expected a positive number, found {value!r}")
    return value


def _check_values(board: Board, path: Path) -> None:
    words = [("class", board.kind, CLASSES), ("cpu.int8_dot", board.cpu.int8_dot, INT8_DOT), ("cpu.endian", board.cpu.endian, ENDIANS)]
    for key, found, allowed in (*words, *(("runtimes", name, RUNTIMES) for name in board.runtimes)):
        if found not in allowed:
            raise BadBoard(f"{path}: {key}: expected one of {', '.join(allowed)}, found {found!r}")
    if not board.cpu.isa.startswith(tuple(FAMILIES)):
        raise BadBoard(f"{path}: cpu.isa: expected a name that starts with one of {', '.join(FAMILIES)}, found {board.cpu.isa!r}")
    if board.year not in YEARS:
        raise BadBoard(f"{path}: year: expected {YEARS.start}..{YEARS.stop - 1}, found {board.year}")
    if len(set(board.runtimes)) != len(board.runtimes):
        raise BadBoard(f"{path}: runtimes: a name stands there twice")
    for name, limit in LARGEST.items():
        if getattr(board.cpu, name) > limit:
            raise BadBoard(f"{path}: cpu.{name}: expected at most {limit}, found {getattr(board.cpu, name)}")


def figures(board: Board) -> Iterator[str]:
    """Keys of a board's figures and versions: what needs a source. Other words, such as the instruction set, describe."""
    tables: Mapping[str, object] = {"cpu": board.cpu, "memory": board.memory, "accelerator": board.accelerator, "peaks": board.peaks,
                                    "software": board.software, "measured": board.measured}
    for table, part in tables.items():
        for key, value in (dataclasses.asdict(part) if part is not None else {}).items():     # type: ignore[call-overload]
            if type(value) in (int, float) or (value is not None and f"{table}.{key}" in VERSIONS):
                yield f"{table}.{key}"
    if board.power_modes:
        yield "power_modes"


def _check_sources(board: Board, path: Path) -> None:
    found = set(figures(board))
    covered = {name for source in board.sources for name in source.figures}
    for number, source in enumerate(board.sources):
        for name in source.figures:
            if name not in found and not any(figure.startswith(f"{name}.") for figure in found):
                raise BadBoard(f"{path}: sources[{number}].figures: {name!r} is no figure of this file")
    for figure in sorted(found):
        if not {figure, figure.partition(".")[0]} & covered:
            raise BadBoard(f"{path}: {figure}: has no source: name it in `figures` of a source")
