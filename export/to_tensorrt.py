"""TensorRT engines of the ground networks, for a GPU that need not be here, and what an Orin needs to build its own.

An engine is built from the ONNX file by the package `tensorrt` where it is installed (Jetson, GPU workstations), otherwise by `tensorrt_rtx`, which
builds for other GPUs too and needs none. Building is no proof of running: the engine's kernels are compiled on the GPU at first use. Beside it lies
NAME.engine.json, by which the runtime tells whether it fits the GPU, the package and the network it has (`remac_runtime.ground_tensorrt`).
"""
from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from export import to_half, to_int8
from export.to_onnx_float import largest_differences, onnx_outputs
from remac_runtime.errors import BadNetwork, RemacError
from remac_runtime.files import copy, replacing, write_atomically, write_json
from remac_runtime.ground_tensorrt import PACKAGES, Sidecar, this_gpu

CAPABILITIES = {"sm75": "SM75", "sm80": "SM80", "sm86": "SM86", "sm89": "SM89", "sm120": "SM120", "sm121": "SM121"}
THIS_GPU, ORIN = "this-gpu", "orin"
TARGETS = (*CAPABILITIES, THIS_GPU, ORIN)
PRECISIONS = ("fp16", "fp32", "int8")
ORIN_SCRIPT = Path(__file__).resolve().parent / "orin" / "build_engine.py"
BOARD_SLACK = 2 / 255           # of the largest value of an output: what another GPU's order of sums may change, 2 grey levels of a picture
_LOG_LINES = 6

Profile = Mapping[str, Sequence[Sequence[int]]]      # of inputs with free dimensions: least, usual and largest shape


@dataclass(frozen=True)
class Work:
    """A network to build: its ONNX file, the shapes it must take, and inputs to measure magnitudes and differences on, by name.

    For int8 also real inputs to measure ranges on, and how the names of weights begin whose convolutions are left alone.
    """

    onnx: Path
    profile: Profile
    feeds: Sequence[Mapping[str, np.ndarray]]
    calibration: Sequence[Mapping[str, np.ndarray]] = ()
    float_weights: tuple[str, ...] = ()

    def inputs(self, precision: str) -> Sequence[Mapping[str, np.ndarray]]:
        """What is measured on: int8 clips what is not real, which says nothing."""
        return self.calibration if precision == "int8" else self.feeds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--target", choices=TARGETS, help="also build an engine for this GPU architecture; orin: what the board builds it from")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp16",
                        help="of the engine (default fp16, where layers that overflow stay in fp32; int8: convolutions in int8, the rest in fp16)")


def package() -> str:
    """The builder that is installed, tensorrt before tensorrt_rtx. Raises RemacError."""
    for name in PACKAGES:
        if importlib.util.find_spec(name) is not None:
            return name
    raise RemacError("building engines needs tensorrt (part of JetPack) or tensorrt_rtx: pip install -e '.[engines]'")


def destination(target: str) -> tuple[str, str]:
    """The builder (none for orin) and the architecture of a --target, for a check before anything is exported. Raises RemacError."""
    if target == ORIN:
        return "", ORIN
    builder = package()
    if target == THIS_GPU:
        try:
            target = this_gpu()
        except BadNetwork as error:
            raise RemacError(f"--target {THIS_GPU}: no GPU can be asked ({str(error).partition(':')[0]}): "
                             f"name the architecture, one of {', '.join(CAPABILITIES)}") from None
    if builder == "tensorrt_rtx" and target not in CAPABILITIES:
        raise RemacError(f"tensorrt_rtx cannot build for {target}, only for {', '.join(CAPABILITIES)}: install tensorrt on that machine")
    if builder == "tensorrt" and target != this_gpu():
        raise RemacError(f"tensorrt builds for the GPU it runs on, {this_gpu()}, not for {target}: install tensorrt_rtx, or build on that machine")
    return builder, target


