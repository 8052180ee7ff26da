"""Ship what was trained: `python -m remac.marsqe_weights runs/marsqe --segmenter runs/segmenter` writes weights/marsqe.

The averaged weights are stored as int8 with a scale per output channel (`packed_model`), the rest in half precision; marsqe.json names
the model with the kinds of compression that it is for, and the dictionary of references.
"""
from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from remac.coded import DECODER, SETTINGS
from remac.marsqe import INDEX_FILE
from remac.matching import DICTIONARY_FILE
from remac.packing import packed_model
from remac.segmenter import SEGMENTER_FILE
from remac.tensors import SUFFIX, save_tensors
from remac_runtime.files import write_json

COARSE = {"post.": 15}         # 5 bits: what the post-enhancement adds is far below what its roundings could take away
RECORD_FILE = "dictionary.json"
WEIGHTS_FILE, VERSION, SCHEMA = f"marsqe{SUFFIX}", 3, 2


def stage(run: Path) -> dict[str, Any]:
    """How far and how long a run went. Raises OSError, KeyError or ValueError for a folder that is no run of MarsQE."""
    state = torch.load(run / "checkpoint.pt", map_location="cpu", mmap=True, weights_only=True)
    if state["name"] != "marsqe":
        raise ValueError(f"{run} trained {state['name']}, not marsqe")
    config = json.loads((run / "config.json").read_text())
    return {"command": config["command"], "device": config["device"], "steps": state["step"], "batch": config["train"]["batch"],
            "patches": state["step"] * config["train"]["batch"], "seconds": round(state["seconds"])}


def write_model(runs: list[Path], folder: Path, kinds: list[str]) -> dict[str, Any]:
    """The weights file from the last run's checkpoint; returns its entry of the index. Raises what `stage` raises."""
    stages = [stage(run) for run in runs]
    state = torch.load(runs[-1] / "checkpoint.pt", map_location="cpu", mmap=True, weights_only=True)
    save_tensors(folder / WEIGHTS_FILE, packed_model(state["average"], COARSE), {"version": str(VERSION), "name": "marsqe"})
    return {"file": WEIGHTS_FILE, "name": "marsqe", "version": VERSION, "decoder": DECODER, "stages": stages,
            "kinds": {kind: [min(SETTINGS[kind]), max(SETTINGS[kind])] for kind in kinds}}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m remac.marsqe_weights", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs of remac.train_marsqe, each started from the one before")
    parser.add_argument("--segmenter", type=Path, help="folder of a run of remac.train_segmenter (else its weights stay as they are)")
    parser.add_argument("--kinds", nargs="+", choices=sorted(SETTINGS), default=sorted(SETTINGS),
                        help=f"kinds of compression that it was trained for ({' '.join(sorted(SETTINGS))})")
    parser.add_argument("--out", type=Path, default=Path("weights/marsqe"))
    options = parser.parse_args(arguments)
    index_file = options.out / INDEX_FILE
    try:
        index: dict[str, Any] = json.loads(index_file.read_text()) if index_file.exists() else {"schema": SCHEMA}
        index["model"] = write_model(options.runs, options.out, options.kinds)
        index["dictionary"] = {"file": DICTIONARY_FILE, **json.loads((options.out / RECORD_FILE).read_text())}
        if options.segmenter:
            shutil.copyfile(options.segmenter / SEGMENTER_FILE, options.out / SEGMENTER_FILE)
            index["segmenter"] = {"file": SEGMENTER_FILE}
    except (OSError, KeyError, ValueError) as error:
        print(f"remac: cannot write {options.out}: {error}", file=sys.stderr)
        return 1
    write_json(index_file, index)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
