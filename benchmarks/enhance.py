"""MarsQE beside its baselines on both evaluation sets: `python -m benchmarks.enhance` -> benchmarks/results/enhance.json, resumable.

For every setting of JPEG, HEVC and REMAC: the codec alone, AR-CNN, DnCNN, MarsQE-lite and MarsQE (Table III of the paper). At one setting, on the
test crops, what the references bring, with the trained network as it is: none, of a wrong class, of one class only (`benchmarks.enhance_modules`
trains anew for the paper's Table V). What was measured with other weights is measured anew, as are pictures that are others now, and streams where
the codec or their decoder is another; the references, which the codec has coded at its highest quality, do not count. A file of another precision, or
of other versions of the JPEG and HEVC coders, is refused: baselines whose runs are gone could not be measured anew.
"""
from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.datasets import EVALUATION_SETS, EvalImage, evaluation_images, pixel_hash
from benchmarks.enhance_metrics import NAMES, measures
from benchmarks.enhance_models import Mars, Planes, baseline, cost_of
from benchmarks.enhance_settings import coded, identity, made_by
from benchmarks.measure import check_versions
from benchmarks.peers import library_versions
from benchmarks.store import RESULTS, ResultsError, write_json
from remac.coded import HEVC, JPEG, REMAC, SETTINGS, flat_tables
from remac.marsqe import INDEX_FILE, MarsQE
from remac.matching import jpeg
from remac.runs import read_run
from remac.segmenter import CLASS_NAMES, load_segmenter
from remac.train_segmenter import evaluate
from remac_runtime.enhance.matching import cut_dictionary, join_dictionary
from remac_runtime.exits import reported
from remac_runtime.mars import data_folder

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


SCHEMA = 3
CODERS = ("pillow", "libjpeg-turbo", "pillow-heif", "libheif", "x265")      # libraries that code the pictures as JPEG and HEVC, and decode them
ABLATED, ABLATED_SET = Setting(JPEG, 30), "test"
ALL_SETTINGS = tuple(Setting(kind, number) for kind in (JPEG, HEVC, REMAC) for number in SETTINGS[kind])
ELSEWHERE = (Setting(JPEG, 20), Setting(JPEG, 50), Setting(HEVC, 32), Setting(REMAC, 20))      # what the other sets are measured in


def kept(out: Path, weights: Mapping[str, str], precision: str, versions: Mapping[str, str], force: bool = False) -> dict[str, Any]:
    """Earlier results, without those of other weights; with `force` only those of baselines whose runs are gone. These stay in any case: the paper's
    others are compared with them, and training them takes hours. Raises ResultsError for a file of another precision, schema or version."""
    content: dict[str, Any] = {"schema": SCHEMA, "precision": precision, "weights": {}, "versions": {}, "images": {}}
    if out.exists():
        content = {"versions": {}} | json.loads(out.read_text())
    found, wanted = (f"in {one.get('precision')} (schema {one.get('schema')})" for one in (content, {"precision": precision, "schema": SCHEMA}))
    if found != wanted:
        raise ResultsError(f"{out} was measured {found}, here is {precision} (schema {SCHEMA}): move it away or name another --out")
    check_versions(out, content["versions"], versions)
    content["versions"] |= versions
    gone = gone_baselines(content, weights)
    weights = gone | dict(weights)
    stale = {name for name in content["weights"] | weights if content["weights"].get(name) != weights.get(name)}
    for image in content["images"].values():
        for setting, methods in image["settings"].items():
            kind = setting.split()[0]
            for name in list(methods):
                run = runs_of(kind, name.split("/")[0].removesuffix("-lite"))
                if kind in stale or run in stale or (force and run not in gone):
                    del methods[name]
    content["weights"] = weights
    return content


def gone_baselines(content: Mapping[str, Any], weights: Mapping[str, str]) -> dict[str, str]:
    """The weights of baselines that were measured, but whose runs are not among the weights at hand."""
    return {name: identity for name, identity in content["weights"].items() if name in BASELINE_NAMES and name not in weights}


def forget_changed(content: dict[str, Any], images: tuple[EvalImage, ...], runs: Mapping[str, str], out: Path) -> None:
    """Take the pictures that are others now out of earlier results. Raises ResultsError where they hold what could not be measured anew."""
    gone = gone_baselines(content, runs)
    for image in images:
        entry = content["images"].get(image.key)
        if entry is None or entry["pixels"] == pixel_hash(image.load()):
            continue
        if gone:
            raise ResultsError(f"{out} holds another picture named {image.key}, and results of {', '.join(gone)}, whose runs are gone: "
                               f"move it away or name another --out")
        del content["images"][image.key]


