"""MarsQE beside its baselines on the test crops: `python -m benchmarks.enhance` -> benchmarks/results/enhance.json, resumable.

For every setting of JPEG, HEVC and REMAC: the codec alone, AR-CNN, DnCNN, MarsQE-lite and MarsQE (Table III of the paper). At one setting, what the
references bring, with the trained network as it is: none, of a wrong class, of one class only (not retrained, unlike the paper's Table V). What was
measured with other weights is measured anew.
"""
from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.datasets import DataMissingError, EvalImage, data_root, evaluation_images, pixel_hash
from benchmarks.enhance_metrics import NAMES, measures
from benchmarks.enhance_models import Mars, Planes, baseline, cost_of
from benchmarks.enhance_settings import coded
from benchmarks.store import RESULTS, write_json
from remac.coded import HEVC, JPEG, REMAC, SETTINGS, flat_tables
from remac.marsqe import INDEX_FILE
from remac.matching import jpeg
from remac.segmenter import CLASS_NAMES
from remac.train_segmenter import evaluate
from remac_runtime.enhance.matching import cut_dictionary, join_dictionary

BASELINES = ("arcnn", "dncnn")
BASELINE_RUNS = {JPEG: "{}", HEVC: "{}-hevc"}     # folders of the runs; the baselines know no setting, so each kind of codec has its own
ABLATIONS = ("no-reference", "wrong-class", *(f"only-{name}" for name in CLASS_NAMES), "one-class-map")
EXAMPLES = """examples:
  python -m benchmarks.enhance --runs runs
  python -m benchmarks.enhance --runs runs --float32 --out /tmp/enhance.json"""
Enhance = Callable[[Planes], Planes]


@dataclass(frozen=True)
class Setting:
    """A codec at one of its settings. It is named, in the results too, `jpeg 30`."""

    kind: str
    number: int

    @property
    def key(self) -> str:
        return f"{self.kind} {self.number}"

    def apply(self, picture: Planes) -> tuple[Planes, NDArray[np.float32]]:
        """The coded picture uint8[H,W,3] and its tables, or what stands for them, float32[2,64]."""
        if self.kind == JPEG:
            return jpeg(picture, self.number)
        return coded(self.kind, self.number, picture), flat_tables(self.kind, self.number)


SCHEMA = 2
ABLATED = Setting(JPEG, 30)
ALL_SETTINGS = tuple(Setting(kind, number) for kind in (JPEG, HEVC, REMAC) for number in SETTINGS[kind])
PASSES: tuple[tuple[Setting, tuple[str, ...]], ...] = ((ABLATED, ()), *((s, ()) for s in ALL_SETTINGS if s != ABLATED), (ABLATED, ABLATIONS))


