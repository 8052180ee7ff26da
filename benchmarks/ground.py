"""The ground segment on one thread of a processor: `python -m benchmarks.ground`.

Time and peak memory of every ground decoder and enhancement network of the model folder at 1152x1600, in ONNX Runtime and in PyTorch: each run in a
process of its own, round after round through all of them. Then what the texture reference is worth: PSNR of the test crops decoded with the reference
that the stream names, with another one (drawn once for each picture), and with none. Parts that are done are kept, so a run that was cut off goes on.
"""
from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.datasets import DataMissingError, EvalImage, data_root, evaluation_images
from benchmarks.metrics import psnr_db
from benchmarks.store import RESULTS, write_json
from remac_runtime.errors import RemacError
from remac_runtime.ground import GroundDecoder, GroundFile, ground_files
from remac_runtime.model import ENHANCE_FOLDER, GROUND_FOLDER, Model, load_model

PICTURE = Path("frames", "test", "m2020_zcam_sol0053.png")       # 1600x1152, as the camera delivers it
ENGINES = ("onnxruntime", "torch")
JPEG_QUALITY, QUALITY = 30, 32
QUALITIES = (16, 32, 48)
DECODER, ENHANCER = "decoder", "enhancer"
SEED = 1
SCHEMA = 1


@dataclass(frozen=True)
class Network:
    """A network of the model folder; `stage` is DECODER or ENHANCER."""

    stage: str
    file: GroundFile

    @property
    def key(self) -> str:
        return f"{self.stage} {self.file.label}"


def networks(model: Model) -> list[Network]:
    enhancers = ground_files(model.folder / ENHANCE_FOLDER / "jpeg")
    return [*(Network(DECODER, file) for file in ground_files(model.folder / GROUND_FOLDER)), *(Network(ENHANCER, file) for file in enhancers)]


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


def torch_decoder(weights: Path, name: str) -> TorchSession:
    from remac.weights import load_ground
    return TorchSession(load_ground(weights, name).forward, {})


def torch_enhancer(weights: Path, lite: bool, properties: Mapping[str, str]) -> dict[str, TorchSession]:
    """Sessions of the networks of an enhancer: `enhance`, `references`, `segmenter`."""
    from remac.marsqe import Bank, load_marsqe
    from remac.segmenter import load_segmenter
    model, segmenter = load_marsqe(weights, "jpeg"), load_segmenter(weights)

    def enhance(picture: Any, tables: Any, trust: Any, classes: Any, index: Any, share: Any, **features: Any) -> Any:
        bank = Bank(*(tuple(features[f"{letter}{level}"] for level in (1, 2, 3)) for letter in "cr")).taken(index)
        out = model(picture, tables, classes, bank, share, post=not lite)
        found = out.lite if lite else out.full
        return found + (model.constrained(found, picture, tables) - found) * trust

    def references(patches: Any, tables: Any) -> Any:
        return model.encode_references(patches, tables.expand(len(patches), -1, -1))
    return {"enhance": TorchSession(enhance, properties), "references": TorchSession(references, {}),
            "segmenter": TorchSession(segmenter.forward, {})}


# ---- one run in a process of its own

def child(job: dict[str, Any]) -> None:
    """Load, warm up on a small picture, run once; print {"seconds", "loaded_bytes", "peak_bytes"}."""
    from remac_runtime.bench.memory import resident
    model = load_model(job["model"])
    small, large = (_decoding if job["stage"] == DECODER else _enhancing)(model, job)
    small()
    loaded, _ = resident()
    start = time.perf_counter()
    large()
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "loaded_bytes": loaded, "peak_bytes": resident()[1]}))


def _decoding(model: Model, job: dict[str, Any]) -> Any:
    """Latents to pixels: the entropy path, which has integers only, is not in it."""
    from remac_runtime.codec import Decoder
    with Decoder(model) as decoder:
        decoded = decoder.decode(Path(job["input"]).read_bytes())
    ground = GroundDecoder(model, 1, job["label"])
    if job["engine"] == "torch":
        ground._session = torch_decoder(Path(job["weights"]), job["label"].partition("@")[0])
    corner = np.ascontiguousarray(decoded.y_hat[:4, :4])
    return (lambda: ground.decode(corner, QUALITY, decoded.texture)), (lambda: ground.decode(decoded.y_hat, QUALITY, decoded.texture))


