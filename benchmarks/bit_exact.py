"""The same bytes from everything: `python -m benchmarks.bit_exact`.

Whole evaluation pictures through every backend (ONNX Runtime at each optimisation level with 1 and 2 threads) and several strip heights; streams must
be equal byte for byte, and latents number for number. Exits with 1 and names the first that differs.
"""
from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.datasets import evaluation_images
from benchmarks.store import RESULTS, write_json
from remac_runtime.backends import Backend, open_backend
from remac_runtime.backends.onnxruntime_backend import OPTIMISATION_LEVELS, OnnxRuntimeBackend
from remac_runtime.codec import Decoder, EncodeOptions, Encoder
from remac_runtime.exits import reported
from remac_runtime.images import as_picture
from remac_runtime.model import Model, load_model

PICTURES, QUALITIES, STRIPS, THREADS = 5, (12, 44), (None, 64, 320), (1, 2)


def backends(model: Model) -> Iterator[tuple[str, Backend]]:
    """Every engine by a name; the caller closes it."""
    for name in ("numpy", "torch"):
        yield name, open_backend(name, model.folder, model.network)
    for level in OPTIMISATION_LEVELS:
        for threads in THREADS:
            yield f"onnxruntime, {level}, {threads} threads", OnnxRuntimeBackend(model.folder, model.network, threads, level=level)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


@reported
def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bit_exact", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="the model folder")
    parser.add_argument("--data", help="the pictures; by default $REMAC_DATA or ../shared/data/mars")
    parser.add_argument("--out", type=Path, default=RESULTS / "bit_exact.json")
    options = parser.parse_args(arguments)
    images = evaluation_images(options.data)
    model = load_model(options.model)
    chosen = [(image.key, as_picture(image.load())) for image in images[::len(images) // PICTURES][:PICTURES]]
    wanted: dict[str, str] = {}
    compared, engines = 0, []
    for name, backend in backends(model):
        engines.append(name)
        with backend, Encoder(model, backend) as encoder, Decoder(model, backend) as decoder:
            for key, picture in chosen:
                for quality in QUALITIES:
                    streams = {encoder.encode(picture, EncodeOptions(quality=quality, strip_rows=rows)) for rows in STRIPS}
                    found = {"stream": [digest(stream) for stream in streams], "latents": [digest(decoder.decode(min(streams)).y_hat.tobytes())]}
                    for kind, digests in found.items():
                        case = f"{key}, quality {quality}, {kind}"
                        if digests != [wanted.setdefault(case, digests[0])]:
                            print(f"bit_exact: {case}: {name} differs", file=sys.stderr)
                            return 1
                        compared += len(STRIPS) if kind == "stream" else 1
    write_json(options.out, {"schema": 1, "codec_hash": model.network.hash.hex(), "engines": engines, "pictures": [key for key, _ in chosen],
                             "strip_rows": [str(rows) for rows in STRIPS], "compared": compared, "sha256": wanted})
    print(f"{compared} streams and latents of {len(chosen)} pictures are equal in {len(engines)} engines")
    return 0


if __name__ == "__main__":
    sys.exit(main())
