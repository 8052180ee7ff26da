"""The c99 backend: the integers of the reference from every kernel and thread count, its memory, and what it refuses.

The reference's side of the comparison, `wanted`, is that of test_backends.py.
"""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from test_backends import assert_same, inputs_of, wanted

from remac_runtime import native, reference
from remac_runtime.analysis import analyse
from remac_runtime.backends import open_backend
from remac_runtime.backends.c99_backend import ANALYSIS_LAYERS, KERNEL_VARIABLE, KERNELS, C99Backend, Memory, NativeOps, View
from remac_runtime.backends.numpy_backend import NumpyBackend
from remac_runtime.codec import Decoder, EncodeOptions, Encoder
from remac_runtime.errors import RemacError
from remac_runtime.images import Picture
from remac_runtime.model import load_model
from remac_runtime.network import Network, read_network
from remac_runtime.packing import packed_weight
from remac_runtime.topology import GRAPHS

USABLE = [name for number, name in enumerate(KERNELS) if number and native.library is not None and native.library.path_usable(number)]
SHIPPED = Path(__file__).resolve().parents[1] / "build" / "rover-m"
pytestmark = pytest.mark.skipif(native.library is None, reason="the C extension is not built")


@pytest.fixture(scope="module")
def network(small_model: Path) -> Network:
    return read_network(small_model / "network.rmn")