def build(work: Work, target: str, precision: str) -> Path:
    """Build one engine, print its facts, and return its path; for orin the folder to copy to the board. Raises RemacError."""
    builder, target = destination(target)
    model, kept, differences = prepared(work, precision)
    if target == ORIN:
        return _for_orin(work, model, precision, differences)
    difference = max(differences)
    engine = work.onnx.with_name(f"{work.onnx.stem}.{target}.{precision}.engine")
    facts = _in_child(model, engine, {"package": builder, "capability": CAPABILITIES[target] if builder == "tensorrt_rtx" else None,
                                      "profile": {name: [list(shape) for shape in shapes] for name, shapes in work.profile.items()}})
    properties = {entry.key: entry.value for entry in model.metadata_props}
    sidecar = Sidecar(engine.name, _hash(engine), work.onnx.name, _hash(work.onnx), target, builder, facts["version"], precision, properties, kept)
    write_json(engine.with_name(engine.name + ".json"), {**asdict(sidecar), "schema": 1, "fp32_layers": kept, "layers": facts["layers"],
                                                         "largest_difference": difference})
    print(f"{engine}: {engine.stat().st_size:,} bytes for {target}, {builder} {facts['version']}, {precision}; its rounding costs up to "
          f"{difference:g} grey levels or units of the output")
    kinds = Counter(f"{kind} {kept_in}" for _, kind, kept_in in facts["layers"] if kept_in in {"FLOAT", "HALF"})
    listed = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    print(f"  {len(facts['layers'])} layers, {kinds.total()} of them on floats: {listed}")
    print(f"  kept in fp32, as they overflow or sum squares: {', '.join(kept) or 'none'}")
    return engine


def prepared(work: Work, precision: str) -> tuple[onnx.ModelProto, list[str], list[float]]:
    """The graph that the builder gets, the layers kept in float32, and how far its rounding takes each output from the original over the feeds."""
    model = without_bytes(onnx.load(str(work.onnx)))
    kept: list[str] = []
    feeds = [floats(model, feed) for feed in work.inputs(precision)]
    if precision == "int8" and not work.calibration:
        raise RemacError(f"{work.onnx.name}: there is no int8 of this network, only of ground decoders: build it with --precision fp16")
    if precision != "fp32":
        quantised: list[str] = []
        kept = to_half.kept_layers(model, feeds)
        if precision == "int8":
            model, quantised = to_int8.to_int8(model, work.float_weights, feeds)
        model = to_half.to_half(model, [*kept, *quantised])
    temporary = work.onnx.with_name(work.onnx.name + ".prepared.tmp")
    try:
        temporary.write_bytes((model if precision == "fp32" else to_half.rounded(model)).SerializeToString())
        found = [largest_differences(onnx_outputs(work.onnx, list(feed), list(feed.values())),
                                     onnx_outputs(temporary, list(now), list(now.values())))
                 for feed, now in zip(work.inputs(precision), feeds, strict=True)]
    finally:
        temporary.unlink(missing_ok=True)
    differences = np.max(found, axis=0)        # not max(), which passes over nan
    if not np.isfinite(differences).all():
        mend = "export it again from sound weights" if precision == "fp32" else "build it with --precision fp32"
        raise RemacError(f"{work.onnx.name}: in {precision} it gives values that are no numbers, or beyond all: {mend}")
    return model, kept, [float(difference) for difference in differences]


def without_bytes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with float in place of uint8, which TensorRT has no kernels for: inputs, outputs and casts."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for info in (*result.graph.input, *result.graph.output):
        if info.type.tensor_type.elem_type == TensorProto.UINT8:
            info.type.tensor_type.elem_type = TensorProto.FLOAT
    for node in result.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.UINT8:
                attribute.i = TensorProto.FLOAT
    del result.graph.value_info[:]
    onnx.checker.check_model(result, full_check=True)
    return result