def identity(path: Path) -> str:
    """Which weights: the start of the file's SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def kept(out: Path, weights: Mapping[str, str], precision: str) -> dict[str, Any]:
    """Earlier results, without those of other weights or another precision."""
    content: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
    if content.get("precision") != precision or content.get("schema") != SCHEMA:
        return {"schema": SCHEMA, "precision": precision, "weights": dict(weights), "images": {}}
    stale = {name for name in content["weights"] | dict(weights) if content["weights"].get(name) != weights.get(name)}
    for image in content["images"].values():
        for setting, methods in image["settings"].items():
            for name in [n for n in methods if runs_of(setting.split()[0], n.split("/")[0].removesuffix("-lite")) in stale]:
                del methods[name]
    content["weights"] = dict(weights)
    return content


def runs_of(kind: str, method: str) -> str:
    """The name of a method's weights: the run's folder for the baselines."""
    return BASELINE_RUNS.get(kind, "{}").format(method) if method in BASELINES else method


def measure_image(image: EvalImage, entry: dict[str, Any], mars: Mars, baselines: Mapping[str, Enhance], setting: Setting,
                  ablations: tuple[str, ...]) -> None:
    """Fill in what is missing of one picture in one setting."""
    raw = image.load()
    entry.setdefault("pixels", pixel_hash(raw))
    methods = entry.setdefault("settings", {}).setdefault(setting.key, {})
    wanted = {f"marsqe/{ablation}".rstrip("/"): ablation for ablation in ("", *ablations)}
    missing = [name for name in BASELINES if setting.kind in BASELINE_RUNS and runs_of(setting.kind, name) in baselines and name not in methods]
    if not missing and methods.keys() >= {setting.kind, *wanted}:
        return
    compressed, tables = setting.apply(raw)
    methods.setdefault(setting.kind, measures(raw, compressed))
    methods |= {name: measures(raw, baselines[runs_of(setting.kind, name)](compressed)) for name in missing}
    for name in wanted.keys() - methods.keys():
        found = mars(compressed, tables, wanted[name], bound=setting.kind == JPEG)
        methods |= {name.replace("marsqe", method): measures(raw, picture) for method, picture in found.items()}
    entry["settings"][setting.key] = methods


def summary(content: Mapping[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """Means over the pictures that have everything: {setting: {method: {measure: mean, "gain": dB over the codec}}}."""
    result: dict[str, dict[str, dict[str, float]]] = {}
    for setting in ALL_SETTINGS:
        rows = [image["settings"][setting.key] for image in content["images"].values() if setting.key in image.get("settings", {})]
        names = sorted(set.intersection(*(set(row) for row in rows))) if rows else []
        means = {name: {m: float(np.mean([row[name][m] for row in rows])) for m in NAMES} for name in names}
        for values in means.values():
            values["gain"] = values["psnr"] - means[setting.kind]["psnr"]
        if means:
            result[setting.key] = means
    return result


def training_of_shipped(weights: Path) -> dict[str, Any]:
    """How the shipped MarsQE was trained: the sums over its stages."""
    stages = json.loads((weights / INDEX_FILE).read_text())["models"][JPEG]["stages"]
    totals = {key: sum(stage[key] for stage in stages) for key in ("steps", "patches", "seconds")}
    return {**totals, "device": " and ".join(sorted({stage["device"] for stage in stages}))}


def training_of(run: Path) -> dict[str, Any]:
    """How a run trained, from its folder."""
    import torch
    state = torch.load(run / "checkpoint.pt", map_location="cpu", mmap=True, weights_only=True)
    config = json.loads((run / "config.json").read_text())
    patches = state["step"] * config["train"]["batch"]
    return {"steps": state["step"], "seconds": round(state["seconds"]), "patches": patches, "device": config["device"]}


def open_models(weights: Path, runs: Path, half: bool) -> tuple[Mars, dict[str, Enhance], dict[str, str]]:
    """MarsQE with the references of all settings, the baselines that are there by run, and which weights they are."""
    mars = Mars(weights, half)
    mosaic = join_dictionary(mars.dictionary.patches)
    for setting in ALL_SETTINGS:
        if setting.kind != JPEG:
            mars.dictionary.add(flat_tables(setting.kind, setting.number), cut_dictionary(coded(setting.kind, setting.number, mosaic)).patches)
    found = [runs_of(kind, name) for kind in BASELINE_RUNS for name in BASELINES if (runs / runs_of(kind, name) / "checkpoint.pt").exists()]
    index = json.loads((weights / INDEX_FILE).read_text())["models"][JPEG]
    identities = {"marsqe": identity(weights / index["file"]), **{name: identity(runs / name / "checkpoint.pt") for name in found}}
    return mars, {name: baseline(runs / name, half) for name in found}, identities


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.enhance", description=__doc__, epilog=EXAMPLES,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of the Mars pictures (else $REMAC_DATA)")
    parser.add_argument("--weights", type=Path, default=Path("weights/marsqe"))
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs arcnn, dncnn, and those for HEVC, where there are any")
    parser.add_argument("--kinds", nargs="+", choices=sorted(SETTINGS), default=sorted(SETTINGS), help="measure only what is missing of these")
    parser.add_argument("--float32", action="store_true", help="convolutions in single precision instead of bfloat16")
    parser.add_argument("--out", type=Path, default=RESULTS / "enhance.json")
    options = parser.parse_args(arguments)
    try:
        images = evaluation_images(options.data, ("test",))
    except DataMissingError as error:
        print(f"remac: {error}", file=sys.stderr)
        return 2
    mars, baselines, identities = open_models(options.weights, options.runs, not options.float32)
    content = kept(options.out, identities, "float32" if options.float32 else "bfloat16")
    content["cost"] = cost_of(mars.model)
    content["training"] = {"marsqe": training_of_shipped(options.weights), **{name: training_of(options.runs / name) for name in baselines}}
    content["segmentation"] = evaluate(mars.segmenter, data_root(options.data))
    for setting, ablations in (chosen for chosen in PASSES if chosen[0].kind in options.kinds):
        for done, image in enumerate(images, 1):
            measure_image(image, content["images"].setdefault(image.key, {}), mars, baselines, setting, ablations)
            content["summary"] = summary(content)
            write_json(options.out, content)
            gains = ", ".join(f"{name} {values['gain']:+.3f}" for name, values in content["summary"].get(setting.key, {}).items())
            print(f"{setting.key}, {done}/{len(images)} {image.key}: {gains}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
