"""Ship a ground decoder trained on a frozen codec: `python -m calibration.decoder CHECKPOINT --out weights/rover-m`.

The checkpoint is one of `python -m remac.train_codec --stage decoder --decoder NAME`. Its rover side must be, integer for integer, that of the
network in the weights folder: a decoder for other latents is refused, and so is one whose shared part (the trunk of the codec's own decoder, or the
decoder that it refines) is not that of the folder.
"""
from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from calibration import integer_network
from remac.checkpoints import read_checkpoint
from remac.codec import Codec
from remac.config import DECODERS, PROFILES
from remac.decoder import RefDecoder
from remac.integer import set_integer
from remac.refined import RefinedDecoder, own_state
from remac.train_codec import load_weights
from remac.weights import CODEC_FILE, load_codec, save_decoder, shared_state
from remac_runtime.errors import BadNetwork
from remac_runtime.exits import reported
from remac_runtime.network import Network, read_network

MEND = "train the decoder on the frozen codec (thaw it)"
UNITS = ("latent_norm", "analysis.head.output_scale")       # of what the decoder is shown, beside the integers
GAIN_SLACK = 1e-5                                           # of a gain


def load_checkpoint(path: Path, profile: str, decoder: str) -> Codec:
    """The codec of a checkpoint of the decoder stage. Raises BadNetwork."""
    state = read_checkpoint(path)
    codec = Codec(replace(PROFILES[profile], decoder=DECODERS[decoder]))
    foreign = load_weights(codec, state["model"])
    if foreign or state.get("stage") != "decoder":
        raise BadNetwork(f"{path}: no checkpoint of the decoder stage for {profile} with decoder {decoder} (first foreign tensor: "
                         f"{foreign[:1]}): name its own with --profile and --decoder")
    set_integer(codec)
    return codec.eval()


def check_same_rover(codec: Codec, network: Network, shipped: Codec) -> None:
    """Raise BadNetwork where the checkpoint's integers are not those of the network file, or its units not those of the codec shipped beside it.

    Gains follow from learned floats, whose sums differ in the last bits from machine to machine: training moves them by far more than is let pass.
    """
    for name, layer in integer_network.layers(codec).items():
        theirs = network.layers[name]
        if not all(np.array_equal(getattr(layer, part), getattr(theirs, part)) for part in ("weight", "bias", "shift")):
            raise BadNetwork(f"layer {name} of the checkpoint differs from the network file: {MEND}")
    for name, value in integer_network.gain_tensors(codec).items():
        if not np.allclose(value, getattr(network, name), rtol=GAIN_SLACK, atol=0 if name == "context_shift" else 1):
            raise BadNetwork(f"{name} of the checkpoint differs from the network file: {MEND}")
    state, units = codec.state_dict(), shipped.state_dict()
    for name in UNITS:
        if not torch.allclose(state[name], units[name]):
            raise BadNetwork(f"{name} of the checkpoint differs from the codec that was shipped: {MEND}")


def check_same_shared(decoder: RefDecoder | RefinedDecoder, shipped: Codec, folder: Path, source: Path) -> None:
    """Raise BadNetwork where what a decoder does not bring along is not what the files in `folder`, whose codec is given, have."""
    name = decoder.config.name
    brought = own_state(decoder)
    theirs = shared_state(shipped, folder, name)
    for tensor, value in decoder.state_dict().items():
        if tensor not in brought and not torch.allclose(value, theirs[tensor]):
            raise BadNetwork(f"{source}: decoder.{tensor} differs from that of {folder}: train {name} on what was shipped (thaw it)")


def load_trained(path: Path, folder: Path, profile: str, decoder: str, network: Network) -> RefDecoder | RefinedDecoder:
    """The decoder of a checkpoint of the decoder stage, for the latents of this network. Raises BadNetwork."""
    own = PROFILES[profile].decoder.name
    if decoder == own:
        raise BadNetwork(f"{decoder} is the own decoder of {profile}, which {CODEC_FILE} holds: "
                         f"ship it with `python -m calibration.freeze {path} --out {folder}`")
    codec, shipped = load_checkpoint(path, profile, decoder), load_codec(folder, {})
    check_same_rover(codec, network, shipped)
    check_same_shared(codec.decoder, shipped, folder, path)
    return codec.decoder


@reported
def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m calibration.decoder", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--profile", choices=sorted(PROFILES), default="rover-m")
    parser.add_argument("--decoder", choices=sorted(DECODERS), default="deep")
    parser.add_argument("--out", type=Path, required=True, help="weights folder with the network file")
    options = parser.parse_args(arguments)
    network = read_network(options.out / "network.rmn")
    decoder = load_trained(options.checkpoint, options.out, options.profile, options.decoder, network)
    path = save_decoder(decoder, options.out, network.hash.hex())
    print(f"{path}: {path.stat().st_size:,} bytes, for codec {network.hash.hex()}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
