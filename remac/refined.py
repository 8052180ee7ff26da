"""The refined ground decoder: the deep one, and behind it MarsQE's main network at 1/2 to 1/8 of the picture's sides, without references."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from remac.config import DECODERS, PIXEL_UNIT, RATE, DecoderConfig
from remac.decoder import RefDecoder, conv
from remac.marsqe import FULL, MainNetwork, conditions
from remac_runtime.enhance.input import stream_tables
from remac_runtime.format import PIXEL_OFFSET

BASE = "base."                  # of the decoder's tensors, those of the one that it refines
# Of the least and the greatest quality, float[2,4]; in between they are affine, since the steps of a stream's tables are geometric.
STREAM_CONDITIONS = conditions(torch.from_numpy(np.stack([stream_tables(0), stream_tables(RATE.qualities - 1)])))


class Refinement(nn.Module):
    """Decoded pixels, and features that they were made of -> better ones, for every quality.

    `widths`: channels of those features at 1/2, 1/4 and 1/8. What they add starts as zero.
    """

    def __init__(self, widths: tuple[int, int, int], channels: int = FULL.channels) -> None:
        super().__init__()
        self.network = MainNetwork(replace(FULL, channels=channels, fusing="none"))
        self.hints = nn.ModuleList(conv(width, channels, 1) for width in widths)
        for hint in self.hints:
            nn.init.zeros_(hint.weight)     # type: ignore[arg-type]

    def forward(self, pixels: Tensor, condition: Tensor, features: tuple[Tensor, ...]) -> Tensor:
        """float[B,3,H,W] in 8-bit units, H and W multiples of 8, the quality as `remac.marsqe.conditions` tells it, and RefDecoder.paint's features
        -> the pixels, not rounded."""
        hints = [hint(f) for hint, f in zip(self.hints, features, strict=True)]
        _, refined = self.network((pixels - PIXEL_OFFSET) / PIXEL_UNIT, condition, None, None, hints)
        result: Tensor = refined.float() * PIXEL_UNIT + PIXEL_OFFSET
        return result


def stream_conditions(quality: Tensor) -> Tensor:
    """`conditions` of the flat tables that stand for a stream (remac_runtime.enhance.input.stream_tables), float[B] -> float[B,4]."""
    first, last = STREAM_CONDITIONS.to(quality.device)
    return first + (last - first) * quality[:, None] / (RATE.qualities - 1)


class RefinedDecoder(nn.Module):
    """A RefDecoder with a Refinement; called like the former."""

    def __init__(self, config: DecoderConfig, base: RefDecoder, channels: int = FULL.channels) -> None:
        super().__init__()
        _, _, at8, at4 = config.widths
        self.config, self.base, self.refinement = config, base, Refinement((config.half, at4, at8), channels)

    def forward(self, y_hat: Tensor, knots: Tensor, latent_norm: Tensor, texture: Tensor | None = None, share: Tensor | None = None) -> Tensor:
        """See `RefDecoder`."""
        position = (knots * torch.arange(RATE.gain_knots, dtype=knots.dtype, device=knots.device)).sum(1)
        pixels, features = self.base.paint(y_hat, knots, latent_norm, texture, share)
        result: Tensor = self.refinement(pixels, stream_conditions(position * (RATE.qualities - 1) / (RATE.gain_knots - 1)), features)
        return result


def decoder_of(config: DecoderConfig, latents: int) -> RefDecoder | RefinedDecoder:
    """An untrained ground decoder."""
    if not config.refines:
        return RefDecoder(config, latents)
    return RefinedDecoder(config, RefDecoder(DECODERS[config.refines], latents))


def own_state(decoder: RefDecoder | RefinedDecoder) -> dict[str, Tensor]:
    """The tensors of a decoder that it does not share with another one."""
    state = decoder.state_dict()
    if isinstance(decoder, RefinedDecoder):
        return {name: value for name, value in state.items() if not name.startswith(BASE)}
    shared = decoder.trunk_state() if decoder.config.trunk_of else {}
    return {name: value for name, value in state.items() if name not in shared}


def own_parameters(decoder: RefDecoder | RefinedDecoder) -> list[nn.Parameter]:
    """What training such a decoder changes: nothing that it shares with another one."""
    own = own_state(decoder)
    return [parameter for name, parameter in decoder.named_parameters() if name in own]
