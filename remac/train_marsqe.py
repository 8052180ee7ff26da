"""Train MarsQE, or its baselines AR-CNN and DnCNN: `python -m remac.train_marsqe --help`.

A run is a folder: config.json, checkpoint.pt (written atomically, resumes to the exact step) and log.jsonl. Everything random is a function of
(seed, step, process). An interrupt (Ctrl-C, SIGTERM) writes the checkpoint of the last step. MarsQE learns its networks in parts of one run: the
main network without references, then with them, then with the post-enhancement.
"""
from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from torch import Tensor, nn

from remac.baselines import BASELINES
from remac.cameras import other_camera, to_tensor
from remac.checkpoints import read_checkpoint, save_checkpoint
from remac.coded import MADE_BY_FILE
from remac.config import TrainConfig
from remac.data import load_picture, picture_paths
from remac.marsqe import FULL, INDEX_FILE, Bank, Enhanced, MarsQE, load_marsqe, loss_of
from remac.marsqe_data import CODED_SHARE, EVERYTHING, Batch, CompressedPatches, Dictionary, Narrowed
from remac.matching import DICTIONARY_FILE, jpeg, load_dictionary
from remac.muon import Muon, is_inner
from remac.parallel import average_gradients, run_processes
from remac.runs import CHECKPOINT_FILE, begin, log_means, open_log, read_json, saved_at_interrupt
from remac.segmenter import load_segmenter
from remac.train_codec import autocast, learning_rate, setting, show_progress
from remac_runtime.enhance.matching import CELL
from remac_runtime.errors import BadNetwork
from remac_runtime.exits import interrupt_at_end, reported
from remac_runtime.mars import data_folder

ADDED = "marsqe-added"         # MarsQE-lite with a sum instead of TFM
MODELS = ("marsqe", "marsqe-lite", ADDED, *BASELINES)
WEIGHTS = Path(__file__).resolve().parents[1] / "weights" / "marsqe"
CHECKPOINT_EVERY, EVALUATE_EVERY, LOG_EVERY = 100, 250, 10
VALIDATED = (30, 256)          # quality and side of the validation crops
UNUSED = ("patch", "muon", "noisy", "spike", "skips", "unreferenced", "relative", "focus")    # of TrainConfig: what the codec alone has
AVERAGING = 0.998              # of the weights that are evaluated and shipped, once warm
EXAMPLES = """examples:
  python -m remac.train_marsqe --out runs/marsqe
  python -m remac.train_marsqe --out runs/marsqe-on --start weights/marsqe --parts 0 0.8 --processes 2        # from what is shipped
  python -m remac.train_marsqe --model dncnn --out runs/dncnn --seconds 480 --steps 900
  python -m remac.train_marsqe --out runs/marsqe-gpu --start runs/marsqe/checkpoint.pt --steps 8000 --batch 64 --workers 14 --device cuda"""


@dataclass(frozen=True)
class Run:
    """Everything a run needs."""

    model: str
    train: TrainConfig
    post_from: float            # share of the steps before the post-enhancement network takes part
    references_from: float      # share of the steps before the references take part
    folder: Path
    data: Path
    device: str
    start: tuple[Path, ...]
    seconds: float
    workers: int = 0
    coded: tuple[Path, ...] = ()
    coded_share: float = CODED_SHARE
    post_only: bool = False     # the main network stays as it starts
    processes: int = 1
    only: Narrowed = EVERYTHING


DEFAULTS = TrainConfig(steps=4800, batch=4, patch=CELL, learning_rate=1e-3, final_rate=1e-6, warmup_steps=50, hold=0.2, clip=1.0, seed=9)
MUON_FACTOR = 10               # rate of the inner convolutions, under Muon, as a multiple of learning_rate, which the others have under Adam
# Convolutions from and to pixels, and of attentions: under Adam, since Muon's steps of fixed size never let them settle.
OUTER = ("head", "image", "tail", "reduce", "expand", "gate", "query", "key")


def build(name: str) -> nn.Module:
    """An untrained model."""
    return MarsQE(replace(FULL, fusing="sum" if name == ADDED else "tfm")) if name.startswith("marsqe") else BASELINES[name]()


def optimizers(model: nn.Module, run: Run) -> list[torch.optim.Optimizer]:
    """Muon for the inner convolutions, Adam for the rest. Each group has its peak rate and the step from which its schedule counts."""
    late = int(run.post_from * run.train.steps) if run.model == "marsqe" and run.post_from <= 1 else 0
    groups: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    for convolution, peak in ((True, MUON_FACTOR * run.train.learning_rate), (False, run.train.learning_rate)):
        for post, first in ((False, 0), (True, late)):
            chosen = [p for name, p in model.named_parameters()
                      if p.requires_grad and is_inner(name, p, OUTER) == convolution
                      and name.startswith("post.") == post]
            if chosen:
                groups[convolution].append({"params": chosen, "lr": peak, "peak": peak, "first": first})
    rate = run.train.learning_rate
    return [Muon(groups[True], MUON_FACTOR * rate), torch.optim.Adam(groups[False], rate, (0.9, run.train.second_moment))]


