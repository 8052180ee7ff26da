"""What the ground segment costs on one thread of a processor: seconds and peak memory of each network and engine, each run in a process of its own.

Three stages: bytes to latents (integers, by backend), latents to pixels (each decoder, in ONNX Runtime and PyTorch), a JPEG file to enhanced pixels
(each enhancer, likewise). Runs go round after round through all of them. Samples of another file, processor or library do not count, and those of a
run that was not valid (RULES.md) are taken again as soon as the machine is idle.
"""
from __future__ import annotations

import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from remac_runtime import native
from remac_runtime.bench import environment as bench_environment
from remac_runtime.bench import stats as bench_stats
from remac_runtime.errors import RemacError
from remac_runtime.ground import GroundDecoder, ground_files
from remac_runtime.model import ENHANCE_FOLDER, GROUND_FOLDER, NETWORK_FILE, Model, load_model

LATENTS, DECODER, ENHANCER = "latents", "decoder", "enhancer"
BACKENDS = ("c99", "onnxruntime", "numpy")
ENGINES = ("onnxruntime", "torch")
JPEG_QUALITY, QUALITY = 30, 32
SMALL = 128                # side in pixels of the picture of the warm-up
FRAME, SMALL_FRAME = "frame", "small"
LIBRARIES = ("numpy", "onnxruntime", "torch", "remac-runtime")      # whose versions the timings depend on
STATE = ("clock_mhz", "celsius", "load", "throttle_count")          # of `environment.state`
SPOILS = tuple(caution.word for caution in bench_stats.SPOILS)
HASH_DIGITS = 16

Sample = dict[str, Any]         # "seconds", "loaded_bytes", "peak_bytes", the state of the machine "before" and "after", and "warnings"

Call = Callable[[], Any]


@dataclass(frozen=True)
class Subject:
    """What is measured: its stage, label, file, and the engines it runs in."""

    stage: str
    label: str
    path: Path
    engines: tuple[str, ...]

    @property
    def key(self) -> str:
        return f"{self.stage} {self.label}"


@dataclass(frozen=True)
class Job:
    """A run of one subject in one engine, for the child process: folders of the model, the inputs and the weights as text."""

    stage: str
    label: str
    engine: str
    model: str
    inputs: str
    weights: str
    marsqe: str


def subjects(model: Model) -> list[Subject]:
    """Everything that a model folder holds for the ground."""
    backends = tuple(name for name in BACKENDS if name != "c99" or native.library is not None)
    found = [Subject(LATENTS, model.network.profile, model.folder / NETWORK_FILE, backends)]
    found += [Subject(DECODER, file.label, file.path, ENGINES) for file in ground_files(model.folder / GROUND_FOLDER)]
    return found + [Subject(ENHANCER, file.label, file.path, ENGINES) for file in ground_files(model.folder / ENHANCE_FOLDER)]


# ---- PyTorch in place of ONNX Runtime

class TorchSession:
    """A PyTorch module behind the interface of `remac_runtime.ground.Session`."""

    def __init__(self, call: Any, properties: Mapping[str, str]) -> None:
        import torch
        torch.set_num_threads(1)
        self._call, self._torch, self.properties = call, torch, dict(properties)

    def run(self, inputs: dict[str, np.ndarray]) -> tuple[np.ndarray, ...]:
        with self._torch.inference_mode():
            result = self._call(**{name: self._torch.from_numpy(np.ascontiguousarray(x)) for name, x in inputs.items()})
        return tuple(x.numpy() for x in (result if isinstance(result, tuple) else (result,)))


def torch_decoder(weights: Path, label: str) -> TorchSession:
    from remac.weights import load_ground
    return TorchSession(load_ground(weights, label.partition("@")[0]).forward, {})


def torch_enhancer(weights: Path, lite: bool, properties: Mapping[str, str]) -> dict[str, TorchSession]:
    """Sessions of the networks of an enhancer: `enhance`, `references`, `segmenter`."""
    from remac.marsqe import EncodeReferences, Enhance, load_marsqe
    from remac.segmenter import load_segmenter
    model = load_marsqe(weights)
    network = Enhance(model, post=not lite)

    def enhance(**inputs: Any) -> Any:
        return network(*(inputs[name] for name in network.INPUTS))
    return {"enhance": TorchSession(enhance, properties), "references": TorchSession(EncodeReferences(model), {}),
            "segmenter": TorchSession(load_segmenter(weights).forward, {})}


