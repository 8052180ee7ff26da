"""Record how weights were trained: `python -m remac.training_record RUN... --out benchmarks/results/training.json`.

Takes the run folders in the order in which they followed each other and writes their stages, steps and hours as the model card shows them.
"""
from __future__ import annotations

import argparse
import json
import platform
import sys
from pathlib import Path
from typing import Any

import torch

from remac.data import DataMissing, data_folder, load_picture, picture_paths
from remac_runtime.files import write_json


def processor() -> str:
    """Model of the processor, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor() or "unknown")


def stage(run: Path) -> dict[str, Any]:
    """One run: its configuration, and how far and how long it really went. Raises OSError, ValueError or KeyError for a folder that is no run."""
    config = json.loads((run / "config.json").read_text())
    last = torch.load(run / "checkpoint.pt", map_location="cpu", mmap=True, weights_only=True)
    train = config["train"]
    common = {"command": config["command"], "hardware": f"{config['device']}, {processor()}", "steps": last["step"],
              "planned_steps": train["steps"], "seconds": round(last["seconds"]), "batch": train["batch"], "patch": train["patch"],
              "learning_rate": train["learning_rate"]}
    if "model" in config:      # of remac.train_marsqe: the refinement of a ground decoder
        return {"stage": config["model"], "processes": 1, **common}
    rate = config["rate"]
    settings = {key: train[key] for key in ("noisy", "least_rounding") if key in train}
    return {"stage": train["stage"], "processes": config["processes"], **common, "lambda": [rate["lambda_low"], rate["lambda_high"]],
            "latents": config["codec"]["latents"], **settings}


def pictures(data: Path) -> str:
    """What the training pictures are, in words."""
    sizes = [load_picture(path).shape[:2] for path in picture_paths(data / "train")]
    return f"{len(sizes)} pictures of the folder train, {sum(h * w for h, w in sizes) / 1e6:.1f} megapixels (docs/data.md)"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m remac.training_record", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--profile", default="rover-m")
    parser.add_argument("--data", help="folder of the Mars pictures (else $REMAC_DATA)")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    try:
        stages = [stage(run) for run in options.runs]
        record = {"schema": 1, "profile": options.profile, "data": pictures(data_folder(options.data)), "stages": stages}
    except (OSError, ValueError, KeyError, DataMissing) as error:
        print(f"remac: cannot record: {error}", file=sys.stderr)
        return 1
    write_json(options.out, record)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
