"""Give a trained codec more latents: `python -m remac.widen CHECKPOINT --out CHECKPOINT`.

The new latents start as the best linear code of what the decoder still misses when nothing is quantised (reduced-rank regression of the residual on
the pixels of each block), with their mirror image in the decoder; everything else starts from zero, so the codec is as good as before and better at
high rates at once. The context keeps looking at the first latents only. Train on with `--stage quantised --start`.
"""
from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from remac.checkpoints import read_checkpoint, write_checkpoint
from remac.codec import NORM_FLOOR, Codec
from remac.config import PIXEL_UNIT, PROFILES, RATE, CodecConfig
from remac.data import PatchSampler, picture_paths
from remac.integer import set_integer
from remac.layers import space_to_depth
from remac.quantise import CONTEXT_UNITS
from remac_runtime.errors import BadNetwork
from remac_runtime.exits import reported
from remac_runtime.format import PHASES, PIXEL_OFFSET, SHIFT_MAX, WEIGHT_MAX
from remac_runtime.mars import data_folder

PATCHES, SEED = 160, 9
RIDGE = 1e-5


def blocks_of(x: Tensor) -> Tensor:
    """float[B,3,H,W] -> float[N,768], the 16x16 blocks."""
    return space_to_depth(x, 16).permute(0, 2, 3, 1).reshape(-1, 768)


@torch.no_grad()
def missing_directions(codec: Codec, patches: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(encoder rows [count,768], bias [count], decoder columns [768,count], spread [count]) of the best linear code of the decoder's residual."""
    codec.eval()
    pixels = (patches - PIXEL_OFFSET) / PIXEL_UNIT
    unit = codec.analysis.head.output_scale[:, None, None]
    knots = codec.knots(torch.tensor([RATE.qualities - 1.0]))
    decoded = torch.cat([codec.decoder(codec.analysis(x[None]).y / unit, knots, codec.latent_norm) for x in patches])
    residual, source = blocks_of((patches - decoded) / PIXEL_UNIT), blocks_of(pixels)
    mean = source.mean(0)
    source = source - mean
    covariance = source.T @ source / len(source)
    covariance += RIDGE * covariance.diagonal().mean() * torch.eye(768)
    regression = torch.linalg.solve(covariance, source.T @ (residual - residual.mean(0)) / len(source)).T      # residual = regression @ block
    values, basis = torch.linalg.eigh(covariance)
    root = basis * values.clamp_min(0).sqrt() @ basis.T
    directions = torch.linalg.svd(regression @ root).U[:, :count]
    rows = directions.T @ regression
    return rows, -(rows @ mean), directions, (rows @ covariance @ rows.T).diagonal().sqrt()


@torch.no_grad()
def widen(codec: Codec, config: CodecConfig, patches: Tensor) -> Codec:
    """A codec of `config` (more latents, otherwise alike) that does what `codec` does, and more."""
    old, extra = codec.config.latents, config.latents - codec.config.latents
    encode, bias, decode, spread = missing_directions(codec, patches, extra)
    state = dict(codec.state_dict())
    wide = Codec(config)
    norm = torch.rsqrt(spread.square() + NORM_FLOOR ** 2)
    head = codec.analysis.head
    rows = torch.cat([torch.zeros(extra, codec.config.deep), encode], 1)[:, :, None, None]
    unit = WEIGHT_MAX / (rows / head.input_scale[None, :, None, None]).abs().amax((1, 2, 3))
    shift = torch.round(torch.log2(unit / (norm * CONTEXT_UNITS))).clamp(0, SHIFT_MAX)
    added = {"analysis.head.weight": rows, "analysis.head.bias": bias, "analysis.head.output_scale": unit, "analysis.head.shift": torch.zeros(extra),
             "latent_norm": norm, "context_shift": shift}
    for p, (_, mean, scale) in enumerate(map(codec.entropy.layers_of, range(len(PHASES)))):
        log_scale_unit = scale.output_scale[:1].expand(extra)
        for kind, layer, output, start in (("mean", mean, unit, torch.zeros(extra)), ("scale", scale, log_scale_unit, torch.log(0.5 * spread))):
            name = f"entropy.{kind}.{p}"
            added.update({f"{name}.weight": torch.zeros(extra, *layer.weight.shape[1:]), f"{name}.bias": start, f"{name}.output_scale": output,
                          f"{name}.shift": layer.shift.median().expand(extra)})
    state.update({name: torch.cat([state[name], value]) for name, value in added.items()})
    state["log_gain"] = torch.cat([state["log_gain"], state["log_gain"].mean(1, keepdim=True).expand(-1, extra)], 1)
    state["decoder.entry.weight"] = torch.cat([state["decoder.entry.weight"], torch.zeros(config.decoder.widths[1], extra, 3, 3)], 1)
    state["decoder.linear.weight"] = torch.cat([state["decoder.linear.weight"], decode[:, :, None, None]], 1)
    weight = state["entropy.reference.weight"].reshape(config.reference, len(PHASES), old)
    state["entropy.reference.weight"] = torch.nn.functional.pad(weight, (0, extra)).reshape(config.reference, -1, 1, 1)
    taps = state["entropy.reference.input_scale"].reshape(len(PHASES), old)
    new_taps = (unit * torch.exp2(-shift) / norm).expand(len(PHASES), extra)
    state["entropy.reference.input_scale"] = torch.cat([taps, new_taps], 1).flatten()
    wide.load_state_dict(state)
    set_integer(wide)
    return wide


@reported
def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m remac.widen", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="of the quantised stage, with the profile's context channels as its latents")
    parser.add_argument("--profile", choices=sorted(PROFILES), default="rover-m")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", help="folder of the Mars pictures (else $REMAC_DATA)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    config = PROFILES[options.profile]
    state = read_checkpoint(options.checkpoint, needed=("model", "stage", "rate"))
    try:
        codec = Codec(replace(config, latents=len(state["model"]["latent_norm"])))
        codec.load_state_dict(state["model"])
    except (KeyError, RuntimeError):
        raise BadNetwork(f"{options.checkpoint} is not of the profile {config.name}: name its own with --profile") from None
    if state["stage"] == "float":
        raise BadNetwork(f"{options.checkpoint} is a float checkpoint: run the quantised stage first")
    if codec.config.latents >= config.latents:
        raise BadNetwork(f"{options.checkpoint} has {codec.config.latents} latents, the profile {config.name} {config.latents}: none are to be added")
    set_integer(codec)
    patches = PatchSampler(picture_paths(data_folder(options.data) / "train"), 256, SEED).batch(PATCHES, 0).pixels
    wide = widen(codec, config, patches)
    write_checkpoint(options.out, state["stage"], state["rate"], wide.state_dict())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
