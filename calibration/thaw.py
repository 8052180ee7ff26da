"""Make the shipped weights trainable again: `python -m calibration.thaw weights/rover-m --out runs/start.pt`.

The checkpoint starts a run with `python -m remac.train_codec --stage quantised --start runs/start.pt --out RUN` (or the decoder stage), here or on
another machine (`python -m remac.gpu_bundle --start runs/start.pt`). With `--decoder NAME` it starts one of the decoder stage with that decoder; one
that was trained on an older codec, too, since there training on the new one begins.
"""
from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from calibration.integer_network import shipped_codec
from remac.checkpoints import write_checkpoint
from remac.codec import DECODER
from remac.config import DECODERS, RATE
from remac.weights import load_decoder
from remac_runtime.exits import reported


@reported
def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m calibration.thaw", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="folder with network.rmn and codec.safetensors.xz")
    parser.add_argument("--decoder", choices=sorted(DECODERS), help="ground decoder to go on with (default: the one that the codec was trained with)")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    codec = shipped_codec(options.weights)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    decoder = load_decoder(codec, options.weights, options.decoder or codec.config.decoder.name, of_any_codec=True)
    rest = {name: value for name, value in codec.state_dict().items() if not name.startswith(DECODER)}
    write_checkpoint(options.out, "quantised", asdict(RATE), rest | {f"{DECODER}{name}": value for name, value in decoder.state_dict().items()})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
