"""Export the ground decoders of a weights folder: ONNX for every machine, TensorRT engines for NVIDIA GPUs.

Each decoder becomes FOLDER/ground/NAME@VERSION.onnx (opset 17; y_hat, quality, texture, share -> pixels, height and width dynamic), checked against
PyTorch. Decoders there that belong to another codec are removed: they could not decode its streams. With --target an engine is built from each.
"""
from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if not __package__:     # run as a script: its own folder is on the path, the checkout is not
    sys.path[:1] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[1] / "runtime")]

import numpy as np

from export.command import reported
from export.report import CheckResult
from remac_runtime import mosaic_filters
from remac_runtime.errors import BadNetwork
from remac_runtime.ground import INPUTS, GroundFile
from remac_runtime.model import GROUND_FOLDER, NETWORK_FILE
from remac_runtime.mosaic_filters import MosaicFilters
from remac_runtime.network import read_network

CHECKED_SIZES = ((4, 6), (10, 8))       # latents of the pictures that are compared with PyTorch
ENGINE_SIZES = ((4, 4), (72, 100), (240, 320))      # latents of the least, the usual and the largest picture of an engine: up to 5120x3840
# For int8: what decodes the latents themselves, and the last layers, stay in float; the rest takes its ranges from the sample pictures.
FLOAT_WEIGHTS = (*(f"decoder.{base}{part}" for base in ("", "base.") for part in ("linear", "entry", "out", "texture")),
                 "decoder.refinement.network.head", "decoder.refinement.network.sam")
SAMPLES = Path(__file__).resolve().parents[1] / "samples"
CALIBRATED_QUALITIES = (12, 30, 48, 60)
CALIBRATED_WINDOW, CALIBRATED_EVERY = 16, 48        # latents: sides of the windows, and the distance between them along a picture
EXAMPLES = """\
examples:
  python export/ground_decoder.py                                        # build/rover-m/ground/*.onnx from weights/rover-m
  python export/ground_decoder.py --target sm86 --precision fp16         # and an engine, on a machine with or without a GPU
  python export/ground_decoder.py --target sm89 --precision int8         # convolutions with integers
  python export/ground_decoder.py --target orin                          # what an Orin needs to build its engine itself
"""


