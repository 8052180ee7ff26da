"""Every backend against the reference codec, integer for integer. What is expected comes from reference.py, which shares no data flow with them."""
from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from small_network import write_small_model

from export.to_onnx import export_graphs
from remac_runtime import native, reference
from remac_runtime.backends import BACKENDS, Backend, available_backend, numpy_backend, open_backend
from remac_runtime.backends.numpy_backend import NumpyBackend
from remac_runtime.backends.onnxruntime_backend import OPTIMISATION_LEVELS, OnnxRuntimeBackend
from remac_runtime.backends.torch_backend import TorchBackend
from remac_runtime.errors import BadNetwork, RemacError
from remac_runtime.format import ACCUMULATOR_LIMIT, NEIGHBOURS, PHASES
from remac_runtime.network import HEADS, Layer, Network, read_network
from remac_runtime.topology import GRAPHS, INPUTS

Array = NDArray[Any]
SIZES = ((64, 64), (128, 192), (192, 64))       # rows and columns of pixels
ENGINES = ["numpy", "torch", *(f"onnxruntime-{level}-{threads}" for level in OPTIMISATION_LEVELS for threads in (1, 2))]


def opened(engine: str, folder: Path, network: Network) -> Backend:
    name, _, rest = engine.partition("-")
    if name == "onnxruntime":
        level, threads = rest.split("-")
        return OnnxRuntimeBackend(folder, network, int(threads), level=level)
    return open_backend(name, folder, network)


