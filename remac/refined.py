"""The refined ground decoder: the deep one, and behind it MarsQE's main network at 1/2 to 1/8 of the picture's sides, without references."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from remac.config import PIXEL_UNIT, RATE, DecoderConfig
from remac.decoder import RefDecoder
from remac.marsqe import FULL, MainNetwork, conditions
from remac_runtime.enhance.input import stream_tables
from remac_runtime.format import PIXEL_OFFSET

PREFIX = "refinement."          # of its tensors within the decoder
MAIN = "main."                  # of the same network's within MarsQE
# Of the least and the greatest quality, float[2,4]; in between they are affine, since the steps of a stream's tables are geometric.
STREAM_CONDITIONS = conditions(torch.from_numpy(np.stack([stream_tables(0), stream_tables(RATE.qualities - 1)])))


class Refinement(nn.Module):
    """Decoded pixels -> better ones, for every quality."""

    def __init__(self, channels: int = FULL.channels) -> None:
        super().__init__()
        self.network = MainNetwork(replace(FULL, channels=channels, fusing="none"))

    def forward(self, pixels: Tensor, condition: Tensor) -> Tensor:
        """float[B,3,H,W] in 8-bit units, H and W multiples of 8, and the quality as `remac.marsqe.conditions` tells it -> the same, not rounded."""
        _, refined = self.network((pixels - PIXEL_OFFSET) / PIXEL_UNIT, condition, None, None)
        result: Tensor = refined.float() * PIXEL_UNIT + PIXEL_OFFSET
        return result

    def start_from(self, marsqe: Mapping[str, Tensor]) -> None:
        """Take over what a trained MarsQE has of this network."""
        names = {f"{MAIN}{name}": name for name in self.network.state_dict()}
        self.network.load_state_dict({names[name]: value for name, value in marsqe.items() if name in names})


def stream_conditions(quality: Tensor) -> Tensor:
    """`conditions` of the flat tables that stand for a stream (remac_runtime.enhance.input.stream_tables), float[B] -> float[B,4]."""
    first, last = STREAM_CONDITIONS.to(quality.device)
    return first + (last - first) * quality[:, None] / (RATE.qualities - 1)


class RefinedDecoder(nn.Module):
    """A RefDecoder with a Refinement; called like the former."""

    def __init__(self, config: DecoderConfig, base: RefDecoder, refinement: Refinement | None = None) -> None:
        super().__init__()
        self.config, self.base, self.refinement = config, base, refinement or Refinement()

    def forward(self, y_hat: Tensor, knots: Tensor, latent_norm: Tensor, texture: Tensor | None = None, share: Tensor | None = None) -> Tensor:
        """See `RefDecoder`."""
        position = (knots * torch.arange(RATE.gain_knots, dtype=knots.dtype, device=knots.device)).sum(1)
        pixels = self.base(y_hat, knots, latent_norm, texture, share)
        result: Tensor = self.refinement(pixels, stream_conditions(position * (RATE.qualities - 1) / (RATE.gain_knots - 1)))
        return result
