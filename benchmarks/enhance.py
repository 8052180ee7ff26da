"""MarsQE beside its baselines on the test crops: `python -m benchmarks.enhance` -> benchmarks/results/enhance.json, resumable.

For every JPEG quality: the codec alone, AR-CNN, DnCNN, MarsQE-lite and MarsQE (Table III of the paper). At one quality, what the references
bring, with the trained network as it is: none, of a wrong class, of one class only (not retrained, unlike the paper's Table V). What was measured
with other weights is measured anew.
"""
from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.datasets import DataMissingError, EvalImage, evaluation_images, pixel_hash
from benchmarks.enhance_metrics import NAMES, measures
from benchmarks.store import RESULTS, write_json
from remac.marsqe import CELL, INDEX_FILE, Bank, MarsQE, load_marsqe
from remac.marsqe_data import Dictionary
from remac.matching import DICTIONARY_FILE, jpeg, load_dictionary, match
from remac.segmenter import CLASS_NAMES, Segmenter, cell_classes, class_map, load_segmenter
from remac.train_codec import autocast
from remac_runtime.enhance.matching import texture

QUALITIES = (20, 30, 40, 50)
ABLATED = 30
BASELINES = ("arcnn", "dncnn")
ABLATIONS = ("no-reference", "wrong-class", *(f"only-{name}" for name in CLASS_NAMES), "one-class-map")
PASSES: tuple[tuple[int, tuple[str, ...]], ...] = ((30, ()), (20, ()), (40, ()), (50, ()), (ABLATED, ABLATIONS))
EXAMPLES = """examples:
  python -m benchmarks.enhance --runs runs
  python -m benchmarks.enhance --runs runs --float32 --out /tmp/enhance.json"""
Planes = NDArray[np.uint8]


def to_planes(picture: Planes) -> Tensor:
    """uint8[H,W,3] -> float[1,3,H',W'], sides padded by repetition to multiples of 128."""
    h, w = picture.shape[:2]
    padded = np.pad(picture, ((0, -h % CELL), (0, -w % CELL), (0, 0)), "edge")
    return torch.from_numpy(padded.transpose(2, 0, 1).copy())[None].float()


def to_picture(planes: Tensor, height: int, width: int) -> Planes:
    """The inverse of `to_planes`, rounded."""
    pixels: Planes = planes[0, :, :height, :width].clamp(0, 255).round().byte().permute(1, 2, 0).numpy()
    return pixels


