"""TensorRT engines of the ground decoders: `python -m benchmarks.engines` builds them and lists sizes and layers in benchmarks/results/engines.json.

They are built by export/ground_decoder.py in a folder that is thrown away, for GPUs that need not be here (tensorrt_rtx): this proves that the graphs
build, and nothing about their speed.
"""
from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.store import RESULTS, write_json
from remac_runtime.errors import BadNetwork, RemacError
from remac_runtime.exits import reported
from remac_runtime.ground_tensorrt import read_sidecar
from remac_runtime.model import NETWORK_FILE
from remac_runtime.network import read_network

ROOT = Path(__file__).resolve().parents[1]
TARGETS = ("sm86", "sm89")
PRECISIONS = ("fp16", "int8")
FLOATS = ("HALF", "FLOAT")
SCHEMA = 1


def facts(sidecar: Path) -> dict[str, Any]:
    """Of an engine, from the description beside it. Raises BadNetwork."""
    read, engine = read_sidecar(sidecar), sidecar.with_suffix("")
    content = json.loads(sidecar.read_text(encoding="utf-8"))
    layers = [(kind, precision) for _, kind, precision in content["layers"]]
    return {"network": Path(read.onnx).stem, "target": read.target, "precision": read.precision, "builder": f"{read.package} {read.version}",
            "onnx_bytes": (sidecar.parent / read.onnx).stat().st_size, "bytes": engine.stat().st_size, "layers": len(layers),
            "convolutions": dict(Counter(_computed_in(precision, read.precision) for kind, precision in layers if kind == "CONVOLUTION")),
            "on_floats": dict(Counter(f"{kind} {precision}" for kind, precision in layers if precision in FLOATS).most_common()),
            "kept_in_fp32": list(read.fp32_layers), "largest_difference": content.get("largest_difference")}


def _computed_in(precision: str, engine: str) -> str:
    """Of a convolution, whose output type is all that a layer tells: those in int8 give float32, what is left in float gives half precision."""
    return "INT8" if engine == "int8" and precision == "FLOAT" else precision


def build(weights: Path, target: str, precision: str, folder: Path, *more: str) -> None:
    """Export the decoders of a weights folder into `folder` and build their engines; `more` options. Raises RemacError with its last line."""
    done = subprocess.run([sys.executable, str(ROOT / "export" / "ground_decoder.py"), "--weights", str(weights), "--out", str(folder),
                           "--target", target, "--precision", precision, *more], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RemacError((done.stderr.strip().splitlines() or [f"export/ground_decoder.py failed ({done.returncode})"])[-1].removeprefix("remac: "))


@reported
def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engines", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=Path("weights/rover-m"), help="weights folder of the decoders (weights/rover-m)")
    parser.add_argument("--targets", nargs="+", default=list(TARGETS), metavar="SM", help=f"architectures ({' '.join(TARGETS)})")
    parser.add_argument("--out", type=Path, default=RESULTS / "engines.json")
    options = parser.parse_args(arguments)
    codec = read_network(options.weights / NETWORK_FILE).hash.hex()
    with tempfile.TemporaryDirectory() as scratch:
        for target, precision in tqdm([(target, precision) for target in options.targets for precision in PRECISIONS], unit="build"):
            build(options.weights, target, precision, Path(scratch))
        engines = [facts(path) for path in sorted(Path(scratch).rglob("*.engine.json"))]
    if not engines:
        raise BadNetwork(f"{options.weights}: no engine was built from it")
    write_json(options.out, {"schema": SCHEMA, "codec_hash": codec, "engines": engines})
    for engine in engines:
        print(f"{engine['network']} for {engine['target']}, {engine['precision']}: {engine['bytes']:,} bytes, {engine['layers']} layers")
    return 0


if __name__ == "__main__":
    sys.exit(main())