def runs_of(kind: str, method: str) -> str:
    """The name of a method's weights: the run's folder for the baselines."""
    return BASELINE_RUNS.get(kind, "{}").format(method) if method in BASELINES else method


BASELINE_NAMES = tuple(runs_of(kind, name) for kind in BASELINE_RUNS for name in BASELINES)


@dataclass(frozen=True)
class Models:
    """MarsQE with the references of all settings, and the baselines by run."""

    mars: Mars
    baselines: Mapping[str, Enhance]


@dataclass(frozen=True)
class Job:
    """What is missing of one picture in one setting: the codec and the baselines by name, MarsQE by ablation."""

    image: EvalImage
    setting: Setting
    others: tuple[str, ...]
    ablations: tuple[str, ...]


def missing(image: EvalImage, setting: Setting, runs: Mapping[str, str], content: Mapping[str, Any], ablated: bool = False) -> Iterator[Job]:
    """What has still to be measured, given the baselines' runs and earlier results: a job, or none. `ablated`: the ablations instead."""
    have = content["images"].get(image.key, {}).get("settings", {}).get(setting.key, {})
    wanted: tuple[str, ...] = ()
    others = [setting.kind, *(name for name in BASELINES if setting.kind in BASELINE_RUNS and runs_of(setting.kind, name) in runs)]
    if ablated:
        others, wanted = [], ABLATIONS if (setting, image.set_name) == (ABLATED, ABLATED_SET) else ()
    elif image.set_name == ABLATED_SET or setting in ELSEWHERE:
        wanted = ("",)
    found = Job(image, setting, tuple(name for name in others if wanted and name not in have),
                tuple(name for name in wanted if f"marsqe/{name}".rstrip("/") not in have))
    if found.others or found.ablations:
        yield found


def measure(job: Job, models: Models) -> tuple[str, dict[str, dict[str, float]]]:
    """The hash of the picture's pixels, and the measures of each method that the job names."""
    raw, kind = job.image.load(), job.setting.kind
    compressed, tables = job.setting.apply(raw)
    pictures = {name: compressed if name == kind else models.baselines[runs_of(kind, name)](compressed) for name in job.others}
    for ablation in job.ablations:
        found = models.mars(compressed, tables, ablation, bound=kind == JPEG)
        pictures |= {f"{method}/{ablation}".rstrip("/"): picture for method, picture in found.items()}
    return pixel_hash(raw), {name: measures(raw, picture) for name, picture in pictures.items()}


def summary(content: Mapping[str, Any], set_name: str) -> dict[str, dict[str, dict[str, float]]]:
    """Means over the pictures of a set that have everything: {setting: {method: {measure: mean, "gain": dB over the codec, "worst": its least}}}."""
    result: dict[str, dict[str, dict[str, float]]] = {}
    images = [image["settings"] for key, image in content["images"].items() if key.startswith(f"{set_name}/")]
    for setting in ALL_SETTINGS:
        rows = [settings[setting.key] for settings in images if setting.key in settings]
        names = sorted(set.intersection(*(set(row) for row in rows))) if rows else []
        if setting.kind not in names:       # the gains are over the codec
            continue
        means = {name: {m: float(np.mean([row[name][m] for row in rows])) for m in NAMES} for name in names}
        for name, values in means.items():
            gains = [row[name]["psnr"] - row[setting.kind]["psnr"] for row in rows]
            values |= {"gain": float(np.mean(gains)), "worst": min(gains), "pictures": len(rows)}
        if means:
            result[setting.key] = means
    return result


def training_of_shipped(weights: Path) -> dict[str, Any]:
    """How the shipped MarsQE was trained: the sums over its stages."""
    stages = json.loads((weights / INDEX_FILE).read_text())["model"]["stages"]
    totals = {key: sum(stage[key] for stage in stages) for key in ("steps", "patches", "seconds")}
    return {**totals, "device": " and ".join(sorted({stage["device"] for stage in stages}))}


