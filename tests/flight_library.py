"""The generated flight encoder as a shared library for the tests: pictures in, streams out, with guards around all memory that it may write."""
from __future__ import annotations

import ctypes
import subprocess
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export import flight_c
from remac_runtime.choices import PATTERNS

GUARD = 64
GUARD_BYTE = 0xA5
WRITE = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_uint32, ctypes.POINTER(ctypes.c_uint8), ctypes.c_uint32)


class Status(IntEnum):
    OK = 0
    AGAIN = 1
    NULL_POINTER = 2
    BAD_SIZE = 3
    BAD_FORMAT = 4
    BAD_QUALITY = 5
    BAD_BAND_ROWS = 6
    BAD_REFERENCE = 7
    NO_BANK = 8
    WORK_UNALIGNED = 9
    WORK_TOO_SMALL = 10
    BAD_ROWS = 11
    BAD_ROW_BYTES = 12
    BAD_SAMPLE = 13
    INCOMPLETE = 14
    BAD_STATE = 15
    BAND_TOO_LONG = 16
    TARGET_TOO_SMALL = 17
    OUTPUT_REFUSED = 18
    INTERNAL = 19


class Config(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in (
        "width", "height", "grey", "depth", "quality", "target_bytes", "band_rows", "references", "semantic", "texture", "has_image_id", "image_id",
        "keep", "mosaic")]


class Result(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in ("bytes", "packets", "bands", "quality", "semantic", "texture", "image_id")]


class Sink(ctypes.Structure):
    _fields_ = [("write", ctypes.c_void_p), ("context", ctypes.c_void_p)]


class Buffer(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("room", ctypes.c_uint32)]


class Guarded:
    """Memory of a size, aligned to 16, between bytes that nobody may change."""

    def __init__(self, size: int, filled: int = 0xFF) -> None:
        self.size = size
        self.memory = np.full(size + 2 * GUARD + 16, GUARD_BYTE, np.uint8)
        self.start = GUARD + -(self.memory.ctypes.data + GUARD) % 16
        self.memory[self.start:self.start + size] = filled      # whatever is there must not matter

    @property
    def address(self) -> int:
        return int(self.memory.ctypes.data + self.start)

    @property
    def content(self) -> bytes:
        return self.memory[self.start:self.start + self.size].tobytes()

    def intact(self) -> bool:
        return bool((self.memory[:self.start] == GUARD_BYTE).all() and (self.memory[self.start + self.size:] == GUARD_BYTE).all())


@dataclass(frozen=True)
class Encoded:
    """What came out: `stream` is None unless the status is OK. `pushes` counts pushes of the whole picture."""

    status: Status
    stream: bytes | None
    result: Result
    pushes: int


