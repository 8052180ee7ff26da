"""Train the terrain segmenter: `python -m remac.train_segmenter --out runs/segmenter`; the same command resumes or evaluates."""
from __future__ import annotations

import argparse
import io
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from remac.cameras import to_tensor
from remac.checkpoints import read_checkpoint, save_checkpoint
from remac.config import TrainConfig
from remac.data import load_picture, picture_paths
from remac.packing import packed_model
from remac.runs import CHECKPOINT_FILE, begin, log_means, open_log, saved_at_interrupt
from remac.segmenter import CLASSES, IGNORED, MULTIPLE, SEGMENTER_FILE, Segmenter
from remac.tensors import save_tensors
from remac.train_codec import autocast, learning_rate
from remac_runtime.enhance.matching import CLASS_NAMES, CLASS_PIXELS
from remac_runtime.exits import interrupt_at_end, reported
from remac_runtime.files import write_json
from remac_runtime.mars import DataMissing, data_folder

PATCH, BATCH, SAVE_EVERY = 384, 6, 100
SHARE_EXPONENT = -0.4         # class weights: pixel share ** this, since four pixels of five are soil


def labelled(data: Path, split: str) -> list[tuple[Path, Path]]:
    """(picture, label map) of a split, sorted by name. Raises DataMissing when there is none."""
    folder = data / "labels"
    pairs = [(path, folder / f"{path.stem}.png") for path in picture_paths(data / split) if (folder / f"{path.stem}.png").exists()]
    if not pairs:
        raise DataMissing(f"no label maps of the pictures of {split} in {folder}: docs/data.md tells which there must be")
    return pairs


def load_labels(path: Path) -> NDArray[np.uint8]:
    """uint8[H,W]: 0..3, 255 ignored."""
    with Image.open(path) as picture:
        return np.asarray(picture)


class LabelledPatches:
    """Random patches of pictures and labels, a pure function of (seed, step); half of them augmented, half JPEG-compressed."""

    def __init__(self, pairs: list[tuple[Path, Path]], seed: int) -> None:
        self.pictures = [np.dstack([load_picture(p), load_labels(q)]) for p, q in pairs]
        self.pictures = [np.pad(p, ((0, max(0, PATCH - p.shape[0])), (0, max(0, PATCH - p.shape[1])), (0, 0)), "reflect") for p in self.pictures]
        areas = np.array([p.shape[0] * p.shape[1] for p in self.pictures], dtype=np.float64)
        self.share, self.seed = areas / areas.sum(), seed

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """float[6,3,384,384] and labels int64[6,384/8,384/8]."""
        rng = np.random.default_rng((self.seed, step))
        pictures, labels = zip(*(self._one(rng) for _ in range(BATCH)), strict=True)
        return torch.stack(pictures), torch.stack(labels)

    def _one(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        picture = self.pictures[rng.choice(len(self.pictures), p=self.share)]
        top, left = (int(rng.integers(n - PATCH + 1)) for n in picture.shape[:2])
        crop = picture[top:top + PATCH, left:left + PATCH]
        crop = crop[:, ::-1] if rng.random() < 0.5 else crop
        pixels = np.ascontiguousarray(crop[..., :3])
        if rng.random() < 0.5:
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "JPEG", quality=int(rng.integers(15, 60)))
            pixels = np.asarray(Image.open(buffer))
        x = to_tensor(pixels)
        if rng.random() < 0.3:
            x = (x * float(rng.uniform(0.7, 1.3)) + float(rng.uniform(-15, 15))).clamp(0, 255)
        return x, coarse_labels(torch.from_numpy(crop[..., 3].copy()))