def apply(model: nn.Module, batch: Batch, post: bool) -> Enhanced:
    """One model on one batch; the reference flows carry no gradient."""
    if not isinstance(model, MarsQE):
        return Enhanced(model(batch.compressed), None)
    bank = None
    if batch.references is not None:
        with torch.no_grad():
            raw, compressed = (model.encode_references(patches, batch.tables) for patches in batch.references)
        bank = Bank(compressed, raw)
    enhanced: Enhanced = model(batch.compressed, batch.tables, batch.classes, bank, None, post)
    return enhanced


class Steps(torch.utils.data.Dataset[Batch]):
    """The batches of a run by step, for worker processes."""

    def __init__(self, patches: CompressedPatches, run: Run, rank: int) -> None:
        self.patches, self.run, self.rank = patches, run, rank

    def __getitem__(self, step: int) -> Batch:
        return self.patches.compressed_batch(self.run.train.batch, step, references_at(self.run, step), self.rank)


def references_at(run: Run, step: int) -> bool:
    """Whether the references take part in a step."""
    return run.model.startswith("marsqe") and step >= run.references_from * run.train.steps


class Trainer:
    """One process of a run."""

    def __init__(self, run: Run, rank: int = 0) -> None:
        self.run, self.rank, config = run, rank, run.train
        torch.manual_seed(config.seed)
        mars = run.model.startswith("marsqe")
        segmenter = load_segmenter(WEIGHTS) if mars else None
        dictionary = Dictionary(load_dictionary(WEIGHTS / DICTIONARY_FILE)) if mars else None
        self.data = CompressedPatches(picture_paths(run.data / "train"), config.seed, dictionary, segmenter, run.coded, run.coded_share, run.only)
        self.model = build(run.model).to(run.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if run.post_only:
            self.model.main.requires_grad_(False)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizers = optimizers(self.model, run)
        self.average = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.step, self.seconds = 0, 0.0
        self.checkpoint, self.coded_by = run.folder / CHECKPOINT_FILE, coded_by(run.coded)
        if self.checkpoint.exists():
            self._resume(read_checkpoint(self.checkpoint, run.device, ("model", "optimizers", "average", "step", "seconds")))
        elif run.start:
            self._start(run.start)
        self.pictures = validation_crops(run.data) if rank == 0 else {}
        steps = range(self.step, config.steps)
        self.batches = iter(torch.utils.data.DataLoader(Steps(self.data, run, rank), batch_size=None, sampler=steps, num_workers=run.workers))

    def _start(self, paths: Sequence[Path]) -> None:
        """Begin with the mean of the averaged weights of other runs, or of shipped ones. Raises BadNetwork."""
        states = [starting_weights(path, self.run.device) for path in paths]
        for path, state in zip(paths, states, strict=True):
            try:
                self.model.load_state_dict(state["average"])
            except RuntimeError:
                raise BadNetwork(f"{path}: trained {state.get('name', 'another model')}, which {self.run.model} cannot start from: "
                                 "name a checkpoint of its own kind with --start") from None
        self.average = mean_of([state["average"] for state in states])
        self.model.load_state_dict(self.average)

    def _resume(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.average, self.step, self.seconds = state["average"], state["step"], state["seconds"]

    def save(self) -> None:
        state = {"name": self.run.model, "model": self.model.state_dict(), "average": self.average, "step": self.step, "seconds": self.seconds,
                 "optimizers": [optimizer.state_dict() for optimizer in self.optimizers]}
        save_checkpoint(self.checkpoint, state | self.coded_by)

    @property
    def with_post(self) -> bool:
        return self.run.model == "marsqe" and self.step >= self.run.post_from * self.run.train.steps

    def one_step(self) -> dict[str, float]:
        config = self.run.train
        for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
            rest = replace(config, steps=config.steps - group["first"])
            group["lr"] = learning_rate(max(0, self.step - group["first"]), rest) / config.learning_rate * group["peak"]
        batch = next(self.batches).to(self.run.device)
        with autocast(self.run.device):
            enhanced = apply(self.model, batch, self.with_post)
        loss = (loss_of(enhanced, batch.raw) * batch.weight).mean()
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        if self.run.processes > 1:
            average_gradients(self.parameters, self.run.processes)
        norm = nn.utils.clip_grad_norm_(self.parameters, config.clip)
        if torch.isfinite(norm):
            for optimizer in self.optimizers:
                optimizer.step()
        self.step += 1
        self._average()
        before = (batch.compressed - batch.raw).square().mean((1, 2, 3))
        values = {"loss": loss.item(), "norm": norm.item(), "gain_lite": gain(before, enhanced.lite, batch.raw)}
        if enhanced.full is not None:
            values["gain_full"] = gain(before, enhanced.full, batch.raw)
        return values

    @torch.no_grad()
    def _average(self) -> None:
        keep = min(AVERAGING, 1 - 1 / (1 + self.step / 4))
        for name, value in self.model.state_dict().items():
            if value.dtype.is_floating_point:
                self.average[name].lerp_(value, 1 - keep)
            else:
                self.average[name].copy_(value)

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Mean gain in PSNR of the averaged weights over the validation crops of each camera, without references, dB."""
        model = build(self.run.model).to(self.run.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        model.load_state_dict(self.average)
        sums: dict[str, list[float]] = {}
        for camera, batch in ((camera, batch) for camera, batches in self.pictures.items() for batch in batches):
            b = batch.to(self.run.device)
            with autocast(self.run.device):
                enhanced = apply(model, b, self.with_post)
            before = (b.compressed - b.raw).square().mean((1, 2, 3))
            for name, picture in ((f"{camera}lite", enhanced.lite), (f"{camera}full", enhanced.full)):
                if picture is not None:
                    sums.setdefault(name, []).append(gain(before, picture.clamp(0, 255).round(), b.raw))
                    if isinstance(model, MarsQE):
                        fixed = model.constrained(picture, b.compressed, b.tables).clamp(0, 255).round()
                        sums.setdefault(f"{name}_constrained", []).append(gain(before, fixed, b.raw))
        return {name: sum(values) / len(values) for name, values in sums.items()}

    def train(self, progress: Any) -> None:
        """All steps that are left. An interrupt waits for the end of its step and writes the checkpoint."""
        log = open_log(self.run.folder, self.step) if self.rank == 0 else None
        sums: dict[str, list[float]] = {}
        with saved_at_interrupt(self.save) if self.rank == 0 else nullcontext():
            while self.step < self.run.train.steps and (not self.run.seconds or self.seconds < self.run.seconds):
                with interrupt_at_end():
                    begun = time.monotonic()
                    for key, value in self.one_step().items():
                        sums.setdefault(key, []).append(value)
                    self.seconds += time.monotonic() - begun
                if log is not None:
                    self._record(sums, log, progress)
        if log is not None:
            self.save()

    def _record(self, sums: dict[str, list[float]], log: TextIO, progress: Any) -> None:
        """Whatever is due after a step: a line of the log (means of `sums`, which are then emptied), an evaluation, a checkpoint."""
        last = self.step == self.run.train.steps
        if self.step % LOG_EVERY == 0:
            progress(self.step, log_means(log, self.step, self.seconds, sums))
        if self.step % EVALUATE_EVERY == 0 or last:
            log.write(json.dumps({"step": self.step, "seconds": round(self.seconds, 1), "evaluation": self.evaluate()}) + "\n")
        log.flush()
        if self.step % CHECKPOINT_EVERY == 0 or last:
            self.save()


def starting_weights(path: Path, device: str = "cpu") -> dict[str, Any]:
    """Averaged weights to begin with, {"name": model, "average": tensors}: of a checkpoint, or of a folder of shipped weights. Raises BadNetwork."""
    if path.is_dir():
        if not (path / INDEX_FILE).exists():
            raise BadNetwork(f"{path}: no shipped weights (it lacks {INDEX_FILE}): name weights/marsqe, or the checkpoint.pt of a run")
        return {"name": "marsqe", "average": {name: value.to(device) for name, value in load_marsqe(path).state_dict().items()}}
    return read_checkpoint(path, device, ("average",))


def mean_of(states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of the weights of several models of one kind ("model soups", Wortsman et al. 2022)."""
    return {name: (sum((state[name] for state in states[1:]), value) / len(states)).to(value.dtype) for name, value in states[0].items()}


def coded_by(folders: Sequence[Path]) -> dict[str, Any]:
    """{"coded_by": which codec and ground decoder made the pictures coded beforehand}, of the first folder that tells; else empty."""
    return next(({"coded_by": read_json(folder / MADE_BY_FILE)} for folder in folders if (folder / MADE_BY_FILE).exists()), {})


def gain(before: Tensor, enhanced: Tensor, raw: Tensor) -> float:
    """Mean gain in PSNR over the batch, dB."""
    after = (enhanced.detach() - raw).square().mean((1, 2, 3))
    return 10 * torch.log10(before.clamp_min(0.1) / after.clamp_min(0.1)).mean().item()


def validation_crops(data: Path) -> dict[str, list[Batch]]:
    """The centre of every validation picture, compressed once: as it is, and (prefix "other_") as of another camera."""
    quality, side = VALIDATED
    batches: dict[str, list[Batch]] = {"": [], "other_": []}
    for i, path in enumerate(picture_paths(data / "val")):
        picture = load_picture(path)
        top, left = ((n - side) // 2 for n in picture.shape[:2])
        crop = np.ascontiguousarray(picture[top:top + side, left:left + side])
        for camera, raw in (("", crop), ("other_", other_camera(crop, i))):
            coded, tables = jpeg(raw, quality)
            batches[camera].append(Batch(to_tensor(raw)[None], to_tensor(coded)[None], torch.from_numpy(tables)[None],
                                         torch.ones(1, side // 8, side // 8, dtype=torch.int64), torch.ones(1), None))
    return batches


def parse(arguments: list[str]) -> Run:
    parser = argparse.ArgumentParser(prog="python -m remac.train_marsqe", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     epilog=EXAMPLES)
    parser.add_argument("--model", choices=MODELS, default="marsqe")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; an unfinished one is resumed")
    parser.add_argument("--data", help="folder of the Mars pictures (else $REMAC_DATA)")
    parser.add_argument("--steps", type=int, default=DEFAULTS.steps, help="length of the schedule")
    parser.add_argument("--batch", type=int, default=DEFAULTS.batch, help="patches per step")
    parser.add_argument("--set", metavar="FIELD=NUMBER", action="append", default=[], help="any other number of TrainConfig, e.g. learning_rate=2e-4")
    parser.add_argument("--parts", type=float, nargs=2, default=(0.6, 0.75), metavar=("POST", "REFERENCES"),
                        help="shares of the steps after which the post-enhancement and the references take part")
    parser.add_argument("--post-only", action="store_true", help="the main network stays as --start has it, only the post-enhancement learns")
    parser.add_argument("--seconds", type=float, default=0, help="stop after so much training time (0: never)")
    parser.add_argument("--workers", type=int, default=0, help="processes that prepare batches, for a GPU (0: none)")
    parser.add_argument("--coded", type=Path, nargs="+", default=[], metavar="FOLDER",
                        help="pictures coded beforehand, to learn from besides JPEG: runs/coded/hevc runs/coded/remac")
    parser.add_argument("--coded-share", type=float, default=CODED_SHARE, help="of the patches that are of such pictures")
    parser.add_argument("--qualities", type=int, nargs="+", default=[], choices=range(1, 101), metavar="Q",
                        help="JPEG qualities to learn, no others (a model for each setting)")
    parser.add_argument("--own-camera", type=float, nargs="?", const=1.0, default=0.0, metavar="SHARE",
                        help="of the patches that are as the camera of the pictures took them, the rest being of any camera or a chart "
                             "(alone: all of them; gains a little on this camera, loses much on others)")
    parser.add_argument("--start", type=Path, nargs="+", default=[], metavar="FROM",
                        help="checkpoint whose averaged weights to start from, or weights/marsqe: the shipped ones; the mean of several")
    parser.add_argument("--processes", type=int, default=1, help="CPU processes with averaged gradients, one thread each; --batch patches in each")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(arguments)
    if options.processes > 1 and options.workers:
        parser.error("--workers: the processes of --processes prepare their own batches; leave one of them away")
    if not 0 <= options.own_camera <= 1:
        parser.error(f"--own-camera {options.own_camera:g}: a share of the patches, from 0 to 1")
    changed: dict[str, Any] = {"steps": options.steps, "batch": options.batch, **dict(setting(text, parser, UNUSED) for text in options.set)}
    config = replace(DEFAULTS, **changed)
    return Run(options.model, config, options.parts[0], options.parts[1], options.out, data_folder(options.data), options.device,
               tuple(options.start), options.seconds, options.workers, tuple(options.coded), options.coded_share, options.post_only,
               options.processes, Narrowed(tuple(options.qualities), options.own_camera))


def _work(run: Run, rank: int) -> None:
    Trainer(run, rank).train(show_progress(run.train.steps) if rank == 0 else None)


@reported
def main(arguments: list[str]) -> int:
    run = parse(arguments)
    begin(run.folder, {"model": run.model, "train": asdict(run.train), "post_from": run.post_from, "references_from": run.references_from,
                       "start": [str(path) for path in run.start], "coded": [str(folder) for folder in run.coded], "coded_share": run.coded_share,
                       "post_only": run.post_only, **asdict(run.only), "processes": run.processes, "device": run.device,
                       "command": " ".join(["python -m remac.train_marsqe", *arguments]), **coded_by(run.coded)})
    for path in run.start:
        starting_weights(path)            # here, where an error is one line: that of a worker is a traceback
    run_processes(_work, run, run.processes, run.device, run.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
