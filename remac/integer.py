"""From float mode to integer mode: activation ranges on calibration pictures, then scales and shifts of every layer."""
from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from remac.codec import Codec
from remac.config import PIXEL_UNIT, TRAINED_BAND_ROWS
from remac.layers import IntegerConv
from remac.quantise import CONTEXT_UNITS, SCALE_UNITS
from remac_runtime.format import ACTIVATION_MAX, PHASES, SHIFT_MAX

QUALITIES_SEEN = (2, 24, 44, 62)     # the entropy path's activations depend on the quality through the context
RANGE_QUANTILE = 0.99995             # of a channel's activations; what lies above saturates
REFERENCE_RANGE = 8.0                # of the layer that only references pass through
DEAD_SHARE = 0.02                    # a channel quieter than this share of its layer's loudest gets that range


@torch.no_grad()
def activation_ranges(codec: Codec, pictures: Iterable[Tensor]) -> dict[str, Tensor]:
    """Per-channel range of every ReLU layer over pictures (float[1,3,H,W], sides multiples of 128) and qualities: {layer: float[C]}."""
    ranges: dict[str, Tensor] = {}

    def watch(name: str) -> object:
        def hook(module: nn.Module, inputs: object, output: Tensor) -> None:
            flat = output.float().transpose(0, 1).flatten(1)
            rank = max(1, round((1 - RANGE_QUANTILE) * flat.shape[1]))
            top = flat.topk(rank, 1).values[:, -1]
            ranges[name] = torch.maximum(ranges.get(name, torch.zeros_like(top)), top)
        return hook

    layers = {name: layer for name, layer in codec.named_modules() if isinstance(layer, IntegerConv) and layer.relu}
    handles = [layer.register_forward_hook(watch(name)) for name, layer in layers.items()]   # type: ignore[arg-type]
    was_training = codec.training
    codec.eval()
    for x in pictures:
        for quality in QUALITIES_SEEN:
            codec(x, torch.tensor([quality], device=x.device), False, bands=x.shape[2] // TRAINED_BAND_ROWS)
    codec.train(was_training)
    for handle in handles:
        handle.remove()
    return {name: torch.maximum(value, DEAD_SHARE * value.max()).clamp_min(1e-6) for name, value in ranges.items()}


@torch.no_grad()
def prepare(codec: Codec, ranges: dict[str, Tensor]) -> None:
    """Set every scale and shift and switch the rover side to integer mode (FORMAT 5)."""
    device = codec.log_gain.device

    def out(name: str) -> Tensor:
        return ACTIVATION_MAX / ranges[name]

    def full(count: int, value: float) -> Tensor:
        return torch.full((count,), value, device=device)

    config, analysis, entropy = codec.config, codec.analysis, codec.entropy
    stem = analysis.stem.prepare(full(192, PIXEL_UNIT), out("analysis.stem"))
    body = analysis.body.prepare(stem, out("analysis.body"))
    reduce = analysis.reduce.prepare(body, out("analysis.reduce"))
    deep = analysis.deep.prepare(reduce, out("analysis.deep"))
    unit = analysis.head.prepare(torch.cat([deep, full(768, PIXEL_UNIT)]))
    hyper = analysis.hyper_in.prepare(deep.repeat(4), out("analysis.hyper_in"))
    analysis.hyper_out.prepare(hyper.repeat(4), full(config.hyper, 1.0))
    side = entropy.side_in.prepare(full(config.hyper, 1.0), out("entropy.side_in"))
    side = entropy.side_mid.prepare(side, out("entropy.side_mid"))
    side = entropy.side_out.prepare(side, out("entropy.side_out"))

    codec.context_shift.copy_(torch.round(torch.log2(unit / (codec.latent_norm * CONTEXT_UNITS))).clamp(0, SHIFT_MAX))
    plane = unit * torch.exp2(-codec.context_shift)                      # int8 units of a plane in a latent unit
    taps = plane / codec.latent_norm                                     # ... in a unit of the normalised latents that float mode feeds
    # Float mode sees no reference, so this layer has no range measured: one for normalised inputs.
    reference = entropy.reference.prepare(taps.repeat(len(PHASES)), full(config.reference, ACTIVATION_MAX / REFERENCE_RANGE))
    for p in range(len(PHASES)):
        inputs = [side, reference] + ([taps[:config.context].repeat(4)] if p else [])
        hidden, mean, scale = entropy.layers_of(p)
        hidden_scale = hidden.prepare(torch.cat(inputs), out(f"entropy.hidden.{p}"))
        mean.prepare(hidden_scale, unit)
        scale.prepare(hidden_scale, full(config.latents, SCALE_UNITS))
    set_integer(codec)


def set_integer(codec: Codec, integer: bool = True, rounded: bool = True) -> None:
    """Switch a codec whose scales are set (by `prepare` or a checkpoint) to integer mode, or back to float.

    Integer mode without `rounded` is what integers are measured against: the same layers with the same limits in real numbers.
    """
    codec.integer = integer
    for layer in codec.modules():
        if isinstance(layer, IntegerConv):
            layer.integer, layer.rounded = integer, rounded
