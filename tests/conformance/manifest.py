"""What is written of a vector: its stream, checksums of what it must decode to, and its entry in manifest.json."""
from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conformance.bad import BAD
from conformance.odd import ODDITIES
from conformance.pictures import Recipe
from conformance.vectors import SCENE, SCENE_QUALITY, VECTORS, Vector
from conformance.writer import Scene
from remac_runtime import reference
from remac_runtime.choices import PATTERNS
from remac_runtime.errors import RemacError
from remac_runtime.format import BAND_UNIT, LATENT_STRIDE
from remac_runtime.network import Bank, Network
from remac_runtime.reference_packets import crc32c, join_band, read_packets

FIELDS = {
    "file": "the stream, in the folder of the set",
    "recipe": "how the picture is made (tests/conformance/pictures.py)",
    "picture": "its samples as binary PGM or PPM, beside the manifest: what an encoder is given; null where only decoders are tested",
    "samples_sha256": "SHA-256 of 'DTYPE[SHAPE]' as text and the little-endian samples",
    "quality, band_rows, references, image_id, mosaic": "how an encoder is asked to code it; image_id null: derived (FORMAT 2.2)",
    "odd": "null: every encoder writes this very stream; else a valid stream that our encoder would not write, for decoders only",
    "stream_sha256": "SHA-256 of the stream",
    "latents_shape": "rows, columns, channels of y_hat (FORMAT 5.5)",
    "latents_sha256": "SHA-256 of 'int32[ROWS, COLUMNS, CHANNELS]' as text and y_hat in little-endian int32; 0 in the rows of lost bands",
    "latents_crc32c": "CRC-32C of y_hat in little-endian int32 alone",
    "latents_file": "y_hat itself, little-endian int32, in the folder of the set; null for most",
    "trace_crc32c": "CRC-32C of the output of every layer while encoding, bands one below the other; heads little-endian int32, others uint8",
    "covers, rules": "what it tests: in words, and the rules of FORMAT.md (tests/conformance/rules.py)",
    "bad: error": "class of the error that every decoder must end with; null: it decodes, but for the bands in 'lost'",
    "bad: lost": "exactly these bands are lost; of their rows nothing is compared",
}


def hash_of(array: NDArray[Any]) -> str:
    """SHA-256 over the shape as text and the little-endian samples."""
    return hashlib.sha256(f"{array.dtype.name}{list(array.shape)}".encode() + little_endian(array)).hexdigest()


def little_endian(array: NDArray[Any]) -> bytes:
    data = np.ascontiguousarray(array)
    return data.astype(data.dtype.newbyteorder("<"), copy=False).tobytes()


def checksum(data: bytes) -> str:
    """CRC-32C as 8 hex digits."""
    return f"{crc32c(data):08x}"


def scene_of(vector: Vector, samples: NDArray[Any], network: Network, bank: Bank | None) -> Scene:
    """The scene of an odd vector, with the references that its oddity chooses."""
    assert vector.odd is not None
    choose = ODDITIES[vector.odd].entries
    scene = Scene(samples, vector.recipe.depth, network, bank, vector.quality, vector.band_rows)
    if choose is None:
        return scene
    assert bank is not None
    entries = choose(scene.common.semantic, scene.common.texture, len(bank))
    return Scene(samples, vector.recipe.depth, network, bank, vector.quality, vector.band_rows, entries)


def stream_of(vector: Vector, samples: NDArray[Any], network: Network, bank: Bank | None, trace: reference.Trace | None = None) -> bytes:
    """The stream of a vector, by the reference encoder; `trace` collects the outputs of the layers."""
    bank = bank if vector.references else None
    if vector.odd is not None:
        return ODDITIES[vector.odd].make(scene_of(vector, samples, network, bank))
    return reference.encode(samples, vector.recipe.depth, network, bank, vector.quality, band_rows=vector.band_rows, image_id=vector.image_id,
                            trace=trace, mosaic=PATTERNS.index(vector.mosaic))


def trace_checksums(trace: reference.Trace, network: Network) -> dict[str, str]:
    return {name: checksum(little_endian(out.astype(np.int32 if network.layers[name].head else np.uint8))) for name, out in trace.items()}


def latents_entry(y_hat: NDArray[np.int32]) -> dict[str, Any]:
    return {"latents_shape": list(y_hat.shape), "latents_sha256": hash_of(y_hat), "latents_crc32c": checksum(little_endian(y_hat))}


