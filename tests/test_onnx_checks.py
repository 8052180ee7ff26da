"""The checks of the exported graphs: each is shown to fail when it should."""
from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from export import onnx_checks, to_onnx
from remac_runtime.errors import BadNetwork
from remac_runtime.format import LATENT_OFFSET
from remac_runtime.model import Model
from remac_runtime.network import Network

Models = dict[str, onnx.ModelProto]


def failed(models: Models, network: Network) -> list[str]:
    return [result.name for result in onnx_checks.check_models(models, network) if not result.passed]


def node(models: Models, graph: str, kind: str, number: int = 0) -> onnx.NodeProto:
    return [n for n in models[graph].graph.node if n.op_type == kind][number]


def constant(models: Models, graph: str, name: str) -> NDArray[Any]:
    return numpy_helper.to_array(next(t for t in models[graph].graph.initializer if t.name == name)).copy()


def put(models: Models, graph: str, value: Any, at: onnx.NodeProto, place: int) -> None:
    """Give one input of a node a constant of its own."""
    name = f"mutant_{len(models[graph].graph.initializer)}"
    models[graph].graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    at.input[place] = name


def change(models: Models, graph: str, kind: str, place: int, how: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
    target = node(models, graph, kind)
    put(models, graph, how(constant(models, graph, target.input[place])), target, place)


def one(value: float) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """The same with another first value."""
    def how(x: NDArray[Any]) -> NDArray[Any]:
        x.flat[0] = value
        return x
    return how


def insert_after(models: Models, graph: str, kind: str, **attributes: Any) -> None:
    """A node of a kind between the first QLinearConv and what reads it."""
    source = node(models, graph, "QLinearConv")
    added = helper.make_node(kind, [source.output[0]], ["mutant"], **attributes)
    for other in models[graph].graph.node:
        for i, name in enumerate(other.input):
            if name == source.output[0]:
                other.input[i] = "mutant"
    models[graph].graph.node.insert(list(models[graph].graph.node).index(source) + 1, added)


def rename_attribute(models: Models, graph: str, kind: str, name: str, value: Any) -> None:
    target = node(models, graph, kind)
    kept = [a for a in target.attribute if a.name != name]
    del target.attribute[:]
    target.attribute.extend([*kept, helper.make_attribute(name, value)])


def set_opset(models: Models, version: int) -> None:
    models["analysis"].opset_import[0].version = version


def set_ir(models: Models, version: int) -> None:
    models["side"].ir_version = version


def fixed_size(models: Models) -> None:
    models["analysis"].graph.input[0].type.tensor_type.shape.dim[1].dim_value = 64


def fixed_batch(models: Models) -> None:
    for info in (*models["phase1"].graph.input, *models["phase1"].graph.output):
        info.type.tensor_type.shape.dim[0].dim_value = 1


def unused_float(models: Models) -> None:
    models["side"].graph.initializer.append(numpy_helper.from_array(np.ones(1, np.float32), "stray"))


def float_path(models: Models) -> None:
    """Dequantise and quantise again: exact in value, but other kernels."""
    graph = models["phase0"].graph
    source = node(models, "phase0", "QLinearConv")
    for i, (kind, name) in enumerate((("DequantizeLinear", "float"), ("QuantizeLinear", "mutant"))):
        taken = source.output[0] if kind == "DequantizeLinear" else "float"
        graph.node.insert(list(graph.node).index(source) + 1 + i, helper.make_node(kind, [taken, source.input[1], source.input[2]], [name]))
    for reader in graph.node:
        for i, name in enumerate(reader.input):
            if name == source.output[0] and reader.op_type != "DequantizeLinear":
                reader.input[i] = "mutant"


def cast_head(models: Models) -> None:
    graph = models["phase0"].graph
    graph.node.append(helper.make_node("Cast", ["mean0"], ["mutant"], to=TensorProto.FLOAT))
    graph.output.append(helper.make_tensor_value_info("mutant", TensorProto.FLOAT, ["n", "rows", "columns", 32]))


def other_hash(models: Models) -> None:
    helper.set_model_props(models["phase3"], {"codec_hash": "00" * 8})


def two_added_heads(models: Models) -> None:
    node(models, "phase0", "Add", 1).input[1] = node(models, "phase0", "MatMulInteger").output[0]


def dead_name(models: Models) -> None:
    node(models, "side", "QLinearConv").input[0] = "nowhere"


OPERATORS, VERSIONS, WEIGHTS, ZEROS, SCALES, FLOATS, TYPES, PLAIN, FREE, BOUNDS = onnx_checks.CHECKS
SAME = "same numbers as the network file"
MUTANTS: dict[str, tuple[Callable[[Models], None], str]] = {
    "operator outside the list": (lambda m: insert_after(m, "side", "Identity"), OPERATORS),
    "float path": (float_path, OPERATORS),
    "float head": (cast_head, OPERATORS),
    "tensors that are not uint8": (float_path, TYPES),
    "float output": (cast_head, TYPES),
    "a head without constant bias": (two_added_heads, TYPES),
    "bias of a head not constant": (two_added_heads, BOUNDS),
    "opset 12": (lambda m: set_opset(m, 12), VERSIONS),
    "opset 18": (lambda m: set_opset(m, 18), VERSIONS),
    "IR 7": (lambda m: set_ir(m, 7), VERSIONS),
    "IR 9": (lambda m: set_ir(m, 9), VERSIONS),
    "weight 65": (lambda m: change(m, "analysis", "QLinearConv", 3, one(65)), WEIGHTS),
    "weight -65": (lambda m: change(m, "analysis", "QLinearConv", 3, one(-65)), WEIGHTS),
    "weight -128": (lambda m: change(m, "analysis", "QLinearConv", 3, one(-128)), WEIGHTS),
    "weight 65 of a head": (lambda m: change(m, "phase2", "MatMulInteger", 1, one(65)), WEIGHTS),
    "zero point of the input": (lambda m: change(m, "side", "QLinearConv", 2, one(1)), ZEROS),
    "zero point of the weights": (lambda m: change(m, "side", "QLinearConv", 5, one(1)), ZEROS),
    "zero point of the output": (lambda m: change(m, "side", "QLinearConv", 7, one(128)), ZEROS),
    "scale of the input": (lambda m: change(m, "side", "QLinearConv", 1, one(0.5)), SCALES),
    "scale of the output": (lambda m: change(m, "side", "QLinearConv", 6, one(2)), SCALES),
    "scale that is no power of two": (lambda m: change(m, "side", "QLinearConv", 4, one(0.3)), SCALES),
    "scale next to a power of two": (lambda m: change(m, "side", "QLinearConv", 4, one(0.25 + 2 ** -25)), SCALES),
    "shift 17": (lambda m: change(m, "side", "QLinearConv", 4, one(2.0 ** -17)), SCALES),
    "shift -1": (lambda m: change(m, "side", "QLinearConv", 4, one(2.0)), SCALES),
    "negative scale": (lambda m: change(m, "side", "QLinearConv", 4, one(-0.25)), SCALES),
    "float initialiser": (unused_float, FLOATS),
    "float initialiser that is no power of two": (lambda m: change(m, "side", "QLinearConv", 4, one(0.3)), FLOATS),
    "dilation": (lambda m: rename_attribute(m, "side", "QLinearConv", "dilations", [2, 2]), PLAIN),
    "padding by name": (lambda m: rename_attribute(m, "side", "QLinearConv", "auto_pad", "SAME_UPPER"), PLAIN),
    "linear resize": (lambda m: rename_attribute(m, "side", "Resize", "mode", "linear"), PLAIN),
    "resize from the centre": (lambda m: rename_attribute(m, "side", "Resize", "coordinate_transformation_mode", "half_pixel"), PLAIN),
    "another factor of resize": (lambda m: change(m, "side", "Resize", 2, one(2.0)), PLAIN),
    "reflected padding": (lambda m: rename_attribute(m, "phase1", "Pad", "mode", "edge"), PLAIN),
    "another fill": (lambda m: change(m, "phase1", "Pad", 2, lambda x: np.array(LATENT_OFFSET - 1, np.uint8)), PLAIN),
    "fixed height": (fixed_size, FREE),
    "fixed number of bands": (fixed_batch, FREE),
    "accumulator at the limit": (lambda m: change(m, "analysis", "QLinearConv", 8, one(2 ** 24)), BOUNDS),
    "accumulator of a head at the limit": (lambda m: change(m, "analysis", "Add", 1, one(-2 ** 24)), BOUNDS),
    "another weight": (lambda m: change(m, "phase3", "QLinearConv", 3, lambda x: -x), SAME),
    "another weight of a head": (lambda m: change(m, "phase3", "MatMulInteger", 1, lambda x: -x), SAME),
    "another bias": (lambda m: change(m, "phase3", "QLinearConv", 8, lambda x: x + 1), SAME),
    "another bias of a head": (lambda m: change(m, "phase3", "Add", 1, lambda x: x + 1), SAME),
    "another shift": (lambda m: change(m, "phase3", "QLinearConv", 4, lambda x: x / 2), SAME),
    "another codec": (other_hash, SAME),
    "tensor from nowhere": (dead_name, "graphs are well formed"),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_check_fails_when_it_should(mutant: str, graphs: Models, model: Model) -> None:
    change_it, check = MUTANTS[mutant]
    models = copy.deepcopy(graphs)
    change_it(models)
    assert check in failed(models, model.network)


def test_every_check_has_a_mutant() -> None:
    assert {check for _, check in MUTANTS.values()} == {*onnx_checks.CHECKS, SAME, "graphs are well formed"}


def test_accumulator_bound_is_exact(graphs: Models, model: Model) -> None:
    """One below the limit passes, the limit fails."""
    conv = node(graphs, "side", "QLinearConv")
    weights = constant(graphs, "side", conv.input[3]).astype(np.int64)
    room = 2 ** 24 - 255 * int(np.abs(weights[0]).sum())
    for bias, good in ((room - 1, True), (room, False), (1 - room, True), (-room, False)):
        models = copy.deepcopy(graphs)
        change(models, "side", "QLinearConv", 8, one(bias))
        assert (BOUNDS not in failed(models, model.network)) == good


def test_missing_and_damaged_files(model: Model, tmp_path: Path) -> None:
    with pytest.raises(BadNetwork, match="make encoder"):
        onnx_checks.check_folder(tmp_path, model.network)
    for path in to_onnx.export_graphs(model.network, tmp_path):
        path.write_bytes(b"not a graph")
    with pytest.raises(BadNetwork, match="make encoder"):
        onnx_checks.check_folder(tmp_path, model.network)