def example_inputs(latents: int, height: int, width: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Inputs of a decoder for a picture of 16*height x 16*width pixels: y_hat of a natural spread that falls with the channel, all in range."""
    rng = np.random.default_rng(seed)
    spread = np.geomspace(1 << 18, 1 << 12, latents)     # of rover-m's streams
    y_hat = np.rint(rng.laplace(0, 1, (height, width, latents)) * spread).astype(np.int32)
    texture = np.clip(np.rint(rng.normal(128, 20, (4, 8, 8, latents))), 0, 255).astype(np.uint8)
    return y_hat, np.array([rng.uniform(0, 63)], np.float32), texture, np.array([seed % 2], np.float32)


def calibration_inputs(weights: Path) -> list[dict[str, np.ndarray]]:
    """Inputs of a decoder by name, from the pictures in samples/ at several qualities. Raises BadNetwork where these are missing."""
    from remac_runtime.codec import Decoder, EncodeOptions, Encoder
    from remac_runtime.images import load_picture
    from remac_runtime.model import load_model
    paths = sorted(SAMPLES.glob("*.png"))
    if not paths:
        raise BadNetwork(f"{SAMPLES}: no pictures to measure the ranges of int8 on: restore samples/, or use --precision fp16")
    found, side = [], CALIBRATED_WINDOW
    with Encoder(load_model(weights), "numpy") as encoder, Decoder(encoder.model, encoder.backend) as decoder:
        for path, quality in itertools.product(paths, CALIBRATED_QUALITIES):
            decoded = decoder.decode(encoder.encode(load_picture(path), EncodeOptions(quality)))
            for left in range(0, decoded.y_hat.shape[1] - side + 1, CALIBRATED_EVERY):
                window = np.ascontiguousarray(decoded.y_hat[:side, left:left + side])
                values = (window, np.array([quality], np.float32), decoded.texture, np.ones(1, np.float32))
                found.append({name: np.asarray(value) for name, value in zip(INPUTS, values, strict=True)})
    return found


def export_decoder(weights: Path, folder: Path, name: str | None = None) -> tuple[GroundFile, CheckResult]:
    """Write `folder`/ground/NAME@VERSION.onnx of one decoder of a weights folder, by default the one that the codec was trained with."""
    from remac.weights import load_ground
    codec = read_network(weights / NETWORK_FILE).hash.hex()
    return export_module(load_ground(weights, name), folder, codec, mosaic_filters.read(weights, codec))


def export_module(module: Any, folder: Path, codec: str, filters: MosaicFilters | None = None) -> tuple[GroundFile, CheckResult]:
    """The same for a remac.weights.GroundModule of a codec (hash in hex), with its filters for mosaics."""
    import torch

    from export import to_onnx_float
    config = module.decoder.config
    file = GroundFile(config.version, config.name, folder / GROUND_FOLDER / f"{config.name}@{config.version}.onnx")
    latents = len(module.norm)
    graph = to_onnx_float.Graph(INPUTS, ("pixels",), {"y_hat": {0: "h", 1: "w"}, "pixels": {0: "height", 1: "width"}})
    example: Any = tuple(torch.from_numpy(x) for x in example_inputs(latents, 8, 12))
    properties = {"ground": file.label, "codec_hash": codec, **({mosaic_filters.PROPERTY: filters.text()} if filters else {})}
    to_onnx_float.export(module, example, graph, file.path, properties)
    cases = [example_inputs(latents, *size, seed) for seed, size in enumerate(CHECKED_SIZES)]
    return file, to_onnx_float.check_against_torch(file.label, module, file.path, INPUTS, cases)


def latents_of(file: GroundFile) -> int:
    """The channels of y_hat."""
    import onnx
    y_hat = next(entry for entry in onnx.load(str(file.path)).graph.input if entry.name == "y_hat")
    return int(y_hat.type.tensor_type.shape.dim[2].dim_value)


def remove_foreign(folder: Path, codec: str) -> list[Path]:
    """Remove the decoders of a model folder that were not exported for this codec (hash in hex), with their engines; returns what was removed."""
    from export.manifest import properties
    removed = []
    for path in sorted((folder / GROUND_FOLDER).glob("*.onnx")):
        if properties(path).get("codec_hash") != codec:
            for left in (path, *path.parent.glob(f"{path.stem}.*.engine*")):
                left.unlink()
                removed.append(left)
    return removed


def export_decoders(weights: Path, folder: Path, names: Sequence[str] = ()) -> list[tuple[GroundFile, CheckResult]]:
    """All decoders of a weights folder (or the named ones), the codec's own first. Raises BadNetwork for a name that it does not hold."""
    from remac.weights import ground_decoders

    held = [config.name for config in ground_decoders(weights)]
    unknown = sorted(set(names) - set(held))
    if unknown:
        raise BadNetwork(f"{weights}: holds no decoder {', '.join(unknown)}; it holds {', '.join(held)}: name one of these with --decoder")
    if not names:
        remove_foreign(folder, read_network(weights / NETWORK_FILE).hash.hex())
    return [export_decoder(weights, folder, name) for name in (names or held)]


def parser() -> argparse.ArgumentParser:
    from export.to_tensorrt import add_arguments
    result = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--weights", type=Path, default=Path("weights/rover-m"), help="weights folder (weights/rover-m)")
    result.add_argument("--out", type=Path, default=Path("build/rover-m"), metavar="FOLDER", help="model folder to write into (build/rover-m)")
    result.add_argument("--decoder", action="append", default=[], metavar="NAME", help="only this decoder (may be repeated; default: all)")
    add_arguments(result)
    return result


@reported
def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    from export.manifest import refresh_manifest
    from export.to_tensorrt import Work, build, destination
    if options.target:
        destination(options.target)
    exported = export_decoders(options.weights, options.out, options.decoder)
    refresh_manifest(options.out)
    for file, check in exported:
        print(f"{file.path}: {file.path.stat().st_size:,} bytes; {'pass' if check.passed else 'FAIL'}: {check.detail}")
    calibration = calibration_inputs(options.weights) if options.target and options.precision == "int8" else []
    for file, _ in exported if options.target else ():
        latents = latents_of(file)
        feeds = [dict(zip(INPUTS, example_inputs(latents, *size, seed), strict=True)) for seed, size in enumerate(CHECKED_SIZES)]
        profile = {"y_hat": [(*size, latents) for size in ENGINE_SIZES]}
        build(Work(file.path, profile, feeds, calibration, FLOAT_WEIGHTS), options.target, options.precision)
    return 0 if all(check.passed for _, check in exported) else 1


if __name__ == "__main__":
    sys.exit(main())
