"""The settings of compression that MarsQE is trained and measured for: `python -m benchmarks.enhance_settings --out runs/coded`.

JPEG by Pillow; HEVC intra by x265 at a constant QP with ipratio=1, 4:2:0; REMAC through its public interface. The command codes the training
pictures and the references (`remac.coded` tells the folders); what is there already is left as it is.
"""
from __future__ import annotations

import argparse
import hashlib
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from benchmarks.measure import Picture, components
from benchmarks.peers import pillow_decode
from benchmarks.rd_remac import PROBE_QUALITY, decode, encode, probe_picture
from benchmarks.store import ResultsError, write_json
from remac_runtime.exits import reported
from remac_runtime.files import replacing
from remac_runtime.mars import data_folder

HEVC_OPTIONS = {"x265:pools": "1", "x265:ipratio": "1.0", "x265:wpp": "0", "x265:aq-mode": "0", "preset": "medium", "tune": "psnr"}
EXAMPLES = """examples:
  python -m benchmarks.enhance_settings --out runs/coded
  python -m benchmarks.enhance_settings --out runs/coded --kinds hevc"""


def hevc_coded(picture: Picture, qp: int) -> Picture:
    """uint8[H,W,3] through HEVC intra at this QP."""
    import pillow_heif
    pillow_heif.register_heif_opener()
    image, file = Image.fromarray(components(picture)), io.BytesIO()
    chroma: dict[str, Any] = {} if image.mode == "L" else {"chroma": "420"}
    image.save(file, "HEIF", quality=50, enc_params=HEVC_OPTIONS | {"x265:qp": str(qp)}, **chroma)
    return pillow_decode(file.getvalue())


def remac_coded(picture: Picture, quality: int) -> Picture:
    """uint8[H,W,3] through REMAC with the ground decoder that the networks are trained behind."""
    from remac.coded import DECODER
    return decode(encode(components(picture), quality, {}), {"decoder": DECODER})


def identity(path: Path) -> str:
    """Which weights: the start of the file's SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def made_by() -> dict[str, str]:
    """Which codec makes the streams here, by its hash and by what it makes of a probe; and by its file's hash the ground decoder behind which the
    networks are trained."""
    from remac.coded import DECODER
    from remac_runtime.ground import find_ground
    from remac_runtime.model import GROUND_FOLDER, load_model
    model = load_model()
    decoder = find_ground(model.folder / GROUND_FOLDER, DECODER)
    stream = hashlib.sha256(encode(probe_picture(), PROBE_QUALITY, {})).hexdigest()[:16]
    return {"codec": model.network.hash.hex(), "stream": stream, "decoder": f"{decoder.label}:{identity(decoder.path)}"}


def keep_apart(folder: Path) -> None:
    """Let a folder hold the streams of one codec only: it is named in a file. Raises ResultsError where there are others already."""
    from remac.coded import MADE_BY_FILE
    from remac.runs import read_json
    record, own = folder / MADE_BY_FILE, made_by()
    others = read_json(record) if record.exists() else None
    if others != own and any(folder.glob("*/*.png")):
        raise ResultsError(f"{folder} holds pictures of {(others or {'codec': 'a codec that is not named'})['codec']}, the model at hand is "
                           f"{own['codec']}: name another --out")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(record, own)


def coded(kind: str, number: int, picture: Picture) -> Picture:
    """uint8[H,W,3] through `hevc` or `remac` in one of its settings."""
    return {"hevc": hevc_coded, "remac": remac_coded}[kind](picture, number)


def code_all(kind: str, number: int, paths: list[Path], mosaic: Picture, out: Path) -> None:
    """Write all pictures and the dictionary of one setting into `out`."""
    from remac.cameras import other_camera
    from remac.charts import chart_pictures
    from remac.coded import DICTIONARY_PICTURE, chart_name, coded_names
    from remac.data import load_picture
    from remac.marsqe import CELL

    def write(name: str, make: Callable[..., Picture], *given: Any) -> None:
        if not (out / name).exists():
            result = Image.fromarray(coded(kind, number, make(*given)))
            with replacing(out / name) as place:
                result.save(place, "PNG", compress_level=1)

    def seen_otherwise(path: Path, i: int) -> Picture:
        return other_camera(load_picture(path), i)

    out.mkdir(parents=True, exist_ok=True)
    write(DICTIONARY_PICTURE, lambda: mosaic)
    for i, drawn in enumerate(chart_pictures(CELL)):
        write(chart_name(i), np.asarray, drawn)
    for i, path in enumerate(tqdm(paths, desc=f"{kind} {number}", leave=False)):
        own, other = coded_names(path)
        write(own, load_picture, path)
        write(other, seen_otherwise, path, i)


@reported
def main(arguments: list[str]) -> int:
    from remac.coded import HEVC, REMAC, SETTINGS
    from remac.data import picture_paths
    from remac.matching import DICTIONARY_FILE, load_dictionary
    from remac_runtime.enhance.matching import join_dictionary
    parser = argparse.ArgumentParser(prog="python -m benchmarks.enhance_settings", description=__doc__, epilog=EXAMPLES,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of the Mars pictures (else $REMAC_DATA)")
    parser.add_argument("--weights", type=Path, default=Path("weights/marsqe"), help="folder with the references")
    parser.add_argument("--kinds", nargs="+", choices=(HEVC, REMAC), default=[HEVC, REMAC])
    parser.add_argument("--out", type=Path, required=True, help="folder that gets KIND/NUMBER/NAME.png")
    options = parser.parse_args(arguments)
    paths = picture_paths(data_folder(options.data) / "train")
    mosaic = join_dictionary(load_dictionary(options.weights / DICTIONARY_FILE))
    for kind in options.kinds:
        if kind == REMAC:
            keep_apart(options.out / kind)
        for number in SETTINGS[kind]:
            code_all(kind, number, paths, mosaic, options.out / kind / str(number))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
