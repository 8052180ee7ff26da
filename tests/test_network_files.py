"""Network and bank files that break one rule of FORMAT 4, or a bound of FORMAT 1, are refused in one line that names it."""
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from remac_runtime.errors import BadNetwork
from remac_runtime.network import BANK_MAGIC, NETWORK_MAGIC, read_bank, read_container, read_network, write_container

Tensors = dict[str, NDArray[Any]]
Edit = Callable[[dict[str, Any], Tensors], None]


def rewritten(source: Path, target: Path, magic: bytes, edit: Edit) -> Path:
    """The file with other content, well formed as a container."""
    meta, tensors, _ = read_container(source, magic)
    copies = {name: tensor.copy() for name, tensor in tensors.items()}
    edit(meta, copies)
    write_container(target, magic, meta, copies)
    return target


def put(name: str, place: Any, value: int) -> Edit:
    """One value of a tensor; a layer's stored bound follows its weights and biases."""
    def edit(meta: dict[str, Any], tensors: Tensors) -> None:
        tensors[name][place] = value
        layer, _, field = name.rpartition(".")
        if field in ("weight", "bias"):
            weights = np.abs(tensors[f"{layer}.weight"].astype(np.int64)).reshape(len(tensors[f"{layer}.bias"]), -1).sum(1)
            tensors[f"{layer}.bound"] = (weights * 255 + np.abs(tensors[f"{layer}.bias"].astype(np.int64))).astype(np.int32)
    return edit


def without(name: str) -> Edit:
    def edit(meta: dict[str, Any], tensors: Tensors) -> None:
        del tensors[name]
    return edit


def cut(name: str) -> Edit:
    """A tensor without its last entry along the first axis."""
    def edit(meta: dict[str, Any], tensors: Tensors) -> None:
        tensors[name] = tensors[name][:-1]
    return edit


def say(**fields: Any) -> Edit:
    return lambda meta, tensors: meta.update(fields)


def short_table(meta: dict[str, Any], tensors: Tensors) -> None:
    """The first table of y loses all but its escape."""
    start = tensors["y.start"]
    tensors["y.cdf"] = np.concatenate([np.array([0, 1 << 14], np.uint16), tensors["y.cdf"][start[1]:]])
    start[1:] += 2 - int(start[1])


def table_missing(meta: dict[str, Any], tensors: Tensors) -> None:
    tensors["y.cdf"] = tensors["y.cdf"][:tensors["y.start"][-2]]
    tensors["y.first"], tensors["y.start"] = tensors["y.first"][:-1], tensors["y.start"][:-1]


def z_tables(count: int) -> Edit:
    """Another number of tables of z."""
    def edit(meta: dict[str, Any], tensors: Tensors) -> None:
        start = tensors["z.start"]
        tables = [np.arange(start[t % (len(start) - 1)], start[t % (len(start) - 1) + 1]) for t in range(count)]
        tensors["z.first"] = np.resize(tensors["z.first"], count)
        tensors["z.cdf"] = tensors["z.cdf"][np.concatenate(tables)]
        tensors["z.start"] = np.cumsum([0, *map(len, tables)]).astype(np.int32)
    return edit


def version_1(meta: dict[str, Any], tensors: Tensors) -> None:
    """As it was before tables adapted: one table for each channel of z, no score."""
    meta["version"] = 1
    z_tables(len(tensors["hyper_out.bias"]))(meta, tensors)
    del tensors["score"]


def high_head(meta: dict[str, Any], tensors: Tensors) -> None:
    put("scale0.bias", 0, 1 << 23)(meta, tensors)
    tensors["scale0.shift"][:] = -8


def narrow_layer(meta: dict[str, Any], tensors: Tensors) -> None:
    tensors["side_in.weight"] = np.ascontiguousarray(tensors["side_in.weight"][..., :-1])
    put("side_in.bias", 0, 0)(meta, tensors)                      # for its bound


def stored(name: str, dtype: Any, place: Any = 0, value: int = 0) -> Edit:
    """A tensor as another type, with one value that the right one may not hold."""
    def edit(meta: dict[str, Any], tensors: Tensors) -> None:
        tensors[name] = tensors[name].astype(dtype)
        tensors[name][place] = value
    return edit


def shaped(name: str, *shape: int) -> Edit:
    def edit(meta: dict[str, Any], tensors: Tensors) -> None:
        tensors[name] = tensors[name].reshape(shape)
    return edit