# ---- one run in a process of its own

def child(job: Job) -> None:
    """Load, run once on a small picture, then on the frame; print {"seconds", "loaded_bytes", "peak_bytes"}."""
    from remac_runtime.bench.memory import resident
    run = {LATENTS: _latents, DECODER: _decoding, ENHANCER: _enhancing}[job.stage](load_model(job.model), job)
    run(SMALL_FRAME)()
    large = run(FRAME)
    loaded, _ = resident()
    start = time.perf_counter()
    large()
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": round(seconds, 4), "loaded_bytes": loaded, "peak_bytes": resident()[1]}))


def _latents(model: Model, job: Job) -> Callable[[str], Call]:
    from remac_runtime.codec import Decoder
    decoder = Decoder(model, job.engine)

    def run(name: str) -> Call:
        data = Path(job.inputs, f"{name}.rmc").read_bytes()
        return lambda: decoder.decode(data)
    return run


def _decoding(model: Model, job: Job) -> Callable[[str], Call]:
    ground = GroundDecoder(model, 1, job.label)
    if job.engine == "torch":
        ground._session = torch_decoder(Path(job.weights), job.label)

    def run(name: str) -> Call:
        with np.load(Path(job.inputs, f"{name}.npz")) as file:
            y_hat, texture = file["y_hat"], file["texture"]
        return lambda: ground.decode(y_hat, QUALITY, texture)
    return run


def _enhancing(model: Model, job: Job) -> Callable[[str], Call]:
    """Segmentation and matching are in it; the references of the tables are made in the warm-up."""
    from remac_runtime.enhance.enhancer import SEGMENTER_FILE, Enhancer
    enhancer = Enhancer(model, enhancer=job.label)
    if job.engine == "torch":
        sessions = torch_enhancer(Path(job.marsqe), job.label.partition("@")[0].endswith("-lite"), enhancer._properties())
        enhancer._sessions = {enhancer.file.path: sessions["enhance"], enhancer.folder / SEGMENTER_FILE: sessions["segmenter"],
                              enhancer.file.path.with_name(f"{job.label}.references.onnx"): sessions["references"]}

    def run(name: str) -> Call:
        data = Path(job.inputs, f"{name}.jpg").read_bytes()
        return lambda: enhancer.enhance_jpeg(data)
    return run


def run_child(job: Job) -> dict[str, float]:
    """Raises RemacError with the last line that the process said."""
    script = "import json, sys; from benchmarks.ground_cost import Job, child; child(Job(**json.loads(sys.argv[1])))"
    done = subprocess.run([sys.executable, "-c", script, json.dumps(asdict(job))], capture_output=True, text=True, check=False)
    try:
        return dict(json.loads(done.stdout))
    except ValueError:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RemacError(f"{job.label} in {job.engine} failed: {said}") from None


# ---- all runs

def write_inputs(model: Model, picture: Path, folder: Path) -> None:
    """frame and small, each as .rmc (quality QUALITY), .npz (its latents) and .jpg."""
    from PIL import Image

    from remac_runtime.codec import Decoder, EncodeOptions, Encoder
    from remac_runtime.images import Picture, load_picture
    samples = load_picture(picture).samples
    with Encoder(model) as encoder, Decoder(model) as decoder:
        for name, part in ((FRAME, samples), (SMALL_FRAME, np.ascontiguousarray(samples[:SMALL, :SMALL]))):
            data = encoder.encode(Picture(part), EncodeOptions(QUALITY))
            (folder / f"{name}.rmc").write_bytes(data)
            decoded = decoder.decode(data)
            assert decoded.texture is not None, "the bank of a built model has textures"
            np.savez(folder / f"{name}.npz", y_hat=decoded.y_hat, texture=decoded.texture)
            Image.fromarray(part).save(folder / f"{name}.jpg", "JPEG", quality=JPEG_QUALITY)


def extension() -> str | None:
    """Which C extension codes and decodes here, by its file: its version number stays when its code changes. None where there is none."""
    path = getattr(native.library, "__file__", None)
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:HASH_DIGITS] if path else None