def _enhancing(model: Model, job: dict[str, Any]) -> Any:
    """A JPEG file to pixels: segmentation and matching are in it, the references of its tables are made before."""
    import io

    from PIL import Image

    from remac_runtime.enhance.enhancer import SEGMENTER_FILE, Enhancer
    enhancer = Enhancer(model, enhancer=job["label"])
    if job["engine"] == "torch":
        name = job["label"].partition("@")[0]
        sessions = torch_enhancer(Path(job["marsqe"]), name.endswith("-lite"), enhancer._properties())
        enhancer._sessions = {enhancer.file.path: sessions["enhance"], enhancer.folder / SEGMENTER_FILE: sessions["segmenter"],
                              enhancer.file.path.with_name(f"{job['label']}.references.onnx"): sessions["references"]}
    data = Path(job["input"]).read_bytes()
    corner = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        image.crop((0, 0, 128, 128)).save(corner, "JPEG", quality=JPEG_QUALITY)
    return (lambda: enhancer.enhance_jpeg(corner.getvalue())), (lambda: enhancer.enhance_jpeg(data))


def run_child(job: dict[str, Any]) -> dict[str, float]:
    """Raises RemacError with the last line that the process said."""
    script = "import json, sys; from benchmarks.ground import child; child(json.loads(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", script, json.dumps(job)], capture_output=True, text=True, check=False)
    try:
        return dict(json.loads(done.stdout))
    except ValueError:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RemacError(f"{job['label']} in {job['engine']} failed: {said}") from None


def costs(model: Model, options: argparse.Namespace, kept: dict[str, Any]) -> dict[str, Any]:
    """{network: {"sha256", "bytes", engine: {"median_s", "samples_s", "peak_bytes", "added_bytes"}}}; what `kept` has of the same files is kept."""
    from PIL import Image

    from remac_runtime.codec import EncodeOptions, Encoder
    from remac_runtime.images import load_picture
    picture = load_picture(data_root(options.data) / PICTURE)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        inputs = {DECODER: Path(scratch, "frame.rmc"), ENHANCER: Path(scratch, "frame.jpg")}
        with Encoder(model) as encoder:
            inputs[DECODER].write_bytes(encoder.encode(picture, EncodeOptions(QUALITY)))
        Image.fromarray(picture.samples).save(inputs[ENHANCER], "JPEG", quality=JPEG_QUALITY)
        jobs = []
        for network in networks(model):
            content = network.file.path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            found[network.key] = kept.get(network.key, {}) if kept.get(network.key, {}).get("sha256") == digest else {}
            if not found[network.key]:
                found[network.key] = {"sha256": digest, "bytes": len(content)}
                jobs += [(network, engine) for engine in ENGINES]
        runs: dict[tuple[str, str], list[dict[str, float]]] = {}
        for number in tqdm(range(options.rounds * len(jobs)), unit="run"):
            network, engine = jobs[number % len(jobs)]
            job = {"model": str(model.folder), "stage": network.stage, "label": network.file.label, "engine": engine,
                   "input": str(inputs[network.stage]), "weights": str(options.weights), "marsqe": str(options.marsqe)}
            runs.setdefault((network.key, engine), []).append(run_child(job))
    for (key, engine), samples in runs.items():
        found[key][engine] = {"median_s": round(statistics.median(run["seconds"] for run in samples), 4),
                              "samples_s": [round(run["seconds"], 4) for run in samples],
                              "peak_bytes": int(max(run["peak_bytes"] for run in samples)),
                              "added_bytes": int(max(run["peak_bytes"] - run["loaded_bytes"] for run in samples))}
    return found


# ---- what references are worth

