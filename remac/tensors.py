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
_LENGTH = struct.Struct("<Q")   # of the text that safetensors begins with


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write atomically. The same content always gives the same bytes."""
    from safetensors.torch import save
    content = save({name: value.contiguous() for name, value in tensors.items()}, metadata)
    (length,) = _LENGTH.unpack_from(content)
    header = json.loads(content[_LENGTH.size:_LENGTH.size + length])
    header["__metadata__"] = dict(sorted(metadata.items()))             # safetensors leaves their order to chance
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _LENGTH.size)
    write_atomically(path, lzma.compress(_LENGTH.pack(len(text)) + text + content[_LENGTH.size + length:], preset=9))


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
        (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
        metadata: dict[str, str] = json.loads(file.read(length))["__metadata__"]
        return metadata


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata. Raises OSError and BadNetwork."""
    from safetensors.torch import load
    with _whole(path):
        return load(lzma.decompress(path.read_bytes())), load_metadata(path)
