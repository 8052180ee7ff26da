"""What the ground decoders are: multiply-accumulates, parameters, and how far they look, in theory and as trained.

The theoretical field is counted on a decoder of the same shape whose weights are all positive, where a gradient is zero only without a connection.
The effective one is measured on the trained network: every latent of a real picture is thought to be disturbed on its own, in proportion to how its
channel spreads over the picture, and what of the disturbance of a pixel (its variance, to first order) comes from how far away is summed up.
"""
from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from remac_runtime.errors import BadNetwork
from remac_runtime.ground import GroundDecoder

if TYPE_CHECKING:
    from remac.config import DecoderConfig
    from remac.weights import GroundModule

BLOCK = 16                 # pixels a latent
PERIOD = 32                # pixels after which a decoder treats its pixels alike
WIDE = 128                 # latents of the strip that the theoretical field is counted in
POSITIVE = 0.4             # weight there: neither the middle overflows nor the rim underflows
POINTS = 6                 # pixels of a picture that gradients are taken of
REACH = 18                 # latents to each side of a pixel's own block
SEED = 2
FRAME = (72, 100)          # latents of a picture of 1600x1152


def load(weights: Path, label: str) -> GroundModule:
    """A decoder of the weights folder as a PyTorch module. Raises BadNetwork."""
    from remac.weights import load_ground
    return load_ground(weights, label.partition("@")[0])


def check_same(module: GroundModule, ground: GroundDecoder, y_hat: NDArray[np.int32], quality: int, texture: NDArray[np.uint8]) -> None:
    """Raise BadNetwork where the weights folder holds another decoder than the exported one."""
    import torch
    window = np.ascontiguousarray(y_hat[:8, :8])
    with torch.inference_mode():
        ours = module(torch.from_numpy(window), torch.tensor([float(quality)]), torch.from_numpy(texture.copy()), torch.ones(1)).numpy()
    if np.abs(ours.astype(int) - ground.decode(window, quality, texture)).max() > 1:
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
    decoder = module.decoder
    sizes = {name: parameter.numel() for name, parameter in decoder.named_parameters()}
    taken = sum(size for name, size in sizes.items() if decoder.config.trunk_of and name.startswith(decoder.TRUNK))
    return {"kmac_per_pixel": round(counted / (FRAME[0] * FRAME[1] * BLOCK ** 2) / 1000, 2), "parameters": round(sum(sizes.values()) / 1e6, 3),
            "own_parameters": round((sum(sizes.values()) - taken) / 1e6, 3)}


# ---- in theory

def theoretical(config: DecoderConfig, narrow: bool = False) -> int:
    """Side in pixels of the square of latent blocks that one pixel can depend on, the largest over all places of a pixel; `narrow`: without 1/32."""
    import torch

    from remac.config import RATE
    from remac.decoder import RefDecoder
    thin = replace(config, widths=(1, 1, 1, 1), half=min(config.half, 1))
    decoder = RefDecoder(thin, 1).eval()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.fill_(POSITIVE if parameter.ndim > 1 else 0)
        if narrow:
            decoder.rise.weight.zero_()
    latents = torch.ones(1, 1, 2, WIDE, requires_grad=True)
    row = decoder(latents, torch.zeros(1, RATE.gain_knots), torch.ones(1))[0, 0, 0]
    widest = 0
    for column in range(WIDE // 2 * BLOCK, WIDE // 2 * BLOCK + PERIOD):
        gradient, = torch.autograd.grad(row[column], latents, retain_graph=True)
        seen = torch.nonzero(gradient[0, 0].sum(0)).flatten()
        assert seen[0] > 0 and seen[-1] < WIDE - 1, "the strip is too short for this decoder"
        widest = max(widest, int(seen[-1] - seen[0]) + 1)
    return widest * BLOCK


# ---- as trained

def effective(module: GroundModule, y_hat: NDArray[np.int32], quality: int, texture: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Share of a pixel's disturbance from the block it lies in, from within one block around it, ... float64[REACH+1], mean over POINTS pixels.

    y_hat int32[h,w,M] of a picture that is larger than 2 * REACH + 2 blocks each way.
    """
    import torch
    rng = np.random.default_rng(SEED)
    spread = torch.from_numpy(y_hat.std((0, 1))).float()[:, None, None] * module.latent[0]
    rows, columns = y_hat.shape[:2]
    texture_planes, share = torch.from_numpy(texture.copy()), torch.ones(1)
    total = np.zeros(REACH + 1)
    for _ in range(POINTS):
        top, left = (2 * int(rng.integers(0, (side - 2 * REACH - 2) // 2 + 1)) for side in (rows, columns))
        window = y_hat[top:top + 2 * REACH + 2, left:left + 2 * REACH + 2]
        latents = module.latents(torch.from_numpy(np.ascontiguousarray(window))).requires_grad_()
        row, column = (REACH * BLOCK + int(rng.integers(0, PERIOD)) for _ in range(2))
        pixel = module.show(latents, torch.tensor([float(quality)]), texture_planes, share)[0, :, row, column].sum()
        gradient, = torch.autograd.grad(pixel, latents)
        power = (gradient[0] * spread).abs().sum(0).double().numpy()
        away = [np.abs(np.arange(len(power)) - place // BLOCK) for place in (row, column)]
        distance = np.maximum(away[0][:, None], away[1][None])
        rings = np.bincount(np.minimum(distance, REACH).ravel(), power.ravel(), REACH + 1)
        total += np.cumsum(rings) / rings.sum()
    return total / POINTS


def describe(module: GroundModule, pictures: Mapping[str, tuple[NDArray[np.int32], NDArray[np.uint8]]], quality: int) -> dict[str, Any]:
    """Cost and fields of a decoder; the effective one is the mean over pictures, {name: (y_hat, texture planes)}, at a quality."""
    shares = np.mean([effective(module, y_hat, quality, texture) for y_hat, texture in pictures.values()], 0)
    return {**cost(module), "theoretical": theoretical(module.decoder.config), "theoretical_narrow": theoretical(module.decoder.config, narrow=True),
            "effective": {"quality": quality, "points": POINTS * len(pictures), "pictures": list(pictures),
                          "share_within": {str((2 * ring + 1) * BLOCK): round(float(share), 6)
                                           for ring, share in zip(itertools.count(), shares, strict=False)}}}
