#!/usr/bin/env python3
"""Build the engine on the board and check it: run in the folder that `python export/ground_decoder.py --target orin` made.

Needs JetPack's own python3 with tensorrt and numpy, and NVIDIA's torch for the check. Writes the engine with its .json, to be copied into the ground
folder of the model, beside NAME@VERSION.onnx; `remac decode --ground-engine tensorrt` then uses it. With --plan FILE nothing is built: the plan that
trtexec wrote, or whose check was cut off, is checked and gets its .json. Python 3.8 or newer.
"""
from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
UNCHECKED_SUFFIX = ".unchecked"     # of a built engine until its check is done: a build takes long


def build(trt: Any, request: dict[str, Any]) -> bytes:
    """The serialised engine. Strong typing where this TensorRT has it (9 and newer); before, FP16 is allowed where the graph asks for it."""
    log = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(log)
    strong = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    flags = 1 << int(strong if strong is not None else trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, log)
    if not parser.parse((HERE / request["onnx"]).read_bytes()):
        sys.exit("the parser refused {}:\n{}".format(request["onnx"], "\n".join(str(parser.get_error(i)) for i in range(parser.num_errors))))
    config = builder.create_builder_config()
    if strong is None and request["precision"] == "int8":
        config.set_flag(trt.BuilderFlag.INT8)
    if strong is None and request["precision"] in ("fp16", "int8"):
        config.set_flag(trt.BuilderFlag.FP16)
        config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    profile = builder.create_optimization_profile()
    for number in range(network.num_inputs):
        tensor = network.get_input(number)
        if -1 in tuple(tensor.shape):
            profile.set_shape(tensor.name, *[tuple(shape) for shape in request["profile"][tensor.name]])
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        sys.exit("the builder gave up, see its messages above")
    return bytes(memoryview(plan))


def run(trt: Any, plan: bytes, inputs: dict[str, Any]) -> Any:
    """The outputs of the engine for inputs, both by name, on this GPU by way of torch."""
    import torch
    engine = trt.Runtime(trt.Logger(trt.Logger.WARNING)).deserialize_cuda_engine(plan)
    if engine is None:
        sys.exit(f"TensorRT {trt.__version__} does not load the engine on this GPU: build it here, without --plan")
    context = engine.create_execution_context()
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    held = {}
    for name in (n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT):
        held[name] = torch.from_numpy(inputs[name]).cuda().contiguous()
        if "INT32" in str(engine.get_tensor_dtype(name)):
            held[name] = held[name].int()
        context.set_input_shape(name, tuple(held[name].shape))
        context.set_tensor_address(name, held[name].data_ptr())
    outputs = [n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.OUTPUT]
    for name in outputs:
        held[name] = torch.empty(tuple(context.get_tensor_shape(name)), dtype=torch.float32, device="cuda")
        context.set_tensor_address(name, held[name].data_ptr())
    stream = torch.cuda.Stream()
    context.execute_async_v3(stream.cuda_stream)
    stream.synchronize()
    return {name: held[name].cpu().numpy() for name in outputs}


def check(trt: Any, plan: bytes, bounds: dict[str, float]) -> None:
    """End where an output of the engine is not what ONNX Runtime gave for the same inputs."""
    import numpy as np
    expected = np.load(str(HERE / "check.npz"))
    found = run(trt, plan, {name[3:]: expected[name] for name in expected.files if name.startswith("in_")})
    wanted = {name: expected["out_" + name] for name in bounds}
    shapes, others = ({name: list(x.shape) for name, x in outputs.items()} for outputs in (found, wanted))
    if shapes != others:
        sys.exit(f"the engine gives {shapes}, not {others}: it was built from another network")
    wrong = []
    for name, bound in bounds.items():
        difference = float(np.max(np.abs(found[name].astype(np.float64) - wanted[name]), initial=0))
        print(f"{name}: largest difference from ONNX Runtime {difference:g}, bound {bound:g}")
        if not difference <= bound:
            wrong.append(name)
    if wrong:
        sys.exit("the engine is wrong here ({}): build with --precision fp32 and report it".format(", ".join(wrong)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", type=Path, metavar="FILE", help="check this engine, built before, instead of building one")
    options = parser.parse_args()
    request = json.loads((HERE / "request.json").read_text())
    try:
        import numpy  # noqa: F401
        import tensorrt as trt
    except ImportError as error:
        sys.exit(f"{error.name} is missing: run this with JetPack's own python3")
    try:
        import torch  # noqa: F401
    except ImportError as error:
        sys.exit(f"{error.name} is missing, without which the engine cannot be checked: install NVIDIA's torch for JetPack")
    engine = HERE / request["engine"]
    unchecked = HERE / (request["engine"] + UNCHECKED_SUFFIX)
    if options.plan is None:
        plan = build(trt, request)
        unchecked.write_bytes(plan)
        print(f"built; should the check be cut off, go on with --plan {unchecked.name}")
    else:
        try:
            plan = options.plan.read_bytes()
        except OSError as error:
            sys.exit(f"{options.plan}: cannot be read ({error.strerror}): name the engine that was built")
    check(trt, plan, request["bounds"])
    engine.write_bytes(plan)
    if unchecked.exists():
        unchecked.unlink()
    sidecar = {"schema": 1, "engine": request["engine"], "engine_sha256": hashlib.sha256(plan).hexdigest(), "onnx": request["source"],
               "onnx_sha256": request["source_sha256"], "target": "sm87", "package": "tensorrt", "version": trt.__version__,
               "precision": request["precision"], "properties": request["properties"], "fp32_layers": []}
    (HERE / (engine.name + ".json")).write_text(json.dumps(sidecar, indent=1) + "\n")
    print("{}: {:,} bytes; copy it with its .json beside {}".format(engine.name, len(plan), request["source"]))


if __name__ == "__main__":
    main()
