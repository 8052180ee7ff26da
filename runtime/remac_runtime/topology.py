"""The data flow of the integer network (FORMAT 4.2 and 5.2 to 5.5), written once.

Every backend runs these functions with its own `Ops`: NumPy and torch compute, the ONNX exporter emits nodes. A tensor is
`[n, rows, columns, channels]`; how an `Ops` holds it is its own affair. Heads give their raw accumulator here: `backends.Backend.run` applies
their shift, for all backends alike.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from remac_runtime.format import NEIGHBOURS, PHASES
from remac_runtime.network import Layer, Network

T = TypeVar("T")

GRAPHS = ("analysis", "side", "reference", *(f"phase{p}" for p in range(len(PHASES))))
# The layer that gives each output of a graph, in the order of the outputs.
OUTPUTS = {
    "analysis": ("head", "hyper_out", "body", "deep"), "side": ("side_out",), "reference": ("reference",),
    **{f"phase{p}": (f"mean{p}", f"scale{p}") for p in range(len(PHASES))},
}
INPUTS = {
    "analysis": ("pixels",), "side": ("z",), "reference": ("planes",), "phase0": ("side",), "phase1": ("side", "plane_a"),
    "phase2": ("side", "plane_a", "plane_b"), "phase3": ("side", "plane_a", "plane_b"),
}


class Ops(Protocol[T]):
    """What a backend must be able to do."""

    def layer(self, layer: Layer, *inputs: T) -> T:
        """FORMAT 5.2 on the inputs joined along the channels: uint8 of a uint8 layer, the int32 accumulator, not yet shifted, of a head."""
        ...

    def space_to_depth(self, x: T, block: int) -> T:
        """FORMAT 5.2: [n, h, w, c] to [n, h / block, w / block, block * block * c]."""
        ...

    def repeat2x2(self, x: T) -> T:
        """[n, h, w, c] to [n, 2h, 2w, c], each position repeated."""
        ...

    def neighbour(self, x: T, rows: int, columns: int) -> T:
        """At (r, q) the value of (r + rows, q + columns), LATENT_OFFSET outside of x (FORMAT 5.4); rows, columns in -1..1."""
        ...

    def join(self, x: T) -> T:
        """[n, h, w, c] to [1, h, w, n * c], channels of the first item first."""
        ...


def analysis(ops: Ops[T], network: Network, pixels: T) -> tuple[T, ...]:
    """FORMAT 5.3: pixels uint8[1,H,W,3] to y (accumulator) int32[1,H/16,W/16,M], z uint8[1,H/64,W/64,Z], body uint8[1,H/8,W/8,C] and
    deep uint8[1,H/16,W/16,C]."""
    layers = network.layers
    stem = ops.layer(layers["stem"], ops.space_to_depth(pixels, 8))
    body = ops.layer(layers["body"], stem)
    deep = ops.layer(layers["deep"], ops.layer(layers["reduce"], body))
    y = ops.layer(layers["head"], deep, ops.space_to_depth(pixels, 16))
    hyper = ops.layer(layers["hyper_in"], ops.space_to_depth(deep, 2))
    z = ops.layer(layers["hyper_out"], ops.space_to_depth(hyper, 2))
    return y, z, body, deep


def side(ops: Ops[T], network: Network, z: T) -> tuple[T, ...]:
    """FORMAT 5.5: z uint8[n,h,w,Z] to uint8[n,2h,2w,S]; the n bands know nothing of each other."""
    layers = network.layers
    middle = ops.layer(layers["side_mid"], ops.layer(layers["side_in"], z))
    return (ops.layer(layers["side_out"], ops.repeat2x2(middle)),)


def reference(ops: Ops[T], network: Network, planes: T) -> tuple[T, ...]:
    """FORMAT 5.4: the planes uint8[4,8,8,M] of a reference, in phase order, to its features uint8[1,8,8,R]."""
    return (ops.layer(network.layers["reference"], ops.join(planes)),)


def phase(ops: Ops[T], network: Network, number: int, side_and_reference: T, planes: Sequence[T]) -> tuple[T, ...]:
    """FORMAT 5.5: side and reference features uint8[n,h,w,S+R] and the first channels of planes A, B uint8[n,h,w,C] that the phase looks at to the
    accumulators of mu and scale, both int32[n,h,w,M]."""
    layers = network.layers
    near = [ops.neighbour(planes[plane], rows, columns) for plane, rows, columns in NEIGHBOURS[number]]
    hidden = ops.layer(layers[f"hidden{number}"], side_and_reference, *near)
    return ops.layer(layers[f"mean{number}"], hidden), ops.layer(layers[f"scale{number}"], hidden)


def run(ops: Ops[T], network: Network, graph: str, inputs: Sequence[T]) -> tuple[T, ...]:
    """The graph of that name, one of GRAPHS, on the inputs named in INPUTS."""
    if graph == "analysis":
        return analysis(ops, network, inputs[0])
    if graph == "side":
        return side(ops, network, inputs[0])
    if graph == "reference":
        return reference(ops, network, inputs[0])
    return phase(ops, network, int(graph.removeprefix("phase")), inputs[0], inputs[1:])