class Mars:
    """MarsQE with its segmenter and dictionary."""

    def __init__(self, weights: Path, half: bool) -> None:
        self.model: MarsQE = load_marsqe(weights).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.segmenter: Segmenter = load_segmenter(weights)
        self.dictionary = Dictionary(load_dictionary(weights / DICTIONARY_FILE))
        self.half = half
        self._banks: dict[bytes, Bank] = {}

    def bank(self, tables: NDArray[np.float32]) -> Bank:
        """The encoded references for a set of tables."""
        key = tables.tobytes()
        if key not in self._banks:
            coded, _ = self.dictionary.compressed(tables)
            repeated = torch.from_numpy(tables)[None].expand(len(coded), -1, -1)
            sides = [torch.from_numpy(p.transpose(0, 3, 1, 2).astype(np.float32)) for p in (coded, self.dictionary.patches)]
            self._banks[key] = Bank(*(self.model.encode_references(side, repeated) for side in sides))
        return self._banks[key]

    def index(self, compressed: Planes, tables: NDArray[np.float32], kinds: NDArray[np.int64]) -> Tensor:
        """The matched reference of every cell of a padded picture, int64[P]."""
        _, descriptors = self.dictionary.compressed(tables)
        cells = [compressed[top:top + CELL, left:left + CELL] for top in range(0, compressed.shape[0], CELL)
                 for left in range(0, compressed.shape[1], CELL)]
        return torch.tensor([match(descriptors, texture(cell), int(kind)) for cell, kind in zip(cells, kinds.reshape(-1), strict=True)])

    @torch.inference_mode()
    def __call__(self, compressed: Planes, tables: NDArray[np.float32], ablation: str = "") -> dict[str, Planes]:
        """MarsQE-lite and MarsQE of a JPEG's pixels."""
        planes, table = to_planes(compressed), torch.from_numpy(tables)[None]
        classes = class_map(self.segmenter, planes[0])[None]
        kinds = cell_classes(classes).numpy()
        if ablation == "wrong-class":
            kinds = (kinds + 2) % len(CLASS_NAMES)
        elif ablation.startswith("only-"):
            kinds = np.full_like(kinds, CLASS_NAMES.index(ablation.removeprefix("only-")))
        elif ablation == "one-class-map":
            classes = torch.zeros_like(classes)
        padded = planes[0].byte().permute(1, 2, 0).numpy()
        index = self.index(padded, tables, kinds)
        share = torch.zeros(len(index)) if ablation == "no-reference" else None
        bank = self.bank(tables).taken(index)
        with autocast("cpu") if self.half else torch.no_grad():
            enhanced = self.model(planes, table, classes, bank, share)
        assert enhanced.full is not None
        return {f"marsqe{suffix}": to_picture(self._bound(result, planes, table, compressed.shape), *compressed.shape[:2])
                for suffix, result in (("-lite", enhanced.lite), ("", enhanced.full))}

    def _bound(self, enhanced: Tensor, planes: Tensor, table: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Within the quantisation intervals, where blocks are whole."""
        bound, (h, w) = self.model.constrained(enhanced, planes, table), (n - n % 8 for n in shape[:2])
        result = enhanced.clone()
        result[:, :, :h, :w] = bound[:, :, :h, :w]
        return result


def baseline(run: Path, half: bool) -> Callable[[Planes], Planes]:
    """A trained baseline as a function from picture to picture."""
    from remac.train_marsqe import build

    state = torch.load(run / "checkpoint.pt", map_location="cpu", weights_only=True)
    model = build(state["name"]).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    model.load_state_dict(state["average"])

    @torch.inference_mode()
    def enhance(compressed: Planes) -> Planes:
        with autocast("cpu") if half else torch.no_grad():
            return to_picture(model(to_planes(compressed)), *compressed.shape[:2])
    return enhance


def identity(path: Path) -> str:
    """Which weights: the start of the file's SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def kept(out: Path, weights: Mapping[str, str], precision: str) -> dict[str, Any]:
    """Earlier results, without those of other weights or another precision."""
    content: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
    if content.get("precision") != precision:
        return {"schema": 1, "precision": precision, "weights": dict(weights), "images": {}}
    stale = {method for method in (*BASELINES, "marsqe") if content["weights"].get(method) != weights.get(method)}
    for image in content["images"].values():
        for methods in image["qualities"].values():
            for name in [name for name in methods if name.split("/")[0].removesuffix("-lite") in stale]:
                del methods[name]
    content["weights"] = dict(weights)
    return content


def measure_image(image: EvalImage, entry: dict[str, Any], mars: Mars, baselines: Mapping[str, Callable[[Planes], Planes]], quality: int,
                  ablations: tuple[str, ...]) -> None:
    """Fill in what is missing of one picture at one quality."""
    raw = image.load()
    entry.setdefault("pixels", pixel_hash(raw))
    methods = entry.setdefault("qualities", {}).setdefault(str(quality), {})
    coded, tables = jpeg(raw, quality)
    if "jpeg" not in methods:
        methods["jpeg"] = measures(raw, coded)
    for name, enhance in baselines.items():
        if name not in methods:
            methods[name] = measures(raw, enhance(coded))
    for ablation in ("", *ablations):
        suffix = f"/{ablation}" if ablation else ""
        if f"marsqe{suffix}" not in methods:
            methods.update({f"{name}{suffix}": measures(raw, picture) for name, picture in mars(coded, tables, ablation).items()})


def summary(content: Mapping[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """Means over the pictures that have everything: {quality: {method: {measure: mean, "gain": dB over JPEG}}}."""
    result: dict[str, dict[str, dict[str, float]]] = {}
    for quality in map(str, QUALITIES):
        rows = [image["qualities"][quality] for image in content["images"].values() if quality in image.get("qualities", {})]
        names = sorted(set.intersection(*(set(row) for row in rows))) if rows else []
        result[quality] = {name: {m: float(np.mean([row[name][m] for row in rows])) for m in NAMES} for name in names}
        for values in result[quality].values():
            values["gain"] = values["psnr"] - result[quality]["jpeg"]["psnr"]
    return result


def cost_of(model: MarsQE) -> dict[str, dict[str, float]]:
    """TMAC at 1152x1600 and parameters (millions), references encoded with every cell as in the paper, and with their features kept."""
    from fvcore.nn import FlopCountAnalysis

    class Whole(nn.Module):
        def __init__(self, post: bool, encode: bool) -> None:
            super().__init__()
            self.model, self.post, self.encode = model, post, encode

        def forward(self, picture: Tensor, tables: Tensor, classes: Tensor, patches: Tensor, *bank: Tensor) -> Tensor:
            repeated = tables.expand(len(patches), -1, -1)
            side = self.model.encode_references(patches, repeated) if self.encode else bank
            other = self.model.encode_references(patches + 1, repeated) if self.encode else bank
            enhanced = self.model(picture, tables, classes, Bank(side, other), None, self.post)
            return enhanced.full if self.post else enhanced.lite

    side = CELL
    patches = torch.rand(1, 3, CELL, CELL) * 255
    with torch.no_grad():
        bank = model.encode_references(patches, torch.full((1, 2, 64), 20.0))
    classes = torch.zeros(1, side // 8, side // 8, dtype=torch.int64)
    inputs = (torch.rand(1, 3, side, side) * 255, torch.full((1, 2, 64), 20.0), classes, patches, *bank)
    result = {}
    for name, post in (("marsqe-lite", False), ("marsqe", True)):
        counted = [FlopCountAnalysis(Whole(post, encode), inputs).unsupported_ops_warnings(False).uncalled_modules_warnings(False).total()
                   for encode in (True, False)]
        parameters = sum(p.numel() for part in ((model.main, model.post) if post else (model.main,)) for p in part.parameters())
        result[name] = {"tmac": counted[0] / side ** 2 * 1152 * 1600 / 1e12, "tmac_features_kept": counted[1] / side ** 2 * 1152 * 1600 / 1e12,
                        "parameters": parameters / 1e6}
    return result


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.enhance", description=__doc__, epilog=EXAMPLES,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of the Mars pictures (else $REMAC_DATA)")
    parser.add_argument("--weights", type=Path, default=Path("weights/marsqe"))
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs arcnn, dncnn and segmenter, where there are any")
    parser.add_argument("--float32", action="store_true", help="convolutions in single precision instead of bfloat16")
    parser.add_argument("--out", type=Path, default=RESULTS / "enhance.json")
    options = parser.parse_args(arguments)
    try:
        images = evaluation_images(options.data, ("test",))
    except DataMissingError as error:
        print(f"remac: {error}", file=sys.stderr)
        return 2
    half = not options.float32
    mars = Mars(options.weights, half)
    found = [name for name in BASELINES if (options.runs / name / "checkpoint.pt").exists()]
    identities = {"marsqe": identity(options.weights / "jpeg.safetensors"), **{n: identity(options.runs / n / "checkpoint.pt") for n in found}}
    content = kept(options.out, identities, "bfloat16" if half else "float32")
    baselines = {name: baseline(options.runs / name, half) for name in found}
    content["cost"] = cost_of(mars.model)
    content["training"] = {"marsqe": training_of_shipped(options.weights), **{name: training_of(options.runs / name) for name in found}}
    segmented = options.runs / "segmenter" / "metrics.json"
    if segmented.exists():
        content["segmentation"] = json.loads(segmented.read_text())
    for quality, ablations in PASSES:
        for done, image in enumerate(images, 1):
            measure_image(image, content["images"].setdefault(image.key, {}), mars, baselines, quality, ablations)
            content["summary"] = summary(content)
            write_json(options.out, content)
            gains = ", ".join(f"{name} {values['gain']:+.3f}" for name, values in content["summary"][str(quality)].items())
            print(f"quality {quality}, {done}/{len(images)} {image.key}: {gains}", flush=True)
    return 0


def training_of_shipped(weights: Path) -> dict[str, Any]:
    """How the shipped MarsQE was trained: the sums over its stages."""
    stages = json.loads((weights / INDEX_FILE).read_text())["models"]["jpeg"]["stages"]
    totals = {key: sum(stage[key] for stage in stages) for key in ("steps", "patches", "seconds")}
    return {**totals, "device": " and ".join(sorted({stage["device"] for stage in stages}))}


def training_of(run: Path) -> dict[str, Any]:
    """How a run trained, from its folder."""
    state = torch.load(run / "checkpoint.pt", map_location="cpu", mmap=True, weights_only=True)
    config = json.loads((run / "config.json").read_text())
    patches = state["step"] * config["train"]["batch"]
    return {"steps": state["step"], "seconds": round(state["seconds"]), "patches": patches, "device": config["device"]}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
