"""Network and bank files (FORMAT 4): read, validate, write. All rules of FORMAT 4 and the overflow proof are checked at load."""
from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from remac_runtime.errors import BadNetwork
from remac_runtime.files import write_atomically
from remac_runtime.format import (
    ACCUMULATOR_LIMIT,
    ACTIVATION_MAX,
    GAIN_MAX,
    HEAD_LIMIT,
    HEAD_SHIFT_MIN,
    HYPER_CONTEXTS,
    INVERSE_GAIN_MAX,
    PHASES,
    PROBABILITY_BITS,
    QUALITIES,
    SCALE_LEVELS,
    SCORE_LIMIT,
    SCORE_SIZES,
    SHIFT_MAX,
    WEIGHT_MAX,
)

NETWORK_MAGIC = b"RMACNET1"
BANK_MAGIC = b"RMACBNK1"
FILE_VERSION = 2
PROFILE_BYTES = 8       # of a name in the details of the stream (FORMAT 2.1)
_CODES = {"u8": "u1", "i8": "i1", "u16": "<u2", "i16": "<i2", "i32": "<i4"}
_DTYPES: dict[str, np.dtype[Any]] = {name: np.dtype(code) for name, code in _CODES.items()}
_HEADER_LIMIT = 1 << 20

Tensors = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Layer:
    """One integer layer (FORMAT 5.2): weight int8[out,k,k,in], bias int32[out], shift int8[out]; `head` gives int32 instead of uint8."""

    name: str
    weight: NDArray[np.int8]
    bias: NDArray[np.int32]
    shift: NDArray[np.int8]
    stride: int
    head: bool

    def bound(self) -> NDArray[np.int64]:
        """Largest absolute accumulator of each channel, of any partial sum in any order, for every uint8 input: int64[out]."""
        weights = np.abs(self.weight.astype(np.int64)).reshape(len(self.weight), -1).sum(1)
        bound: NDArray[np.int64] = weights * ACTIVATION_MAX + np.abs(self.bias.astype(np.int64))
        return bound


@dataclass(frozen=True)
class Tables:
    """CDF tables (FORMAT 4.2): table t is cdf[start[t]:start[t+1]], its entry j stands for symbol first[t] + j, the last entry is the escape."""

    first: NDArray[np.int32]
    start: NDArray[np.int32]
    cdf: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.first)


@dataclass(frozen=True)
class Network:
    """The normative integer network. `hash` is the first 8 bytes of SHA-256 over the file."""

    profile: str
    hash: bytes
    layers: Mapping[str, Layer]
    gain: NDArray[np.int32]
    inverse_gain: NDArray[np.int32]
    scale_offset: NDArray[np.int32]
    context_shift: NDArray[np.int8]
    score: NDArray[np.int16]
    coded_from: int
    z_tables: Tables
    y_tables: Tables

    @property
    def latents(self) -> int:
        return len(self.context_shift)

    @property
    def hyper(self) -> int:
        return len(self.layers["hyper_out"].bias)

    @property
    def reference_features(self) -> int:
        return len(self.layers["reference"].bias)

    @property
    def context(self) -> int:
        """Channels of a decoded neighbour that the entropy parameters look at (FORMAT 4.2)."""
        inputs = int(self.layers["hidden1"].weight.shape[3])
        return (inputs - len(self.layers["side_out"].bias) - self.reference_features) // 4


@dataclass(frozen=True)
class Bank:
    """Reference bank (FORMAT 4.3): z uint8[R,4,4,Z], planes uint8[R,4,8,8,M], descriptors uint8[R,C]."""

    hash: bytes
    codec_hash: bytes
    z: NDArray[np.uint8]
    planes: NDArray[np.uint8]
    texture: NDArray[np.uint8]
    semantic: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.z)


STRIDE_2 = ("reduce",)
KERNEL_3 = ("body", "reduce", "deep", "side_mid", "side_out")
HEADS = ("head", *(f"{kind}{p}" for kind in ("mean", "scale") for p in range(len(PHASES))))
LAYERS = ("stem", "body", "reduce", "deep", "head", "hyper_in", "hyper_out", "side_in", "side_mid", "side_out", "reference",
          *(f"{kind}{p}" for p in range(len(PHASES)) for kind in ("hidden", "mean", "scale")))


