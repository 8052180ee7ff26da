"""What the ground segment costs on one thread of a processor: seconds and peak memory of each network and engine, each run in a process of its own.

Three stages: bytes to latents (integers, by backend), latents to pixels (each decoder, in ONNX Runtime and PyTorch), a JPEG file to enhanced pixels
(each enhancer, likewise). Runs go round after round through all of them.
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

from remac_runtime.errors import RemacError
from remac_runtime.ground import GroundDecoder, ground_files
from remac_runtime.model import ENHANCE_FOLDER, GROUND_FOLDER, NETWORK_FILE, Model, load_model

LATENTS, DECODER, ENHANCER = "latents", "decoder", "enhancer"
BACKENDS = ("c99", "onnxruntime", "numpy")
ENGINES = ("onnxruntime", "torch")
JPEG_QUALITY, QUALITY = 30, 32
SMALL = 128                # side in pixels of the picture of the warm-up
FRAME, SMALL_FRAME = "frame", "small"

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
    from remac_runtime import native
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


def summary(samples: list[dict[str, float]]) -> dict[str, Any]:
    """Median of the seconds, the largest memory, and all samples."""
    return {"median_s": round(statistics.median(run["seconds"] for run in samples), 4), "peak_bytes": int(max(run["peak_bytes"] for run in samples)),
            "added_bytes": int(max(run["peak_bytes"] - run["loaded_bytes"] for run in samples)), "samples": samples}


def costs(model: Model, picture: Path, weights: Path, marsqe: Path, rounds: int, kept: Mapping[str, Any],
          save: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """{subject: {"sha256", "bytes", "engines": {engine: summary}}}. Samples of the same files in `kept` count; `save` is called after each run."""
    found: dict[str, Any] = {}
    todo: list[tuple[int, Subject, str]] = []
    for subject in subjects(model):
        content = subject.path.read_bytes()
        fresh = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content), "engines": {}}
        old = kept.get(subject.key, {})
        found[subject.key] = old if old.get("sha256") == fresh["sha256"] else fresh
        for engine in subject.engines:
            have = len(found[subject.key]["engines"].get(engine, {}).get("samples", ()))
            todo += [(number, subject, engine) for number in range(have, rounds)]
    with tempfile.TemporaryDirectory() as scratch:
        if todo:
            write_inputs(model, picture, Path(scratch))
        for _, subject, engine in tqdm(sorted(todo, key=lambda run: run[0]), unit="run"):
            engines = found[subject.key]["engines"]
            sample = run_child(Job(subject.stage, subject.label, engine, str(model.folder), scratch, str(weights), str(marsqe)))
            engines[engine] = summary([*engines.get(engine, {}).get("samples", ()), sample])
            save(found)
    return found
