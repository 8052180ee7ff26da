"""The ground decoder to ONNX: `python export/ground_decoder.py --help`."""
from __future__ import annotations

import argparse
import os
import sys
import warnings
from pathlib import Path

OPSET = 17


def export_decoder(weights: Path, out: Path) -> Path:
    """Write `out` (decoder.onnx: y_hat, quality, texture, share -> pixels; height and width dynamic) from a weights folder, atomically."""
    import onnx
    import torch

    from remac.weights import load_ground

    module = load_ground(weights)
    latents = len(module.norm)
    texture = torch.full((4, 8, 8, latents), 128, dtype=torch.uint8)
    example = (torch.zeros(8, 12, latents, dtype=torch.int32), torch.tensor([32.0]), texture, torch.ones(1))
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(out.name + ".tmp")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, example, str(temporary), dynamo=False, opset_version=OPSET, input_names=["y_hat", "quality", "texture", "share"],
                          output_names=["pixels"], dynamic_axes={"y_hat": {0: "h", 1: "w"}, "pixels": {0: "height", 1: "width"}})
    model = onnx.load(str(temporary))
    if model.opset_import[0].version != OPSET:
        raise SystemExit(f"remac: the exporter wrote opset {model.opset_import[0].version}, not {OPSET}")
    os.replace(temporary, out)
    return out


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     epilog="example: python export/ground_decoder.py --out build/rover-m/ground/decoder.onnx")
    parser.add_argument("--weights", type=Path, default=Path("weights/rover-m"))
    parser.add_argument("--out", type=Path, default=Path("build/rover-m/ground/decoder.onnx"))
    options = parser.parse_args(arguments)
    print(export_decoder(options.weights, options.out))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