class FlightLibrary:
    """remac_flight.c of a folder, compiled as a shared library with gcc."""

    def __init__(self, folder: Path, flags: tuple[str, ...] = ("-O1",), name: str = "libflight.so") -> None:
        self.folder = folder
        subprocess.run(["gcc", "-std=c99", *flags, "-shared", "-fPIC", "-o", name, "remac_flight.c"], cwd=folder, check=True)
        self.library = ctypes.CDLL(str(folder / name))
        self.library.remac_flight_work_bytes.restype = ctypes.c_uint64
        self.library.remac_flight_push.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint32]
        self.library.remac_flight_end.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        self.library.remac_flight_mosaic_row.argtypes = [ctypes.c_uint32, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_void_p]
        self.library.remac_flight_begin.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p]

    def config(self, samples: NDArray[np.generic], depth: int = 8, **options: int) -> Config:
        config = Config()
        self.library.remac_flight_defaults(ctypes.byref(config), ctypes.c_uint32(samples.shape[1]), ctypes.c_uint32(samples.shape[0]))
        config.grey, config.depth = int(samples.ndim == 2), depth
        for name, value in options.items():
            setattr(config, name, value)
        return config

    def sharpened(self, samples: NDArray[np.uint8], mosaic: int) -> NDArray[np.uint8]:
        """What is pushed of a picture uint8[H,W,3] with a mosaic, made of one sample a pixel."""
        colours = np.array(["rgb".index(c) for c in PATTERNS[mosaic]]).reshape(2, 2)
        height, width = samples.shape[:2]
        own = np.tile(colours, (-(-height // 2), -(-width // 2)))[:height, :width, None]
        plane = np.ascontiguousarray(np.take_along_axis(samples, own, 2)[..., 0])
        out = Guarded(3 * width)
        result = np.empty_like(samples)
        for row in range(height):
            mirrored = [min(abs(at), 2 * (height - 1) - at) for at in range(row - 2, row + 3)]
            rows = (ctypes.c_void_p * 5)(*(plane[at].ctypes.data for at in mirrored))
            assert self.mosaic_row(mosaic, width, row, rows, out.address) is Status.OK
            result[row] = np.frombuffer(out.content, np.uint8).reshape(width, 3)
        assert out.intact()
        return result

    def mosaic_row(self, mosaic: int, width: int, row: int, rows: object, pixels: int | None) -> Status:
        """`rows`: an array of five pointers, or None."""
        return Status(self.library.remac_flight_mosaic_row(mosaic, width, row, rows, pixels))

    def work_bytes(self, config: Config) -> int:
        return int(self.library.remac_flight_work_bytes(ctypes.byref(config)))

    def begin(self, config: Config, work: Guarded, sink: Sink, offset: int = 0) -> tuple[Status, ctypes.c_void_p]:
        encoder = ctypes.c_void_p()
        status = self.library.remac_flight_begin(ctypes.byref(encoder), work.address + offset, work.size, ctypes.byref(config), ctypes.byref(sink))
        return Status(status), encoder

    def buffer_sink(self, buffer: Buffer) -> Sink:
        write = ctypes.cast(self.library.remac_flight_to_buffer, ctypes.c_void_p).value
        return Sink(write, ctypes.addressof(buffer))

    def push(self, encoder: ctypes.c_void_p, samples: NDArray[np.generic], top: int, rows: int) -> Status:
        part = samples[top:top + rows]
        return Status(self.library.remac_flight_push(encoder, part.ctypes.data, samples.strides[0], rows))

    def end(self, encoder: ctypes.c_void_p, result: Result) -> Status:
        return Status(self.library.remac_flight_end(encoder, ctypes.byref(result)))

    def run(self, samples: NDArray[np.generic], config: Config, sink: Sink, strip_rows: int = 16) -> tuple[Status, Result, int]:
        """Begin, push and end, in as many passes as it takes; asserts that nothing outside the working memory was written."""
        work, result, pushes = Guarded(self.work_bytes(config)), Result(), 0
        status, encoder = self.begin(config, work, sink)
        again = status is Status.OK
        while again:
            pushes += 1
            for top in range(0, len(samples), strip_rows):
                status = self.push(encoder, samples, top, min(strip_rows, len(samples) - top))
                if status is not Status.OK:
                    break
            status = self.end(encoder, result) if status is Status.OK else status
            again = status is Status.AGAIN
        assert work.intact()
        return status, result, pushes

    def encode(self, samples: NDArray[np.generic], depth: int = 8, *, room: int = 1 << 20, strip_rows: int = 16, **options: int) -> Encoded:
        """A stream into a buffer of `room` bytes; asserts that nothing outside it was written."""
        out = Guarded(room)
        buffer = Buffer(out.address, room)
        status, result, pushes = self.run(samples, self.config(samples, depth, **options), self.buffer_sink(buffer), strip_rows)
        assert out.intact()
        return Encoded(status, out.content[:result.bytes] if status is Status.OK else None, result, pushes)


def build(model: Path, folder: Path, flags: tuple[str, ...] = ("-O1",), with_bank: bool = True) -> FlightLibrary:
    """Generate the encoder of a model folder into `folder` and compile it."""
    flight_c.generate(model, folder, with_bank)
    return FlightLibrary(folder, flags)
