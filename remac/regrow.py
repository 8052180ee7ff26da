"""Let a deeper ground decoder follow a codec that was trained on:

    python -m remac.regrow runs/deep/checkpoint.pt --former runs/start.pt --codec runs/new-start.pt --out runs/deep-start.pt

It takes the trunk and the rover side of the codec, and moves what else it shares with the codec's own decoder by as much as that has moved; its own
parts stay. From there `python -m remac.train_codec --stage decoder --decoder deep --start ...` needs a fraction of the first training.
"""
from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from remac.checkpoints import read_checkpoint, write_checkpoint
from remac.codec import DECODER, Codec
from remac.config import DECODERS, PROFILES, CodecConfig
from remac.train_codec import load_weights
from remac_runtime.errors import BadNetwork
from remac_runtime.exits import reported


def regrow(config: CodecConfig, grown: dict[str, Tensor], former: dict[str, Tensor], codec: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of `config` (a codec with the deeper decoder): those of `grown`, which grew out of `former`, made to follow `codec`.

    Raises BadNetwork for tensors that do not belong together.
    """
    model = Codec(config)
    foreign = load_weights(model, grown)
    if foreign:
        raise BadNetwork(f"the checkpoint is not of the profile {config.name} (first foreign tensor: {foreign[0]}): name its own with --profile")
    trunk = {DECODER + name for name in model.base.trunk_state()}
    state = model.state_dict()
    foreign = [name for name, value in codec.items() if name not in former or former[name].shape != value.shape]
    if foreign:
        raise BadNetwork(f"the checkpoints are not of one codec (first foreign tensor: {foreign[0]}): name those that followed each other")
    for name, value in codec.items():
        if not name.startswith(DECODER) or name in trunk:
            state[name] = value
        elif name in state and state[name].shape == value.shape:
            state[name] = state[name] + value - former[name]
    return state


@reported
def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m remac.regrow", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="of the decoder stage, on the former codec")
    parser.add_argument("--former", type=Path, required=True, help="checkpoint of the former codec that it was started from")
    parser.add_argument("--codec", type=Path, required=True, help="checkpoint of the codec to follow (`python -m calibration.thaw`)")
    parser.add_argument("--profile", choices=sorted(PROFILES), default="rover-m")
    parser.add_argument("--decoder", choices=sorted(name for name, config in DECODERS.items() if config.trunk_of), default="deep")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    config = replace(PROFILES[options.profile], decoder=DECODERS[options.decoder])
    grown, former = (read_checkpoint(path)["model"] for path in (options.checkpoint, options.former))
    codec = read_checkpoint(options.codec, needed=("model", "stage", "rate"))
    write_checkpoint(options.out, codec["stage"], codec["rate"], regrow(config, grown, former, codec["model"]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
