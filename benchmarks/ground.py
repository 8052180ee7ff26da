"""The ground segment: `python -m benchmarks.ground` -> benchmarks/results/ground.json, resumable, on one thread of a processor.

Every ground decoder of the model folder decodes the same streams, so that only its pictures differ: BD-rate and BD-PSNR against the codec's own (the
oldest) with the real sizes of the streams; then, without any retraining, with other texture references than the one that the stream names, with the
1/32 branch switched off, and with convolutions in int8. benchmarks/ground_cost.py measures time and memory, ground_field.py how far decoders look.
"""
from __future__ import annotations

import argparse
import functools
import hashlib
import json
import math
import sys
import tempfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks import engines, ground_cost, ground_field
from benchmarks.datasets import EVALUATION_SETS, EvalImage, evaluation_images, pixel_hash
from benchmarks.measure import as_rgb, components
from benchmarks.metrics import RDPoint, bd_psnr, bd_rate, psnr_db
from benchmarks.rd_remac import QUALITIES
from benchmarks.store import PSNR_DIGITS, RESULTS, write_json
from benchmarks.summary import mean
from remac_runtime.bench.environment import environment
from remac_runtime.codec import Decoded, Decoder, EncodeOptions, Encoder
from remac_runtime.errors import RemacError
from remac_runtime.exits import reported
from remac_runtime.ground import GroundDecoder, GroundFile, OnnxSession, Session, ground_files
from remac_runtime.images import Picture
from remac_runtime.mars import data_folder
from remac_runtime.model import GROUND_FOLDER, Model, load_model

PICTURE = Path("frames", "test", "m2020_zcam_sol0053.png")       # 1600x1152, as the camera delivers it
ABLATED_QUALITIES = (18, 36)
ABLATED_SET = "test"
NAMED, NONE, WRONG, NARROW, INT8 = "named", "none", "wrong", "narrow", "int8"      # narrow: the 1/32 branch switched off
ABLATIONS = (NONE, WRONG, NARROW, INT8)
NARROW_TENSORS = ("rise.weight", "rise.bias")       # what the 1/32 branch adds, in the exported decoders
FIELD_QUALITY = 36
SEED = 1
SCHEMA = 2
PLANES = 3              # that every picture was coded with where the results do not say it
EXAMPLES = """examples:
  python -m benchmarks.ground
  python -m benchmarks.ground --sets test --rounds 1 --pictures 2 --out /tmp/ground.json"""

Planes = NDArray[np.uint8]
Save = Callable[[], None]


class FloatSession:
    """A graph for engines, whose inputs are float in place of bytes, behind the interface of `remac_runtime.ground.Session`."""

    def __init__(self, path: Path) -> None:
        self._session = OnnxSession(path)
        self.properties = self._session.properties

    def run(self, inputs: dict[str, NDArray[Any]]) -> tuple[NDArray[Any], ...]:
        return self._session.run({name: x.astype(np.float32) if x.dtype == np.uint8 else x for name, x in inputs.items()})


@dataclass(frozen=True)
class Subject:
    """A decoder as exported, and its variants, which are made in `scratch` when first used."""

    file: GroundFile
    model: Model
    weights: Path
    scratch: Path

    @functools.cached_property
    def whole(self) -> GroundDecoder:
        return GroundDecoder(self.model, 1, self.file.label)

    @functools.cached_property
    def narrow(self) -> GroundDecoder:
        return self._with(OnnxSession(without_low(self.file.path, self.scratch)))

    @functools.cached_property
    def int8(self) -> GroundDecoder:
        """The graph that `--precision int8` builds engines from, in ONNX Runtime."""
        engines.build(self.weights, "orin", "int8", self.scratch, "--decoder", self.file.name)
        label = self.file.label
        return self._with(FloatSession(self.scratch / GROUND_FOLDER / f"{label}.orin" / f"{label}.int8.onnx"))

    def _with(self, session: Session) -> GroundDecoder:
        ground = GroundDecoder(self.model, 1, self.file.label)
        ground._session = session
        return ground

    def psnr(self, pixels: Planes, decoded: Decoded, variant: str, texture: Planes | None) -> float:
        """PSNR in dB over RGB of the picture that a user gets of a stream's latents with these texture planes."""
        ground = {NARROW: lambda: self.narrow, INT8: lambda: self.int8}.get(variant, lambda: self.whole)()
        return round(psnr_db(pixels, as_rgb(ground.shown(decoded.header, decoded.y_hat, texture).samples)), PSNR_DIGITS)