def machine(environment: Mapping[str, Any]) -> dict[str, Any]:
    """What the timings of any file depend on, of an environment as `bench.environment` tells it."""
    return {"processor": environment["processor"]["model"],
            "versions": {name: text for name, text in environment["versions"].items() if name in LIBRARIES}}


def machine_here(stage: str) -> dict[str, Any]:
    """The same of this machine; the integers of the first stage are also computed by the C extension."""
    here = machine({"processor": bench_environment.processor(), "versions": bench_environment.versions()})
    return {**here, "extension": extension()} if stage == LATENTS else here


def judged(sample: Mapping[str, Any], before: Mapping[str, Any], after: Mapping[str, Any], emulated: str | None) -> Sample:
    """A sample with the state of the machine and what it gives away. `before` is of the machine without us."""
    warnings = [found.to_json() for found in bench_stats.of_machine(before, after, None, emulated)]
    return {**sample, "before": dict(before), "after": dict(after), "warnings": warnings}


def spoilt(sample: Mapping[str, Any]) -> bool:
    """Whether the run was not valid."""
    return any(warning["warning"] in SPOILS for warning in sample["warnings"])


def adopt(costs: Mapping[str, Any], environment: Mapping[str, Any]) -> None:
    """Let each subject of a results file, and its samples, say where they were measured. Files of before said it once for all of them."""
    told = {key: environment[key] for key in STATE if key in environment}
    for cost in costs.values():
        if "machine" in cost or not environment:
            continue
        cost["machine"] = machine(environment)
        for run in cost["engines"].values():
            run.update(summary([judged(sample, told, told, environment.get("emulated")) for sample in run["samples"]]))


def summary(samples: list[Sample]) -> dict[str, Any]:
    """Median of the seconds, the largest memory, whether all runs were valid, and all samples."""
    return {"valid": not any(map(spoilt, samples)), "median_s": round(statistics.median(run["seconds"] for run in samples), 4),
            "peak_bytes": int(max(run["peak_bytes"] for run in samples)),
            "added_bytes": int(max(run["peak_bytes"] - run["loaded_bytes"] for run in samples)), "samples": samples}


def costs(model: Model, picture: Path, weights: Path, marsqe: Path, rounds: int, kept: Mapping[str, Any],
          save: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """{subject: {"sha256", "bytes", "machine", "engines": {engine: summary}}}; `save` is called after each run.

    Samples in `kept` count where they are of the same file and machine; those of runs that were not valid count while this one would not be either.
    """
    found: dict[str, Any] = {}
    todo: list[tuple[int, Subject, str]] = []
    before, emulated = bench_environment.state(), bench_environment.emulation()
    idle = not spoilt(judged({}, before, before, emulated))
    for subject in subjects(model):
        content = subject.path.read_bytes()
        identity = {"sha256": hashlib.sha256(content).hexdigest(), "machine": machine_here(subject.stage)}
        old = kept.get(subject.key, {})
        same = all(old.get(key) == value for key, value in identity.items())
        found[subject.key] = old if same else {**identity, "bytes": len(content), "engines": {}}
        for engine in subject.engines:
            if idle and any(map(spoilt, found[subject.key]["engines"].get(engine, {}).get("samples", ()))):
                del found[subject.key]["engines"][engine]
            have = len(found[subject.key]["engines"].get(engine, {}).get("samples", ()))
            todo += [(number, subject, engine) for number in range(have, rounds)]
    with tempfile.TemporaryDirectory() as scratch:
        if todo:
            write_inputs(model, picture, Path(scratch))
        said: set[str] = set()
        for _, subject, engine in tqdm(sorted(todo, key=lambda run: run[0]), unit="run"):
            engines = found[subject.key]["engines"]
            run = run_child(Job(subject.stage, subject.label, engine, str(model.folder), scratch, str(weights), str(marsqe)))
            sample = judged(run, before, bench_environment.state(), emulated)
            for warning in sample["warnings"]:
                if warning["warning"] not in said:
                    said.add(warning["warning"])
                    tqdm.write(f"ground: warning: {warning['warning']} ({warning['detail']}): {warning['remedy']}", file=sys.stderr)
            engines[engine] = summary([*engines.get(engine, {}).get("samples", ()), sample])
            save(found)
    return found
