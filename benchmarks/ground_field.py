"""What the ground decoders are: multiply-accumulates, parameters, and how far they look, in theory and as trained.

The theoretical field is counted on a decoder of the same shape whose weights are all positive, where a gradient is zero only without a connection.
The effective one is measured on the trained network in two ways: every latent of a real picture is thought to be disturbed on its own, in proportion
to how its channel spreads over the picture, and how much each moves a pixel (to first order, without signs) is summed up by distance; and squares of
the picture are decoded from ever larger windows around them alone.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from remac_runtime.errors import BadNetwork
from remac_runtime.ground import GroundDecoder

if TYPE_CHECKING:
    from remac.config import DecoderConfig
    from remac.decoder import RefDecoder
    from remac.refined import RefinedDecoder
    from remac.weights import GroundModule

BLOCK = 16                 # pixels a latent
PERIOD = 32                # pixels after which a decoder treats its pixels alike
WIDE = 128                 # latents of the strip that the theoretical field is counted in
POSITIVE = 0.4             # weight there: neither the middle overflows nor the rim underflows
POINTS = 6                 # pixels of a picture that gradients are taken of
PATCHES = 12               # squares of a picture that are decoded from windows
REACH = 18                 # latents to each side of a pixel's own block
WINDOW = 2 * REACH + 2     # latents of the largest window
LEAST_SIDE = WINDOW * BLOCK
MARGINS = (0, 1, 2, 4, 8, REACH)       # latents to each side of the squares
SEED = 2
FRAME = (72, 100)          # latents of a picture of 1600x1152


def load(weights: Path, label: str) -> GroundModule:
    """A decoder of the weights folder as a PyTorch module. Raises BadNetwork."""
    from remac.weights import load_ground
    return load_ground(weights, label.partition("@")[0])


def check_same(module: GroundModule, ground: GroundDecoder, sample: Sample, quality: int) -> None:
    """Raise BadNetwork where the weights folder holds another decoder than the exported one."""
    import torch
    window = np.ascontiguousarray(sample.y_hat[:8, :8])
    with torch.inference_mode():
        ours = module(torch.from_numpy(window), torch.tensor([float(quality)]), torch.from_numpy(sample.texture.copy()), torch.ones(1)).numpy()
    if np.abs(ours.astype(int) - ground.decode(window, quality, sample.texture)).max() > 1:
        raise BadNetwork(f"{ground.file.path}: exported from other weights than those of --weights: run export/ground_decoder.py")


# ---- cost

def cost(module: GroundModule) -> dict[str, float]:
    """Multiply-accumulates a pixel of a frame, by fvcore, in thousands, and parameters in millions; `own`: those that no other decoder brings."""
    import logging

    import torch
    from fvcore.nn import FlopCountAnalysis
    logging.getLogger("fvcore").setLevel(logging.ERROR)
    latents = module.norm.numel()
    inputs = (torch.zeros(*FRAME, latents, dtype=torch.int32), torch.zeros(1), torch.zeros(4, 8, 8, latents, dtype=torch.uint8), torch.ones(1))
    with torch.inference_mode():
        counted = FlopCountAnalysis(module, inputs).unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none").total()
    from remac.refined import own_state
    parameters, own = (sum(tensor.numel() for tensor in state.values()) for state in (module.decoder.state_dict(), own_state(module.decoder)))
    return {"kmac_per_pixel": round(counted / (FRAME[0] * FRAME[1] * BLOCK ** 2) / 1000, 2), "parameters": round(parameters / 1e6, 3),
            "own_parameters": round(own / 1e6, 3)}


# ---- in theory

def theoretical(config: DecoderConfig, narrow: bool = False) -> int:
    """Side in pixels of the square of latent blocks that one pixel can depend on, the largest over all places of a pixel; `narrow`: without 1/32."""
    import torch

    from remac.config import RATE
    decoder = thin_decoder(config, narrow)
    latents = torch.ones(1, 1, 2, WIDE, requires_grad=True)
    row = decoder(latents, torch.zeros(1, RATE.gain_knots), torch.ones(1))[0, 0, 0]
    widest = 0
    for column in range(WIDE // 2 * BLOCK, WIDE // 2 * BLOCK + PERIOD):
        gradient, = torch.autograd.grad(row[column], latents, retain_graph=True)
        seen = torch.nonzero(gradient[0, 0].sum(0)).flatten()
        assert seen[0] > 0 and seen[-1] < WIDE - 1, "the strip is too short for this decoder"
        widest = max(widest, int(seen[-1] - seen[0]) + 1)
    return widest * BLOCK


def thin_decoder(config: DecoderConfig, narrow: bool) -> RefDecoder | RefinedDecoder:
    """A decoder of one channel with positive weights and nothing that depends on the quality or normalises, which reach no further than a place."""
    import torch

    from remac.decoder import RefDecoder
    from remac.refined import RefinedDecoder
    thin = replace(config, widths=(1, 1, 1, 1), half=min(config.half, 1))
    base = RefDecoder(thin, 1)
    decoder = RefinedDecoder(thin, base, channels=1) if config.refines else base
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            parameter.fill_(POSITIVE if parameter.ndim > 1 and "modulation" not in name else 0)
        if narrow:
            base.rise.weight.zero_()
    if isinstance(decoder, RefinedDecoder):
        norms = decoder.refinement.network.norms
        for level in range(len(norms)):
            norms[level] = torch.nn.Identity()
    return decoder.eval()


# ---- as trained

@dataclass(frozen=True)
class Sample:
    """A picture: pixels uint8[H,W,3], its latents int32[h,w,M] and the planes of its texture reference uint8[4,8,8,M]."""

    pixels: NDArray[np.uint8]
    y_hat: NDArray[np.int32]
    texture: NDArray[np.uint8]


def corners(sample: Sample, count: int) -> Iterator[tuple[int, int]]:
    """Upper left latents, on even places, of windows of 2 * REACH + 2 that lie in a picture whole, without its padding."""
    rng = np.random.default_rng(SEED)
    for _ in range(count):
        top, left = (2 * int(rng.integers(0, (side // BLOCK - WINDOW) // 2 + 1)) for side in sample.pixels.shape[:2])
        yield top, left


def effective(module: GroundModule, sample: Sample, quality: int) -> NDArray[np.float64]:
    """Share of a pixel's disturbance that comes from the block it lies in, from within one block around it, ...: float64[REACH+1], mean over POINTS
    pixels."""
    import torch
    rng = np.random.default_rng(SEED)
    spread = torch.from_numpy(sample.y_hat.std((0, 1))).float()[:, None, None] * module.latent[0]
    texture, share, position = torch.from_numpy(sample.texture.copy()), torch.ones(1), torch.tensor([float(quality)])
    total = np.zeros(REACH + 1)
    for top, left in corners(sample, POINTS):
        window = torch.from_numpy(np.ascontiguousarray(sample.y_hat[top:top + WINDOW, left:left + WINDOW]))
        latents = module.latents(window).requires_grad_()
        row, column = (REACH * BLOCK + int(rng.integers(0, PERIOD)) for _ in range(2))
        gradient, = torch.autograd.grad(module.show(latents, position, texture, share)[0, :, row, column].sum(), latents)
        moved = (gradient[0] * spread).abs().sum(0).double().numpy()
        away = [np.abs(np.arange(WINDOW) - place // BLOCK) for place in (row, column)]
        distance = np.maximum(away[0][:, None], away[1][None])
        rings = np.bincount(np.minimum(distance, REACH).ravel(), moved.ravel(), REACH + 1)
        total += np.cumsum(rings) / rings.sum()
    return total / POINTS


def window_errors(module: GroundModule, sample: Sample, quality: int) -> NDArray[np.float64]:
    """Mean squared error of squares of 32x32 pixels, each decoded from so many blocks around it alone: float64[len(MARGINS)], mean over PATCHES."""
    import torch
    texture, share, position = torch.from_numpy(sample.texture.copy()), torch.ones(1), torch.tensor([float(quality)])
    total = np.zeros(len(MARGINS))
    for top, left in corners(sample, PATCHES):
        original = sample.pixels[BLOCK * (top + REACH):, BLOCK * (left + REACH):][:PERIOD, :PERIOD].astype(np.float64)
        for number, margin in enumerate(MARGINS):
            first, side = REACH - margin, 2 * margin + 2
            window = sample.y_hat[top + first:top + first + side, left + first:left + first + side]
            with torch.inference_mode():
                shown = module(torch.from_numpy(np.ascontiguousarray(window)), position, texture, share).numpy()
            total[number] += np.mean((original - shown[BLOCK * margin:, BLOCK * margin:][:PERIOD, :PERIOD]) ** 2)
    return total / PATCHES


def describe(module: GroundModule, pictures: Mapping[str, Sample], quality: int) -> dict[str, Any]:
    """Cost and fields of a decoder; what is measured is the mean over pictures at a quality, losses against the largest window in dB."""
    shares = np.mean([effective(module, sample, quality) for sample in pictures.values()], 0)
    errors = np.array([window_errors(module, sample, quality) for sample in pictures.values()])
    losses = (10 * np.log10(errors / errors[:, -1:])).mean(0)
    sides = [(2 * ring + 1) * BLOCK for ring in range(REACH + 1)]
    return {**cost(module), "theoretical": theoretical(module.decoder.config), "theoretical_narrow": theoretical(module.decoder.config, narrow=True),
            "measured": {"quality": quality, "pictures": list(pictures), "points": POINTS * len(pictures), "patches": PATCHES * len(pictures)},
            "share_within": {str(side): round(float(value), 6) for side, value in zip(sides, shares, strict=True)},
            "loss_from_window": {str((2 * margin + 2) * BLOCK): round(float(loss), 4) for margin, loss in zip(MARGINS, losses, strict=True)}}
