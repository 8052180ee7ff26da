"""The conformance vectors: pictures as recipes, the stream that every encoder must give, the latents that every decoder must give.

Expected values come from reference.py. REMAC_WRITE_VECTORS=1 is the only way to write them:

    REMAC_WRITE_VECTORS=1 python tests/make_vectors.py weights/rover-m    # adds or replaces the set of that network and bank
    python tests/make_vectors.py --inputs FOLDER                          # the pictures as PPM and PGM, to try a foreign program on them

Sets of earlier networks stay for ever (old streams keep decoding), unless --only drops them before a first release.
"""
from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
if __name__ == "__main__":
    sys.path[:0] = [str(ROOT / "runtime"), str(HERE)]

from terrain import hashed, terrain  # noqa: E402

from remac_runtime import reference  # noqa: E402
from remac_runtime.format import HYPER_STRIDE, LATENT_STRIDE, NO_REFERENCE, PAD_MULTIPLE  # noqa: E402
from remac_runtime.network import Bank, Network, read_bank, read_network  # noqa: E402
from remac_runtime.reference_packets import Header, join_band, read_packets, write_packet, write_stream  # noqa: E402

FOLDER = HERE / "vectors"
MANIFEST = FOLDER / "manifest.json"
WRITE_VARIABLE = "REMAC_WRITE_VECTORS"
SAMPLES = ROOT / "samples"


class SampleMissingError(Exception):
    """A picture of samples/ is not in this checkout."""


@dataclass(frozen=True)
class Recipe:
    """A picture: `source` is terrain, noise, flat, or the name of a PNG in samples/ of which (top, left, height, width) is cut."""

    source: str
    height: int
    width: int
    seed: int = 1
    depth: int = 8
    grey: bool = False
    top: int = 0
    left: int = 0

    def samples(self) -> NDArray[Any]:
        """uint8[H,W,3], uint8[H,W] or uint16[H,W]. Raises SampleMissingError."""
        if self.source == "terrain":
            return terrain(self.height, self.width, self.seed, depth=self.depth, grey=self.grey)
        shape = (self.height, self.width) if self.grey else (self.height, self.width, 3)
        if self.source == "noise":
            values = hashed(np.arange(int(np.prod(shape))), 0, self.seed).reshape(shape) >> 32 - self.depth
            return values.astype(np.uint8 if self.depth == 8 else np.uint16)
        if self.source == "flat":
            return np.full(shape, self.seed, np.uint8 if self.depth == 8 else np.uint16)
        path = SAMPLES / f"{self.source}.png"
        if not path.exists():
            raise SampleMissingError(f"{path} is not in this checkout")
        from PIL import Image

        with Image.open(path) as picture:
            window = np.asarray(picture.convert("RGB"))[self.top:self.top + self.height, self.left:self.left + self.width]
        assert window.shape == shape, f"{self} is not inside {path}"
        return window[..., 1].copy() if self.grey else window.copy()


@dataclass(frozen=True)
class Vector:
    """A recipe and how it is coded. `odd` names a valid stream that the shipped encoder would not write (see ODDITIES): only decoders run those."""

    name: str
    recipe: Recipe
    quality: int
    band_rows: int = 128
    references: bool = True
    image_id: int | None = None
    odd: str | None = None


def _edges() -> list[Vector]:
    """Sizes at the edges of latents, hyper-latents and bands, qualities and references in turn."""
    sizes = [(15, 16), (16, 17), (17, 15), (63, 64), (64, 65), (65, 63), (127, 128), (128, 129), (129, 127), (1, 1), (1, 200), (200, 1), (97, 131)]
    return [Vector(f"edge_{height}x{width}", Recipe("terrain", height, width, seed=i + 1), (32, 13, 50, 0, 63)[i % 5], references=i % 2 == 0)
            for i, (height, width) in enumerate(sizes)]


def _qualities() -> list[Vector]:
    return [Vector(f"quality_{q}", Recipe("spirit_husband_hill_terrain", 60, 120, top=40, left=200), q) for q in (0, 13, 32, 50, 63)]


