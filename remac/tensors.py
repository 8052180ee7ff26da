"""Files of tensors: safetensors inside xz, which takes a tenth off weights of 8 bits."""
from __future__ import annotations

import json
import lzma
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from remac_runtime.errors import BadNetwork
from remac_runtime.files import write_atomically

SUFFIX = ".safetensors.xz"


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write atomically."""
    from safetensors.torch import save
    write_atomically(path, lzma.compress(save({name: value.contiguous() for name, value in tensors.items()}, metadata), preset=9))


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Errors of a damaged file as BadNetwork."""
    from safetensors import SafetensorError
    try:
        yield
    except (lzma.LZMAError, EOFError, SafetensorError, struct.error, ValueError, KeyError) as error:
        raise BadNetwork(f"{path} is damaged ({str(error) or type(error).__name__}): take it from the repository again") from None


def load_metadata(path: Path) -> dict[str, str]:
    """The metadata alone, which stand in front. Raises OSError and BadNetwork."""
    with _whole(path), lzma.open(path) as file:
        (length,) = struct.unpack("<Q", file.read(8))               # of the text that safetensors begins with
        metadata: dict[str, str] = json.loads(file.read(length))["__metadata__"]
        return metadata


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata. Raises OSError and BadNetwork."""
    from safetensors.torch import load
    with _whole(path):
        return load(lzma.decompress(path.read_bytes())), load_metadata(path)