def training_of(run: Path) -> dict[str, Any]:
    """How a run and those that it started from were trained, from their folders."""
    record = read_run(run)
    before = [training_of(Path(start).parent) for start in record.config["start"]]
    own = {"steps": record.steps, "seconds": round(record.seconds), "patches": record.patches}
    return {**{key: own[key] + sum(run[key] for run in before) for key in own}, "device": record.device}


def found_runs(runs: Path) -> dict[str, str]:
    """The baselines' runs that are there, and which weights they are."""
    return {name: identity(runs / name / "checkpoint.pt") for name in BASELINE_NAMES if (runs / name / "checkpoint.pt").exists()}


def weights_of_marsqe(weights: Path) -> str:
    return identity(weights / json.loads((weights / INDEX_FILE).read_text())["model"]["file"])


@cache
def open_models(weights: Path, runs: Path, half: bool) -> Models:
    """MarsQE with the references of all settings, and the baselines of `found_runs`."""
    mars = Mars(weights, half)
    mosaic = join_dictionary(mars.dictionary.patches)
    for setting in ALL_SETTINGS:
        if setting.kind != JPEG:
            mars.dictionary.add(flat_tables(setting.kind, setting.number), cut_dictionary(coded(setting.kind, setting.number, mosaic)).patches)
    return Models(mars, {name: baseline(runs / name, half) for name in found_runs(runs)})


def measure_in_worker(job: Job, weights: Path, runs: Path, half: bool) -> tuple[str, dict[str, dict[str, float]]]:
    """`measure` with the models of these folders, which each process opens once."""
    return measure(job, open_models(weights, runs, half))


def measure_all(jobs: list[Job], options: argparse.Namespace, content: dict[str, Any]) -> None:
    """All jobs on worker processes; what is done is written at once."""
    import torch
    from tqdm import tqdm
    models = options.weights, options.runs, not options.float32
    with ProcessPoolExecutor(options.processes, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        futures = {pool.submit(measure_in_worker, job, *models): job for job in jobs}
        for future in tqdm(as_completed(futures), total=len(futures), unit="picture"):
            job, (pixels, methods) = futures[future], future.result()
            entry = content["images"].setdefault(job.image.key, {"pixels": pixels, "settings": {}})
            entry["settings"].setdefault(job.setting.key, {}).update(methods)
            content["summary"] = {set_name: summary(content, set_name) for set_name in EVALUATION_SETS}
            write_json(options.out, content)


@reported
def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.enhance", description=__doc__, epilog=EXAMPLES,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of the Mars pictures (else $REMAC_DATA)")
    parser.add_argument("--weights", type=Path, default=Path("weights/marsqe"))
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs arcnn, dncnn, and those for HEVC, where there are any")
    parser.add_argument("--kinds", nargs="+", choices=sorted(SETTINGS), default=sorted(SETTINGS), help="measure only what is missing of these")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="worker processes, one thread each")
    parser.add_argument("--float32", action="store_true", help="convolutions in single precision instead of bfloat16")
    parser.add_argument("--force", action="store_true", help="measure again what is there, but for baselines whose runs are gone")
    parser.add_argument("--out", type=Path, default=RESULTS / "enhance.json")
    options = parser.parse_args(arguments)
    images = evaluation_images(options.data)
    runs = found_runs(options.runs)
    streams = made_by()
    weights = {"marsqe": weights_of_marsqe(options.weights), REMAC: " ".join(streams.values()), **runs}
    versions = {name: text for name, text in library_versions().items() if name in CODERS}
    content = kept(options.out, weights, "float32" if options.float32 else "bfloat16", versions, options.force)
    forget_changed(content, images, runs, options.out)
    absent = [name for name in BASELINE_NAMES if name not in runs]
    if absent:
        print(f"enhance: no run of {', '.join(absent)} in {options.runs}: they are not measured, earlier results of theirs stay", file=sys.stderr)
    content["codec_hash"] = streams["codec"]
    content["cost"] = cost_of(MarsQE())
    earlier = {name: told for name, told in content.get("training", {}).items() if name in content["weights"]}
    trained = {name: training_of(options.runs / name) for name in runs}
    content["training"] = earlier | {"marsqe": training_of_shipped(options.weights), **trained}
    content["segmentation"] = evaluate(load_segmenter(options.weights), data_folder(options.data))
    chosen = [setting for setting in ALL_SETTINGS if setting.kind in options.kinds]
    measure_all([job for ablated in (False, True) for setting in chosen for image in images
                 for job in missing(image, setting, runs, content, ablated)], options, content)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
