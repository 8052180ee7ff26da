"""Semantic-based matching (SMM, section IV-A of the MarsQE paper): LBP descriptors, KL divergence, and the reference dictionary.

The dictionary holds N = 6 patches of 128x128 for each class. Its pixels are not shipped: the 24 patches are one picture (a row per class) that the
codec itself has coded at its highest quality, and what ships are the integer latents, `dictionary.rmc`. The compressed references are made from the
decoded ones with the quantisation tables of the picture at hand.
"""
from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from remac.medoids import medoids
from remac_runtime.enhance.enhancer import DICTIONARY_FILE
from remac_runtime.enhance.matching import CELL, CLASS_NAMES, REFERENCES, cut_dictionary, join_dictionary, nearest_reference, texture
from remac_runtime.exits import reported
from remac_runtime.files import write_json

DICTIONARY_QUALITY = 63
PURE = 0.9                     # share of a candidate patch that must be of its class


def match(references: NDArray[np.float64], patch: NDArray[np.float64], kind: int) -> int:
    """Equation (1): index in the dictionary of the reference of class `kind`; descriptors of the compressed patches float[24,256], float[256]."""
    first = kind * REFERENCES
    return first + nearest_reference(references[first:first + REFERENCES], patch)


def jpeg(picture: NDArray[np.uint8], quality: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Code with Pillow (4:2:0): the decoded picture uint8[H,W,3] and the tables float[2,64] (luma, chroma), natural order."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as coded:
        tables = np.array([coded.quantization[0], coded.quantization[1]], np.float32)  # type: ignore[attr-defined]
        return np.asarray(coded), tables


def jpeg_with_tables(picture: NDArray[np.uint8], tables: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Code and decode with given tables float[2,64], 4:2:0."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", qtables=[[int(v) for v in row] for row in tables], subsampling=2)
    with Image.open(buffer) as coded:
        return np.asarray(coded)


@dataclass(frozen=True)
class Candidate:
    """A patch of a training picture that is of one class almost throughout."""

    file: str
    top: int
    left: int
    kind: int
    pixels: NDArray[np.uint8]


def candidates(data: Path) -> list[Candidate]:
    """All cells of the labelled training pictures with at least PURE of one class."""
    from remac.data import load_picture
    from remac.train_segmenter import labelled, load_labels

    found = []
    for path, label_path in labelled(data, "train"):
        picture, labels = load_picture(path), load_labels(label_path)
        for top in range(0, picture.shape[0] - CELL + 1, CELL):
            for left in range(0, picture.shape[1] - CELL + 1, CELL):
                counts = np.bincount(labels[top:top + CELL, left:left + CELL].reshape(-1), minlength=256)[:len(CLASS_NAMES)]
                if counts.max() >= PURE * CELL * CELL:
                    found.append(Candidate(path.name, top, left, int(counts.argmax()), picture[top:top + CELL, left:left + CELL]))
    return found


def select(found: list[Candidate]) -> list[Candidate]:
    """N patches per class: medoids of the LBP descriptors (distances of their square roots), so that they cover the class's textures."""
    chosen = []
    for kind in range(len(CLASS_NAMES)):
        of_class = [c for c in found if c.kind == kind]
        of_class = of_class[::max(1, len(of_class) // 300)]
        descriptors = np.stack([np.round(np.sqrt(texture(c.pixels)) * 4096).astype(np.int64) for c in of_class])
        chosen += [of_class[i] for i in medoids(descriptors, REFERENCES)]
    return chosen


def code_dictionary(mosaic: NDArray[np.uint8], out: Path) -> None:
    """Write the mosaic as .rmc with the installed codec, through its command line."""
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "dictionary.png"
        Image.fromarray(mosaic).save(picture)
        subprocess.run([sys.executable, "-m", "remac_runtime", "encode", str(picture), "-o", str(out), "--quality", str(DICTIONARY_QUALITY)],
                       check=True)


def load_dictionary(path: Path) -> NDArray[np.uint8]:
    """Decode dictionary.rmc: uint8[24,128,128,3]. A dictionary.png beside it (of a training bundle, which has no codec) is read instead."""
    if path.with_suffix(".png").exists():
        return cut_dictionary(np.asarray(Image.open(path.with_suffix(".png")).convert("RGB"))).patches
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "dictionary.png"
        subprocess.run([sys.executable, "-m", "remac_runtime", "decode", str(path), "-o", str(picture)], check=True, stdout=subprocess.DEVNULL)
        return cut_dictionary(np.asarray(Image.open(picture).convert("RGB"))).patches


def read_sources(data: Path, sources: list[list[Any]]) -> NDArray[np.uint8]:
    """The dictionary's patches from the training pictures, uint8[24,128,128,3]."""
    from remac.data import load_picture

    return np.stack([load_picture(data / "train" / name)[top:top + CELL, left:left + CELL] for name, top, left in sources])


@reported
def main(arguments: list[str]) -> int:
    """Choose the dictionary (or keep the recorded choice) and code it with the present codec."""
    from remac_runtime.mars import data_folder

    parser = argparse.ArgumentParser(prog="python -m remac.matching", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("weights/marsqe"), help="folder of the shipped weights")
    parser.add_argument("--data", help="folder of the Mars pictures (else $REMAC_DATA)")
    parser.add_argument("--choose", action="store_true", help="choose the patches anew instead of the recorded ones")
    options = parser.parse_args(arguments)
    data, record = data_folder(options.data), options.out / "dictionary.json"
    options.out.mkdir(parents=True, exist_ok=True)
    if options.choose or not record.exists():
        sources = [[c.file, c.top, c.left] for c in select(candidates(data))]
        content = {"classes": list(CLASS_NAMES), "count": REFERENCES, "patch": CELL, "sources": sources}
        write_json(record, content)
    sources = json.loads(record.read_text())["sources"]
    code_dictionary(join_dictionary(read_sources(data, sources)), options.out / DICTIONARY_FILE)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
