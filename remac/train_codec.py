"""Train the REMAC codec: `python -m remac.train_codec --help`.

A run is a folder: config.json, checkpoint.pt (written atomically, resumes to the exact step) and log.jsonl. Patches and noise are functions of
(seed, step, process), so a stopped run continues as if it had never stopped. An interrupt (Ctrl-C, SIGTERM) writes the checkpoint of the last step.
"""
from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Collection
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor, nn

from remac.cameras import shown
from remac.checkpoints import read_checkpoint, write_checkpoint
from remac.codec import Analysed, Codec, References
from remac.config import DECODERS, FOCUS, PIXEL_UNIT, PROFILES, RATE, STAGES, TRAINED_BAND_ROWS, CodecConfig, RateConfig, TrainConfig
from remac.data import PatchSampler, load_picture, picture_paths
from remac.integer import activation_ranges, prepare, set_integer
from remac.layers import space_to_depth
from remac.muon import Muon, is_inner
from remac.parallel import average_gradients, run_processes
from remac.references import REFERENCE_PIXELS, ReferencePool, code_pool
from remac.refined import own_parameters
from remac.runs import CHECKPOINT_FILE, begin, log_means, open_log, saved_at_interrupt
from remac_runtime.errors import BadInput, BadNetwork
from remac_runtime.exits import interrupt_at_end, reported
from remac_runtime.format import PIXEL_OFFSET
from remac_runtime.mars import data_folder

EVALUATED_QUALITIES = (8, 24, 40, 56)
CHECKPOINT_EVERY = 500
EVALUATE_EVERY = 2000
LOG_EVERY = 50
EXAMPLES = """examples:
  python -m remac.train_codec --out runs/float --processes 2
  python -m remac.train_codec --stage quantised --start runs/float/checkpoint.pt --out runs/quantised --processes 2
  python -m remac.train_codec --stage decoder --start runs/quantised/checkpoint.pt --out runs/decoder --processes 2
  python -m remac.train_codec --stage decoder --decoder deep --start runs/quantised/checkpoint.pt --out runs/deep
  python -m remac.train_codec --stage decoder --decoder refined --start runs/refined_start.pt --out runs/refined    # a start by calibration.thaw"""
LATER_TENSORS = ("decoder.texture.", "context_shift")      # a float checkpoint may lack them
DEEPER_TENSORS = ("decoder.low.", "decoder.at", "decoder.to2.", "decoder.out2.", "decoder.refinement.")     # a decoder may lack some of these
# What learns by Adam beside Muon: what reads or writes latents and pixels, whose rows have scales of their own, and attention.
OUTER = ("head", "hyper_out", "mean", "scale", "reference", "side_in", "entry", "linear", "out", "out2", "texture", "image", "gate", "hints")
POOL_PATCHES, REFERENCE_SEED = 48, 7


@dataclass(frozen=True)
class Run:
    """Everything a process needs to take part in a run."""

    codec: CodecConfig
    train: TrainConfig
    folder: Path
    data: Path
    processes: int
    device: str
    start: Path | None


def rate_lambda(quality: Tensor) -> Tensor:
    """lambda of each quality, float[B]."""
    share = quality.float() / (RATE.qualities - 1)
    return RATE.lambda_low * (RATE.lambda_high / RATE.lambda_low) ** share


def draw_qualities(config: TrainConfig, device: str) -> Tensor:
    """Qualities of a batch, float[B], from torch's generator: any of the scale, a share of them within FOCUS."""
    share = torch.rand(config.batch, device=device)
    if not config.focus:
        return share * (RATE.qualities - 1)
    focused = torch.rand(config.batch, device=device) < config.focus
    return torch.where(focused, FOCUS[0] + share * (FOCUS[1] - FOCUS[0]), share * (RATE.qualities - 1))


def rd_loss(bpp: Tensor, mse: Tensor, quality: Tensor, relative: float) -> Tensor:
    """What is minimised, of the rates, squared errors (8-bit units) and qualities of a batch, float[B] each; see TrainConfig.relative."""
    lambdas = rate_lambda(quality)
    costs = 0.2 * (bpp + lambdas * mse) / lambdas ** RATE.balance
    return torch.log(costs + relative).mean() if relative else costs.mean()


def learning_rate(step: int, config: TrainConfig) -> float:
    """Warm-up, hold, cosine decay."""
    share = step / config.steps
    decay = 1.0 if share < config.hold else 0.5 * (1 + math.cos(math.pi * (share - config.hold) / (1 - config.hold)))
    return config.final_rate + (config.learning_rate - config.final_rate) * min(1.0, (step + 1) / config.warmup_steps) * decay


