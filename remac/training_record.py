"""Record how weights were trained: `python -m remac.training_record RUN... --out benchmarks/results/training.json`.

Takes the run folders in the order in which they followed each other and writes their stages, steps and hours as the model card shows them.
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from remac.data import load_picture, picture_paths
from remac.runs import CONFIG_FILE, RunRecord, read_json, read_run
from remac_runtime.errors import BadInput
from remac_runtime.exits import reported
from remac_runtime.files import write_json
from remac_runtime.mars import data_folder


def stage(folder: Path) -> dict[str, Any]:
    """One run: its configuration, and how far and how long it really went. Raises RemacError for a folder that is no run."""
    run = read_run(folder)
    try:
        return described(run)
    except KeyError as error:
        raise BadInput(f"{folder}: its config.json lacks {error}: name a run of remac.train_codec") from None


def profile(folder: Path) -> str:
    """The profile that a run trains, as it was told. Raises RemacError for a folder that is no run."""
    try:
        return str(read_json(folder / CONFIG_FILE)["codec"]["name"])
    except (KeyError, TypeError):
        raise BadInput(f"{folder}: its config.json names no profile: name a run of remac.train_codec") from None


def described(run: RunRecord) -> dict[str, Any]:
    config, train = run.config, run.config["train"]
    common = {"command": run.command, "hardware": run.hardware, "steps": run.steps, "planned_steps": train["steps"], "seconds": round(run.seconds),
              "batch": run.batch, "patch": train["patch"], "learning_rate": train["learning_rate"]}
    rate = config["rate"]
    return {"stage": train["stage"], "processes": config["processes"], **common, "lambda": [rate["lambda_low"], rate["lambda_high"]],
            "latents": config["codec"]["latents"], "noisy": train["noisy"]}


def pictures(data: Path) -> str:
    """What the training pictures are, in words."""
    sizes = [load_picture(path).shape[:2] for path in picture_paths(data / "train")]
    return f"{len(sizes)} pictures of the folder train, {sum(h * w for h, w in sizes) / 1e6:.1f} megapixels (docs/data.md)"


@reported
def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m remac.training_record", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--data", help="folder of the Mars pictures (else $REMAC_DATA)")
    parser.add_argument("--keep", action="store_true", help="keep what --out holds of other runs, in front of these: for runs that are gone")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    stages, found = [stage(run) for run in options.runs], {str(run): profile(run) for run in options.runs}
    if options.keep:
        told, before = {entry["command"] for entry in stages}, read_json(options.out)
        stages = [entry for entry in before["stages"] if entry["command"] not in told] + stages
        found[str(options.out)] = before["profile"]
    if len(set(found.values())) > 1:
        listed = ", ".join(f"{name} in {source}" for source, name in found.items())
        raise BadInput(f"a record is of one profile, not of several ({listed}): name the runs of one")
    write_json(options.out, {"schema": 1, "profile": next(iter(found.values())), "data": pictures(data_folder(options.data)), "stages": stages})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
