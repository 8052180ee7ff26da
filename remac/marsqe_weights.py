"""Ship what was trained: `python -m remac.marsqe_weights runs/marsqe --segmenter runs/segmenter` writes weights/marsqe.

The averaged weights are stored as int8 with a scale per output channel (`packed_model`), the rest in half precision; marsqe.json names
the model with the kinds of compression that it is for, and the dictionary of references.
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from remac.checkpoints import read_checkpoint
from remac.coded import DECODER, SETTINGS
from remac.marsqe import INDEX_FILE
from remac.matching import DICTIONARY_FILE
from remac.packing import packed_model
from remac.runs import CHECKPOINT_FILE, CONFIG_FILE, read_json, read_run
from remac.segmenter import SEGMENTER_FILE
from remac.tensors import SUFFIX, load_tensors, save_tensors
from remac_runtime.errors import BadInput
from remac_runtime.exits import reported
from remac_runtime.files import copy, write_json

COARSE = {"post.": 15}         # 5 bits: what the post-enhancement adds is far below what its roundings could take away
RECORD_FILE = "dictionary.json"
WEIGHTS_FILE, VERSION, SCHEMA = f"marsqe{SUFFIX}", 4, 2


def stage(folder: Path) -> dict[str, Any]:
    """How far and how long a run went. Raises RemacError for a folder that is no run of MarsQE."""
    run = read_run(folder)
    if run.config.get("model") != "marsqe":
        raise BadInput(f"{folder} trained {run.config.get('model', 'a codec')}, not marsqe: name runs of `python -m remac.train_marsqe`")
    return {"command": run.command, "device": run.device, "steps": run.steps, "batch": run.batch, "patches": run.patches,
            "seconds": round(run.seconds)}


def stages_before(run: Path, folder: Path) -> list[dict[str, Any]]:
    """Those of the shipped weights in `folder`, where the run went on from them."""
    if folder.resolve() not in [Path(start).resolve() for start in read_json(run / CONFIG_FILE).get("start", ())]:
        return []
    return list(read_json(folder / INDEX_FILE)["model"]["stages"])


def write_model(runs: list[Path], folder: Path, kinds: list[str]) -> dict[str, Any]:
    """The weights file from the last run's checkpoint; returns its entry of the index. Raises what `stage` raises."""
    stages = [stage(run) for run in runs]
    told = {entry["command"] for entry in stages}
    stages = [entry for entry in stages_before(runs[0], folder) if entry["command"] not in told] + stages
    state = read_checkpoint(runs[-1] / CHECKPOINT_FILE, needed=("average",), mapped=True)
    save_tensors(folder / WEIGHTS_FILE, packed_model(state["average"], COARSE), {"version": str(VERSION), "name": "marsqe"})
    return {"file": WEIGHTS_FILE, "name": "marsqe", "version": VERSION, "decoder": DECODER, "stages": stages,
            "kinds": {kind: [min(SETTINGS[kind]), max(SETTINGS[kind])] for kind in kinds}}


@reported
def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m remac.marsqe_weights", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+",
                        help="folders of runs of remac.train_marsqe, each started from the one before; the first perhaps from the weights in --out")
    parser.add_argument("--segmenter", type=Path, help="folder of a run of remac.train_segmenter (else its weights stay as they are)")
    parser.add_argument("--kinds", nargs="+", choices=sorted(SETTINGS), default=sorted(SETTINGS),
                        help=f"kinds of compression that it was trained for ({' '.join(sorted(SETTINGS))})")
    parser.add_argument("--out", type=Path, default=Path("weights/marsqe"))
    options = parser.parse_args(arguments)
    index_file = options.out / INDEX_FILE
    # all that may be missing is read before anything is replaced
    index: dict[str, Any] = read_json(index_file) if index_file.exists() else {"schema": SCHEMA}
    index["dictionary"] = {"file": DICTIONARY_FILE, **read_json(options.out / RECORD_FILE)}
    if options.segmenter:
        load_tensors(options.segmenter / SEGMENTER_FILE)
        index["segmenter"] = {"file": SEGMENTER_FILE}
    index["model"] = write_model(options.runs, options.out, options.kinds)
    if options.segmenter:
        copy(options.segmenter / SEGMENTER_FILE, options.out / SEGMENTER_FILE)
    write_json(index_file, index)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