def without_low(path: Path, folder: Path) -> Path:
    """A copy of an exported decoder whose 1/32 branch adds nothing."""
    import onnx
    model = onnx.load(str(path))
    silenced = [tensor for tensor in model.graph.initializer if tensor.name.removeprefix("decoder.").removeprefix("base.") in NARROW_TENSORS]
    if len(silenced) != len(NARROW_TENSORS):
        raise RemacError(f"{path}: holds no {' and '.join(NARROW_TENSORS)}: export it again with export/ground_decoder.py")
    for tensor in silenced:
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.zeros(tuple(tensor.dims), np.float32), tensor.name))
    changed = folder / path.name
    changed.write_bytes(model.SerializeToString())
    return changed


def variants_of(image: EvalImage, quality: int) -> tuple[str, ...]:
    """What is decoded of a picture at a quality."""
    return (NAMED, *ABLATIONS) if image.set_name == ABLATED_SET and quality in ABLATED_QUALITIES else (NAMED,)


def wrong_entry(key: str, named: int, count: int) -> int:
    """Another entry of a bank than the one that a stream names, drawn by the picture's key."""
    return (named + 1 + int(np.random.default_rng([SEED, zlib.crc32(key.encode())]).integers(count - 1))) % count


def coded_planes(pixels: Planes) -> int:
    """How many planes of uint8[H,W,3] are coded: one where they are equal."""
    samples = components(pixels)
    return 1 if samples.ndim == 2 else samples.shape[2]


def measure_image(image: EvalImage, entry: dict[str, Any], subjects: list[Subject], encoder: Encoder, decoder: Decoder) -> None:
    """Fill {"pixels", "shape", "planes", "bytes": {quality: bytes}, "psnr": {decoder: {quality: {variant: dB}}}} of a picture, empty or of this very
    picture; what is there is kept."""
    todo = [subject for subject in subjects if len(entry.get("psnr", {}).get(subject.file.label, {})) < len(QUALITIES)]
    if not todo:
        return
    pixels, bank = image.load(), decoder.model.bank
    assert bank is not None, "a model without references has nothing to take away"
    told = {"pixels": pixel_hash(pixels), "shape": list(pixels.shape[:2]), "planes": coded_planes(pixels), "bytes": {}, "psnr": {}}
    entry.update({key: value for key, value in told.items() if key not in entry})
    found: dict[str, dict[str, dict[str, float]]] = {subject.file.label: {} for subject in todo}
    for quality in QUALITIES:
        data = encoder.encode(Picture(components(pixels)), EncodeOptions(quality))
        entry["bytes"][str(quality)] = len(data)
        decoded = decoder.decode(data)
        wrong = decoder.texture(wrong_entry(image.key, decoded.header.texture, len(bank)))
        textures = {NONE: None, WRONG: wrong}
        for subject in todo:
            found[subject.file.label][str(quality)] = {name: subject.psnr(pixels, decoded, name, textures.get(name, decoded.texture))
                                                       for name in variants_of(image, quality)}
    entry["psnr"].update(found)


# ---- what the pictures say

def curve(entry: Mapping[str, Any], label: str) -> list[RDPoint]:
    """Rate and quality of a picture by one decoder."""
    return [RDPoint(int(quality), entry["bytes"][quality], values[NAMED]) for quality, values in entry["psnr"][label].items()]


