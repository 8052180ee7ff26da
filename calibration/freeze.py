"""Freeze a trained codec: `python -m calibration.freeze CHECKPOINT --out weights/rover-m`.

Writes network.rmn (integers, CDF tables, accumulator proof), bank.rmb (references) and codec.safetensors.xz (ground decoder, training scales), then
reads the network back, which checks every rule of FORMAT 4, and prints what each layer's accumulator can reach.
"""
from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from calibration import bank, counting, integer_network, tables
from remac.cameras import other_camera
from remac.checkpoints import read_checkpoint
from remac.codec import DECODER, Codec
from remac.config import CODED_FROM, DECODERS, PROFILES, CodecConfig
from remac.data import PatchSampler, load_picture, picture_paths
from remac.integer import set_integer
from remac.references import REFERENCE_PIXELS
from remac.weights import CODEC_FILE, save_codec
from remac_runtime.backends import open_backend
from remac_runtime.bench.arguments import count
from remac_runtime.errors import BadNetwork
from remac_runtime.exits import reported
from remac_runtime.format import ACCUMULATOR_LIMIT
from remac_runtime.mars import data_folder
from remac_runtime.network import Bank, Network, read_bank, read_network, write_bank, write_network

REFERENCES = 16
CANDIDATES, CANDIDATE_SEED = 172, 11
COUNTED_SIDE = 512             # of each training picture a window of so many pixels is counted


def load_checkpoint(path: Path, profile: str) -> Codec:
    """A codec in integer mode from a checkpoint of the stages after float. Raises BadNetwork."""
    state = read_checkpoint(path)
    if state.get("stage", "float") == "float":
        raise BadNetwork(f"{path} is a float checkpoint: run the quantised stage first")
    codec = Codec(PROFILES[profile])
    foreign = _foreign(codec, state["model"])
    if foreign and all(name.startswith(DECODER) for name in foreign):
        decoder = _decoder_of(codec.config, state["model"])
        raise BadNetwork(f"{path} is of the profile {profile} with the decoder {decoder}, not with its own, {codec.config.decoder.name}: "
                         f"ship that decoder with `python -m calibration.decoder {path} --decoder {decoder}`")
    if foreign:
        raise BadNetwork(f"{path} is not of the profile {profile}: name its own with --profile")
    codec.load_state_dict(state["model"])
    set_integer(codec)
    codec.eval()
    return codec


def _foreign(codec: Codec, state: dict[str, Tensor]) -> list[str]:
    """Names of the tensors that only one of them has, or in another shape."""
    own = codec.state_dict()
    return [name for name in own.keys() | state.keys() if name not in own or name not in state or own[name].shape != state[name].shape]


def _decoder_of(config: CodecConfig, state: dict[str, Tensor]) -> str:
    """The name of that one of DECODERS which a codec of `config` has with these tensors."""
    with torch.device("meta"):
        fitting = [name for name, decoder in DECODERS.items() if not _foreign(Codec(replace(config, decoder=decoder)), state)]
    return next(iter(fitting), "NAME")


def write(codec: Codec, folder: Path, table_tensors: dict[str, NDArray[Any]],
          bank_tensors: dict[str, NDArray[np.uint8]] | None) -> tuple[Network, Bank | None]:
    """Write and read back the network, and the bank where there is one."""
    digest = write_network(folder / "network.rmn", codec.config.name, CODED_FROM, integer_network.layers(codec),
                           {**integer_network.gain_tensors(codec), **table_tensors})
    network = read_network(folder / "network.rmn")
    if bank_tensors is None:
        return network, None
    write_bank(folder / "bank.rmb", codec.config.name, digest, bank_tensors)
    return network, read_bank(folder / "bank.rmb", network)


def training_windows(data: Path, limit: int | None) -> Iterator[NDArray[np.uint8]]:
    """The middle window of each training picture, as it is and as another camera would have taken it; sides are multiples of COUNTED_BAND_ROWS."""
    for number, path in enumerate(picture_paths(data / "train")[:limit]):
        rows = counting.COUNTED_BAND_ROWS
        picture = PatchSampler.at_least(load_picture(path), rows)
        h, w = (min(COUNTED_SIDE, n // rows * rows) for n in picture.shape[:2])
        top, left = (picture.shape[0] - h) // 2, (picture.shape[1] - w) // 2
        window = np.ascontiguousarray(picture[top:top + h, left:left + w])
        yield window
        yield np.ascontiguousarray(other_camera(window, number))


def freeze(codec: Codec, data: Path, out: Path, limit: int | None = None) -> Network:
    """All of it: provisional network -> bank -> symbol counts -> score -> counts by adapted tables -> final network and bank.

    The files come into place at the end only.
    """
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as scratch:
        folder = Path(scratch)
        provisional = {**tables.latent_tables(tables.latent_pmfs(None)), **tables.uniform_hyper_tables(codec.config.hyper),
                       "score": tables.no_score()}
        network, _ = write(codec, folder, provisional, None)
        with open_backend("torch", folder, network, 1) as backend:
            print("coding the candidates of the reference bank", file=sys.stderr)
            sampler = PatchSampler(picture_paths(data / "train"), REFERENCE_PIXELS, CANDIDATE_SEED, augment=False)
            pixels = sampler.batch(min(CANDIDATES, limit or CANDIDATES), 0).pixels.permute(0, 2, 3, 1).numpy().astype(np.uint8)
            bank_tensors = bank.bank_tensors([bank.candidate(network, backend, np.ascontiguousarray(p)) for p in pixels], REFERENCES)
            _, provisional_bank = write(codec, folder, provisional, bank_tensors)
            print("counting symbols on the training pictures", file=sys.stderr)
            latent, _ = counting.count_symbols(network, provisional_bank, backend, training_windows(data, limit))
            provisional["score"] = tables.score(tables.latent_pmfs(latent))
            network, provisional_bank = write(codec, folder, provisional, bank_tensors)
            print("counting them again, with tables that adapt", file=sys.stderr)
            latent, hyper = counting.count_symbols(network, provisional_bank, backend, training_windows(data, limit))
        final = {**tables.latent_tables(tables.latent_pmfs(latent)), **tables.hyper_tables(hyper), "score": provisional["score"]}
        network, _ = write(codec, folder, final, bank_tensors)
        save_codec(codec, folder / CODEC_FILE)
        for name in ("network.rmn", "bank.rmb", CODEC_FILE):
            (folder / name).replace(out / name)
    return network


def proof(network: Network) -> dict[str, float]:
    """Largest accumulator of each layer as a share of the limit below which float32 is exact."""
    return {name: round(float(layer.bound().max()) / ACCUMULATOR_LIMIT, 4) for name, layer in network.layers.items()}


@reported
def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m calibration.freeze", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--profile", choices=sorted(PROFILES), default="rover-m")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", help="folder of the Mars pictures (else $REMAC_DATA)")
    parser.add_argument("--limit", type=count, metavar="N", help="use so many training pictures only (a quick look)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    network = freeze(load_checkpoint(options.checkpoint, options.profile), data_folder(options.data), options.out, options.limit)
    sizes = {name: (options.out / name).stat().st_size for name in ("network.rmn", "bank.rmb", CODEC_FILE)}
    print(json.dumps({"codec_hash": network.hash.hex(), "bytes": sizes, "accumulator_share": proof(network)}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
