"""The exported graphs against the reference codec, integer for integer: every layer, every backend, and the bytes of a stream."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.report import CheckResult
from remac_runtime import reference
from remac_runtime.arithmetic import requantise
from remac_runtime.backends import open_backend
from remac_runtime.choices import PATTERNS
from remac_runtime.format import LATENT_OFFSET, NO_REFERENCE, PHASES
from remac_runtime.model import Model
from remac_runtime.network import Network
from remac_runtime.topology import GRAPHS, INPUTS, OUTPUTS

QUALITY = 40      # its decoded planes are fed to the phases
ENTRY = 0         # of the bank
Array = NDArray[Any]


@dataclass(frozen=True)
class Expected:
    """What reference.py computes for one picture: inputs uint8[n,h,w,c] of each graph, and the output int64[h,w,c] of each layer."""

    inputs: dict[str, tuple[Array, ...]]
    layers: dict[str, Array]


def expected(model: Model, pixels: NDArray[np.uint8]) -> Expected:
    """Run the reference on pixels uint8[H,W,3], H and W multiples of 64, as one band, with an entry of the bank where there is one."""
    network = model.network
    trace: reference.Trace = {}
    run = reference.Run(network, trace)
    y, z, _, _ = reference.analyse(run, pixels.astype(np.int64))
    entry = reference.open_reference(run, model.bank, ENTRY if model.bank else NO_REFERENCE)
    planes: list[Array] = []

    def symbols(phase: int, mu: Array, index: Array) -> Array:
        row, column = PHASES[phase]
        k = reference.quantise(network, QUALITY, y[row::2, column::2], mu, index)
        latents = mu + k * network.inverse_gain[QUALITY]
        planes.append(np.clip(reference.rne(latents, network.context_shift.astype(np.int64)) + LATENT_OFFSET, 0, 255))
        return k

    reference.band_latents(run, entry, z, QUALITY, symbols)
    side = np.concatenate([trace["side_out"], reference.match_features(network, entry, z)], axis=2)
    inputs: dict[str, tuple[Array, ...]] = {"analysis": (pixels,), "side": (z,)}
    seen = [plane[..., :network.context] for plane in planes]
    inputs.update({f"phase{p}": (side, *seen[:len(INPUTS[f"phase{p}"]) - 1]) for p in range(len(PHASES))})
    batched = {graph: tuple(np.ascontiguousarray(x[None].astype(np.uint8)) for x in arrays) for graph, arrays in inputs.items()}
    if model.bank:
        batched["reference"] = (model.bank.planes[ENTRY],)
    return Expected(batched, trace)


def _first_difference(name: str, got: Array, wanted: Array) -> str:
    """"" if they are equal."""
    if got.shape != wanted.shape:
        return f"{name}: {list(got.shape)}, the reference gives {list(wanted.shape)}"
    places = np.argwhere(got != wanted)
    if not len(places):
        return ""
    at = tuple(places[0])
    return f"{name}: {len(places)} of {got.size} values differ, first at {[int(i) for i in at]}: {got[at]}, the reference gives {wanted[at]}"


def _every_layer(network: Network, wanted: Expected) -> Iterator[tuple[str, Array]]:
    """(layer, output) of graphs exported with all their tensors as outputs; heads shifted."""
    import onnxruntime

    from export.to_onnx import build
    for graph in wanted.inputs:
        session = onnxruntime.InferenceSession(build(network, graph, every_layer=True).SerializeToString(), providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        for name, value in zip(names, session.run(None, dict(zip(INPUTS[graph], wanted.inputs[graph], strict=True))), strict=True):
            layer = network.layers[name]
            if layer.head:
                requantise(value, layer.shift)
            yield name, value[0]


def check_every_layer(model: Model, cases: Sequence[tuple[str, Expected]]) -> CheckResult:
    """A debug export that shows every tensor, layer by layer."""
    title, seen, values = "every layer equals the int64 reference", set(), 0
    for picture, wanted in cases:
        for name, got in _every_layer(model.network, wanted):
            difference = _first_difference(f"{picture}, {name}", got, wanted.layers[name])
            if difference:
                return CheckResult(title, False, difference)
            seen.add(name)
            values += got.size
    missing = set(model.network.layers) - seen - (set() if model.bank else {"reference"})
    if missing or not cases:
        return CheckResult(title, False, f"not compared: {', '.join(sorted(missing)) or 'anything'}")
    return CheckResult(title, True, f"{len(seen)} layers, {len(cases)} pictures, {values} values")


def check_backend(model: Model, name: str, cases: Sequence[tuple[str, Expected]]) -> CheckResult:
    """What a backend gives on the files as they are shipped."""
    values = 0
    with open_backend(name, model.folder, model.network) as backend:
        for picture, wanted in cases:
            for graph in (graph for graph in GRAPHS if graph in wanted.inputs):
                inputs = wanted.inputs[graph]
                outputs = backend.run(graph, *((inputs[0][0],) if graph == "analysis" else inputs))
                for layer, got in zip(OUTPUTS[graph], outputs, strict=True):
                    single = got if graph in ("analysis", "reference") else got[0]
                    difference = _first_difference(f"{picture}, {layer}", single, wanted.layers[layer])
                    if difference:
                        return CheckResult(f"backend {name} equals the reference", False, difference)
                    values += got.size
    return CheckResult(f"backend {name} equals the reference", values > 0, f"{values} values")


def check_stream(model: Model, pixels: NDArray[np.uint8]) -> CheckResult:
    """The bytes that the exported graphs give and those of the reference encoder, and the latents that the reference decoder gets from them."""
    from remac_runtime.codec import Decoder, EncodeOptions, Encoder
    from remac_runtime.images import Picture
    title = "stream and latents equal the reference codec's"
    with Encoder(model, "onnxruntime") as encoder, Decoder(model, encoder.backend) as decoder:
        data = encoder.encode(Picture(pixels), EncodeOptions(quality=QUALITY, mosaic=PATTERNS[0]))
        latents = decoder.decode(data, strict=True).y_hat
    wanted = reference.encode(pixels, 8, model.network, model.bank, QUALITY)
    if data != wanted:
        return CheckResult(title, False, f"{len(data)} bytes, the reference gives {len(wanted)}, or they differ in content")
    difference = _first_difference("y_hat", latents, reference.decode_latents(data, model.network, model.bank).y_hat)
    return CheckResult(title, not difference, difference or f"{len(data)} bytes")


def windows(paths: Sequence[Path], rows: int, columns: int) -> list[tuple[str, NDArray[np.uint8]]]:
    """(name, pixels uint8[rows,columns,3]) from the middle of each picture that is large enough."""
    from remac_runtime.images import load_picture, to_pixels
    found = []
    for path in paths:
        pixels = to_pixels(load_picture(path))
        top, left = (pixels.shape[0] - rows) // 2, (pixels.shape[1] - columns) // 2
        if top >= 0 and left >= 0:
            found.append((path.name, np.ascontiguousarray(pixels[top:top + rows, left:left + columns])))
    return found