def inputs_of(network: Network, graph: str, rows: int, columns: int, n: int, rng: np.random.Generator, extreme: bool = False) -> list[Array]:
    """Random inputs of a graph for n bands (or a picture) of rows x columns pixels; `extreme`: 0 and 255 only."""
    m, side = network.latents, len(network.layers["side_out"].bias) + network.reference_features
    at_32 = (n, rows // 32, columns // 32)
    shapes = {"pixels": (rows, columns, 3), "z": (n, rows // 64, columns // 64, network.hyper), "planes": (4, 8, 8, m), "side": (*at_32, side),
              "plane_a": (*at_32, network.context), "plane_b": (*at_32, network.context)}
    values = rng.integers(0, 2, (1 << 16,), dtype=np.uint8) * 255 if extreme else rng.integers(0, 256, (1 << 16,), dtype=np.uint8)
    return [rng.choice(values, shapes[name]) for name in INPUTS[graph]]


def wanted(network: Network, graph: str, inputs: list[Array]) -> list[Array]:
    """What the reference gives; each band on its own."""
    run = reference.Run(network)
    wide = [x.astype(np.int64) for x in inputs]
    if graph == "analysis":
        trace: reference.Trace = {}
        y, z, _, _ = reference.analyse(reference.Run(network, trace), wide[0])
        return [y, z, trace["body"], trace["deep"]]
    if graph == "reference":
        return [run("reference", np.concatenate(list(wide[0]), axis=2))]
    if graph == "side":
        return [np.stack([run("side_out", run("side_mid", run("side_in", z)).repeat(2, axis=0).repeat(2, axis=1)) for z in wide[0]])]
    p = int(graph[-1])
    hidden = [run(f"hidden{p}", np.concatenate([side, *(reference.neighbour(planes[i], dy, dx) for i, dy, dx in NEIGHBOURS[p])], axis=2))
              for side, *planes in zip(*wide, strict=True)]
    return [np.stack([run(f"{kind}{p}", h) for h in hidden]) for kind in ("mean", "scale")]


def assert_same(backend: Backend, graph: str, inputs: list[Array], expected: list[Array]) -> None:
    outputs = backend.run(graph, *inputs)
    assert len(outputs) == len(expected)
    for i, (got, exact) in enumerate(zip(outputs, expected, strict=True)):
        assert got.dtype == (np.int32 if graph.startswith("phase") or (graph == "analysis" and i == 0) else np.uint8)
        assert got.flags.c_contiguous and got.shape == exact.shape
        assert np.array_equal(got, exact), f"{backend.name}: output {i} of {graph}"


Case = tuple[str, list[Array], list[Array]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Network]:
    folder = tmp_path_factory.mktemp("backends")
    write_small_model(folder)
    network = read_network(folder / "network.rmn")
    export_graphs(network, folder)
    return folder, network


@pytest.fixture(scope="module")
def cases(model: tuple[Path, Network]) -> list[Case]:
    """All graphs on all sizes, with one and two bands where there are bands."""
    rng, found = np.random.default_rng(5), []
    for graph in GRAPHS:
        for rows, columns in SIZES:
            for n in (1,) if graph in ("analysis", "reference") else (1, 2):
                inputs = inputs_of(model[1], graph, rows, columns, n, rng)
                found.append((graph, inputs, wanted(model[1], graph, inputs)))
    return found


@pytest.mark.parametrize("engine", ENGINES)
def test_backend_gives_the_integers_of_the_reference(engine: str, model: tuple[Path, Network], cases: list[Case]) -> None:
    with opened(engine, *model) as backend:
        for graph, inputs, expected in cases:
            assert_same(backend, graph, inputs, expected)


def test_cases_are_not_degenerate(cases: list[Case]) -> None:
    """Outputs that were saturated or constant would hide errors."""
    for graph, _, expected in cases:
        for values in expected:
            assert len(np.unique(values)) > 10, graph
            assert np.mean((values == 0) | (values == 255)) < 0.9, graph


@pytest.mark.parametrize("layer", ["stem", "side_out", "hidden2", "mean3", "head"])
def test_comparison_sees_another_weight(layer: str, model: tuple[Path, Network], cases: list[Case]) -> None:
    weight = model[1].layers[layer].weight.copy()
    weight[0, 0, 0, 0] = 64 if weight[0, 0, 0, 0] < 0 else -64
    changed = replace(model[1], layers={**model[1].layers, layer: replace(model[1].layers[layer], weight=weight)})
    with NumpyBackend(changed) as backend, pytest.raises(AssertionError, match="output"):
        for graph, inputs, expected in cases:
            assert_same(backend, graph, inputs, expected)


# ---- random networks

def random_layer(name: str, source: Layer, rng: np.random.Generator, outputs: int, inputs: int) -> Layer:
    """Weights of all sizes up to +-64, some of them at the limit throughout; shifts that differ by channel; within the accumulator bound."""
    kernel = source.weight.shape[1]
    weight = rng.integers(-64, 65, (outputs, kernel, kernel, inputs)) if rng.integers(2) else rng.choice([-64, 64], (outputs, kernel, kernel, inputs))
    room = (ACCUMULATOR_LIMIT - 1) // 255 - np.abs(weight).reshape(outputs, -1).sum(1)
    assert room.min() > 0
    bias = rng.integers(-255 * room, 255 * room + 1) // int(rng.choice([1, 64, 1024, 1024]))
    usual = int(np.log2(np.sqrt(weight[0].size) * np.abs(weight).mean()))       # leaves a spread of some 100
    shift = rng.integers(-2, 17, outputs) if source.head else np.clip(usual + rng.integers(-2, 4, outputs), 0, 16)
    shift[rng.random(outputs) < 0.1] = rng.choice([0, 16])
    return replace(source, weight=weight.astype(np.int8), bias=bias.astype(np.int32), shift=shift.astype(np.int8))


def random_network(model: Network, seed: int) -> Network:
    """Odd channel counts, and other ones for each layer, where FORMAT 4.2 leaves a choice."""
    rng = np.random.default_rng(seed)
    width = {name: int(rng.integers(1, 24)) for name in model.layers}
    m = width["head"]
    width.update({f"{kind}{p}": m for kind in ("mean", "scale") for p in range(len(PHASES))})
    inputs = {"stem": 192, "body": width["stem"], "reduce": width["body"], "deep": width["reduce"], "head": width["deep"] + 768,
              "hyper_in": 4 * width["deep"], "hyper_out": 4 * width["hyper_in"], "side_in": width["hyper_out"], "side_mid": width["side_in"],
              "side_out": width["side_mid"], "reference": 4 * m}
    for p in range(len(PHASES)):
        inputs[f"hidden{p}"] = width["side_out"] + width["reference"] + (4 * m if p else 0)
        inputs[f"mean{p}"] = inputs[f"scale{p}"] = width[f"hidden{p}"]
    layers = {name: random_layer(name, layer, rng, width[name], inputs[name]) for name, layer in model.layers.items()}
    # What else is in a network does not concern the backends, except its sizes.
    z_tables = replace(model.z_tables, first=np.zeros(width["hyper_out"], np.int32))
    return replace(model, layers=layers, context_shift=np.zeros(m, np.int8), z_tables=z_tables)


@settings(max_examples=25, database=None)
@given(seed=st.integers(0, 2 ** 32), size=st.sampled_from([(64, 64), (64, 128), (128, 64)]), n=st.integers(1, 3), extreme=st.booleans())
def test_random_networks(model: tuple[Path, Network], seed: int, size: tuple[int, int], n: int, extreme: bool) -> None:
    network, rng = random_network(model[1], seed), np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        export_graphs(network, folder, simplify=False)
        backends = [opened(engine, folder, network) for engine in ("numpy", "torch", "onnxruntime-all-1", "onnxruntime-disabled-1")]
        for graph in GRAPHS:
            inputs = inputs_of(network, graph, *size, n, rng, extreme)
            expected = wanted(network, graph, inputs)
            for backend in backends:
                assert_same(backend, graph, inputs, expected)
        for backend in backends:
            backend.close()


def test_largest_accumulators(model: tuple[Path, Network]) -> None:
    """One below the limit at both ends, where float32 has no bit to spare: all weights 64 and -64, all activations 255."""
    layers = dict(model[1].layers)
    for name, layer in layers.items():
        weight = np.full(layer.weight.shape, 64, np.int8)
        weight[1::2] = -64
        total = np.abs(weight.astype(np.int64)).reshape(len(weight), -1).sum(1) * 255
        bias = (ACCUMULATOR_LIMIT - 1 - total) * np.where(np.arange(len(weight)) % 2, -1, 1)
        layers[name] = replace(layer, weight=weight, bias=bias.astype(np.int32), shift=np.full(len(weight), 16, np.int8) * (name not in HEADS))
        assert np.all(layers[name].bound() == ACCUMULATOR_LIMIT - 1)
    network = replace(model[1], layers=layers)
    with tempfile.TemporaryDirectory() as name:
        export_graphs(network, Path(name))
        inputs = {graph: [np.full_like(x, 255) for x in inputs_of(network, graph, 64, 128, 1, np.random.default_rng(0))] for graph in GRAPHS}
        expected = {graph: wanted(network, graph, inputs[graph]) for graph in GRAPHS}
        assert expected["analysis"][0].max() > ACCUMULATOR_LIMIT // 2
        for engine in ("numpy", "torch", "onnxruntime-all-1", "onnxruntime-disabled-1"):
            with opened(engine, Path(name), network) as backend:
                for graph in GRAPHS:
                    assert_same(backend, graph, inputs[graph], expected[graph])


@pytest.mark.parametrize("block", [1, 1000, 20_000])
def test_numpy_in_blocks_of_any_size(block: int, model: tuple[Path, Network], cases: list[Case], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numpy_backend, "_BLOCK_VALUES", block)
    with NumpyBackend(model[1]) as backend:
        for graph, inputs, expected in cases[::3 if block == 1 else 1]:
            assert_same(backend, graph, inputs, expected)


def test_torch_with_many_bands(model: tuple[Path, Network]) -> None:
    """Batches of 16 and more are where NNPACK would take over."""
    inputs = inputs_of(model[1], "side", 128, 128, 17, np.random.default_rng(3))
    with TorchBackend(model[1]) as backend:
        assert_same(backend, "side", inputs, wanted(model[1], "side", inputs))


def test_torch_leaves_no_traces(model: tuple[Path, Network]) -> None:
    import torch
    before = torch.get_num_threads(), torch.is_grad_enabled(), torch._C._get_nnpack_enabled()
    with TorchBackend(model[1], threads=2) as backend:
        backend.run("side", *inputs_of(model[1], "side", 64, 64, 1, np.random.default_rng(3)))
    assert (torch.get_num_threads(), torch.is_grad_enabled(), torch._C._get_nnpack_enabled()) == before


def test_inputs_are_left_alone_and_may_be_views(model: tuple[Path, Network]) -> None:
    (pixels,) = inputs_of(model[1], "analysis", 128, 64, 1, np.random.default_rng(4))
    expected = wanted(model[1], "analysis", [pixels])
    turned = np.asfortranarray(pixels)
    turned.flags.writeable = False
    for engine in ("numpy", "torch", "onnxruntime-all-1"):
        with opened(engine, *model) as backend:
            assert_same(backend, "analysis", [turned], expected)
    assert np.array_equal(turned, pixels)


# ---- what users may do wrong

def bad_inputs(network: Network) -> Iterator[tuple[str, list[Array], str]]:
    def zeros(*shape: int) -> Array:
        return np.zeros(shape, np.uint8)
    yield "analysis", [zeros(64, 100, 3)], "100x64 pixels are not multiples of 64"
    yield "analysis", [zeros(64, 64)], "expected uint8"
    yield "analysis", [zeros(64, 64, 4)], r"expected uint8\[n,h,w,3\]"
    yield "analysis", [zeros(64, 64, 3).astype(np.float32)], "input pixels is float32"
    yield "analysis", [], "got 0 inputs"
    yield "side", [zeros(0, 1, 1, network.hyper)], "expected uint8"
    side = len(network.layers["side_out"].bias) + network.reference_features
    yield "phase1", [zeros(1, 2, 2, side), zeros(1, 2, 4, network.context)], "of one size"
    yield "reference", [zeros(4, 8, 4, network.latents)], r"expected \[4,8,8,"
    yield "phase9", [zeros(1, 1, 1, 1)], "expected one of the graphs"


def test_bad_inputs_are_named(model: tuple[Path, Network]) -> None:
    with NumpyBackend(model[1]) as backend:
        for graph, inputs, message in bad_inputs(model[1]):
            with pytest.raises(RemacError, match=message):
                backend.run(graph, *inputs)


def test_unknown_backends(model: tuple[Path, Network]) -> None:
    for name in ("tensorflow", "numpy:gpu", "onnxruntime:gpu"):
        with pytest.raises(RemacError, match=f"unknown backend '{name}': choose one of {', '.join(BACKENDS)}"):
            open_backend(name, *model)
    with pytest.raises(RemacError, match="torch has no device 'nonsense'"):
        open_backend("torch:nonsense", *model)


@pytest.mark.parametrize("engine", ["onnxruntime", "torch"])
def test_engine_that_is_not_installed(engine: str, model: tuple[Path, Network], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, engine, None)
    with pytest.raises(RemacError, match=f"needs {engine}"):
        open_backend(engine, *model)


@pytest.mark.parametrize(("kernel", "with_graphs", "without"), [("avx512vnni", "c99", "c99"), ("avx2", "onnxruntime", "c99"),
                                                                 ("portable", "onnxruntime", "numpy"), (None, "onnxruntime", "numpy")])
def test_fastest_backend(kernel: str | None, with_graphs: str, without: str, model: tuple[Path, Network], tmp_path: Path,
                         monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remac_runtime.backends.c99_backend.best_kernel", lambda network: kernel)
    assert available_backend(*model) == with_graphs
    export_graphs(model[1], tmp_path)
    (tmp_path / "phase2.onnx").unlink()
    assert available_backend(tmp_path, model[1]) == without


def test_default_backend_without_graphs_or_extension(model: tuple[Path, Network], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "library", None)
    with open_backend(None, tmp_path, model[1]) as backend:
        assert backend.name == "numpy"


def test_bad_graph_files(model: tuple[Path, Network], tmp_path: Path) -> None:
    inputs = inputs_of(model[1], "reference", 64, 64, 1, np.random.default_rng(0))
    with OnnxRuntimeBackend(tmp_path, model[1]) as backend:
        with pytest.raises(BadNetwork, match=r"reference\.onnx: missing"):
            backend.run("reference", *inputs)
        content = (model[0] / "reference.onnx").read_bytes()
        (tmp_path / "reference.onnx").write_bytes(content[:len(content) // 2])
        with pytest.raises(BadNetwork, match=r"reference\.onnx: not a graph that onnxruntime"):
            backend.run("reference", *inputs)
        (tmp_path / "reference.onnx").write_bytes(content)
        backend.run("reference", *inputs)
    with OnnxRuntimeBackend(tmp_path, replace(model[1], hash=bytes(8))) as backend, pytest.raises(BadNetwork, match="made for codec"):
        backend.run("reference", *inputs)
