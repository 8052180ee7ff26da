"""Train the terrain segmenter: `python -m remac.train_segmenter --out runs/segmenter`; the same command resumes or evaluates."""
from __future__ import annotations

import argparse
import io
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from remac.config import TrainConfig
from remac.data import DataMissing, data_folder, load_picture, picture_paths
from remac.marsqe import CLASS_PIXELS, CLASSES
from remac.packing import packed_model
from remac.segmenter import CLASS_NAMES, IGNORED, MULTIPLE, SEGMENTER_FILE, Segmenter
from remac.tensors import save_tensors
from remac.train_codec import autocast, learning_rate
from remac_runtime.files import replacing, write_json

PATCH, BATCH, SAVE_EVERY = 384, 6, 100
SHARE_EXPONENT = -0.4         # class weights: pixel share ** this, since four pixels of five are soil


def labelled(data: Path, split: str) -> list[tuple[Path, Path]]:
    """(picture, label map) of a split, sorted by name."""
    folder = data / "labels"
    return [(path, folder / f"{path.stem}.png") for path in picture_paths(data / split) if (folder / f"{path.stem}.png").exists()]


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
        x = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float()
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
        x, labels = torch.from_numpy(load_picture(picture).copy()).permute(2, 0, 1).float(), load_labels(label_path)
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


def train(folder: Path, data: Path, config: TrainConfig, device: str) -> Segmenter:
    """Train or resume to `config.steps`; returns the model."""
    torch.manual_seed(config.seed)
    patches = LabelledPatches(labelled(data, "train"), config.seed)
    model = Segmenter().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), config.learning_rate, (0.9, config.second_moment), weight_decay=0.02)
    weight, checkpoint, step, seconds = class_weights(patches).to(device), folder / "checkpoint.pt", 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, seconds = state["step"], state["seconds"]
    while step < config.steps:
        begun = time.monotonic()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, config)
        x, labels = (t.to(device) for t in patches.batch(step))
        with autocast(device):
            logits = model(x)
        loss = F.cross_entropy(logits.float(), labels, weight, ignore_index=IGNORED)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        optimizer.step()
        step, seconds = step + 1, seconds + time.monotonic() - begun
        if step % SAVE_EVERY == 0 or step == config.steps:
            with (folder / "log.jsonl").open("a") as log:
                log.write(json.dumps({"step": step, "seconds": round(seconds, 1), "loss": loss.item()}) + "\n")
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "seconds": seconds}
            with replacing(checkpoint) as path:
                torch.save(state, path)
    return model


def evaluate(model: Segmenter, data: Path) -> dict[str, dict[str, Any]]:
    """mIoU and accuracies on the labelled pictures of val and test."""
    return {split: segmentation_metrics(confusion(model, labelled(data, split))) for split in ("val", "test")}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m remac.train_segmenter", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; an unfinished one is resumed")
    parser.add_argument("--data", help="folder of the Mars pictures (else $REMAC_DATA)")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(arguments)
    try:
        data = data_folder(options.data)
        options.out.mkdir(parents=True, exist_ok=True)
        config = TrainConfig(steps=options.steps, learning_rate=1e-3, final_rate=1e-6, warmup_steps=50, hold=0.1, seed=5)
        model = train(options.out, data, config, options.device).cpu().eval()
        result = evaluate(model, data)
    except DataMissing as error:
        print(f"remac: {error}", file=sys.stderr)
        return 2
    write_json(options.out / "metrics.json", result)
    save_tensors(options.out / SEGMENTER_FILE, packed_model(model.state_dict()), {"version": "1"})
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
