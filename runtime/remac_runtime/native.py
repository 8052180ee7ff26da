"""Loads the optional C extension: `library` is None where it was not built or REMAC_NATIVE=0 is set.

Every function of the extension has a NumPy twin that gives the same integers and bytes, so nothing but speed depends on it.
"""
from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

INTERFACE = 4   # of csrc/module.c; an extension of another interface is a stale build and is not used

Array = NDArray[Any]
Bytes = bytes | bytearray | memoryview


class Native(Protocol):
    """csrc/module.c: C-contiguous aligned arrays of the dtypes named there; sizes are checked (ValueError), outputs are filled in place."""

    DECODER_WORDS: int

    def crc32c(self, data: Bytes, value: int, /) -> int: ...
    def requantise(self, shift: Array, acc: Array, /) -> None: ...
    def scale_level(self, scale: Array, scale_offset: Array, level: Array, /) -> None: ...
    def quantise(self, gain: Array, inverse_gain: Array, scale_offset: Array, context_shift: Array, rounding: Array, y: Array, mu: Array,
                 scale: Array, symbols: Array, level: Array, plane: Array, y_hat: Array, coded_from: int, /) -> None: ...
    def dequantise(self, inverse_gain: Array, context_shift: Array, mu: Array, symbols: Array, y_hat: Array, plane: Array, /) -> None: ...
    def collect(self, score: Array, channel: Array, symbols: Array, level: Array, out_symbols: Array, out_tables: Array, coded_from: int,
                offset: int, /) -> int: ...
    def encode(self, symbols: Array, tables: Array, first: Array, start: Array, cdf: Array, reciprocal: Array, out: Array, lanes_log2: int,
               /) -> tuple[int, int]: ...
    def decoder_start(self, decoder: Array, band: Bytes, lanes_log2: int, /) -> int: ...
    def decode(self, decoder: Array, band: Bytes, tables: Array, symbols: Array, first: Array, start: Array, cdf: Array, lookup: Array, /) -> int: ...
    def decode_latents(self, decoder: Array, band: Bytes, score: Array, channel: Array, level: Array, symbols: Array, first: Array, start: Array,
                       cdf: Array, lookup: Array, coded_from: int, offset: int, /) -> int: ...
    def decoder_finish(self, decoder: Array, band: Bytes, /) -> int: ...
    def layer(self, weight: Array, bias: Array, shift: Array, numbers: Array, scratch: Array, out: Array, /, *sources: Array) -> None: ...
    def analyse(self, memory: Array, pixels: Array, y: Array, z: Array, texture: Array, semantic: Array, /, *layers_then_size: Any) -> None: ...
    def path_usable(self, path: int, /) -> int: ...
    def path_best(self, /) -> int: ...


def plain(array: Array, dtype: type[np.generic]) -> Array:
    """The array as the extension takes it: of this type, C-contiguous and aligned."""
    return np.require(array, dtype, ["C_CONTIGUOUS", "ALIGNED"])


def load() -> Native | None:
    """The extension, or None. Looks at REMAC_NATIVE."""
    if os.environ.get("REMAC_NATIVE") == "0":
        return None
    try:
        module = importlib.import_module("remac_runtime._native")
    except ImportError:
        return None
    return cast(Native, module) if getattr(module, "INTERFACE", None) == INTERFACE else None


library: Native | None = load()   # looked up at every call, so that `switched_off` works


@contextmanager
def switched_off() -> Iterator[None]:
    """Within it the NumPy twins do what the extension does else: for comparisons."""
    global library     # noqa: PLW0603  it is the state of this module
    before, library = library, None
    try:
        yield
    finally:
        library = before