def ablation(model: Model, images: tuple[EvalImage, ...], kept: dict[str, Any], save: Any) -> dict[str, Any]:
    """{decoder: {picture: {quality: {"right", "wrong", "none": PSNR in dB}}}}."""
    from remac_runtime.codec import Decoder, EncodeOptions, Encoder
    from remac_runtime.images import Picture
    assert model.bank is not None, "a model without references has nothing to take away"
    rng, found = np.random.default_rng(SEED), kept
    files = ground_files(model.folder / GROUND_FOLDER)
    with Encoder(model) as encoder, Decoder(model) as decoder:
        for image in tqdm(images, unit="picture"):
            other = int(rng.integers(1, len(model.bank)))
            if all(image.key in found.get(file.label, {}) for file in files):
                continue
            pixels = image.load()
            for quality in QUALITIES:
                decoded = decoder.decode(encoder.encode(Picture(pixels), EncodeOptions(quality)))
                right = decoded.header.texture
                variants = {"right": decoder.texture(right), "wrong": decoder.texture((right + other) % len(model.bank)), "none": None}
                for file in files:
                    ground = GroundDecoder(model, 1, file.label)
                    shown = {name: ground.decode(decoded.y_hat, quality, planes) for name, planes in variants.items()}
                    entry = found.setdefault(file.label, {}).setdefault(image.key, {})
                    entry[str(quality)] = {name: round(psnr_db(pixels, picture[:pixels.shape[0], :pixels.shape[1]]), 4)
                                           for name, picture in shown.items()}
            save(found)
    return found


def means(found: Mapping[str, Any]) -> dict[str, Any]:
    """{decoder: {quality: {variant: mean PSNR over the pictures}}}."""
    return {label: {str(quality): {name: round(statistics.fmean(entry[str(quality)][name] for entry in pictures.values()), 3)
                                   for name in ("right", "wrong", "none")} for quality in QUALITIES} for label, pictures in found.items()}


def engines(model: Model) -> list[dict[str, Any]]:
    """The TensorRT engines that lie in the model folder: file, target, package, precision, bytes, layers in float32."""
    from remac_runtime.ground_tensorrt import read_sidecar
    found = []
    for path in sorted((model.folder / GROUND_FOLDER).rglob("*.engine.json")):
        sidecar, engine = read_sidecar(path), path.with_suffix("")
        if engine.exists():
            found.append({"engine": sidecar.engine, "target": sidecar.target, "package": f"{sidecar.package} {sidecar.version}",
                          "precision": sidecar.precision, "bytes": engine.stat().st_size, "fp32_layers": len(sidecar.fp32_layers)})
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ground", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="the model folder")
    parser.add_argument("--weights", type=Path, default=Path("weights/rover-m"), help="weights of the decoders in PyTorch")
    parser.add_argument("--marsqe", type=Path, default=Path("weights/marsqe"), help="weights of MarsQE in PyTorch")
    parser.add_argument("--data", help="the pictures; by default $REMAC_DATA or ../shared/data/mars")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pictures", type=int, help="only so many of the test crops")
    parser.add_argument("--out", type=Path, default=RESULTS / "ground.json")
    options = parser.parse_args(arguments)
    from remac_runtime.bench.environment import environment
    try:
        model = load_model(options.model)
        codec = model.network.hash.hex()
        before = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
        same = before.get("codec_hash") == codec and before.get("schema") == SCHEMA
        result: dict[str, Any] = {
            "schema": SCHEMA, "codec_hash": codec, "picture": PICTURE.name, "threads": 1, "environment": environment(), "engines": engines(model),
            "costs": costs(model, options, before.get("costs", {}) if same else {})}
        hashes = {network.file.label: result["costs"][network.key]["sha256"] for network in networks(model) if network.stage == DECODER}
        old = before.get("ablation", {}) if same and before.get("decoders") == hashes else {}
        result |= {"decoders": hashes, "ablation": old, "means": means(old)}
        write_json(options.out, result)
        images = evaluation_images(options.data, ("test",))[:options.pictures]
        found = ablation(model, images, old, lambda now: write_json(options.out, {**result, "ablation": now}))
        write_json(options.out, {**result, "ablation": found, "means": means(found)})
    except (DataMissingError, RemacError) as error:
        print(f"ground: {error}", file=sys.stderr)
        return 1
    for key, cost in result["costs"].items():
        print(key, {engine: f"{cost[engine]['median_s']} s, {cost[engine]['peak_bytes'] / 2 ** 20:.0f} MiB" for engine in ENGINES})
    print(json.dumps(means(found), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