def picture_of(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


# ---- the same integers ----------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kernel", USABLE)
def test_every_graph_gives_the_reference(kernel: str, network: Network) -> None:
    rng = np.random.default_rng(5)
    for rows, columns, n in ((64, 64, 1), (128, 192, 3), (192, 64, 2)):
        for graph in GRAPHS:
            for extreme in (False, True):
                inputs = inputs_of(network, graph, rows, columns, n, rng, extreme)
                expected = wanted(network, graph, inputs)
                for threads in (1, 3):
                    with C99Backend(network, threads, kernel) as backend:
                        assert_same(backend, graph, inputs, expected)


@pytest.mark.parametrize("kernel", USABLE)
def test_the_strip_pipeline_gives_the_reference(kernel: str, network: Network) -> None:
    """Pictures that need padding, and that are larger than a halo."""
    for height, width in ((64, 64), (1, 1), (65, 130), (200, 90)):
        pixels = picture_of(height, width)
        y, z, texture, semantic = reference.analyse(reference.Run(network), reference.pixel_tensor(pixels, 8))
        with C99Backend(network, kernel=kernel) as backend:
            assert backend.analyse(pixels) is not None
            got = analyse(backend, pixels)
        for ours, exact in ((got.y, y), (got.z, z), (got.texture, texture), (got.semantic, semantic)):
            assert ours.shape == exact.shape and np.array_equal(ours, exact)


def test_streams_are_the_same(small_model: Path) -> None:
    model, picture = load_model(small_model), Picture(picture_of(150, 210), 8)
    options = EncodeOptions(quality=40, strip_rows=64)
    with Encoder(model, "c99") as fast, Encoder(model, "c99", 2) as threaded, Encoder(model, "numpy") as slow:
        data = slow.encode(picture, options)
        assert fast.encode(picture, options) == threaded.encode(picture, options) == data
    with Decoder(model, "c99") as fast_decoder, Decoder(model, "numpy") as slow_decoder:
        assert np.array_equal(fast_decoder.decode(data).y_hat, slow_decoder.decode(data).y_hat)


@pytest.mark.skipif(not (SHIPPED / "network.rmn").is_file(), reason="build/rover-m is not built: make encoder")
@pytest.mark.parametrize("kernel", [name for name in USABLE if name != "portable"] or USABLE)
def test_the_shipped_network_gives_the_same_from_numpy(kernel: str) -> None:
    shipped, rng = read_network(SHIPPED / "network.rmn"), np.random.default_rng(2)
    with C99Backend(shipped, kernel=kernel) as ours, NumpyBackend(shipped) as other:
        for graph in GRAPHS:
            inputs = inputs_of(shipped, graph, 128, 192, 1, rng)
            for a, b in zip(ours.run(graph, *inputs), other.run(graph, *inputs), strict=True):
                assert np.array_equal(a, b), graph
        whole, strips = (analyse(backend, picture_of(100, 150)) for backend in (ours, other))
        assert all(np.array_equal(getattr(whole, name), getattr(strips, name)) for name in ("y", "z", "texture", "semantic"))


def test_a_changed_weight_is_seen(network: Network) -> None:
    """One weight of one layer differs: the comparisons above would fail."""
    pixels = picture_of(64, 64)
    expected = wanted(network, "analysis", [pixels])
    for name in ANALYSIS_LAYERS:
        weight = network.layers[name].weight.copy()
        middle = (0, weight.shape[1] // 2, weight.shape[2] // 2, 0)
        weight[middle] += 40 if weight[middle] < 0 else -40
        changed = replace(network, layers={**network.layers, name: replace(network.layers[name], weight=weight)})
        with C99Backend(changed) as backend:
            outputs = backend.run("analysis", pixels)
        assert any(not np.array_equal(got, exact) for got, exact in zip(outputs, expected, strict=True)), name


# ---- memory ---------------------------------------------------------------------------------------------------------------------------------------

def test_memory_goes_round_only_when_nothing_looks_at_it() -> None:
    memory = Memory()
    first = memory.empty((Memory.SMALL_BYTES,), np.int32)
    address = first.ctypes.data
    view = first[10:].reshape(2, -1)[1]
    del first
    second = memory.empty((Memory.SMALL_BYTES,), np.int32)
    assert second.ctypes.data != address and not np.shares_memory(second, view)
    del view
    third = memory.empty((2, Memory.SMALL_BYTES - 8), np.uint16)
    assert third.ctypes.data == address and third.flags.writeable and third.flags.c_contiguous
    assert memory.empty((Memory.SMALL_BYTES // 16,), np.uint8).base is None     # small ones are NumPy's own


def test_results_are_not_overwritten(network: Network) -> None:
    with C99Backend(network) as backend:
        kept = backend.run("analysis", picture_of(256, 256, 1))
        copies = [x.copy() for x in kept]
        backend.run("analysis", picture_of(256, 256, 2))
        assert all(np.array_equal(x, copy) for x, copy in zip(kept, copies, strict=True))


# ---- what is refused ------------------------------------------------------------------------------------------------------------------------------

def test_without_the_extension_the_error_names_the_mend(monkeypatch: pytest.MonkeyPatch, network: Network) -> None:
    monkeypatch.setattr(native, "library", None)
    with pytest.raises(RemacError, match=r"C extension.*install a C compiler.*numpy backend"):
        open_backend("c99", Path(), network)


def test_the_kernel_can_be_chosen_and_must_exist(monkeypatch: pytest.MonkeyPatch, network: Network) -> None:
    monkeypatch.delenv(KERNEL_VARIABLE, raising=False)
    assert native.library is not None and C99Backend(network).kernel == KERNELS[native.library.path_best()]
    monkeypatch.setenv(KERNEL_VARIABLE, "portable")
    assert C99Backend(network).kernel == "portable"
    missing = next((name for name in KERNELS[1:] if name not in USABLE), "abacus")
    for name in (missing, "abacus"):
        monkeypatch.setenv(KERNEL_VARIABLE, name)
        with pytest.raises(RemacError, match=f"no kernel '{name}' here: set {KERNEL_VARIABLE} to one of best, portable"):
            open_backend("c99", Path(), network)


def test_channels_that_do_not_fit_are_refused(network: Network) -> None:
    layer = network.layers["side_in"]
    odd = replace(layer, weight=np.ascontiguousarray(layer.weight[..., :-2]))
    with pytest.raises(RemacError, match=r"side_in: takes \d+ channels.*multiple of 4.*numpy backend"):
        C99Backend(replace(network, layers={**network.layers, "side_in": odd}))


def layer_arguments(network: Network) -> list[Any]:
    """`reduce` on 2x(4x6) positions: correct arguments of _native.layer."""
    layer = network.layers["reduce"]
    channels, outputs = layer.weight.shape[3], len(layer.bias)
    numbers = np.array([1, 0, 3, 2, 2, 4, 6, 0, 8, channels, 1, 1, 1], np.uint32)
    return [packed_weight(layer), layer.bias, layer.shift, numbers, np.empty(3 * 14 * channels, np.uint8), np.empty(2 * 4 * 6 * outputs, np.uint8),
            np.zeros((2, 8, 12, channels), np.uint8)]


def test_sizes_of_a_layer_are_checked(network: Network) -> None:
    """A wrong size is an exception, never an access beyond an array."""
    library: Any = native.library
    right = layer_arguments(network)
    library.layer(*right)
    for n, argument in enumerate(right):
        with pytest.raises(ValueError):
            library.layer(*right[:n], argument.reshape(-1)[:-1].copy(), *right[n + 1:])
    wrong_numbers = {0: 99, 1: 1, 2: 2, 3: 3, 4: 3, 5: 0, 6: 7, 7: 9, 8: 9, 9: 6, 10: 2, 11: 3, 12: 0}
    for place, value in wrong_numbers.items():
        numbers = right[3].copy()
        numbers[place] = value
        with pytest.raises(ValueError):
            library.layer(*right[:3], numbers, *right[4:])
    huge = right[3].copy()
    huge[4:7] = 2 ** 32 - 1
    with pytest.raises(ValueError):
        library.layer(*right[:3], huge, *right[4:])
    with pytest.raises(TypeError):
        library.layer(*right[:-1])
    with pytest.raises(TypeError):
        library.layer(*right, *right[-1:] * 5)


def test_sizes_of_an_analysis_are_checked(network: Network) -> None:
    """What the backend gives is just enough: a byte less anywhere is refused."""
    library: Any = native.library
    taken: list[Any] = []

    class Spy:
        def analyse(self, *arguments: Any) -> None:
            taken.extend(arguments)
            library.analyse(*arguments)

    NativeOps(network, Spy(), 1, 1).analysis(network, picture_of(70, 100))      # type: ignore[arg-type]
    library.analyse(*taken)
    for n, argument in enumerate(taken[:-3]):
        with pytest.raises(ValueError):
            library.analyse(*taken[:n], argument.reshape(-1)[:-1].copy(), *taken[n + 1:])
    for size in ((71, 100, 1), (0, 100, 1), (70, 2 ** 31, 1), (70, 100, 99)):
        with pytest.raises(ValueError):
            library.analyse(*taken[:-3], *size)


def test_views_stay_views() -> None:
    """Space-to-depth and neighbours copy nothing."""
    ops: Any = NativeOps.__new__(NativeOps)
    x = View(np.zeros((1, 4, 4, 8), np.uint8))
    assert ops.space_to_depth(x, 2).data is x.data and ops.space_to_depth(x, 2).size() == (1, 2, 2)
    assert ops.neighbour(x, -1, 1).data is x.data