VECTORS: tuple[Vector, ...] = (
    *_edges(),
    *_qualities(),
    Vector("no_references", Recipe("spirit_husband_hill_terrain", 60, 120, top=40, left=200), 32, references=False),
    Vector("rover_deck", Recipe("spirit_husband_hill_summit", 128, 128, top=240, left=900), 40, band_rows=64),
    Vector("grey_8", Recipe("terrain", 65, 129, seed=22, grey=True), 32),
    Vector("grey_9", Recipe("terrain", 40, 40, seed=23, depth=9, grey=True), 50),
    Vector("grey_12", Recipe("terrain", 64, 96, seed=24, depth=12, grey=True), 32, references=False),
    Vector("grey_16", Recipe("noise", 50, 60, seed=25, depth=16, grey=True), 32),
    Vector("flat_black", Recipe("flat", 70, 64, seed=0), 20),
    Vector("flat_white", Recipe("flat", 64, 64, seed=255, grey=True), 63),
    Vector("bands_64", Recipe("terrain", 193, 64, seed=26), 28, band_rows=64),
    Vector("bands_256", Recipe("terrain", 257, 50, seed=27), 45, band_rows=256),
    Vector("bands_16320", Recipe("terrain", 130, 64, seed=28), 13, band_rows=16320, references=False),
    Vector("image_id", Recipe("terrain", 30, 30, seed=29), 32, image_id=0xFFFFFFFF),
    Vector("fragments", Recipe("noise", 256, 256, seed=30), 63, band_rows=256),
    Vector("odd_qualities", Recipe("terrain", 192, 64, seed=31), 32, band_rows=64, odd="qualities"),
    Vector("odd_lanes", Recipe("terrain", 64, 128, seed=32), 40, odd="lanes"),
    Vector("odd_order", Recipe("terrain", 192, 64, seed=33), 32, band_rows=64, odd="order"),
    Vector("odd_no_header", Recipe("terrain", 128, 64, seed=34), 32, band_rows=64, odd="no_header"),
    Vector("odd_texture_only", Recipe("terrain", 64, 64, seed=35), 32, odd="texture_only"),
    Vector("odd_semantic_only", Recipe("terrain", 64, 64, seed=36), 32, odd="semantic_only"),
    Vector("odd_minor", Recipe("terrain", 64, 64, seed=37), 32, odd="minor"),
)

ODDITIES = {
    "qualities": "every band has its own quality",
    "lanes": "256 lanes for few symbols",
    "order": "packets in reverse order, noise between them, one of them twice",
    "no_header": "the header packet is lost",
    "texture_only": "a texture reference, but none for the entropy parameters",
    "semantic_only": "a reference for the entropy parameters, but none for the ground decoder",
    "minor": "a later minor version with a longer header payload",
}


# ---- streams

