"""Builds TensorRT engines of the Q/DQ packaging, without a GPU: `python -m benchmarks.processors.tensorrt_build MODEL/qdq OUT.json`.

A child process of `make verify-all`, since the builder may take its process down. Writes {"version": ..., "engines": {graph: bytes}} or
{"error": ...}. That an engine can be built says that every operator is supported; only a GPU can show that it gives the same integers.
"""
from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from remac_runtime.topology import GRAPHS

CAPABILITY = (8, 6)     # the target, an Ampere workstation card
SMALLEST, USUAL, LARGEST = (64, 64), (1152, 1600), (4096, 4096)     # rows and columns of the picture
_STRIDE = {"pixels": 1, "z": 64, "side": 32, "plane_a": 32, "plane_b": 32}


def _shape(name: str, size: tuple[int, int], channels: int) -> tuple[int, int, int, int]:
    return 1, size[0] // _STRIDE[name], size[1] // _STRIDE[name], channels


def build(path: Path) -> int:
    """Bytes of the engine of an ONNX file. Raises RuntimeError."""
    import tensorrt_rtx as trt
    logger: Any = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(path.read_bytes()):
        raise RuntimeError("; ".join(parser.get_error(i).desc() for i in range(parser.num_errors)))
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{CAPABILITY[0]}{CAPABILITY[1]}"), 0)
    profile = builder.create_optimization_profile()
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        if -1 in tuple(tensor.shape):
            profile.set_shape(tensor.name, *(_shape(tensor.name, size, tensor.shape[3]) for size in (SMALLEST, USUAL, LARGEST)))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise RuntimeError("the builder gave no engine")
    return int(plan.nbytes)


def main(arguments: list[str]) -> int:
    folder, out = Path(arguments[0]), Path(arguments[1])
    try:
        import tensorrt_rtx as trt
        facts: dict[str, Any] = {"version": trt.__version__, "engines": {graph: build(folder / f"{graph}.onnx") for graph in GRAPHS}}
    except (ImportError, RuntimeError, AttributeError, TypeError) as error:
        facts = {"error": f"{type(error).__name__}: {error}"}
    out.write_text(json.dumps(facts))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