def load_weights(model: Codec, state: dict[str, Tensor]) -> list[str]:
    """Load a checkpoint's tensors; returns names that do not belong. What a deeper decoder has besides keeps its start, which adds nothing.

    Tensors of other shapes do not belong either; where there are any, nothing is loaded.
    """
    value = "decoder.texture.value."
    ours = model.state_dict()
    grown = {name: torch.cat([tensor, ours[name][len(tensor):]]) if name.startswith(value) and len(tensor) < len(ours[name]) else tensor
             for name, tensor in state.items()}
    misshapen = [name for name, tensor in grown.items() if name in ours and tensor.shape != ours[name].shape]
    if misshapen:
        return misshapen
    missing, unexpected = model.load_state_dict(grown, strict=False)
    later = (*LATER_TENSORS, *DEEPER_TENSORS)
    return [name for name in missing if not name.startswith(later)] + [name for name in unexpected if not name.startswith(LATER_TENSORS)]


def load_own(model: Codec, state: dict[str, Tensor], source: Path) -> None:
    """Load the tensors of a checkpoint, all of which must belong. Raises BadNetwork."""
    foreign = load_weights(model, state)
    if foreign:
        raise BadNetwork(f"{source}: not of profile {model.config.name} with this decoder (first foreign tensor: {foreign[0]}): "
                         "name its own with --profile and --decoder")


def optimizers(named: list[tuple[str, nn.Parameter]], config: TrainConfig) -> list[torch.optim.Optimizer]:
    """Adam, and Muon where it is asked for, for parameters by their names in the codec. A group's `factor` multiplies the learning rate."""
    inner = [p for name, p in named if config.muon and is_inner(name, p, OUTER)]
    rest = [p for name, p in named if not (config.muon and is_inner(name, p, OUTER))]
    adam = torch.optim.Adam([{"params": rest, "factor": 1.0}], config.learning_rate, (0.9, config.second_moment), fused=True)
    return [adam, *([Muon([{"params": inner, "factor": config.muon}], config.learning_rate)] if inner else [])]


def autocast(device: str) -> Any:
    return torch.autocast(device, torch.bfloat16)


