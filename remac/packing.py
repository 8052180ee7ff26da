"""Weights in few bytes: convolutions as integers of 8 bits or fewer with a scale per output channel, the rest in half precision."""
from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

KEPT_HALF = ("decoder.linear",)        # the linear path carries the picture at high rates: half precision, not 8 bits
_INT8_MAX = 127


def packed(name: str, value: Tensor, largest: int = _INT8_MAX) -> dict[str, Tensor]:
    """Convolution weights float[O,I,k,k] as int8 of at most +-`largest` with a float16 scale per output channel; everything else as it is."""
    if value.ndim != 4 or name.startswith(KEPT_HALF):
        return {name: value.half() if value.ndim == 4 else value}
    scale = (value.abs().amax((1, 2, 3)) / largest).clamp_min(1e-8).half().float()
    return {name: torch.round(value / scale[:, None, None, None]).clamp(-largest, largest).to(torch.int8), f"{name}.scale": scale.half()}


def packed_model(state: Mapping[str, Tensor], coarse: Mapping[str, int] | None = None) -> dict[str, Tensor]:
    """All tensors of a network that is not part of a codec: `packed`, and half precision for the rest. `coarse`: the largest integer by prefix."""
    def largest(name: str) -> int:
        return next((limit for prefix, limit in (coarse or {}).items() if name.startswith(prefix)), _INT8_MAX)
    return {part: (value.half() if value.is_floating_point() else value).contiguous()
            for name, whole in state.items() for part, value in packed(name, whole.detach().cpu(), largest(name)).items()}


def unpacked(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse: float32 tensors by their names in the model."""
    result = {}
    for name, value in tensors.items():
        if not name.endswith(".scale") or value.dtype != torch.float16:
            scale = tensors.get(f"{name}.scale")
            result[name] = value.float() if scale is None else value.float() * scale.float()[:, None, None, None]
    return result