def floats(model: onnx.ModelProto, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A feed with the types of the graph's inputs."""
    kinds = {info.name: info.type.tensor_type.elem_type for info in model.graph.input}
    return {name: x.astype(np.float32) if kinds.get(name) == TensorProto.FLOAT else x for name, x in feed.items()}


def _in_child(model: onnx.ModelProto, engine: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Build in a process of its own; the engine appears whole or not at all. Raises RemacError with the last lines of the builder."""
    root = Path(__file__).resolve().parents[1]
    source = engine.with_name(f"{engine.name}.onnx.tmp")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "runtime"), *(path for path in sys.path if path)])}
    try:
        source.write_bytes(model.SerializeToString())
        with replacing(engine) as plan:
            child = subprocess.run([sys.executable, "-m", "export.to_tensorrt_build", str(source), str(plan), json.dumps(request)], env=environment,
                                   capture_output=True, text=True, check=False)
            if child.returncode != 0 or not plan.is_file():
                said = " | ".join(line.strip() for line in child.stderr.splitlines()[-_LOG_LINES:] if line.strip())
                how = f"died of signal {-child.returncode}" if child.returncode < 0 else f"failed ({child.returncode})"
                raise RemacError(f"{engine.name}: {request['package']} {how}: {said or 'it said nothing'}: try --precision fp32, or another version")
        facts: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
        return facts
    finally:
        source.unlink(missing_ok=True)


def trtexec_line(onnx_name: str, engine_name: str, profile: Profile) -> str:
    """What JetPack's own tool is called with to build the same engine."""
    shapes = [",".join(f"{name}:{'x'.join(map(str, shapes[place]))}" for name, shapes in profile.items()) for place in range(3)]
    options = [f"--{kind}Shapes={text}" for kind, text in zip(("min", "opt", "max"), shapes, strict=True) if text]
    return " ".join(["/usr/src/tensorrt/bin/trtexec", f"--onnx={onnx_name}", f"--saveEngine={engine_name}", "--stronglyTyped", *options])


def _for_orin(work: Work, model: onnx.ModelProto, precision: str, differences: Sequence[float]) -> Path:
    """A folder with the ONNX file, inputs with the outputs that ONNX Runtime gives, and the script that builds and checks on the board.

    The check allows each output the difference that rounding makes here already, and BOARD_SLACK.
    """
    folder = work.onnx.with_name(f"{work.onnx.stem}.orin")
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{work.onnx.stem}.{precision}.onnx"
    write_atomically(folder / name, model.SerializeToString(deterministic=True))
    original = work.inputs(precision)[0]
    feed = floats(model, original)
    outputs = [x.astype(np.float32) for x in onnx_outputs(work.onnx, list(original), list(original.values()))]
    arrays: dict[str, Any] = {**{f"out_{info.name}": x for info, x in zip(model.graph.output, outputs, strict=True)},
                              **{f"in_{key}": x for key, x in feed.items()}}
    bounds = {info.name: difference + BOARD_SLACK * float(np.abs(x).max(initial=0))
              for info, x, difference in zip(model.graph.output, outputs, differences, strict=True)}
    with replacing(folder / "check.npz") as temporary, temporary.open("wb") as file:       # by name it would write to one that ends in .npz
        np.savez_compressed(file, **arrays)
    engine = f"{work.onnx.stem}.sm87.{precision}.engine"
    properties = {entry.key: entry.value for entry in model.metadata_props}
    write_json(folder / "request.json", {"onnx": name, "source": work.onnx.name, "source_sha256": _hash(work.onnx), "precision": precision,
                                         "bounds": bounds, "engine": engine, "properties": properties,
                                         "profile": {key: [list(shape) for shape in shapes] for key, shapes in work.profile.items()}})
    copy(ORIN_SCRIPT, folder / ORIN_SCRIPT.name)
    # trtexec writes no description, without which the runtime takes no engine: the script checks the engine and adds it.
    lines = [trtexec_line(name, engine, work.profile), f"python3 {ORIN_SCRIPT.name} --plan {engine}"]
    write_atomically(folder / "trtexec.txt", "".join(f"{line}\n" for line in lines))
    print(f"{folder}: copy it to the Orin and run there `python3 {ORIN_SCRIPT.name}` (builds and checks), or", *lines, sep="\n  ")
    return folder


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
