"""`remac compare`: two pictures, arrays or files, element by element."""
from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from remac_runtime import packets
from remac_runtime.errors import BadInput
from remac_runtime.exits import Exit
from remac_runtime.images import READABLE, load_picture

_AXES = {"picture": ("row", "column", "channel"), "bytes": ("byte",)}


@dataclass(frozen=True)
class Operand:
    """A file as an array; `kind` is "picture", "array" or "bytes", `peak` the largest sample that a picture of its depth can have."""

    path: Path
    kind: str
    values: NDArray[Any]
    peak: int = 0

    @property
    def shape(self) -> str:
        return f"{self.values.dtype}[{','.join(map(str, self.values.shape))}]"


def load(path: Path) -> Operand:
    """Read by suffix: pictures, .npy arrays, else bytes. Raises BadInput."""
    suffix = path.suffix.lower()
    if suffix in READABLE:
        picture = load_picture(path)
        return Operand(path, "picture", picture.samples, (1 << picture.depth) - 1)
    try:
        if suffix == ".npy":
            return _array(path)
        return Operand(path, "bytes", np.frombuffer(path.read_bytes(), np.uint8))
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file: check the path") from None
    except IsADirectoryError:
        raise BadInput(f"{path}: is a folder: name two files") from None
    except (ValueError, EOFError) as error:
        raise BadInput(f"{path}: not a NumPy array ({str(error).splitlines()[0]}): write it with numpy.save") from None


def _array(path: Path) -> Operand:
    with path.open("rb") as file:
        values = np.lib.format.read_array(file, allow_pickle=False)
    if values.dtype.kind not in "biuf":
        raise BadInput(f"{path}: an array of {values.dtype}: compare integers, floating-point numbers or truth values")
    return Operand(path, "array", values)


def run(options: argparse.Namespace) -> int:
    a, b = load(Path(options.a)), load(Path(options.b))
    if a.kind != b.kind:
        raise BadInput(f"{a.path} is a {a.kind} and {b.path} is {b.kind}: compare two files of one kind")
    code, facts, text = difference(a, b)
    print(json.dumps({"command": "compare", "a": str(a.path), "b": str(b.path), **facts}, indent=1) if options.json else text)
    return code


def difference(a: Operand, b: Operand) -> tuple[Exit, dict[str, Any], str]:
    """(exit code, facts for JSON, a line for people)."""
    same_shape = a.values.shape == b.values.shape and a.values.dtype == b.values.dtype
    if not same_shape and a.kind != "bytes":
        shapes = {"shape_a": a.shape, "shape_b": b.shape}
        return Exit.SHAPES_DIFFER, {"result": "shapes differ", **shapes}, f"shapes or types differ: {a.shape} and {b.shape}"
    left, right = a.values, b.values
    if a.kind == "bytes":
        common = min(len(left), len(right))
        left, right = left[:common], right[:common]
    unequal = left != right
    if left.dtype.kind == "f":
        unequal &= ~(np.isnan(left) & np.isnan(right))
    count = int(np.count_nonzero(unequal))
    if same_shape and not count:
        return Exit.OK, {"result": "equal", "shape_a": a.shape, "elements": a.values.size}, f"equal: {a.values.size:,} elements, {a.shape}"
    facts: dict[str, Any] = {"result": "different" if same_shape else "shapes differ", "shape_a": a.shape, "shape_b": b.shape,
                             "elements": left.size, "different": count}
    lines = [f"{count:,} of {left.size:,} elements differ" if same_shape else f"lengths differ: {a.values.size:,} and {b.values.size:,} bytes; "
             f"{count:,} of the first {left.size:,} differ"]
    if count:
        lines += _first(a, b, unequal, facts)
    return (Exit.DIFFERENT if same_shape else Exit.SHAPES_DIFFER), facts, "; ".join(lines)


def _first(a: Operand, b: Operand, unequal: NDArray[np.bool_], facts: dict[str, Any]) -> list[str]:
    """The first difference and the size of all, added to the facts and as texts."""
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(unequal)), unequal.shape))
    values = [_plain(operand.values[index].item()) for operand in (a, b)]
    facts.update({"first": list(index), "value_a": values[0], "value_b": values[1]})
    axes = ", ".join(_AXES.get(a.kind, ())[:len(index)])
    lines = [f"first at {list(index)}{f' ({axes})' if axes else ''}: {values[0]} and {values[1]}"]
    if a.kind == "bytes":
        return lines + _packet_at(a, index[0], facts)
    if a.values.dtype.kind in "iuf":
        with np.errstate(invalid="ignore"):        # of equal infinities
            delta = np.abs(a.values.astype(np.float64) - b.values.astype(np.float64))
        facts["largest"] = _plain(float(np.max(delta[unequal]))) if a.values.dtype.kind == "f" else _largest(a, b, unequal, delta)
        lines.append(f"largest difference {facts['largest']}")
        if a.kind == "picture":
            facts["peak"] = _peak(a, b)
            facts["psnr_db"] = round(10 * math.log10(facts["peak"] ** 2 / float(np.mean(delta * delta))), 3)
            lines.append(f"PSNR {facts['psnr_db']:.2f} dB (peak {facts['peak']})")
    return lines


def _largest(a: Operand, b: Operand, unequal: NDArray[np.bool_], delta: NDArray[np.float64]) -> int:
    """Of integers, exactly: floating point says only where it is."""
    place = int(np.argmax(np.where(unequal, delta, -1)))
    return abs(int(a.values.flat[place]) - int(b.values.flat[place]))


def _plain(value: float) -> float | str:
    """A number as JSON has it; NaN and infinities, which it does not have, as text."""
    return value if math.isfinite(value) else str(value)


def _peak(a: Operand, b: Operand) -> int:
    """The largest sample of two pictures: of their depths the lower one that holds both, since a file that tells none counts as of 16."""
    largest = max(int(a.values.max()), int(b.values.max()))
    return min(peak for peak in (a.peak, b.peak) if peak >= largest)


def _packet_at(a: Operand, position: int, facts: dict[str, Any]) -> list[str]:
    """Where in a stream the first difference lies; nothing for other files."""
    for packet in packets.find_packets(a.values.tobytes()):
        if packet.offset <= position < packet.end:
            within = position - packet.offset
            body = "coded band" if within >= packets.HEADER_BYTES + len(packet.details) else "details"
            facts["packet"], facts["band"] = packet.sequence, packet.band
            return [f"in the {body if within >= packets.HEADER_BYTES else 'header'} of packet {packet.sequence}, band {packet.band}"]
    return []
