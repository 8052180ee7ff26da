"""The flight encoder as C99: constants of a network and its bank, and one source file from csrc/ and export/flight/."""
from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import remac_runtime
from remac_runtime import rans
from remac_runtime.backends.numpy_backend import NumpyBackend
from remac_runtime.errors import BadNetwork
from remac_runtime.format import ROUNDING
from remac_runtime.network import LAYERS, Bank, Network
from remac_runtime.packing import INPUT_QUAD, packed_weight

CSRC = Path(remac_runtime.__file__).resolve().parent / "csrc"
SOURCES = Path(__file__).resolve().parent / "flight"
HEADER = "remac_flight.h"
CORE = ("state.c", "packets.c", "samples.c", "bands.c", "encoder.c")      # in the order in which they use each other
REFERENCE = "reference"     # the layer whose outputs are constants of the bank
FLIGHT_LAYERS = tuple(name for name in LAYERS if name != REFERENCE)
# What a channel count is called in the header. Layers of the analysis come first, as in csrc/analysis.h.
WIDTHS = ("stem", "body", "reduce", "deep", "hyper_in", "side_in", "side_mid", "side_out", REFERENCE)
LINE = 150
_CTYPES = {"int8": "int8_t", "uint8": "uint8_t", "int16": "int16_t", "uint16": "uint16_t", "int32": "int32_t", "uint64": "uint64_t"}
_INCLUDE = re.compile(r'^#include "([^"]+)"\n', re.MULTILINE)
_GUARD = re.compile(r"^#ifndef (REMAC_\w+_H|REMAC_H)$", re.MULTILINE)

Arrays = list[tuple[str, NDArray[Any]]]


@dataclass(frozen=True)
class Constants:
    """What the encoder holds besides code: bytes of weights (with biases and shifts), of tables (gains and CDFs), and of the optional bank."""

    text: str
    weight_bytes: int
    table_bytes: int
    bank_bytes: int


def check_channels(network: Network) -> None:
    """Raises BadNetwork where the kernels cannot read the network: channels that a layer takes from one tensor are a multiple of 4."""
    read = {name: len(layer.bias) for name, layer in network.layers.items() if name != "head" and not name.startswith(("mean", "scale"))}
    for name, channels in {**read, "context of the phases": network.context}.items():
        if channels % INPUT_QUAD:
            raise BadNetwork(f"{name}: {channels} channels, the C99 encoder needs a multiple of {INPUT_QUAD}: train a profile with such widths")
    if len(network.profile.encode("ascii", "replace")) > 8:
        raise BadNetwork(f"profile name '{network.profile}' is longer than the 8 bytes of a stream's header")


def array(name: str, values: NDArray[Any]) -> str:
    """A constant array of C; the shape goes into a comment."""
    items = [str(value) for value in values.ravel().tolist()]
    if values.dtype == np.uint64:
        items = [f"UINT64_C({item})" for item in items]
    shape = "".join(f"[{n}]" for n in values.shape)
    return f"static const {_CTYPES[values.dtype.name]} {name}[{len(items)}] = {{ /* {shape} */\n{_wrapped(items)}\n}};\n"


