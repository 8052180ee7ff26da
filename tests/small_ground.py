"""Ground networks for the small random model: a decoder that shows the first latents, built node by node, and a MarsQE of few channels."""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from small_network import WIDTHS, write_small_model

from remac_runtime.network import read_network

SMALL_DECODER = "moderate@1"
DAMPING = 0.6


def write_small_decoder(folder: Path, label: str = SMALL_DECODER, shift: float = 128.0, texture: float = 0.0) -> Path:
    """`folder`/ground/LABEL.onnx: y_hat / 1024 + shift of three channels, each latent 16x16 pixels, plus `texture` times the mean of the planes."""
    path = folder / "ground" / f"{label}.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    constants = {"scale": np.float32(1 / 1024), "shift": np.float32(shift), "low": np.float32(0), "high": np.float32(255),
                 "weight": np.float32(texture), "from": np.array([0]), "to": np.array([3]), "axis": np.array([2]), "one": np.array([0]),
                 "sizes": np.array([1, 1, 16, 16], np.float32)}
    steps: list[tuple[str, list[str], dict[str, Any]]] = [
        ("Slice", ["y_hat", "from", "to", "axis"], {}), ("Cast", [""], {"to": TensorProto.FLOAT}), ("Mul", ["", "scale"], {}),
        ("Add", ["", "shift"], {}), ("Add", ["", "moved"], {}), ("Transpose", [""], {"perm": [2, 0, 1]}), ("Unsqueeze", ["", "one"], {}),
        ("Resize", ["", "", "sizes"], {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}),
        ("Squeeze", ["", "one"], {}), ("Transpose", [""], {"perm": [1, 2, 0]}), ("Clip", ["", "low", "high"], {}), ("Round", [""], {}),
        ("Cast", [""], {"to": TensorProto.UINT8})]
    nodes = [helper.make_node("Cast", ["texture"], ["floats"], to=TensorProto.FLOAT),
             helper.make_node("ReduceMean", ["floats"], ["mean"], keepdims=0), helper.make_node("Mul", ["mean", "share"], ["shared"]),
             helper.make_node("Mul", ["shared", "weight"], ["weighted"]),
             helper.make_node("Mul", ["quality", "low"], ["nothing"]), helper.make_node("Add", ["weighted", "nothing"], ["moved"])]
    last = ""
    for number, (kind, inputs, attributes) in enumerate(steps):
        output = "pixels" if number == len(steps) - 1 else f"t{number}"
        first = [inputs[0] or last, *inputs[1:]]
        nodes.append(helper.make_node(kind, first, [output], **attributes))
        last = output
    m = WIDTHS["head"]
    graph = helper.make_graph(nodes, "decoder", [
        helper.make_tensor_value_info("y_hat", TensorProto.INT32, ["h", "w", m]), helper.make_tensor_value_info("quality", TensorProto.FLOAT, [1]),
        helper.make_tensor_value_info("texture", TensorProto.UINT8, [4, 8, 8, m]), helper.make_tensor_value_info("share", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["height", "width", 3])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"ground": label, "codec_hash": read_network(folder / "network.rmn").hash.hex()})
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())
    return path


def small_module(latents: int = 16, name: str = "tiny") -> Any:
    """A GroundModule (remac.weights) of random weights: by default of all scales and few channels, or with one of remac.config.DECODERS, by name."""
    import torch

    from remac.codec import Codec
    from remac.config import DECODERS, ROVER_S, DecoderConfig
    from remac.weights import GroundModule
    torch.manual_seed(5)
    decoder = DECODERS.get(name) or DecoderConfig(name, (16, 16, 16, 16), (1, 1, 1, 1), half=16, half_blocks=1)
    codec = Codec(replace(ROVER_S, latents=latents, context=latents, decoder=decoder))
    _liven(codec.decoder)
    torch.nn.init.constant_(codec.analysis.head.output_scale, 2.0 ** 16)     # y_hat of 2^18 is 4 latent units
    return GroundModule(codec).eval()


def small_marsqe() -> Any:
    """A MarsQE of few channels, random weights, none of which is zero; damped, so that far pixels matter as little as they do after training."""
    import torch

    from remac.marsqe import MarsQE, MarsQEConfig
    torch.manual_seed(6)
    model = MarsQE(MarsQEConfig(16, (1, 1, 1), (1, 1, 1), (16, 16, 16), (1, 1, 1), (1, 1, 1)))
    _liven(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(DAMPING if parameter.ndim == 4 else 1.0)
    return model.eval()


def _liven(module: Any) -> None:
    """Give weights that start at zero, so that training starts with little, small random values."""
    import torch
    for parameter in module.parameters():
        if parameter.ndim > 1 and not parameter.detach().any():
            torch.nn.init.normal_(parameter, std=0.02)


def write_small_enhancer(folder: Path, trained: str = "20 50") -> None:
    """ground/enhance of a small model folder that has its decoder: MarsQE for JPEG and for streams, segmenter, dictionary of a terrain."""
    from export.marsqe import export_model, export_segmenter
    from remac.segmenter import Segmenter
    from remac_runtime.codec import EncodeOptions, Encoder
    from remac_runtime.images import Picture
    from remac_runtime.model import ENHANCE_FOLDER, load_model
    from remac_runtime.terrain import terrain
    out, properties = folder / ENHANCE_FOLDER, {"dictionary_decoder": SMALL_DECODER, "trained_decoder": SMALL_DECODER,
                                                "trained.jpeg": trained, "trained.remac": "10 50"}
    assert all(one.check.passed for one in export_model(small_marsqe(), out, "marsqe", 1, properties))
    assert export_segmenter(Segmenter().eval(), out / "segmenter.onnx").check.passed
    with Encoder(load_model(folder), "numpy") as encoder:
        (out / "dictionary.rmc").write_bytes(encoder.encode(Picture(terrain(512, 768, 4)), EncodeOptions(60)))


def write_small_ground(folder: Path) -> None:
    """A whole model folder: the small network, its ground decoder and its enhancer."""
    write_small_model(folder)
    write_small_decoder(folder)
    write_small_enhancer(folder)
