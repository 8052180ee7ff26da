"""Checkpoints: what a training writes, and what --start and the commands that ship weights take."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from remac_runtime.errors import BadNetwork
from remac_runtime.files import replacing


def write_checkpoint(path: Path, stage: str, rate: dict[str, Any], model: dict[str, Tensor], **progress: Any) -> None:
    """Write what --start takes: `model` as `stage` left it, and the scale of qualities that it was trained for; with `progress` a run resumes."""
    save_checkpoint(path, {"stage": stage, "rate": rate, "model": model, **progress})


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a dictionary of tensors and plain values, whole or not at all."""
    with replacing(path) as temporary:
        torch.save(state, temporary)


def read_checkpoint(path: Path, device: str = "cpu", needed: Sequence[str] = ("model",), mapped: bool = False) -> dict[str, Any]:
    """What `save_checkpoint` wrote, with the keys `needed`. `mapped`: tensors are read from the file when they are used. Raises BadNetwork."""
    try:
        state = torch.load(path, map_location=device, mmap=mapped, weights_only=True)
        missing = [key for key in needed if key not in state]
    except OSError as error:
        raise BadNetwork(f"{path}: cannot be read ({error.strerror or error}): name the checkpoint.pt of a run") from None
    except (UnpicklingError, RuntimeError, EOFError, KeyError, ValueError, TypeError) as error:
        raise BadNetwork(f"{path}: no checkpoint, or a damaged one ({type(error).__name__}): name the checkpoint.pt of a run") from None
    if missing:
        raise BadNetwork(f"{path}: no checkpoint of this kind (it lacks {missing[0]}): name that of another run")
    return dict(state)