def stream_of(vector: Vector, samples: NDArray[Any], network: Network, bank: Bank | None) -> bytes:
    """The stream of a vector, by the reference encoder."""
    bank = bank if vector.references else None
    if vector.odd in ("lanes", "texture_only", "semantic_only"):
        return _recoded(vector, samples, network, bank)
    qualities = [(21 * i + 63) % 64 for i in range(-(-vector.recipe.height // vector.band_rows))] if vector.odd == "qualities" else None
    stream = reference.encode(samples, vector.recipe.depth, network, bank, vector.quality, band_rows=vector.band_rows, image_id=vector.image_id,
                              band_qualities=qualities)
    return _rearranged(vector, stream) if vector.odd in ("order", "no_header", "minor") else stream


def _recoded(vector: Vector, samples: NDArray[Any], network: Network, bank: Bank | None) -> bytes:
    """The bands coded again with other references or lanes than the encoder of FORMAT 5.4 and 6.2 chooses."""
    assert bank is not None
    run = reference.Run(network)
    y, z, texture, semantic = reference.analyse(run, reference.pixel_tensor(samples, vector.recipe.depth))
    entries = list(reference.choose_references(bank, texture, semantic))
    if vector.odd in ("texture_only", "semantic_only"):
        entries[vector.odd == "semantic_only"] = NO_REFERENCE
    common = Header(b"", 0, 0, 0, 0, 0, 0, network.hash[:4], bank.hash[:4], samples.shape[1], samples.shape[0], vector.recipe.depth - 1,
                    vector.band_rows // 64, 0, 0, 1, entries[0], entries[1], 0)
    used = reference.open_reference(run, bank, entries[0])
    bands = []
    for band in range(common.bands()):
        coded = reference.code_band(run, used, y[common.rows(band, LATENT_STRIDE)], z[common.rows(band, HYPER_STRIDE)], vector.quality)
        lanes_log2 = 8 if vector.odd == "lanes" else reference.lanes_log2_for(len(coded))
        bands.append((vector.quality, lanes_log2, reference.encode_symbols(coded, lanes_log2)))
    return write_stream(common, network, bank, vector.quality, bands)


def _rearranged(vector: Vector, stream: bytes) -> bytes:
    packets = read_packets(stream)
    written = [write_packet(*packet) for packet in packets]
    if vector.odd == "no_header":
        return b"".join(written[1:])
    if vector.odd == "minor":
        header, payload = packets[0]
        return write_packet(header, payload[:1] + b"\7" + payload[2:] + b"later fields") + b"".join(written[1:])
    assert vector.odd == "order"
    return b"RMP1 noise".join([*reversed(written), written[1]])


# ---- hashes

def hash_of(array: NDArray[Any]) -> str:
    """SHA-256 over the shape as text and the little-endian samples."""
    data = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    return hashlib.sha256(f"{data.dtype.name}{list(data.shape)}".encode() + data.tobytes()).hexdigest()


def entry_of(vector: Vector, samples: NDArray[Any], stream: bytes, latents: reference.Latents) -> dict[str, Any]:
    """The manifest's entry: how to make the vector, what must come out, and what it covers."""
    packets = read_packets(stream)
    bands = [join_band(packets, band)[0] for band in range(latents.header.bands())]
    return {
        "name": vector.name, "recipe": asdict(vector.recipe), "quality": vector.quality, "band_rows": vector.band_rows,
        "references": vector.references, "image_id": vector.image_id, "odd": vector.odd,
        "samples_sha256": hash_of(samples), "latents_sha256": hash_of(latents.y_hat), "stream_sha256": hashlib.sha256(stream).hexdigest(),
        "stream_bytes": len(stream), "bands": len(bands), "fragments": max(header.fragments for header in bands),
        "lanes_log2": sorted({header.coder & 15 for header in bands}),
    }


def vector_of(entry: Mapping[str, Any]) -> Vector:
    fields = {name: entry[name] for name in ("name", "quality", "band_rows", "references", "image_id", "odd")}
    return Vector(recipe=Recipe(**entry["recipe"]), **fields)


def padded_pixels(vectors: Iterable[Vector]) -> int:
    return sum((-(-v.recipe.height // PAD_MULTIPLE)) * (-(-v.recipe.width // PAD_MULTIPLE)) * PAD_MULTIPLE ** 2 for v in vectors)


# ---- writing

def make_set(network: Network, bank: Bank | None, folder: Path, vectors: Sequence[Vector] = VECTORS) -> dict[str, Any]:
    """Write the streams of a network and bank into `folder`; returns the manifest's set."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for vector in vectors:
        samples = vector.recipe.samples()
        stream = stream_of(vector, samples, network, bank)
        latents = reference.decode_latents(stream, network, bank)
        assert not latents.lost, f"{vector.name}: the reference does not decode its own stream"
        (folder / f"{vector.name}.rmc").write_bytes(stream)
        entries.append(entry_of(vector, samples, stream, latents))
    return {"profile": network.profile, "codec_hash": network.hash.hex(), "bank_hash": bank.hash.hex() if bank else None, "folder": folder.name,
            "vectors": entries}


def read_manifest() -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads(MANIFEST.read_text()) if MANIFEST.exists() else {"format": 1, "sets": []}
    return manifest


def table_of(manifest: Mapping[str, Any]) -> str:
    """README.md of the vectors: what each of them covers, one table a set."""
    lines = ["# Conformance vectors", "", "Generated by `tests/make_vectors.py` from manifest.json; do not edit. A vector is a recipe for a picture,",
             "the stream that every encoder must write for it, and the SHA-256 of the latents that every decoder must give.", ""]
    for chosen in manifest["sets"]:
        lines += [f"## {chosen['profile']}, codec {chosen['codec_hash']}, bank {chosen['bank_hash']}", "",
                  "| vector | picture | size | samples | quality | references | bands of rows | packets a band | lanes | bytes | oddity |",
                  "|---|---|---|---|---|---|---|---|---|---|---|"]
        for e in chosen["vectors"]:
            recipe = e["recipe"]
            kind = f"{recipe['depth']}-bit {'grey' if recipe['grey'] else 'RGB'}"
            lanes = ", ".join(str(1 << n) for n in e["lanes_log2"])
            lines.append(f"| {e['name']} | {recipe['source']} | {recipe['width']}x{recipe['height']} | {kind} | {e['quality']} | "
                         f"{'yes' if e['references'] else 'no'} | {e['bands']} x {e['band_rows']} | {e['fragments']} | {lanes} | "
                         f"{e['stream_bytes']} | {ODDITIES[e['odd']] if e['odd'] else ''} |")
        lines.append("")
    return "\n".join(lines)


def write_manifest(manifest: Mapping[str, Any]) -> None:
    MANIFEST.write_text(json.dumps(manifest, indent=1) + "\n")
    (FOLDER / "README.md").write_text(table_of(manifest))


def write_inputs(folder: Path) -> None:
    """Every picture as binary PPM or PGM."""
    folder.mkdir(parents=True, exist_ok=True)
    for vector in VECTORS:
        samples, recipe = vector.recipe.samples(), vector.recipe
        head = f"{'P5' if recipe.grey else 'P6'}\n{recipe.width} {recipe.height}\n{2 ** recipe.depth - 1}\n".encode()
        (folder / f"{vector.name}.{'pgm' if recipe.grey else 'ppm'}").write_bytes(head + samples.astype(samples.dtype.newbyteorder(">")).tobytes())


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("weights", nargs="?", type=Path, help="folder with network.rmn and bank.rmb")
    parser.add_argument("--only", action="store_true", help="drop the sets of other networks and banks")
    parser.add_argument("--inputs", type=Path, metavar="FOLDER", help="write the pictures instead")
    options = parser.parse_args(arguments)
    if options.inputs:
        write_inputs(options.inputs)
        return 0
    if options.weights is None or os.environ.get(WRITE_VARIABLE) != "1":
        parser.error(f"vectors are written only with {WRITE_VARIABLE}=1 and a weights folder; changing a released one takes a line in the changelog")
    network = read_network(options.weights / "network.rmn")
    bank = read_bank(options.weights / "bank.rmb", network)
    name = f"{network.profile}-{network.hash.hex()[:8]}-{bank.hash.hex()[:8]}"
    manifest = read_manifest()
    kept = [] if options.only else [s for s in manifest["sets"] if s["folder"] != name]
    for dropped in (s for s in manifest["sets"] if s not in kept):
        for entry in dropped["vectors"]:
            (FOLDER / dropped["folder"] / f"{entry['name']}.rmc").unlink(missing_ok=True)
    added = make_set(network, bank, FOLDER / name)
    write_manifest({"format": 1, "sets": [*kept, added]})
    for folder in (p for p in FOLDER.iterdir() if p.is_dir() and not any(p.iterdir())):
        folder.rmdir()
    total = sum(entry["stream_bytes"] for entry in added["vectors"])
    print(f"{len(added['vectors'])} vectors of {name}, {total} bytes of streams, {padded_pixels(VECTORS)} padded pixels")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