def summarise(images: Mapping[str, Any], labels: list[str]) -> dict[str, Any]:
    """{set: {"pictures", "bits_per_pixel": {quality: mean}, "decoders": {decoder: ...}}} over the pictures that all decoders were measured on.

    Of a decoder: "psnr" {quality: {variant: mean dB}}; of all but the first also "bd_rate" (fraction), "bd_psnr" (dB) and "gain" {quality: [mean,
    least, largest] in dB} against the first, per picture and then averaged.
    """
    sets: dict[str, Any] = {}
    for name in EVALUATION_SETS:
        entries = [entry for key, entry in images.items() if key.startswith(f"{name}/") and all(label in entry["psnr"] for label in labels)]
        if entries:
            bits = {str(quality): mean(8 * entry["bytes"][str(quality)] / (entry["shape"][0] * entry["shape"][1]) for entry in entries)
                    for quality in QUALITIES}
            sets[name] = {"pictures": len(entries), "bits_per_pixel": bits, "decoders": {label: _of_decoder(entries, label, labels[0])
                                                                                        for label in labels}}
    return sets


def known(value: float) -> float | None:
    """For JSON, which has no NaN."""
    return value if math.isfinite(value) else None


def _of_decoder(entries: list[dict[str, Any]], label: str, own: str) -> dict[str, Any]:
    curves = [entry["psnr"][label] for entry in entries]
    result: dict[str, Any] = {"psnr": {quality: {variant: mean(c[quality][variant] for c in curves) for variant in variants}
                                       for quality, variants in curves[0].items()}}
    if label != own:
        gains = {quality: [entry["psnr"][label][quality][NAMED] - entry["psnr"][own][quality][NAMED] for entry in entries] for quality in curves[0]}
        result |= {"bd_rate": known(mean(bd_rate(curve(entry, own), curve(entry, label)) for entry in entries)),
                   "bd_psnr": known(mean(bd_psnr(curve(entry, own), curve(entry, label)) for entry in entries)),
                   "gain": {quality: [mean(values), min(values), max(values)] for quality, values in gains.items()}}
    return result


# ---- the command

def nothing() -> dict[str, Any]:
    """What a first run starts from."""
    return {"costs": {}, "fields": {}, "images": {}}


