"""CRC-32C (FORMAT 2), chained like zlib.crc32."""
from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from remac_runtime import native

_POLYNOMIAL = 0x82F63B78   # 0x1EDC6F41 reflected
_COLUMNS = 256             # the NumPy body cuts long data into rows of this many bytes ...
_ROWS_MIN = 64             # ... and pays from this many rows on


def crc32c(data: bytes | bytearray | memoryview, value: int = 0) -> int:
    """CRC of `data` that follows bytes of CRC `value`. The CRC of b"123456789" is 0xE3069283."""
    if native.library is not None:
        return native.library.crc32c(data, value)
    data = memoryview(data).cast("B")
    register = value ^ 0xFFFFFFFF
    if len(data) >= _ROWS_MIN * _COLUMNS:
        rows = len(data) // _COLUMNS
        register = _advance_rows(register, np.frombuffer(data, np.uint8, rows * _COLUMNS).reshape(rows, _COLUMNS))
        data = data[rows * _COLUMNS:]
    table = _table().tolist()
    for byte in data:
        register = table[(register ^ byte) & 0xFF] ^ register >> 8
    return int(register) ^ 0xFFFFFFFF


@cache
def _table() -> NDArray[np.uint32]:
    """The register after one byte: uint32[256]."""
    register = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        register = register >> np.uint32(1) ^ np.where(register & 1, np.uint32(_POLYNOMIAL), np.uint32(0))
    return register


def _advance(registers: NDArray[np.uint32], rows: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Registers uint32[R] after the bytes uint8[R,_COLUMNS] of their rows."""
    table = _table()
    for column in np.ascontiguousarray(rows.T):
        registers = table[(registers ^ column) & 0xFF] ^ registers >> np.uint32(8)
    return registers


@cache
def _advanced_bits() -> list[int]:
    """For each bit of the register what it becomes after _COLUMNS zero bytes."""
    return [int(r) for r in _advance(np.uint32(1) << np.arange(32, dtype=np.uint32), np.zeros((32, _COLUMNS), np.uint8))]


def _advance_rows(register: int, rows: NDArray[np.uint8]) -> int:
    """The register after all rows. The register is linear: what a row adds from 0, xor what the register before it becomes over zero bytes."""
    bits = _advanced_bits()
    for added in _advance(np.zeros(len(rows), np.uint32), rows).tolist():
        carried = added
        while register:
            lowest = register & -register
            carried ^= bits[lowest.bit_length() - 1]
            register ^= lowest
        register = carried
    return register
