"""Shipped weights: what `weights/PROFILE/` holds, and how a codec is rebuilt from it.

The rover side's integers are in the network file alone; CODEC_FILE adds what rounding took off them and the scales, which make the codec
trainable and runnable in float again, and the ground decoder, whose convolutions are stored as int8 with a scale per output channel.
"""
from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from remac.codec import DECODER, Codec, merge_phases
from remac.config import DECODERS, PROFILES, DecoderConfig
from remac.decoder import RefDecoder
from remac.integer import set_integer
from remac.layers import IntegerConv
from remac.packing import packed, unpacked
from remac.refined import BASE, RefinedDecoder, decoder_of, own_state
from remac.tensors import SUFFIX, load_metadata, load_tensors, save_tensors
from remac_runtime.errors import BadNetwork
from remac_runtime.format import LATENT_OFFSET
from remac_runtime.model import NETWORK_FILE
from remac_runtime.network import read_network

CODEC_FILE = f"codec{SUFFIX}"
DECODER_FILES = f"decoder-{{}}{SUFFIX}"   # decoders beside the one that the codec was trained with, by name
FRACTION = "fraction"
_FRACTIONS, _NIBBLE_ZERO = 15, 8         # parts of a step that a fraction counts; what stands for none of them


def rover_layers(codec: Codec) -> dict[str, IntegerConv]:
    """The layers whose integers are in the network file, by their names in the model."""
    return {name: module for name, module in codec.named_modules() if isinstance(module, IntegerConv)}


@torch.no_grad()
def _fraction(layer: IntegerConv) -> Tensor:
    """What rounding takes off the weights, in 15ths of a step, two to a byte: uint8[ceil(O*I*k*k/2)]; what +-64 clips off is lost."""
    exact, _ = layer.exact_parameters()
    rounded, _ = layer.integer_parameters()
    limit = _FRACTIONS // 2          # short of half a step: what is put together again rounds to the same integer
    values = torch.round((exact - rounded).flatten() * _FRACTIONS).clamp(-limit, limit).to(torch.int8) + _NIBBLE_ZERO
    low, high = torch.nn.functional.pad(values, (0, values.numel() % 2)).to(torch.uint8).reshape(-1, 2).T
    return low | high << 4


def _unpacked_fraction(packed_fraction: Tensor, like: Tensor) -> Tensor:
    """The inverse, in steps, in the shape of the weights."""
    nibbles = torch.stack([packed_fraction & 15, packed_fraction >> 4], 1).flatten()[:like.numel()]
    return (nibbles.float() - _NIBBLE_ZERO).reshape(like.shape) / _FRACTIONS


def save_codec(codec: Codec, path: Path) -> None:
    """Write all but the integers of the rover side, which the network file has; of its weights only what rounding takes off."""
    layers = rover_layers(codec)
    rover = {f"{name}.{part}" for name in layers for part in ("weight", "bias")}
    tensors: dict[str, Tensor] = {f"{name}.{FRACTION}": _fraction(layer) for name, layer in layers.items()}
    for name, value in codec.state_dict().items():
        if name not in rover and value.numel():
            tensors.update(packed(name, value.detach().cpu()))
    save_tensors(path, tensors, {"profile": codec.config.name, "version": "1"})


def load_codec(folder: Path, rover: dict[str, tuple[Tensor, Tensor]]) -> Codec:
    """A codec in integer mode from `folder` and the rover side's integer weights and unfolded biases, {module: (W, B)} as of `IntegerConv`."""
    stored, metadata = load_tensors(folder / CODEC_FILE)
    codec = Codec(PROFILES[metadata["profile"]])
    stored.pop("rounding", None)        # of files from before all encoders had one rounding, that of FORMAT 5.5
    fractions = {name: stored.pop(name) for name in list(stored) if name.endswith(FRACTION)}
    state = unpacked(stored)
    codec.load_state_dict({**codec.state_dict(), **state})
    layers = rover_layers(codec)
    with torch.no_grad():
        for name, (weight, bias) in rover.items():
            layer = layers[name]
            gain = layer.output_scale * torch.exp2(layer.shift)
            exact = weight + _unpacked_fraction(fractions[f"{name}.{FRACTION}"], weight)
            layer.weight.copy_(exact * layer.input_scale[None, :, None, None] / gain[:, None, None, None])
            layer.bias.copy_(bias / gain)
    set_integer(codec)
    return codec


