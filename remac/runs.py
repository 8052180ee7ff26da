"""Runs of training: a folder with config.json, checkpoint.pt and log.jsonl. How one begins, resumes, and is read afterwards."""
from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

import torch

from remac.checkpoints import read_checkpoint
from remac.config import TrainConfig
from remac_runtime.bench.environment import processor
from remac_runtime.errors import BadInput
from remac_runtime.exits import interrupt_at_end
from remac_runtime.files import write_atomically, write_json

CONFIG_FILE, CHECKPOINT_FILE, LOG_FILE = "config.json", "checkpoint.pt", "log.jsonl"
# Of config.json: what a resumed run may not change ...
KEPT = ("model", "codec", "train", "post_from", "references_from", "start", "coded", "coded_share", "post_only", "qualities", "own_camera",
        "processes")
FREE = ("train.steps",)                                                 # ... but for the length of its schedule


@dataclass(frozen=True)
class RunRecord:
    """How a run was told to train (config.json), and how far it went: `batch` patches per process and step, `seconds` of training."""

    config: dict[str, Any]
    steps: int
    batch: int
    seconds: float
    device: str
    command: str
    hardware: str

    @property
    def patches(self) -> int:
        """How many it has learned from, over all of its processes."""
        return self.steps * self.batch * int(self.config.get("processes", 1))


def read_run(folder: Path) -> RunRecord:
    """The record of a run. Raises BadInput for a folder that is none, BadNetwork for a damaged checkpoint."""
    config = read_json(folder / CONFIG_FILE)
    state = read_checkpoint(folder / CHECKPOINT_FILE, needed=("step", "seconds"), mapped=True)
    try:
        device, command, batch = config["device"], config["command"], config["train"]["batch"]
    except (KeyError, TypeError) as error:
        raise BadInput(f"{folder / CONFIG_FILE}: of no run of training (it lacks {error}): name the folder of one") from None
    return RunRecord(config, state["step"], batch, state["seconds"], device, command, config.get("hardware") or hardware(device))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a folder that training uses. Raises BadInput."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}): name the folder that it lies in") from None
    except (ValueError, TypeError):
        raise BadInput(f"{path}: damaged: write its folder again, or name another") from None


def hardware(device: str) -> str:
    """What trains, in words: the device, and the model of this machine's GPU or processor."""
    on_gpu = device.startswith("cuda") and torch.cuda.is_available()
    return f"{device}, {torch.cuda.get_device_name(device) if on_gpu else processor()['model']}"


def begin(folder: Path, config: Mapping[str, Any]) -> None:
    """Make a run's folder and write its config.json, with the hardware. Raises BadInput where it holds a run that was told otherwise, and for a GPU
    that is not there."""
    if config["device"].startswith("cuda") and not torch.cuda.is_available():
        raise BadInput(f"no GPU that PyTorch can use for {config['device']}: leave --device away, or install PyTorch for CUDA")
    config = json.loads(json.dumps({**config, "hardware": hardware(config["device"])}))
    if (folder / CHECKPOINT_FILE).exists() and (folder / CONFIG_FILE).exists():
        for field, before, now in differences(_of_today(read_json(folder / CONFIG_FILE), config), config):
            raise BadInput(f"{folder}: holds a run with {field} {before}, not {now}: name another folder with --out, or give the same to resume it")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / CONFIG_FILE, config)


def _of_today(before: dict[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """A config with what an earlier version of TrainConfig lacked as that version did it: by default."""
    train = now.get("train", {})
    return {**before, "train": {**{field: value for field, value in asdict(TrainConfig()).items() if field in train}, **before.get("train", {})}}


def differences(before: Mapping[str, Any], now: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(field, value before, value now) of what a resumed run may not change. Fields that only one of them has are those of other versions."""
    for key in (key for key in before if key in now and (within or key in KEPT)):
        field = f"{within}{key}"
        if isinstance(before[key], dict) and isinstance(now[key], dict):
            yield from differences(before[key], now[key], f"{field}.")
        elif before[key] != now[key] and field not in FREE:
            yield field, before[key], now[key]


@contextmanager
def saved_at_interrupt(save: Callable[[], None]) -> Iterator[None]:
    """Within it an interrupt, which waits for the end of a step in `interrupt_at_end`, writes the checkpoint before it goes on."""
    try:
        yield
    except KeyboardInterrupt:
        with interrupt_at_end():
            save()
        raise


def log_means(log: TextIO, step: int, seconds: float, sums: dict[str, list[float]]) -> dict[str, Any]:
    """Write a line with the means of `sums`, which are then emptied; returns what the line holds."""
    record: dict[str, Any] = {"step": step, "seconds": round(seconds, 1), **{key: sum(values) / len(values) for key, values in sums.items()}}
    sums.clear()
    log.write(json.dumps(record) + "\n")
    return record


def open_log(folder: Path, step: int) -> TextIO:
    """log.jsonl to append to, cut back to `step`: a run that was killed takes the later steps again."""
    path = folder / LOG_FILE
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        write_atomically(path, "".join(line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step))
    return path.open("a", encoding="utf-8")
