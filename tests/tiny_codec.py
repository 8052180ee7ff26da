"""An untrained codec that is small enough to train and ship within a test, and runs of its training."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from remac_runtime.terrain import terrain

pytest.importorskip("torch")

import torch

from calibration import freeze, tables
from remac.codec import Codec
from remac.config import CodecConfig, DecoderConfig, TrainConfig
from remac.integer import activation_ranges, prepare
from remac.train_codec import Run, Trainer
from remac_runtime.format import PHASES

TINY = CodecConfig("tiny", stem=16, body=16, deep=32, latents=32, context=16, hyper_hidden=16, hyper=16, side_hidden=16, side=32, reference=16,
                   entropy=32, decoder=DecoderConfig("tiny", (32, 32, 16, 16), (1, 1, 1, 1)))


def picture(seed: int, height: int = 256, width: int = 256) -> np.ndarray:
    return terrain(height, width, seed)


def as_tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float()


def write_network(codec: Codec, folder: Path) -> freeze.Network:
    provisional = {**tables.latent_tables(tables.latent_pmfs(None)), **tables.uniform_hyper_tables(codec.config.hyper), "score": tables.no_score()}
    return freeze.write(codec, folder, provisional, None)[0]


def run_for(folder: Path, data: Path, stage: str, start: Path | None = None, steps: int = 4, muon: float = 0.0) -> Run:
    config = TrainConfig(stage, steps=steps, batch=1, patch=128 if stage == "float" else 256, warmup_steps=2, muon=muon)
    folder.mkdir(exist_ok=True)
    return Run(TINY, config, folder, data, 1, "cpu", start)


def trained(run: Run, stop_at: int | None = None) -> Trainer:
    trainer = Trainer(run, 0)
    while trainer.step < (stop_at or run.train.steps):
        trainer.one_step()
    trainer.save()
    return trainer


def lively_codec() -> Codec:
    """An untrained codec whose activations are as lively as a trained one's, in integer mode."""
    torch.manual_seed(3)
    codec = Codec(TINY).eval()
    blocks = torch.randn(2000, 768) * 0.4
    codec.start_from_pca(blocks)
    with torch.no_grad():
        for _, mean, scale in map(codec.entropy.layers_of, range(len(PHASES))):
            mean.weight.mul_(5.0)
            scale.weight.mul_(5.0)
        codec.entropy.layers_of(0)[0].weight.normal_(0, 0.1)
    prepare(codec, activation_ranges(codec, [as_tensor(picture(1)), as_tensor(picture(2))]))
    return codec


def write_pictures(folder: Path) -> None:
    """Training and validation pictures, of drawn terrain."""
    for split, count in (("train", 3), ("val", 1)):
        (folder / split).mkdir()
        for n in range(count):
            Image.fromarray(picture(10 + n)).save(folder / split / f"{n}.png")
