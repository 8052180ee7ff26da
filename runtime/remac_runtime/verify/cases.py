"""What `remac verify` has encoded and decoded: pictures, and the vectors of the conformance suite."""
from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from remac_runtime.choices import PATTERNS
from remac_runtime.errors import BadInput
from remac_runtime.format import BAND_ROWS, LATENT_STRIDE
from remac_runtime.images import load_picture, save_picture
from remac_runtime.model import Model

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Case:
    """A picture and how it is coded. Without `picture`, only the stream is at hand: decoders alone have a part. `stream` and `latents_sha256` are
    what must come out, None until the reference has said it; `lost` are the bands that a decoder must report as lost, `error` is the class of the
    error that it must end with. `odd` streams are none that an encoder writes."""

    name: str
    width: int
    height: int
    depth: int
    grey: bool
    quality: int
    picture: Path | None
    band_rows: int = BAND_ROWS
    references: bool = True
    image_id: int | None = None
    mosaic: str = PATTERNS[0]
    stream: Path | None = None
    latents_sha256: str | None = None
    lost: tuple[int, ...] = ()
    error: str = ""
    odd: bool = False

    @property
    def pixels(self) -> int:
        return self.width * self.height

    def options(self) -> dict[str, Any]:
        """What an encoder is told."""
        return {"quality": self.quality, "band_rows": self.band_rows, "references": self.references, "image_id": self.image_id,
                "mosaic": self.mosaic}


def hash_of(array: NDArray[Any]) -> str:
    """SHA-256 over type and shape as text and the little-endian samples, as in the manifest of the vectors."""
    data = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    return hashlib.sha256(f"{data.dtype.name}{list(data.shape)}".encode() + data.tobytes()).hexdigest()


def from_pictures(paths: Sequence[Path], chosen: Sequence[int], folder: Path, references: bool) -> list[Case]:
    """One case a picture and quality; the pictures are written to `folder` as PPM and PGM, which every runtime can read. Raises BadInput."""
    cases: list[Case] = []
    for number, path in enumerate(paths):
        picture = load_picture(path)
        copy = folder / f"{number:02}-{re.sub(r'[^A-Za-z0-9._-]', '_', path.stem)}.{'pgm' if picture.grey else 'ppm'}"
        folder.mkdir(parents=True, exist_ok=True)
        save_picture(picture, copy)
        rows, columns = picture.samples.shape[:2]
        cases += [Case(f"{path.name}, quality {q}", columns, rows, picture.depth, picture.grey, q, copy, references=references) for q in chosen]
    return cases


# ---- the conformance suite

def find_vectors(named: Path | None, model: Model) -> Path | None:
    """The folder of the vectors: the one named, else `vectors` in the model folder, else tests/vectors of the checkout this package lies in."""
    if named:
        if not (named / MANIFEST).is_file():
            raise BadInput(f"{named / MANIFEST}: missing: name the folder of the vectors with --vectors")
        return named
    places = (model.folder / "vectors", Path(__file__).resolve().parents[3] / "tests" / "vectors")
    return next((place for place in places if (place / MANIFEST).is_file()), None)


def from_vectors(folder: Path, model: Model) -> list[Case]:
    """The vectors of the model's network and bank, damaged streams included. Raises BadInput where there are none."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        bank = model.bank.hash.hex() if model.bank else None
        chosen = [s for s in manifest["sets"] if s["codec_hash"] == model.network.hash.hex() and s["bank_hash"] == bank][:1]
        cases = [case for s in chosen for read, kind in ((_vector, "vectors"), (_bad, "bad")) for case in (read(folder, s, e) for e in s[kind])]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{folder / MANIFEST}: not a manifest of vectors ({type(error).__name__}: {error})") from None
    if not cases:
        raise BadInput(f"{folder}: no vectors of codec {model.network.hash.hex()} with bank {bank}: name another folder with --vectors, or pictures")
    return cases


def _stream(folder: Path, vectors: Mapping[str, Any], entry: Mapping[str, Any]) -> Path:
    path: Path = folder / vectors["folder"] / entry["file"]
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != entry["stream_sha256"]:
        raise BadInput(f"{path}: missing or not the bytes of the manifest: get the vectors again")
    return path


def _vector(folder: Path, vectors: Mapping[str, Any], entry: Mapping[str, Any]) -> Case:
    recipe = entry["recipe"]
    picture = folder / entry["picture"] if entry["picture"] else None
    if picture and not picture.is_file():
        raise BadInput(f"{picture}: missing: get the vectors again")
    return Case(f"vector {entry['name']}", recipe["width"], recipe["height"], recipe["depth"], recipe["grey"], entry["quality"], picture,
                entry["band_rows"], entry["references"], entry["image_id"], entry["mosaic"], _stream(folder, vectors, entry), entry["latents_sha256"],
                odd=entry["odd"] is not None)


def _bad(folder: Path, vectors: Mapping[str, Any], entry: Mapping[str, Any]) -> Case:
    """A damaged stream; of one that must be refused, nothing is known of the picture."""
    rows, columns = entry.get("latents_shape", (0, 0, 0))[:2]
    return Case(f"vector {entry['name']}", columns * LATENT_STRIDE, rows * LATENT_STRIDE, 8, False, 0, None, entry.get("band_rows", BAND_ROWS),
                stream=_stream(folder, vectors, entry), latents_sha256=entry.get("latents_sha256"), lost=tuple(entry["lost"]),
                error=entry["error"] or "", odd=True)