class GroundModule(torch.nn.Module):
    """The ground decoder with the runtime's inputs: integers in, pixels out.

    y_hat int32[h,w,M], quality float[1], texture planes uint8[4,8,8,M] and share float[1] (0: none) -> uint8[16h,16w,3].
    """

    norm: Tensor
    latent: Tensor
    plane: Tensor

    def __init__(self, codec: Codec, decoder: RefDecoder | RefinedDecoder | None = None) -> None:
        """With the codec's own decoder, or another one."""
        super().__init__()
        unit = codec.analysis.head.output_scale
        self.decoder = decoder or codec.decoder
        self.register_buffer("norm", codec.latent_norm.clone())
        self.register_buffer("latent", (1.0 / unit)[None, :, None, None])
        self.register_buffer("plane", (torch.exp2(codec.context_shift) / unit)[None, :, None, None])
        self.knots = codec.knots

    def forward(self, y_hat: Tensor, quality: Tensor, texture: Tensor, share: Tensor) -> Tensor:
        pixels = self.show(self.latents(y_hat), quality, texture, share)
        return torch.round(pixels.clamp(0, 255))[0].permute(1, 2, 0).to(torch.uint8)

    def latents(self, y_hat: Tensor) -> Tensor:
        """y_hat int32[h,w,M] in latent units, float[1,M,h,w]."""
        return y_hat.float().permute(2, 0, 1)[None] * self.latent

    def show(self, latents: Tensor, quality: Tensor, texture: Tensor, share: Tensor) -> Tensor:
        """The pixels of `latents`, float[1,3,16h,16w], not yet rounded or clipped."""
        planes = [(p.permute(2, 0, 1)[None].float() - LATENT_OFFSET) * self.plane for p in texture]
        pixels: Tensor = self.decoder(latents, self.knots(quality), self.norm, merge_phases(planes), share)
        return pixels


def _held(folder: Path) -> list[DecoderConfig]:
    """The decoders that a weights folder holds, of whatever codec they are."""
    own = PROFILES[load_metadata(folder / CODEC_FILE)["profile"]].decoder
    others = [config for config in DECODERS.values() if config != own and (folder / DECODER_FILES.format(config.name)).exists()]
    return [own, *others]


def ground_decoders(folder: Path) -> list[DecoderConfig]:
    """The decoders that a weights folder holds, the codec's own first. Raises BadNetwork where one is not for the network beside it."""
    own, *others = _held(folder)
    for config in others:
        check_made_for(folder, config)
    return [own, *others]


def check_made_for(folder: Path, config: DecoderConfig) -> None:
    """Raise BadNetwork where the file of a decoder is of another codec than the network beside it, or of another version than its configuration.

    So is what an older codec leaves behind where a new one is frozen: it would be exported as if it had been trained on the latents of today.
    """
    path = folder / DECODER_FILES.format(config.name)
    metadata, codec = load_metadata(path), read_network(folder / NETWORK_FILE).hash.hex()
    made_for, version = metadata.get("codec", "an unknown one"), metadata.get("version")
    if made_for != codec:
        raise BadNetwork(f"{path}: made for codec {made_for}, the network is {codec}: "
                         f"train it again (`--stage decoder --decoder {config.name}`), or remove the file")
    if version != str(config.version):
        raise BadNetwork(f"{path}: version {version} of {config.name}, today's is {config.version}: "
                         f"train it again (`--stage decoder --decoder {config.name}`), or remove the file")


def save_decoder(decoder: RefDecoder | RefinedDecoder, folder: Path, codec_hash: str) -> Path:
    """Write `folder`/DECODER_FILES: a decoder for streams of the codec with this hash (hex), without what it shares with another one."""
    path = folder / DECODER_FILES.format(decoder.config.name)
    tensors: dict[str, Tensor] = {}
    for name, value in own_state(decoder).items():
        tensors.update(packed(f"{DECODER}{name}", value.detach().cpu()))
    save_tensors(path, tensors, {"decoder": decoder.config.name, "version": str(decoder.config.version), "codec": codec_hash})
    return path


def load_ground(folder: Path, name: str | None = None) -> GroundModule:
    """A ground decoder of a weights folder, float32, evaluation mode; by default the one that the codec was trained with. Raises BadNetwork."""
    codec = load_codec(folder, {})
    return GroundModule(codec, load_decoder(codec, folder, name or codec.config.decoder.name)).eval()


def load_decoder(codec: Codec, folder: Path, name: str, of_any_codec: bool = False) -> RefDecoder | RefinedDecoder:
    """A decoder of a weights folder whose codec is given. Raises BadNetwork.

    `of_any_codec`: also one that was made for an older codec, or is of an older version, to train on from; it must not be shown or shipped.
    """
    if name == codec.config.decoder.name:
        return codec.decoder
    path = folder / DECODER_FILES.format(name)
    if not path.exists():
        raise BadNetwork(f"{path}: no such decoder; {folder} holds {', '.join(config.name for config in _held(folder))}")
    if not of_any_codec:
        check_made_for(folder, DECODERS[name])
    state = {key.removeprefix(DECODER): value for key, value in unpacked(load_tensors(path)[0]).items()}
    decoder = decoder_of(DECODERS[name], codec.config.latents)
    try:
        decoder.load_state_dict(shared_state(codec, folder, name, of_any_codec) | state)
    except RuntimeError:
        raise BadNetwork(f"{path}: its tensors are not those of {name} for this codec: train it anew, or remove the file") from None
    return decoder


def shared_state(codec: Codec, folder: Path, name: str, of_any_codec: bool = False) -> dict[str, Tensor]:
    """What a decoder of a weights folder, whose codec is given, shares with another one, by its own names. Raises BadNetwork as `load_decoder`."""
    config = DECODERS[name]
    if config.refines:
        return {f"{BASE}{key}": value for key, value in load_decoder(codec, folder, config.refines, of_any_codec).state_dict().items()}
    return codec.base.trunk_state() if config.trunk_of else {}