# Type and number of sides of every tensor (FORMAT 4.2, 4.3). A type is a bound, too: y.first in i16 keeps the symbols of all tables in SYMBOL_LIMIT.
_LAYER_TENSORS = {"weight": ("i8", 4), "bias": ("i32", 1), "shift": ("i8", 1), "bound": ("i32", 1)}
_TABLE_TENSORS = {"first": ("i16", 1), "start": ("i32", 1), "cdf": ("u16", 1)}
NETWORK_TENSORS = {
    **{f"{name}.{part}": kind for name in LAYERS for part, kind in _LAYER_TENSORS.items()},
    "gain": ("i32", 2), "inverse_gain": ("i32", 2), "scale_offset": ("i32", 2), "context_shift": ("i8", 1),
    "score": ("i16", 2),
    **{f"{name}.{part}": kind for name in ("z", "y") for part, kind in _TABLE_TENSORS.items()}}
BANK_TENSORS = {"z": ("u8", 4), "planes": ("u8", 5), "texture": ("u8", 2), "semantic": ("u8", 2)}


def write_container(path: Path, magic: bytes, meta: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """Write a container atomically; returns the first 8 bytes of its SHA-256. The same content always gives the same bytes."""
    entries, body, offset = {}, [], 0
    names = {dtype: name for name, dtype in _DTYPES.items()}
    for name, tensor in tensors.items():
        data = np.ascontiguousarray(tensor).astype(tensor.dtype.newbyteorder("<"), copy=False)
        entries[name] = {"dtype": names[data.dtype], "shape": list(data.shape), "offset": offset}
        body.append(data.tobytes())
        offset += data.nbytes
    header = json.dumps({"meta": dict(meta), "tensors": entries}, separators=(",", ":")).encode()
    content = b"".join([magic, len(header).to_bytes(8, "little"), header, *body])
    write_atomically(path, content)
    return hashlib.sha256(content).digest()[:8]


def read_container(path: Path, magic: bytes) -> tuple[dict[str, Any], Tensors, bytes]:
    """(meta, tensors, hash) of a container. Raises BadNetwork on any violation of FORMAT 4.1."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadNetwork(f"{path}: cannot be read ({error.strerror}): build it with `make encoder` or name its folder") from None
    if content[:8] != magic:
        raise BadNetwork(f"{path}: not a {magic.decode()} file (magic {content[:8]!r})")
    size = int.from_bytes(content[8:16], "little")
    if size > min(_HEADER_LIMIT, len(content) - 16):
        raise BadNetwork(f"{path}: header of {size} bytes does not fit the file")
    try:
        header = json.loads(content[16:16 + size])
        tensors = _tensors(header["tensors"], memoryview(content)[16 + size:])
        meta = dict(header["meta"])
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:     # numbers and depth that JSON allows
        raise BadNetwork(f"{path}: damaged header ({error})") from None
    return meta, tensors, hashlib.sha256(content).digest()[:8]


def _tensors(entries: Mapping[str, Any], body: memoryview) -> Tensors:
    tensors: Tensors = {}
    end = 0
    for name, entry in entries.items():
        dtype, shape = _DTYPES[entry["dtype"]], tuple(int(n) for n in entry["shape"])
        count = 1
        for n in shape:
            if n < 0:
                raise ValueError(f"{name} has a negative side")
            count *= n
        if entry["offset"] != end or end + count * dtype.itemsize > len(body):
            raise ValueError(f"{name} leaves a gap or passes the end")
        tensors[name] = np.frombuffer(body, dtype, count, end).reshape(shape)
        end += count * dtype.itemsize
    if end != len(body):
        raise ValueError(f"{len(body) - end} bytes after the last tensor")
    return tensors


def read_network(path: Path) -> Network:
    """Read and validate a network file. Raises BadNetwork."""
    meta, tensors, digest = read_container(path, NETWORK_MAGIC)
    try:
        if meta["version"] != FILE_VERSION:
            raise ValueError(f"version {meta['version']}, this build reads {FILE_VERSION}")
        network = _network(meta, tensors, digest)
        _validate(network, tensors)
    except (ValueError, KeyError, TypeError, IndexError, OverflowError) as error:
        raise BadNetwork(f"{path}: {error}") from None
    return network


def _network(meta: Mapping[str, Any], tensors: Tensors, digest: bytes) -> Network:
    if tuple(meta["layers"]) != LAYERS:
        raise ValueError("its layers are not those of FORMAT 4.2")
    profile = str(meta["profile"])
    _require(len(profile) <= PROFILE_BYTES and profile.isascii() and profile.isprintable(),
             f"profile {profile!r} is not of up to {PROFILE_BYTES} printable ASCII characters")
    _check_types(tensors, NETWORK_TENSORS)
    layers = {name: Layer(name, tensors[f"{name}.weight"], tensors[f"{name}.bias"].astype(np.int32), tensors[f"{name}.shift"],
                          2 if name in STRIDE_2 else 1, name in HEADS) for name in LAYERS}
    tables = {kind: Tables(*(tensors[f"{kind}.{part}"].astype(np.int32) for part in ("first", "start", "cdf"))) for kind in ("z", "y")}
    return Network(profile, digest, layers, tensors["gain"], tensors["inverse_gain"], tensors["scale_offset"],
                   tensors["context_shift"], tensors["score"], int(meta["coded_from"]), tables["z"], tables["y"])


def _check_types(tensors: Tensors, expected: Mapping[str, tuple[str, int]]) -> None:
    for name, (dtype, sides) in expected.items():
        tensor = tensors[name]
        _require(tensor.dtype == _DTYPES[dtype] and tensor.ndim == sides,
                 f"{name} is {tensor.dtype}{list(tensor.shape)}, expected {dtype} with {sides} side{'s' if sides > 1 else ''}")


def _require(holds: object, message: str) -> None:
    if not holds:
        raise ValueError(message)


def _validate(network: Network, tensors: Tensors) -> None:
    for name, layer in network.layers.items():
        _validate_layer(layer, tensors[f"{name}.bound"])
    _validate_chain(network)
    m = network.latents
    for name, low, high in (("gain", 1, GAIN_MAX - 1), ("inverse_gain", 1, INVERSE_GAIN_MAX - 1), ("scale_offset", -(1 << 20), 1 << 20)):
        value = getattr(network, name)
        inside = value.shape == (QUALITIES, m) and low <= value.min() and value.max() <= high
        _require(inside, f"{name} is not [{QUALITIES},{m}] in {low}..{high}")
    _require(network.context_shift.min() >= 0 and network.context_shift.max() <= SHIFT_MAX, "context_shift is out of range")
    score = network.score
    inside = score.shape == (SCALE_LEVELS, SCORE_SIZES) and score.min() >= -SCORE_LIMIT and score.max() <= SCORE_LIMIT
    _require(inside, f"score is not [{SCALE_LEVELS},{SCORE_SIZES}] in +-{SCORE_LIMIT}")
    _require(0 <= network.coded_from < SCALE_LEVELS, "coded_from is out of range")
    _require(len(network.y_tables) == SCALE_LEVELS, f"y has {len(network.y_tables)} tables")
    for tables in (network.z_tables, network.y_tables):
        _validate_tables(tables)


def _validate_layer(layer: Layer, stored_bound: NDArray[Any]) -> None:
    name, kernel = layer.name, 3 if layer.name in KERNEL_3 else 1
    outputs = len(layer.bias)
    shapes = (layer.weight.shape[:-1], layer.shift.shape)
    _require(shapes == ((outputs, kernel, kernel), (outputs,)), f"{name}: wrong shape")
    _require(np.abs(layer.weight.astype(np.int16)).max() <= WEIGHT_MAX, f"{name}: a weight is beyond +-{WEIGHT_MAX}")
    low = HEAD_SHIFT_MIN if layer.head else 0
    _require(low <= layer.shift.min() and layer.shift.max() <= SHIFT_MAX, f"{name}: a shift is out of {low}..{SHIFT_MAX}")
    bound = layer.bound()
    _require(np.array_equal(bound, stored_bound), f"{name}: the stored accumulator bound is not that of its weights")
    _require(bound.max() < ACCUMULATOR_LIMIT, f"{name}: accumulator bound {bound.max()} reaches {ACCUMULATOR_LIMIT}")
    if layer.head:
        outputs_bound = bound * 2.0 ** -layer.shift.astype(np.float64)
        _require(outputs_bound.max() < HEAD_LIMIT, f"{name}: head output may reach {outputs_bound.max():.0f}")


def _validate_chain(network: Network) -> None:
    """Every layer takes what its source in FORMAT 4.2 gives."""
    width = {name: len(layer.bias) for name, layer in network.layers.items()}
    m, context = network.latents, network.context
    _require(0 < context <= m, f"hidden1 looks at {context} channels of {m}")
    expected = {"stem": 192, "body": width["stem"], "reduce": width["body"], "deep": width["reduce"], "head": width["deep"] + 768,
                "hyper_in": 4 * width["deep"], "hyper_out": 4 * width["hyper_in"], "side_in": width["hyper_out"], "side_mid": width["side_in"],
                "side_out": width["side_mid"], "reference": 4 * m}
    for p in range(len(PHASES)):
        expected[f"hidden{p}"] = width["side_out"] + width["reference"] + (4 * context if p else 0)
        expected[f"mean{p}"] = expected[f"scale{p}"] = width[f"hidden{p}"]
        _require(width[f"mean{p}"] == m and width[f"scale{p}"] == m, f"phase {p}: mean and scale do not have {m} channels")
    for name, layer in network.layers.items():
        _require(layer.weight.shape[3] == expected[name], f"{name}: takes {layer.weight.shape[3]} channels, its source gives {expected[name]}")
    _require(width["head"] == m, f"head has {width['head']} channels, the gains {m}")
    wanted = HYPER_CONTEXTS * width["hyper_out"]
    _require(len(network.z_tables) == wanted, f"z has {len(network.z_tables)} tables, its channels need {wanted}")


def _validate_tables(tables: Tables) -> None:
    start, cdf = tables.start, tables.cdf
    _require(len(start) == len(tables) + 1 and start[0] == 0 and start[-1] == len(cdf), "CDF tables do not cover their data")
    _require(np.all(np.diff(start) >= 3), "a CDF table has no symbol besides the escape")
    for t in range(len(tables)):
        table = cdf[start[t]:start[t + 1]]
        rises = table[0] == 0 and table[-1] == 1 << PROBABILITY_BITS and np.all(np.diff(table) > 0)
        _require(rises, f"CDF table {t} does not rise from 0 to its total")


def read_bank(path: Path, network: Network) -> Bank:
    """Read and validate a bank file for a network. Raises BadNetwork."""
    meta, tensors, digest = read_container(path, BANK_MAGIC)
    try:
        _check_types(tensors, BANK_TENSORS)
        bank = Bank(digest, bytes.fromhex(meta["codec_hash"]), tensors["z"], tensors["planes"], tensors["texture"], tensors["semantic"])
    except (ValueError, KeyError, TypeError) as error:
        raise BadNetwork(f"{path}: damaged bank ({error})") from None
    count = len(bank)
    shapes = (bank.z.shape, bank.planes.shape, bank.texture.shape, bank.semantic.shape)
    body, deep = (len(network.layers[name].bias) for name in ("body", "deep"))
    if shapes != ((count, 4, 4, network.hyper), (count, 4, 8, 8, network.latents), (count, body), (count, deep)) or not 0 < count < 255:
        raise BadNetwork(f"{path}: its tensors do not fit the network")
    if bank.codec_hash != network.hash:
        raise BadNetwork(f"{path}: made for codec {bank.codec_hash.hex()}, the network is {network.hash.hex()}: build both together")
    return bank


def write_network(path: Path, profile: str, coded_from: int, layers: Mapping[str, Layer], tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """Write a network file: `layers` in the order of LAYERS, `tensors` the further ones of FORMAT 4.2. Returns its hash."""
    content: Tensors = {}
    for name in LAYERS:
        layer = layers[name]
        content.update({f"{name}.weight": layer.weight, f"{name}.bias": layer.bias, f"{name}.shift": layer.shift,
                        f"{name}.bound": layer.bound().astype(np.int32)})
    content.update(tensors)
    meta = {"profile": profile, "version": FILE_VERSION, "coded_from": coded_from, "layers": list(LAYERS)}
    return write_container(path, NETWORK_MAGIC, meta, content)


def write_bank(path: Path, profile: str, codec_hash: bytes, tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """Write a bank file (FORMAT 4.3). Returns its hash."""
    return write_container(path, BANK_MAGIC, {"profile": profile, "codec_hash": codec_hash.hex()},
                           {name: tensors[name] for name in BANK_TENSORS})