def earlier(path: Path, codec: str, decoders: Mapping[str, str]) -> dict[str, Any]:
    """What a results file holds of this codec, without what other decoders of the same names made; `decoders` {label: SHA-256}. Of another codec the
    costs alone are kept, which say of what files they are."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if content.get("schema") != SCHEMA:
        return nothing()
    ground_cost.adopt(content["costs"], content.get("environment", {}))
    if content["codec_hash"] != codec:
        return nothing() | {"costs": content["costs"]}
    stale = {label for label in {*content["decoders"], *decoders} if content["decoders"].get(label) != decoders.get(label)}
    for label in stale:
        content["fields"].pop(label, None)
        for entry in content["images"].values():
            entry["psnr"].pop(label, None)
    return content


def forget_changed(content: dict[str, Any], images: tuple[EvalImage, ...]) -> None:
    """Take out of earlier results the pictures that are others now, with the fields measured on them, and those that were coded otherwise."""
    for image in images:
        entry = content["images"].get(image.key)
        if not entry:
            continue
        pixels = image.load()
        if entry["pixels"] != pixel_hash(pixels):
            content["fields"] = {label: field for label, field in content["fields"].items() if image.key not in field["measured"]["pictures"]}
        elif entry.get("planes", PLANES) == coded_planes(pixels):
            continue
        del content["images"][image.key]


def measure_fields(model: Model, subjects: list[Subject], images: tuple[EvalImage, ...], weights: Path, fields: dict[str, Any], save: Save) -> None:
    """`fields` {decoder: ground_field.describe} of the decoders that it lacks, on the test crops that are large enough."""
    missing = [subject for subject in subjects if subject.file.label not in fields]
    if not missing:
        return
    pictures = {}
    with Encoder(model) as encoder, Decoder(model) as decoder:
        for image in images:
            pixels = image.load()
            if image.set_name == ABLATED_SET and min(pixels.shape[:2]) >= ground_field.LEAST_SIDE:
                decoded = decoder.decode(encoder.encode(Picture(components(pixels)), EncodeOptions(FIELD_QUALITY)))
                assert decoded.texture is not None, "the bank of a built model has textures"
                pictures[image.key] = ground_field.Sample(pixels, decoded.y_hat, decoded.texture)
    for subject in missing if pictures else ():
        module = ground_field.load(weights, subject.file.label)
        for sample in list(pictures.values())[:1]:
            ground_field.check_same(module, subject.whole, sample, FIELD_QUALITY)
        fields[subject.file.label] = ground_field.describe(module, pictures, FIELD_QUALITY)
        save()


def measure(options: argparse.Namespace, model: Model, scratch: Path) -> dict[str, Any]:
    """Everything; the results file is written after each part."""
    images = evaluation_images(options.data, tuple(options.sets))
    images = tuple(image for name in options.sets for image in [i for i in images if i.set_name == name][:options.pictures])
    subjects = [Subject(file, model, options.weights, scratch) for file in ground_files(model.folder / GROUND_FOLDER)]
    decoders = {subject.file.label: hashlib.sha256(subject.file.path.read_bytes()).hexdigest() for subject in subjects}
    before = nothing() if options.force else earlier(options.out, model.network.hash.hex(), decoders)
    forget_changed(before, images)
    result: dict[str, Any] = {"schema": SCHEMA, "codec_hash": model.network.hash.hex(), "picture": PICTURE.name, "threads": 1,
                              "environment": environment(), "decoders": decoders, "costs": before["costs"],
                              "fields": before["fields"], "images": before["images"], "summary": summarise(before["images"], list(decoders))}

    def save() -> None:
        write_json(options.out, result)

    def save_costs(costs: dict[str, Any]) -> None:
        result["costs"] = costs
        save()
    picture = data_folder(options.data) / PICTURE
    save_costs(ground_cost.costs(model, picture, options.weights, options.marsqe, options.rounds, result["costs"], save_costs))
    measure_fields(model, subjects, images, options.weights, result["fields"], save)
    with Encoder(model) as encoder, Decoder(model) as decoder:
        for image in tqdm(images, unit="picture"):
            measure_image(image, result["images"].setdefault(image.key, {}), subjects, encoder, decoder)
            result["summary"] = summarise(result["images"], list(decoders))
            save()
    return result


@reported
def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ground", description=__doc__, epilog=EXAMPLES,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="the model folder")
    parser.add_argument("--weights", type=Path, default=Path("weights/rover-m"), help="weights of the decoders in PyTorch")
    parser.add_argument("--marsqe", type=Path, default=Path("weights/marsqe"), help="weights of MarsQE in PyTorch")
    parser.add_argument("--data", help="the pictures; by default $REMAC_DATA or ../shared/data/mars")
    parser.add_argument("--sets", nargs="+", choices=EVALUATION_SETS, default=list(EVALUATION_SETS))
    parser.add_argument("--rounds", type=int, default=3, help="of the timings (3)")
    parser.add_argument("--pictures", type=int, help="only so many of each set, for a quick look")
    parser.add_argument("--force", action="store_true", help="measure again what is there")
    parser.add_argument("--out", type=Path, default=RESULTS / "ground.json")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        result = measure(options, load_model(options.model), Path(scratch))
    for name, entry in result["summary"].items():
        for label, found in entry["decoders"].items():
            if found.get("bd_rate") is not None:
                print(f"{name}, {entry['pictures']} pictures: {label} BD-rate {100 * found['bd_rate']:+.2f} %, BD-PSNR {found['bd_psnr']:+.3f} dB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