def coarse_labels(labels: Tensor) -> Tensor:
    """The label at the centre of every 8x8 block, uint8[H,W] -> int64[H/8,W/8]."""
    return labels[CLASS_PIXELS // 2::CLASS_PIXELS, CLASS_PIXELS // 2::CLASS_PIXELS].long()


@torch.no_grad()
def confusion(model: Segmenter, pairs: list[tuple[Path, Path]]) -> NDArray[np.int64]:
    """Pixels by (true class, predicted class) over whole pictures, at full resolution."""
    total = np.zeros((CLASSES, CLASSES), np.int64)
    for picture, label_path in pairs:
        x, labels = to_tensor(load_picture(picture)), load_labels(label_path)
        h, w = labels.shape
        padded = F.pad(x[None], (0, -w % MULTIPLE, 0, -h % MULTIPLE), "replicate")
        scores = F.interpolate(model(padded), scale_factor=float(CLASS_PIXELS), mode="bilinear", align_corners=False)[0, :, :h, :w]
        known = labels != IGNORED
        pair = labels[known].astype(np.int64) * CLASSES + scores.argmax(0).numpy()[known]
        total += np.bincount(pair, minlength=CLASSES ** 2).reshape(CLASSES, CLASSES)
    return total


def segmentation_metrics(matrix: NDArray[np.int64]) -> dict[str, Any]:
    """mIoU over the classes that occur, pixel accuracy, per-class IoU and accuracy (None where the class does not occur)."""
    hits, true, found = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    names = dict(enumerate(CLASS_NAMES))
    iou = {names[k]: float(hits[k] / (true[k] + found[k] - hits[k])) if true[k] else None for k in range(CLASSES)}
    accuracy = {names[k]: float(hits[k] / true[k]) if true[k] else None for k in range(CLASSES)}
    present = [v for v in iou.values() if v is not None]
    return {"miou": sum(present) / len(present), "pixel_accuracy": float(hits.sum() / matrix.sum()), "iou": iou, "accuracy": accuracy,
            "pixels": {names[k]: int(true[k]) for k in range(CLASSES)}}


def class_weights(data: LabelledPatches) -> Tensor:
    counts = np.zeros(256, np.int64)
    for picture in data.pictures:
        counts += np.bincount(picture[..., 3].reshape(-1), minlength=256)
    weight = (counts[:CLASSES] / counts[:CLASSES].sum()) ** SHARE_EXPONENT
    return torch.from_numpy(weight / weight.mean()).float()


class Trainer:
    """A run in progress."""

    def __init__(self, folder: Path, data: Path, config: TrainConfig, device: str) -> None:
        self.folder, self.config, self.device = folder, config, device
        torch.manual_seed(config.seed)
        self.patches = LabelledPatches(labelled(data, "train"), config.seed)
        self.model = Segmenter().to(device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), config.learning_rate, (0.9, config.second_moment), weight_decay=0.02)
        self.weight, self.step, self.seconds = class_weights(self.patches).to(device), 0, 0.0
        if (folder / CHECKPOINT_FILE).exists():
            state = read_checkpoint(folder / CHECKPOINT_FILE, device, ("model", "optimizer", "step", "seconds"))
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.seconds = state["step"], state["seconds"]

    def save(self) -> None:
        save_checkpoint(self.folder / CHECKPOINT_FILE, {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(),
                                                        "step": self.step, "seconds": self.seconds})

    def one_step(self) -> float:
        """The loss."""
        begun = time.monotonic()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.config)
        x, labels = (t.to(self.device) for t in self.patches.batch(self.step))
        with autocast(self.device):
            logits = self.model(x)
        loss = F.cross_entropy(logits.float(), labels, self.weight, ignore_index=IGNORED)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimizer.step()
        self.step, self.seconds = self.step + 1, self.seconds + time.monotonic() - begun
        return loss.item()

    def train(self) -> None:
        """All steps that are left. An interrupt waits for the end of its step and writes the checkpoint."""
        log = open_log(self.folder, self.step)
        with saved_at_interrupt(self.save):
            while self.step < self.config.steps:
                with interrupt_at_end():
                    loss = self.one_step()
                if self.step % SAVE_EVERY == 0 or self.step == self.config.steps:
                    log_means(log, self.step, self.seconds, {"loss": [loss]})
                    log.flush()
                    self.save()


def evaluate(model: Segmenter, data: Path) -> dict[str, dict[str, Any]]:
    """mIoU and accuracies on the labelled pictures of val and test."""
    return {split: segmentation_metrics(confusion(model, labelled(data, split))) for split in ("val", "test")}


@reported
def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m remac.train_segmenter", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; an unfinished one is resumed")
    parser.add_argument("--data", help="folder of the Mars pictures (else $REMAC_DATA)")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(arguments)
    data = data_folder(options.data)
    config = TrainConfig(steps=options.steps, batch=BATCH, patch=PATCH, learning_rate=1e-3, final_rate=1e-6, warmup_steps=50, hold=0.1, seed=5)
    begin(options.out, {"model": "segmenter", "train": asdict(config), "device": options.device,
                        "command": " ".join(["python -m remac.train_segmenter", *arguments])})
    trainer = Trainer(options.out, data, config, options.device)
    trainer.train()
    model = trainer.model.cpu().eval()
    result = evaluate(model, data)
    write_json(options.out / "metrics.json", result)
    save_tensors(options.out / SEGMENTER_FILE, packed_model(model.state_dict()), {"version": "1"})
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
