"""A PNG writer of a page, so that a board without Pillow can write pictures; and its text, which says how they were made. Reading is Pillow's."""
from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB = 0, 2
_FILTER_UP = 2
_LEVEL = 6


def png_bytes(samples: NDArray[Any], text: Mapping[str, str] | None = None) -> bytes:
    """The PNG file of uint8[H,W], uint16[H,W] or uint8[H,W,3]. `text`: Latin-1 notes for its tEXt chunks, keywords of 1..79 characters."""
    rows, columns = samples.shape[:2]
    depth = samples.dtype.itemsize * 8
    raw = np.ascontiguousarray(samples, samples.dtype.newbyteorder(">")).view(np.uint8).reshape(rows, -1)
    filtered = np.empty((rows, raw.shape[1] + 1), np.uint8)
    filtered[:, 0] = _FILTER_UP      # each byte minus the one above it, modulo 256
    filtered[0, 1:] = raw[0]
    np.subtract(raw[1:], raw[:-1], out=filtered[1:, 1:])
    header = struct.pack(">IIBBBBB", columns, rows, depth, _GREY if samples.ndim == 2 else _RGB, 0, 0, 0)
    notes = b"".join(_chunk(b"tEXt", key.encode("latin-1") + b"\0" + value.encode("latin-1", "replace")) for key, value in (text or {}).items())
    return _SIGNATURE + _chunk(b"IHDR", header) + notes + _chunk(b"IDAT", zlib.compress(filtered.data, _LEVEL)) + _chunk(b"IEND", b"")


def png_text(path: Path) -> dict[str, str] | None:
    """The tEXt notes of a PNG file that is whole: every chunk has its checksum and the last one is there. None for anything else."""
    try:
        chunks = list(_chunks(path.read_bytes()))
    except (OSError, ValueError):
        return None
    if not chunks or chunks[0][0] != b"IHDR" or chunks[-1][0] != b"IEND":
        return None
    pairs = (content.partition(b"\0") for kind, content in chunks if kind == b"tEXt")
    return {key.decode("latin-1"): value.decode("latin-1") for key, _, value in pairs}


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(kind, content) of every chunk up to IEND. Raises ValueError where the file is damaged, cut off or longer."""
    if not content.startswith(_SIGNATURE):
        raise ValueError("no PNG file")
    at, kind = len(_SIGNATURE), b""
    while kind != b"IEND":
        if at + 12 > len(content):
            raise ValueError("cut off")
        size, kind = struct.unpack_from(">I4s", content, at)
        body = content[at + 4:at + 8 + size]
        if len(body) != 4 + size or content[at + 8 + size:at + 12 + size] != struct.pack(">I", zlib.crc32(body)):
            raise ValueError("damaged")
        yield kind, body[4:]
        at += 12 + size
    if at != len(content):
        raise ValueError("longer than its last chunk")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
