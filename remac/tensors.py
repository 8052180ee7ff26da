"""Files of tensors: safetensors inside xz, which takes a tenth off weights of 8 bits."""
from __future__ import annotations

import json
import lzma
import struct
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from remac_runtime.errors import BadNetwork
from remac_runtime.images import write_atomically

SUFFIX = ".safetensors.xz"


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write atomically."""
    from safetensors.torch import save
    write_atomically(path, lzma.compress(save({name: value.contiguous() for name, value in tensors.items()}, metadata), preset=9))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata. Raises OSError and BadNetwork."""
    from safetensors import SafetensorError
    from safetensors.torch import load
    try:
        data = lzma.decompress(path.read_bytes())
        (length,) = struct.unpack_from("<Q", data)               # of the text that safetensors begins with
        metadata: dict[str, str] = json.loads(data[8:8 + length])["__metadata__"]
        return load(data), metadata
    except (lzma.LZMAError, SafetensorError, struct.error, ValueError, KeyError) as error:
        raise BadNetwork(f"{path} is damaged ({str(error) or type(error).__name__}): take it from the repository again") from None
