"""The process that builds one engine: `python -m export.to_tensorrt_build ONNX ENGINE REQUEST`, apart because a builder may crash.

REQUEST is JSON: {"package": "tensorrt" or "tensorrt_rtx", "capability": "SM86" or null (this GPU), "profile": {input: three shapes}}. Prints JSON:
{"version": ..., "layers": [[name, type, precision], ...]}; what the builder says goes to standard error.
"""
from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any


def main(onnx: str, engine: str, request: str) -> int:
    wanted = json.loads(request)
    trt: Any = importlib.import_module(wanted["package"])
    log = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(Path(onnx).read_bytes()):
        print("\n".join(str(parser.get_error(i)) for i in range(parser.num_errors)), file=sys.stderr)
        return 3
    config = builder.create_builder_config()
    if wanted["capability"]:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, wanted["capability"]), 0)
    profile = builder.create_optimization_profile()
    for number in range(network.num_inputs):
        tensor = network.get_input(number)
        if -1 in tuple(tensor.shape):
            profile.set_shape(tensor.name, *(tuple(shape) for shape in wanted["profile"][tensor.name]))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        return 4
    Path(engine).write_bytes(memoryview(plan))
    layers = [network.get_layer(number) for number in range(network.num_layers)]
    names = [[layer.name, str(layer.type).rsplit(".", 1)[-1], str(layer.get_output_type(0)).rsplit(".", 1)[-1] if layer.num_outputs else ""]
             for layer in layers]
    print(json.dumps({"version": trt.__version__, "layers": names}))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