@torch.no_grad()
def evaluate(model: Codec, pictures: list[Tensor], device: str) -> dict[str, list[float]]:
    """Estimated bits per pixel and mean PSNR over whole pictures at a few qualities: {quality: [bpp, dB]}."""
    model.eval()
    result = {}
    for quality in EVALUATED_QUALITIES:
        bpp, psnr = [], []
        for x in pictures:
            with autocast(device):
                coded = model(x.to(device), torch.tensor([quality], device=device), False, bands=x.shape[2] // TRAINED_BAND_ROWS)
            error = (coded.x_hat.clamp(0, 255).round() - x.to(device)).square().mean().item()
            bpp.append((coded.bits_y + coded.bits_z).item() / (x.shape[2] * x.shape[3]))
            psnr.append(10 * math.log10(255 ** 2 / error))
        result[str(quality)] = [sum(bpp) / len(bpp), sum(psnr) / len(psnr)]
    model.train()
    return result


class Trainer:
    """One process of a run."""

    def __init__(self, run: Run, rank: int) -> None:
        self.run, self.rank = run, rank
        torch.manual_seed(run.train.seed)
        self.sampler = PatchSampler(picture_paths(run.data / "train"), run.train.patch, run.train.seed)
        self.checkpoint = run.folder / CHECKPOINT_FILE
        resumed = read_checkpoint(self.checkpoint, run.device, ("model", "rate", "optimizers", "step")) if self.checkpoint.exists() else None
        self.model = Codec(run.codec).to(run.device)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.pool: ReferencePool | None = None
        self._load(resumed)
        self.parameters = own_parameters(self.model.decoder) if run.train.stage == "decoder" else list(self.model.parameters())
        self.model.requires_grad_(False)
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        self.optimizers = optimizers([(name, p) for name, p in self.model.named_parameters() if p.requires_grad], run.train)
        self.step, self.seconds, self.skipped = 0, 0.0, 0
        if resumed:
            for optimizer, saved in zip(self.optimizers, resumed["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
            self.step, self.seconds, self.skipped = resumed["step"], resumed["seconds"], resumed.get("skipped", 0)
        self.pictures = calibration_pictures(run.data) if rank == 0 else []

    def _load(self, resumed: dict[str, Any] | None) -> None:
        """Weights to begin with: the run's own, those of --start, or the PCA; and whatever the stage needs besides."""
        source = self.checkpoint if resumed else self.run.start
        if source is None:
            blocks = space_to_depth((self.sampler.batch(96, 0).pixels - PIXEL_OFFSET) / PIXEL_UNIT, 16)
            self.model.start_from_pca(blocks.permute(0, 2, 3, 1).reshape(-1, 768).to(self.run.device))
            return
        state = resumed or read_checkpoint(source, self.run.device, ("model", "rate"))
        load_own(self.model, state["model"], source)
        rate = RateConfig(**state["rate"])
        if rate != RATE:
            self.model.regrid(rate)
        if self.run.train.stage != "float":
            self._go_integer(state.get("stage", "float"), resumed)

    def _go_integer(self, stage: str, resumed: dict[str, Any] | None) -> None:
        """The rover side in integers, from the weights of a stage, and the references. Those of a resumed run are its first weights': kept."""
        if stage == "float":
            prepare(self.model, activation_ranges(self.model, calibration_pictures(self.run.data)))
        set_integer(self.model)
        if resumed and "pool" in resumed:
            self.pool = ReferencePool(**resumed["pool"])
            return
        patches = PatchSampler(picture_paths(self.run.data / "train"), REFERENCE_PIXELS, REFERENCE_SEED, augment=False).batch(POOL_PATCHES, 0).pixels
        self.pool = code_pool(self.model, patches.to(self.run.device))

    def _choose(self, analysed: Analysed) -> References:
        assert self.pool is not None
        share = (torch.rand(len(analysed.y), device=analysed.y.device) >= self.run.train.unreferenced).float()
        return self.pool.nearest(analysed, share)

    def save(self) -> None:
        write_checkpoint(self.checkpoint, self.run.train.stage, asdict(RATE), self.model.state_dict(), step=self.step,
                         optimizers=[optimizer.state_dict() for optimizer in self.optimizers], seconds=self.seconds, skipped=self.skipped,
                         **({"pool": vars(self.pool)} if self.pool else {}))

    def one_step(self) -> dict[str, float]:
        config, device = self.run.train, self.run.device
        for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
            group["lr"] = group["factor"] * learning_rate(self.step, config)
        torch.manual_seed(hash((config.seed, self.step, self.rank)) % 2 ** 63)
        patches = self.sampler.batch(config.batch, self.step, self.rank)
        x = patches.pixels.to(device).contiguous(memory_format=torch.channels_last)
        quality = draw_qualities(config, device)
        noisy = self.step < config.noisy * config.steps
        with autocast(device):
            coded = self.model(x, quality, noisy, bands=config.patch // TRAINED_BAND_ROWS if self.step % 2 else 1,
                               choose=self._choose if self.pool else None)
        pixels = x.shape[2] * x.shape[3]
        bpp_y, bpp_z = coded.bits_y / pixels, coded.bits_z / pixels
        patterns = patches.patterns.to(device)
        mse = (shown(coded.x_hat, patterns) - shown(x, patterns)).square().mean((1, 2, 3))
        loss = rd_loss(bpp_y + bpp_z, mse, quality, config.relative)
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        if self.run.processes > 1:
            average_gradients(self.parameters, self.run.processes)
        norm = nn.utils.clip_grad_norm_(self.parameters, config.clip)
        calm = bool(norm < config.spike) or self.step < config.warmup_steps or self.skipped >= config.skips
        if torch.isfinite(norm) and calm:
            for optimizer in self.optimizers:
                optimizer.step()
            self.skipped = 0
        else:
            self.skipped += 1
        self.step += 1
        return {"loss": loss.item(), "bpp": (bpp_y + bpp_z).mean().item(), "bpp_z": bpp_z.mean().item(),
                "psnr": (10 * torch.log10(255 ** 2 / mse)).mean().item(), "norm": norm.item()}

    def train(self, progress: Any) -> None:
        """All steps that are left. An interrupt waits for the end of its step and writes the checkpoint."""
        log = open_log(self.run.folder, self.step) if self.rank == 0 else None
        sums: dict[str, list[float]] = {}
        with saved_at_interrupt(self.save) if self.rank == 0 else nullcontext():
            while self.step < self.run.train.steps:
                with interrupt_at_end():
                    begun = time.monotonic()
                    values = self.one_step()
                    self.seconds += time.monotonic() - begun
                if log is not None:
                    self._record(values, sums, log, progress)

    def _record(self, values: dict[str, float], sums: dict[str, list[float]], log: TextIO, progress: Any) -> None:
        """Whatever is due after a step: a line of the log (means of `sums`, which are then emptied), an evaluation, a checkpoint."""
        for key, value in values.items():
            sums.setdefault(key, []).append(value)
        last = self.step == self.run.train.steps
        if self.step % LOG_EVERY == 0:
            progress(self.step, log_means(log, self.step, self.seconds, sums))
        if self.step % EVALUATE_EVERY == 0 or last:
            log.write(json.dumps({"step": self.step, "evaluation": evaluate(self.model, self.pictures, self.run.device)}) + "\n")
        log.flush()
        if self.step % CHECKPOINT_EVERY == 0 or last:
            self.save()


def calibration_pictures(data: Path) -> list[Tensor]:
    """The validation pictures: none of them is trained on, and none is a test picture."""
    return [_cropped(load_picture(path)) for path in picture_paths(data / "val")]


def _cropped(picture: Any) -> Tensor:
    """The largest top-left window whose sides are multiples of TRAINED_BAND_ROWS, as float[1,3,H,W]."""
    h, w = (n // TRAINED_BAND_ROWS * TRAINED_BAND_ROWS for n in picture.shape[:2])
    return torch.from_numpy(picture[:h, :w].copy()).permute(2, 0, 1)[None].float().contiguous(memory_format=torch.channels_last)


def show_progress(total: int, hidden: tuple[str, ...] = ("step", "seconds")) -> Any:
    """A bar with what a record holds but for the `hidden`, where tqdm is installed; else a line of JSON for each record."""
    try:
        from tqdm import tqdm
    except ImportError:
        return lambda step, record: print(json.dumps(record), flush=True)
    bar = tqdm(total=total, unit="step", mininterval=5)

    def show(step: int, record: dict[str, Any]) -> None:
        bar.n = step
        bar.set_postfix({k: f"{v:.3f}" for k, v in record.items() if k not in hidden}, refresh=True)
    return show


def _work(run: Run, rank: int) -> None:
    Trainer(run, rank).train(show_progress(run.train.steps, ("step", "seconds", "bpp_z", "norm")) if rank == 0 else None)


def setting(text: str, parser: argparse.ArgumentParser, unused: Collection[str] = ()) -> tuple[str, float]:
    """FIELD=NUMBER as (field, number); fields of TrainConfig that a command does not use are `unused`."""
    name, _, value = text.partition("=")
    numbers = {field.name: {"int": int, "float": float}[str(field.type)] for field in fields(TrainConfig)
               if field.type != "str" and field.name not in unused}
    try:
        if name in numbers:
            return name, numbers[name](value)
    except ValueError:
        pass
    parser.error(f"--set {text}: expected FIELD=NUMBER with a field of {', '.join(sorted(numbers))}")


def parse(arguments: list[str]) -> Run:
    parser = argparse.ArgumentParser(prog="python -m remac.train_codec", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     epilog=EXAMPLES)
    parser.add_argument("--profile", choices=sorted(PROFILES), default="rover-m")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; an unfinished one is resumed")
    parser.add_argument("--data", help="folder of the Mars pictures (else $REMAC_DATA)")
    parser.add_argument("--stage", choices=sorted(STAGES), default="float", help="float, then quantised, then decoder")
    parser.add_argument("--decoder", choices=sorted(DECODERS), help="ground decoder (default: the profile's)")
    parser.add_argument("--steps", type=int, help="length of the schedule")
    parser.add_argument("--batch", type=int, help="patches per process and step")
    parser.add_argument("--set", metavar="FIELD=NUMBER", action="append", default=[], help="any other number of TrainConfig, e.g. learning_rate=2e-4")
    parser.add_argument("--processes", type=int, default=1, help="CPU processes with averaged gradients, one thread each")
    parser.add_argument("--start", type=Path, help="checkpoint whose weights to start from")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(arguments)
    changed: dict[str, Any] = {key: value for key, value in (("steps", options.steps), ("batch", options.batch)) if value is not None}
    changed.update(setting(text, parser) for text in options.set)
    codec = PROFILES[options.profile]
    if options.decoder:
        codec = replace(codec, decoder=DECODERS[options.decoder])
    return Run(codec, replace(STAGES[options.stage], **changed), options.out, data_folder(options.data), options.processes,
               options.device, options.start)


@reported
def main(arguments: list[str]) -> int:
    run = parse(arguments)
    if run.train.stage != "float" and run.start is None and not (run.folder / CHECKPOINT_FILE).exists():
        raise BadInput(f"stage {run.train.stage} goes on from another run: name its checkpoint.pt with --start")
    begin(run.folder, {"codec": asdict(run.codec), "train": asdict(run.train), "rate": asdict(RATE), "processes": run.processes, "device": run.device,
                       "start": str(run.start or ""),
                       "command": " ".join(["python -m remac.train_codec", *arguments])})
    if run.start:
        start = read_checkpoint(run.start, needed=("model", "rate"), mapped=True)
        load_own(Codec(run.codec), start["model"], run.start)       # here, where an error is one line: that of a worker is a traceback
    run_processes(_work, run, run.processes, run.device, run.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