def write_vector(vector: Vector, network: Network, bank: Bank | None, folder: Path) -> dict[str, Any]:
    """Write the stream of a vector and what else it has into `folder`; returns its entry."""
    samples = vector.recipe.samples()
    trace: reference.Trace | None = {} if vector.trace else None
    stream = stream_of(vector, samples, network, bank, trace)
    latents = reference.decode_latents(stream, network, bank)
    assert not latents.lost, f"{vector.name}: the reference does not decode its own stream"
    (folder / f"{vector.name}.rmc").write_bytes(stream)
    if vector.latents:
        (folder / f"{vector.name}.i32").write_bytes(little_endian(latents.y_hat))
    packets = read_packets(stream)
    bands = [join_band(packets, band)[0] for band in range(latents.header.bands())]
    return {
        "name": vector.name, "file": f"{vector.name}.rmc", "covers": vector.covers, "rules": sorted(vector.rules),
        "recipe": asdict(vector.recipe), "picture": None if vector.odd else f"pictures/{vector.recipe.file_name}",
        "samples_sha256": None if vector.odd else hash_of(samples),
        "quality": vector.quality, "band_rows": vector.band_rows, "references": vector.references, "image_id": vector.image_id, "odd": vector.odd,
        "mosaic": vector.mosaic,
        "stream_sha256": hashlib.sha256(stream).hexdigest(), "stream_bytes": len(stream), "bands": len(bands),
        "fragments": max(header.fragments for header in bands), "lanes_log2": sorted({header.coder & 15 for header in bands}),
        **latents_entry(latents.y_hat), "latents_file": f"{vector.name}.i32" if vector.latents else None,
        "trace_crc32c": trace_checksums(trace, network) if trace is not None else None,
    }


def write_bad(name: str, scene: Scene, folder: Path) -> dict[str, Any]:
    """Write a bad stream; returns its entry. What the reference makes of it must be what the case says."""
    case, (network, bank) = BAD[name], (scene.network, scene.bank)
    stream, outcome = case.make(scene), {}
    try:
        latents = reference.decode_latents(stream, network, bank)
        found: tuple[type[RemacError] | None, tuple[int, ...]] = (None, latents.lost)
        outcome = {"bands": latents.header.bands(), "band_rows": latents.header.band_units * BAND_UNIT, **latents_entry(latents.y_hat)}
    except RemacError as error:
        found = (type(error), ())
    assert found == (case.error, case.lost), f"{name}: the reference gives {found}, the case says {(case.error, case.lost)}"
    (folder / f"bad_{name}.rmc").write_bytes(stream)
    return {"name": f"bad_{name}", "file": f"bad_{name}.rmc", "covers": case.covers, "rules": sorted(case.rules),
            "error": case.error.__name__ if case.error else None, "lost": list(case.lost), "stream_sha256": hashlib.sha256(stream).hexdigest(),
            "stream_bytes": len(stream), **outcome}


def write_set(network: Network, bank: Bank | None, folder: Path, vectors: Sequence[Vector] = VECTORS) -> dict[str, Any]:
    """Write the files of a network and bank into `folder`; returns the manifest's set."""
    folder.mkdir(parents=True, exist_ok=True)
    scene = Scene(SCENE.samples(), SCENE.depth, network, bank, SCENE_QUALITY, BAND_UNIT)
    return {"profile": network.profile, "codec_hash": network.hash.hex(), "bank_hash": bank.hash.hex() if bank else None, "folder": folder.name,
            "vectors": [write_vector(vector, network, bank, folder) for vector in vectors], "bad": [write_bad(name, scene, folder) for name in BAD]}


def vector_of(entry: Mapping[str, Any]) -> Vector:
    fields = {name: entry[name] for name in ("name", "quality", "band_rows", "references", "image_id", "mosaic", "odd")}
    return Vector(recipe=Recipe(**entry["recipe"]), **fields)


def intact(y_hat: NDArray[np.int32], lost: Sequence[int], band_rows: int) -> NDArray[np.int32]:
    """The latents with 0 in the rows of lost bands, as their checksums have them."""
    rows = np.arange(len(y_hat)) // (band_rows // LATENT_STRIDE)
    return np.where(np.isin(rows, lost)[:, None, None], np.int32(0), y_hat)