def _wrapped(items: Sequence[str]) -> str:
    step = max(1, (LINE - 4) // (max(map(len, items)) + 1))
    return ",\n".join("    " + ",".join(items[at:at + step]) for at in range(0, len(items), step))


def _bytes_literal(name: str, value: bytes) -> str:
    return f"static const uint8_t {name}[{len(value)}] = {{{', '.join(f'0x{byte:02x}' for byte in value)}}};\n"


def network_macros(network: Network, bank: Bank | None) -> str:
    """The block of the header that depends on the network."""
    lines = {"LATENTS": network.latents, "HYPER": network.hyper, "CONTEXT": network.context,
             **{name.upper(): len(network.layers[name].bias) for name in WIDTHS},
             "HIDDEN": max(len(network.layers[f"hidden{p}"].bias) for p in range(4))}
    macros = [f"#define REMAC_FLIGHT_{name} {value}u" for name, value in lines.items()]
    named = f"bank {bank.hash.hex()}" if bank else "no bank"
    about = f"/* Profile {network.profile}, codec {network.hash.hex()}, {named}. Channels of its layers: */"
    option = ["/* 1 with the reference bank, 0 without; the compiler's command line may say 0. */", "#ifndef REMAC_FLIGHT_BANK",
              "#define REMAC_FLIGHT_BANK 1", "#endif"] if bank else ["#define REMAC_FLIGHT_BANK 0 /* generated without a reference bank */"]
    return "\n".join([about, *macros, "", *option])


def bank_features(network: Network, bank: Bank) -> NDArray[np.uint8]:
    """FORMAT 5.4: the reference features of every entry, uint8[R,8,8,channels of `reference`]; constants, as the planes are."""
    with NumpyBackend(network) as backend:
        return np.stack([backend.run(REFERENCE, planes)[0].reshape(8, 8, -1) for planes in bank.planes])


def constants(network: Network, bank: Bank | None) -> Constants:
    """The arrays that the core reads, as text."""
    weights: Arrays = []
    rows = []
    for name in FLIGHT_LAYERS:
        layer, upper = network.layers[name], name.upper()
        weights += [(f"{upper}_WEIGHT", packed_weight(layer)), (f"{upper}_BIAS", layer.bias), (f"{upper}_SHIFT", layer.shift)]
        inputs = layer.weight.size // len(layer.bias)
        rows.append(f"    {{{upper}_WEIGHT, {upper}_BIAS, {upper}_SHIFT, {inputs}u, {len(layer.bias)}u, REMAC_PATH_BEST}}")
    combined = rans.combine(network)
    tables: Arrays = [("GAIN", network.gain), ("INVERSE_GAIN", network.inverse_gain), ("SCALE_OFFSET", network.scale_offset),
                      ("CONTEXT_SHIFT", network.context_shift.astype(np.int32)), ("ROUNDING", np.array(ROUNDING, np.int32)), ("SCORE", network.score),
                      ("TABLE_FIRST", combined.first), ("TABLE_START", combined.start), ("TABLE_CDF", combined.cdf),
                      ("TABLE_RECIPROCAL", combined.reciprocal)]
    banked: Arrays = [("BANK_Z", bank.z), ("BANK_FEATURES", bank_features(network, bank)), ("BANK_SEMANTIC", bank.semantic),
                      ("BANK_TEXTURE", bank.texture)] if bank else []
    text = ["/* ---- constants of the network ---- */\n\n", _bytes_literal("CODEC_HASH", network.hash),
            _bytes_literal("PROFILE", network.profile.encode("ascii").ljust(8, b"\0")), f"#define CODED_FROM {network.coded_from}\n",
            *(array(name, values) for name, values in weights + tables),
            f"static const remac_dense LAYERS[{len(rows)}] = {{\n", ",\n".join(rows), "\n};\n",
            f"static const remac_tables TABLES = {{TABLE_FIRST, TABLE_START, TABLE_CDF, TABLE_RECIPROCAL, NULL, {len(combined.first)}u}};\n"]
    if bank:
        text += ["\n#if REMAC_FLIGHT_BANK\n", f"#define BANK_ENTRIES {len(bank)}u\n", _bytes_literal("BANK_HASH", bank.hash),
                 *(array(name, values) for name, values in banked), "#endif\n"]
    sizes = [sum(values.nbytes for _, values in group) for group in (weights, tables, banked)]
    return Constants("".join(text), *sizes)


def inlined(path: Path, seen: set[Path]) -> Iterator[str]:
    """The text of a C file with its own headers in place of their #include lines; those with a guard once, templates every time."""
    text = path.read_text(encoding="utf-8")
    if path in seen and _GUARD.search(text):
        return
    seen.add(path)
    at = 0
    for match in _INCLUDE.finditer(text):
        yield text[at:match.start()]
        yield from inlined(path.parent / match[1], seen)
        at = match.end()
    yield text[at:]


def header(network: Network, bank: Bank | None) -> str:
    """remac_flight.h."""
    return (SOURCES / HEADER).read_text(encoding="utf-8").replace("/*@NETWORK@*/", network_macros(network, bank))


def source(content: Constants) -> str:
    """remac_flight.c: the library's sources, the constants, and the core, each under its own heading."""
    seen = {CSRC / "remac_x86.h"}       # left out
    parts = ["/* SPDX-License-Identifier: MIT */\n",
             "/* The flight encoder of remac: generated by export/flight_c.py, do not edit. See remac_flight.h and README.md. */\n",
             f'#include "{HEADER}"\n\n#include <string.h>\n\n',
             "/* Of the shared sources only what an encoder needs, without versions for several processors in one program. */\n",
             "#ifndef REMAC_FLIGHT_TOOLS\n#define REMAC_ENCODER_ONLY\n#endif\n#define REMAC_NO_CLONES\n\n"]
    for name in ("remac.c", "kernels.c", "analysis.c"):
        parts += [f"/* ==== csrc/{name} ==== */\n", *inlined(CSRC / name, seen), "\n"]
    parts.append(content.text)
    for name in CORE:
        parts += [f"\n/* ==== flight/{name} ==== */\n", (SOURCES / name).read_text(encoding="utf-8")]
    return "".join(parts)
