"""A PNG writer of a page, so that a board without Pillow can write pictures. Reading is Pillow's."""
from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB = 0, 2
_FILTER_UP = 2
_LEVEL = 6


def png_bytes(samples: NDArray[Any]) -> bytes:
    """The PNG file of uint8[H,W], uint16[H,W] or uint8[H,W,3]."""
    rows, columns = samples.shape[:2]
    depth = samples.dtype.itemsize * 8
    raw = np.ascontiguousarray(samples, samples.dtype.newbyteorder(">")).view(np.uint8).reshape(rows, -1)
    filtered = np.empty((rows, raw.shape[1] + 1), np.uint8)
    filtered[:, 0] = _FILTER_UP      # each byte minus the one above it, modulo 256
    filtered[0, 1:] = raw[0]
    np.subtract(raw[1:], raw[:-1], out=filtered[1:, 1:])
    header = struct.pack(">IIBBBBB", columns, rows, depth, _GREY if samples.ndim == 2 else _RGB, 0, 0, 0)
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(filtered.data, _LEVEL)) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