NETWORKS: dict[str, tuple[Edit, str]] = {
    "version 1": (version_1, "version 1, this build reads 2$"), "another version": (say(version=3), "version 3"),
    "a layer missing from the list": (say(layers=["stem"]), "layers are not those"),
    "coded_from 64": (say(coded_from=64), "coded_from"),
    "a tensor missing": (without("deep.bias"), "deep.bias"),
    "a weight of 65": (put("body.weight", (0, 0, 0, 0), 65), "body: a weight is beyond"),
    "a weight of -65": (put("body.weight", (0, 0, 0, 0), -65), "body: a weight is beyond"),
    "a shift of 17": (put("stem.shift", 0, 17), "stem: a shift is out of 0..16"),
    "a left shift of a uint8 layer": (put("stem.shift", 0, -1), "stem: a shift is out of 0..16"),
    "a left shift of 9 of a head": (put("head.shift", 0, -9), "head: a shift is out of -8..16"),
    "an accumulator bound of 2^24": (put("stem.bias", 0, 1 << 24), "stem: accumulator bound"),
    "a head that may reach 2^26": (high_head, "scale0: head output may reach"),
    "a stored bound that is not that of the weights": (put("stem.bound", 0, 5), "stem: the stored accumulator bound"),
    "a layer of other inputs": (narrow_layer, "side_in: takes 15 channels, its source gives 16"),
    "a gain of 0": (put("gain", (3, 1), 0), "gain is not"), "a gain of 2^24": (put("gain", (3, 1), 1 << 24), "gain is not"),
    "an inverse gain of 2^26": (put("inverse_gain", (0, 0), 1 << 26), "inverse_gain is not"),
    "63 qualities": (cut("gain"), "gain is not"),
    "a scale offset beyond 2^20": (put("scale_offset", (0, 0), (1 << 20) + 1), "scale_offset is not"),
    "a context shift of 17": (put("context_shift", 0, 17), "context_shift"),
    "no score": (without("score"), "'score'"),
    "a score of 4097": (put("score", (63, 15), 4097), r"score is not \[64,16\] in \+-4096"),
    "a score of -4097": (put("score", (0, 0), -4097), r"score is not \[64,16\] in \+-4096"),
    "a score of -2^15": (put("score", (3, 1), -1 << 15), "score is not"),
    "scores of 63 tables": (cut("score"), "score is not"), "scores of 32 sizes": (shaped("score", 32, 32), "score is not"),
    "a score with one side": (shaped("score", -1), r"score is int16\[1024\], expected i16 with 2 sides"),
    "a score of another type": (stored("score", np.int32), "score is int32"),
    "one table of z for each channel": (z_tables(16), "z has 16 tables, its channels need 112"),
    "a table of z missing": (z_tables(111), "z has 111 tables"), "a table of z too many": (z_tables(113), "z has 113 tables"),
    "a table that does not rise": (put("y.cdf", 1, 0), "CDF table 0 does not rise"),
    "a table that ends below 2^14": (put("z.cdf", -1, (1 << 14) - 1), "does not rise from 0 to its total"),
    "a table of the escape alone": (short_table, "no symbol besides the escape"),
    "tables that do not cover their data": (put("z.start", -1, 3), "do not cover their data"),
    "63 tables of y": (table_missing, "y has 63 tables"),
    "weights of another type": (stored("hidden0.weight", np.int32, (0, 0, 0, 0), 65537), r"hidden0.weight is int32\[.*expected i8 with 4 sides"),
    "biases of another type": (stored("stem.bias", np.int16), "stem.bias is int16"),
    "shifts of another type": (stored("stem.shift", np.uint8), "stem.shift"),
    "bounds of another type": (stored("deep.bound", np.uint16), "deep.bound is uint16"),
    "tables whose first symbol is 2^31 - 1": (stored("y.first", np.int32, 0, 2 ** 31 - 1), "y.first is int32.*expected i16 with 1 side$"),
    "signed probabilities": (stored("z.cdf", np.int16), "z.cdf is int16"),
    "gains of another type": (stored("gain", np.uint16, (0, 0), 1), "gain is uint16"),
    "a context shift with two sides": (shaped("context_shift", -1, 1), r"context_shift is int8\[32, 1\]"),
    "coded_from that is infinite": (say(coded_from=float("inf")), "infinity"),
    "a profile of nine characters": (say(profile="rover-max"), "profile 'rover-max' is not of up to 8"),
    "a profile that is not ASCII": (say(profile="rövér"), "profile 'rövér' is not"),
    "a profile that moves the cursor": (say(profile="\x1b[2J"), "is not of up"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_that_breaks_a_rule_is_refused(small_model: Path, tmp_path: Path, name: str) -> None:
    edit, message = NETWORKS[name]
    path = rewritten(small_model / "network.rmn", tmp_path / "network.rmn", NETWORK_MAGIC, edit)
    with pytest.raises(BadNetwork, match=message) as refused:
        read_network(path)
    assert str(path) in str(refused.value) and "\n" not in str(refused.value)


def test_scores_at_their_limits_are_read(small_model: Path, tmp_path: Path) -> None:
    def edit(meta: dict[str, Any], tensors: Tensors) -> None:
        tensors["score"][::2], tensors["score"][1::2] = 4096, -4096
    network = read_network(rewritten(small_model / "network.rmn", tmp_path / "network.rmn", NETWORK_MAGIC, edit))
    assert (network.score.min(), network.score.max()) == (-4096, 4096) and network.hyper == 16 and len(network.z_tables) == 112


def test_a_network_that_is_only_rewritten_is_read(small_model: Path, tmp_path: Path) -> None:
    path = rewritten(small_model / "network.rmn", tmp_path / "network.rmn", NETWORK_MAGIC, lambda meta, tensors: None)
    assert path.read_bytes() == (small_model / "network.rmn").read_bytes()


BANKS: dict[str, tuple[Edit, str]] = {
    "of another network": (say(codec_hash="0" * 16), "made for codec 0000000000000000"), "without descriptors": (without("texture"), "texture"),
    "descriptors of other references": (cut("semantic"), "do not fit"), "a hash that is none": (say(codec_hash="zz"), "damaged bank"),
    "planes of another type": (stored("planes", np.int32), "planes is int32.*expected u8 with 5 sides"),
    "places in one row": (shaped("z", 3, 16, 1, 16), "do not fit"),
    "a flat texture": (shaped("texture", -1), r"texture is uint8\[48\], expected u8 with 2"),
    "no references": (lambda meta, tensors: tensors.update({name: tensor[:0] for name, tensor in tensors.items()}), "do not fit"),
}


@pytest.mark.parametrize("name", BANKS)
def test_a_bank_that_breaks_a_rule_is_refused(small_model: Path, tmp_path: Path, name: str) -> None:
    edit, message = BANKS[name]
    path = rewritten(small_model / "bank.rmb", tmp_path / "bank.rmb", BANK_MAGIC, edit)
    with pytest.raises(BadNetwork, match=message):
        read_bank(path, read_network(small_model / "network.rmn"))


# ---- the container (FORMAT 4.1)

def _header(content: bytes, edit: Callable[[dict[str, Any]], object]) -> bytes:
    size = int.from_bytes(content[8:16], "little")
    header = json.loads(content[16:16 + size])
    edit(header)
    text = json.dumps(header).encode()
    return content[:8] + len(text).to_bytes(8, "little") + text + content[16 + size:]


CONTAINERS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda c: b"", "not a RMACNET1 file"), "another magic": (lambda c: b"RMACNET2" + c[8:], "not a RMACNET1 file"),
    "a header that passes the end": (lambda c: c[:8] + len(c).to_bytes(8, "little") + c[16:], "does not fit the file"),
    "a header that is not JSON": (lambda c: c[:16] + b"[" + c[17:], "damaged header"),
    "no tensors": (lambda c: _header(c, lambda h: h.pop("tensors")), "damaged header"),
    "no meta": (lambda c: _header(c, lambda h: h.pop("meta")), "damaged header"),
    "a type that does not exist": (lambda c: _header(c, lambda h: h["tensors"]["gain"].update(dtype="f32")), "damaged header"),
    "a negative side": (lambda c: _header(c, lambda h: h["tensors"]["gain"].update(shape=[-1, 4])), "gain has a negative side"),
    "a gap": (lambda c: _header(c, lambda h: h["tensors"]["stem.weight"].update(offset=4)), "stem.weight leaves a gap"),
    "a tensor that passes the end": (lambda c: c[:-1], "leaves a gap or passes the end"),
    "JSON as deep as the header": (lambda c: c[:8] + (1 << 18).to_bytes(8, "little") + b"[" * (1 << 18), "damaged header"),
    "an infinite side": (lambda c: _header(c, lambda h: h["tensors"]["gain"].update(shape=[float("inf"), 4])), "damaged header"),
    "bytes behind the last tensor": (lambda c: c + b"\0", "1 bytes after the last tensor"),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_damaged_container_is_refused(small_model: Path, tmp_path: Path, name: str) -> None:
    damage, message = CONTAINERS[name]
    path = tmp_path / "network.rmn"
    path.write_bytes(damage((small_model / "network.rmn").read_bytes()))
    with pytest.raises(BadNetwork, match=message):
        read_network(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadNetwork, match=r"nowhere\.rmn: cannot be read"):
        read_network(tmp_path / "nowhere.rmn")
