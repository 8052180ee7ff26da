"""A codec in integer mode -> layers and gain tables of a network file (FORMAT 4.2). Offsets of unsigned inputs are folded into the biases."""
from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from remac.codec import Codec
from remac.config import PROFILES
from remac.layers import IntegerConv
from remac.quantise import integer_gains
from remac.weights import load_codec
from remac_runtime.errors import BadNetwork
from remac_runtime.format import LATENT_OFFSET, PHASES, PIXEL_OFFSET, QUALITIES
from remac_runtime.network import HEADS, STRIDE_2, Layer, Network, read_network

MEND = "go on from a sound checkpoint"
Integer = TypeVar("Integer", bound="np.signedinteger[Any]")


def modules(codec: Codec) -> dict[str, tuple[IntegerConv, NDArray[np.int64]]]:
    """The layers by their names in FORMAT 4.2, each with the zero of its unsigned inputs, int64[C_in]."""
    a, e, config = codec.analysis, codec.entropy, codec.config
    context = np.repeat([0, LATENT_OFFSET], [config.side + config.reference, 4 * config.context])
    named: dict[str, tuple[IntegerConv, Any]] = {
        "stem": (a.stem, PIXEL_OFFSET), "body": (a.body, 0), "reduce": (a.reduce, 0), "deep": (a.deep, 0),
        "head": (a.head, np.repeat([0, PIXEL_OFFSET], [config.deep, 768])), "hyper_in": (a.hyper_in, 0), "hyper_out": (a.hyper_out, 0),
        "side_in": (e.side_in, LATENT_OFFSET), "side_mid": (e.side_mid, 0), "side_out": (e.side_out, 0), "reference": (e.reference, LATENT_OFFSET)}
    for p in range(len(PHASES)):
        hidden, mean, scale = e.layers_of(p)
        named.update({f"hidden{p}": (hidden, context if p else 0), f"mean{p}": (mean, 0), f"scale{p}": (scale, 0)})
    return {name: (layer, np.broadcast_to(np.asarray(zero, np.int64), layer.weight.shape[1])) for name, (layer, zero) in named.items()}


@torch.no_grad()
def layers(codec: Codec) -> dict[str, Layer]:
    """Every layer as integers. A zero that lies under 3x3 padding could not be folded; no such layer has one.

    Raises BadNetwork, with the layer's name, for what integers of the network file do not hold.
    """
    result = {}
    for name, (module, zero) in modules(codec).items():
        weight_float, bias_float = module.integer_parameters()
        weight = _exact(weight_float.permute(0, 2, 3, 1), np.int8, f"layer {name}: a weight").astype(np.int64)
        shift = _exact(module.shift, np.int8, f"layer {name}: a shift").astype(np.int64)
        bias = _exact(bias_float, np.int32, f"layer {name}: a bias").astype(np.int64) - (weight.sum((1, 2)) * zero).sum(1)
        if name == "hyper_out":     # z leaves as uint8 with its zero at LATENT_OFFSET
            if shift.min() < 0:
                raise BadNetwork(f"layer {name}: a shift is {shift.min()}, its output has no half steps: {MEND}")
            bias += LATENT_OFFSET << shift
        assert module.kernel == 1 or not zero.any()
        result[name] = Layer(name, weight.astype(np.int8), _exact(bias, np.int32, f"layer {name}: a bias with the zeros of its inputs"),
                             shift.astype(np.int8), 2 if name in STRIDE_2 else 1, name in HEADS)
    return result


def _exact(values: torch.Tensor | NDArray[np.int64], kind: type[Integer], what: str) -> NDArray[Integer]:
    """The same values as integers of `kind`. Raises BadNetwork where that would change one: NaN, a fraction, or beyond the range."""
    array = np.asarray(values.double().cpu().numpy() if isinstance(values, torch.Tensor) else values)
    limits = np.iinfo(kind)
    wrong = ~((array >= limits.min) & (array <= limits.max) & (np.rint(array) == array))        # NaN is in no range
    if wrong.any():
        raise BadNetwork(f"{what} is {array[wrong][0]:g}, no integer of {limits.min}..{limits.max}: {MEND}")
    return array.astype(kind)


def unfolded(codec: Codec, network: Network) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """The inverse of `layers`: integer weights and biases without offsets, by the names of the layers in the model."""
    names = {id(module): name for name, module in codec.named_modules()}
    result = {}
    for name, (module, zero) in modules(codec).items():
        layer = network.layers[name]
        weight = layer.weight.astype(np.int64)
        bias = layer.bias.astype(np.int64) + (weight.sum((1, 2)) * zero).sum(1)
        if name == "hyper_out":
            bias -= LATENT_OFFSET << layer.shift.astype(np.int64)
        result[names[id(module)]] = (torch.from_numpy(weight).permute(0, 3, 1, 2).float(), torch.from_numpy(bias).float())
    return result


def shipped_codec(weights: Path) -> Codec:
    """The trained codec of a weights folder in integer mode and evaluation mode, with its float weights."""
    network = read_network(weights / "network.rmn")
    return load_codec(weights, unfolded(Codec(PROFILES[network.profile]), network)).eval()


@torch.no_grad()
def gain_tensors(codec: Codec) -> dict[str, NDArray[Any]]:
    """gain, inverse_gain, scale_offset int32[64,M] and context_shift int8[M], as integer mode computes them. Raises BadNetwork as `layers` does."""
    log_gain = codec.gains(torch.arange(QUALITIES, device=codec.log_gain.device)).double()
    gain, inverse, offset = integer_gains(log_gain, codec.analysis.head.output_scale.double())
    arrays = {name: _exact(t, np.int32, f"{name}: a value") for name, t in (("gain", gain), ("inverse_gain", inverse), ("scale_offset", offset))}
    return {**arrays, "context_shift": _exact(codec.context_shift, np.int8, "context_shift: a value")}
