"""A small random network and bank that keep every rule of FORMAT 4, for tests that need no trained weights. A pure function of the seed."""
from __future__ import annotations

from pathlib import Path

import numpy as np

from remac_runtime.format import (
    HYPER_CONTEXTS,
    PROBABILITY_BITS,
    QUALITIES,
    SCALE_LEVELS,
    SCALE_MIN,
    SCALE_STEPS_PER_OCTAVE,
    SCORE_LIMIT,
    SCORE_SIZES,
)
from remac_runtime.network import HEADS, KERNEL_3, LAYERS, STRIDE_2, Layer, write_bank, write_network

CONTEXT = 16      # of the 32 channels of a neighbour
PHASE_KINDS = ("hidden", "mean", "scale")
WIDTHS = {"stem": 16, "body": 16, "reduce": 32, "deep": 32, "head": 32, "hyper_in": 16, "hyper_out": 16, "side_in": 16,
          "side_mid": 16, "side_out": 32, "reference": 16, **{f"{kind}{p}": 32 for kind in PHASE_KINDS for p in range(4)}}


def _inputs(name: str) -> int:
    w = WIDTHS
    fixed = {"stem": 192, "body": w["stem"], "reduce": w["body"], "deep": w["reduce"], "head": w["deep"] + 768,
             "hyper_in": 4 * w["deep"], "hyper_out": 4 * w["hyper_in"], "side_in": w["hyper_out"], "side_mid": w["side_in"],
             "side_out": w["side_mid"], "reference": 4 * w["head"]}
    if name.startswith("hidden"):
        return w["side_out"] + w["reference"] + (0 if name == "hidden0" else 4 * CONTEXT)
    return fixed.get(name, w["hidden0"])


def _layer(name: str, rng: np.random.Generator) -> Layer:
    kernel, inputs, outputs = 3 if name in KERNEL_3 else 1, _inputs(name), WIDTHS[name]
    weight = np.clip(np.rint(rng.normal(0, 20, (outputs, kernel, kernel, inputs))), -64, 64).astype(np.int8)
    weight -= np.rint(weight.astype(np.float64).mean((1, 2, 3), keepdims=True)).astype(np.int8)
    gain = 20 * 80 * np.sqrt(kernel * kernel * inputs)           # typical spread of the accumulator
    target = {"head": 16, "mean": 14, "scale": 400}              # of the output; uint8 layers aim at 60
    if name in HEADS:
        kind = name.rstrip("0123")
        spread = float(target["scale"]) if kind == "scale" else 2.0 ** target[kind]
        shift = int(np.clip(np.floor(np.log2(gain / spread)), -2, 16))
        bias = np.rint(rng.normal(0, gain / 8, outputs))
    else:
        shift = int(np.clip(np.rint(np.log2(gain / 60)), 0, 16))
        bias = np.rint(rng.normal(0, gain / 4, outputs) + (128 if name == "hyper_out" else 20) * 2.0 ** shift)
    return Layer(name, np.clip(weight, -64, 64).astype(np.int8), bias.astype(np.int32), np.full(outputs, shift, np.int8),
                 2 if name in STRIDE_2 else 1, name in HEADS)


def quantised_cdf(probability: np.ndarray) -> np.ndarray:
    """Cumulative frequencies of total 2^14, every one at least 1: uint16[n + 1]."""
    total = 1 << PROBABILITY_BITS
    frequency = np.maximum(1, np.floor(probability / probability.sum() * (total - len(probability)))).astype(np.int64)
    frequency[np.argmax(frequency)] += total - frequency.sum()
    return np.concatenate([[0], np.cumsum(frequency)]).astype(np.uint16)


def _tables(cdfs: list[np.ndarray], first: list[int], kind: str) -> dict[str, np.ndarray]:
    start = np.concatenate([[0], np.cumsum([len(cdf) for cdf in cdfs])])
    return {f"{kind}.first": np.array(first, np.int16), f"{kind}.start": start.astype(np.int32), f"{kind}.cdf": np.concatenate(cdfs)}


def _sigma(table: int) -> float:
    return float(SCALE_MIN * 2 ** (table / SCALE_STEPS_PER_OCTAVE))


def _score() -> np.ndarray:
    """Sizes above two thirds of a table's scale speak for the next tables, those below for the ones before; some of it is at the limit."""
    sizes = np.arange(SCORE_SIZES)
    rows = [np.rint(256 * (sizes / min(_sigma(i), 12.0) - 2 / 3)) for i in range(SCALE_LEVELS)]
    return np.clip(rows, -SCORE_LIMIT, SCORE_LIMIT).astype(np.int16)


def _laplace_tables() -> dict[str, np.ndarray]:
    cdfs, first = [], []
    for i in range(SCALE_LEVELS):
        sigma = _sigma(i)
        reach = min(int(np.ceil(3 * sigma)), 600)
        symbols = np.arange(-reach, reach + 1)
        cdfs.append(quantised_cdf(np.append(np.exp(-np.abs(symbols) * 1.4 / sigma), 1e-3)))
        first.append(-reach)
    return _tables(cdfs, first, "y")


def _hyper_tables(rng: np.random.Generator) -> dict[str, np.ndarray]:
    cdfs, first = [], []
    for _ in range(WIDTHS["hyper_out"]):
        low, high = int(rng.integers(20, 100)), int(rng.integers(150, 240))
        symbols = np.arange(low, high + 1)
        for context in range(HYPER_CONTEXTS):
            centre = 128 + 8 * (context - HYPER_CONTEXTS // 2)
            cdfs.append(quantised_cdf(np.append(np.exp(-((symbols - centre) / 50.0) ** 2) + 1e-4, 1e-2)))
            first.append(low)
    return _tables(cdfs, first, "z")


def write_small_model(folder: Path, seed: int = 1, references: int = 3) -> None:
    """Write network.rmn and bank.rmb into `folder`."""
    rng = np.random.default_rng(seed)
    layers = {name: _layer(name, rng) for name in LAYERS}
    m = WIDTHS["head"]
    step = 2.0 ** np.linspace(17, 10, QUALITIES)[:, None] * rng.uniform(0.7, 1.4, (1, m))   # of y units
    tensors = {
        "gain": np.rint(2.0 ** 30 / step).astype(np.int32), "inverse_gain": np.rint(step).astype(np.int32),
        "scale_offset": np.rint(-80 * np.log2(step / 2.0 ** 14) + 300).astype(np.int32), "context_shift": rng.integers(8, 11, m).astype(np.int8),
        "score": _score(),
        **_hyper_tables(rng), **_laplace_tables(),
    }
    digest = write_network(folder / "network.rmn", "small", 2, layers, tensors)
    write_bank(folder / "bank.rmb", "small", digest, {
        "z": rng.integers(60, 200, (references, 4, 4, WIDTHS["hyper_out"]), dtype=np.uint8),
        "planes": rng.integers(0, 256, (references, 4, 8, 8, m), dtype=np.uint8),
        "texture": rng.integers(0, 256, (references, WIDTHS["body"]), dtype=np.uint8),
        "semantic": rng.integers(0, 256, (references, WIDTHS["deep"]), dtype=np.uint8)})
