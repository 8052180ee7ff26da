"""The training graph computes the normative integers, and a stopped run goes on as if it had never stopped."""
from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from tiny_codec import TINY, as_tensor, picture, run_for, trained, write_network

from calibration import freeze, integer_network, tables, thaw
from remac import train_codec
from remac import widen as widening
from remac.cameras import processed
from remac.checkpoints import read_checkpoint, save_checkpoint, write_checkpoint
from remac.codec import Analysed, Codec, context_taps
from remac.config import FOCUS, PROFILES, RATE, RateConfig, TrainConfig
from remac.quantise import IntegerQuantiser
from remac.train_codec import Trainer, draw_qualities, learning_rate, optimizers, rd_loss
from remac.weights import CODEC_FILE, save_codec
from remac.widen import widen
from remac_runtime import arithmetic
from remac_runtime.analysis import analyse
from remac_runtime.backends import open_backend
from remac_runtime.entropy_path import EntropyPath
from remac_runtime.exits import Exit
from remac_runtime.format import LATENT_OFFSET, PHASES, QUALITIES


@pytest.mark.parametrize("quality", [20, 41, QUALITIES - 1])
def test_training_graph_computes_the_integers_of_the_runtime(integer_codec: Codec, tmp_path: Path, quality: int) -> None:
    network = write_network(integer_codec, tmp_path)
    pixels = picture(7, 128, 192)
    with open_backend("numpy", tmp_path, network) as backend, torch.no_grad():
        expected = analyse(backend, pixels)
        analysed = integer_codec.analysis(as_tensor(pixels))
        assert np.array_equal(analysed.y[0].permute(1, 2, 0).numpy(), expected.y)
        z = torch.round(analysed.z.clamp(-LATENT_OFFSET, LATENT_OFFSET - 1))
        assert np.array_equal(z[0].permute(1, 2, 0).numpy() + LATENT_OFFSET, expected.z)

        path = EntropyPath(network, backend, None, None)
        batch = path.batch([0], expected.z[None])
        side = integer_codec.entropy.side(z)
        side = torch.cat([side, integer_codec.entropy.fetch(z, None, side)], 1)
        assert np.array_equal(side.permute(0, 2, 3, 1).numpy(), batch.side)
        quantise = IntegerQuantiser(integer_codec, integer_codec.gains(torch.tensor([quality]))[:, :, None, None])
        params = arithmetic.quality_params(network, quality)
        planes: list[np.ndarray] = []
        decoded: list[torch.Tensor] = []
        nonzero = 0
        for p, mu, scale in path.phases(batch, planes):
            dy, dx = PHASES[p]
            runtime = arithmetic.quantise(np.ascontiguousarray(expected.y[None, dy::2, dx::2]), mu, scale, params)
            planes.append(runtime.plane)
            mean, log_scale = integer_codec.entropy.phase(p, side, context_taps(p, decoded))
            residual, _, _, plane = quantise(analysed.y[:, :, dy::2, dx::2], mean, log_scale, False)
            decoded.append(plane[:, :TINY.context])
            assert np.array_equal(torch.round(mean).permute(0, 2, 3, 1).numpy(), mu)
            assert np.array_equal(residual.permute(0, 2, 3, 1).numpy(), runtime.symbols)
            assert np.array_equal(plane.permute(0, 2, 3, 1).numpy() + LATENT_OFFSET, runtime.plane)
            nonzero += int(np.count_nonzero(runtime.symbols))
    assert nonzero, "a check on zeros alone proves nothing"


def test_a_changed_weight_is_noticed(integer_codec: Codec, tmp_path: Path) -> None:
    """The equality above can fail: one weight moved by one unit changes y."""
    network = write_network(integer_codec, tmp_path)
    layers = integer_network.layers(integer_codec)
    pixels = picture(7, 64, 64)
    with open_backend("numpy", tmp_path, network) as backend:
        before = analyse(backend, pixels).y
    layers["head"].weight[0, 0, 0, -1] += 1 if layers["head"].weight[0, 0, 0, -1] < 64 else -1
    (tmp_path / "changed").mkdir()
    freeze.write_network(tmp_path / "changed" / "network.rmn", "tiny", 1, layers,
                         {**integer_network.gain_tensors(integer_codec), **tables.latent_tables(tables.latent_pmfs(None)),
                          **tables.uniform_hyper_tables(TINY.hyper), "score": tables.no_score()})
    changed = freeze.read_network(tmp_path / "changed" / "network.rmn")
    with open_backend("numpy", tmp_path / "changed", changed) as backend:
        assert not np.array_equal(analyse(backend, pixels).y, before)


@pytest.mark.parametrize(("stage", "muon"), [("float", 0.0), ("quantised", 0.0), ("quantised", 4.0), ("decoder", 0.0)])
def test_a_stopped_run_resumes_to_the_exact_step(stage: str, muon: float, pictures: Path, tmp_path: Path) -> None:
    """The references too: coded once, with the weights that the run began with."""
    start = None
    for before in {"float": (), "quantised": ("float",), "decoder": ("float", "quantised")}[stage]:
        trained(run_for(tmp_path / before, pictures, before, start, steps=2))
        start = tmp_path / before / "checkpoint.pt"
    straight = trained(run_for(tmp_path / "straight", pictures, stage, start, muon=muon))
    stopped = trained(run_for(tmp_path / "stopped", pictures, stage, start, muon=muon), stop_at=2)
    stopped.skipped = 1
    stopped.save()
    assert Trainer(run_for(tmp_path / "stopped", pictures, stage, start, muon=muon), 0).skipped == 1
    resumed = trained(run_for(tmp_path / "stopped", pictures, stage, start, muon=muon))
    for name, value in straight.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_muon_takes_the_inner_convolutions_alone() -> None:
    """What has rows of scales of their own stays under Adam, and without `muon` all does."""
    codec = Codec(TINY)
    named = list(codec.named_parameters())
    names = {id(parameter): name for name, parameter in named}
    adam, muon = optimizers(named, TrainConfig(muon=4.0))
    inner, rest = ({names[id(p)] for group in optimizer.param_groups for p in group["params"]} for optimizer in (muon, adam))
    assert {"analysis.body.weight", "entropy.hidden.1.weight", "decoder.at16.0.first.weight"} <= inner
    assert {"analysis.head.weight", "entropy.mean.0.weight", "decoder.out.weight", "log_gain", "analysis.body.bias"} <= rest
    assert not inner & rest and len(inner) + len(rest) == len(named)
    assert [type(optimizer) for optimizer in optimizers(named, TrainConfig())] == [torch.optim.Adam]


def test_a_checkpoint_without_references_codes_them_anew(pictures: Path, tmp_path: Path) -> None:
    """Such are those of runs of an older version."""
    trained(run_for(tmp_path / "float", pictures, "float", steps=1))
    run = run_for(tmp_path / "run", pictures, "quantised", tmp_path / "float" / "checkpoint.pt", steps=1)
    trained(run)
    state = read_checkpoint(run.folder / "checkpoint.pt")
    save_checkpoint(run.folder / "checkpoint.pt", {key: value for key, value in state.items() if key not in ("pool", "skipped")})
    again = Trainer(run, 0)
    assert again.pool is not None and again.step == 1 and again.skipped == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_keeps_the_last_step(number: int, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                          capsys: pytest.CaptureFixture[str]) -> None:
    """The command ends with 130, after the step that it was in; the same command goes on to what an undisturbed run gives."""
    monkeypatch.setitem(PROFILES, "rover-s", TINY)
    arguments = ["--profile", "rover-s", "--data", str(pictures), "--device", "cpu", "--batch", "1", "--steps", "4", "--out"]
    assert train_codec.main([*arguments, str(tmp_path / "straight")]) == 0
    step = Trainer.one_step

    def disturbed(self: Trainer) -> dict[str, float]:
        if self.step == 2:
            os.kill(os.getpid(), number)
        return step(self)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)      # a shell's background would ignore it
    try:
        monkeypatch.setattr(Trainer, "one_step", disturbed)
        assert train_codec.main([*arguments, str(tmp_path / "run")]) == Exit.INTERRUPTED
    finally:
        signal.signal(signal.SIGINT, before)
    monkeypatch.setattr(Trainer, "one_step", step)
    assert read_checkpoint(tmp_path / "run" / "checkpoint.pt")["step"] == 3
    assert capsys.readouterr().err.endswith("remac: interrupted; nothing half-written is left\n")
    assert train_codec.main([*arguments, str(tmp_path / "run")]) == 0
    straight, resumed = (read_checkpoint(tmp_path / name / "checkpoint.pt")["model"] for name in ("straight", "run"))
    assert all(torch.equal(value, resumed[name]) for name, value in straight.items())


def test_stages_follow_each_other(pictures: Path, tmp_path: Path) -> None:
    trained(run_for(tmp_path / "float", pictures, "float", steps=2))
    quantised = trained(run_for(tmp_path / "quantised", pictures, "quantised", tmp_path / "float" / "checkpoint.pt", steps=2))
    assert quantised.model.integer
    before = {name: value.clone() for name, value in quantised.model.state_dict().items()}
    after = trained(run_for(tmp_path / "decoder", pictures, "decoder", tmp_path / "quantised" / "checkpoint.pt", steps=2)).model.state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith("decoder.") for name in changed)


def test_training_goes_on_from_shipped_weights(integer_codec: Codec, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROFILES, "tiny", TINY)
    write_network(integer_codec, tmp_path)
    save_codec(integer_codec, tmp_path / CODEC_FILE)
    assert thaw.main([str(tmp_path), "--out", str(tmp_path / "start.pt")]) == 0
    trainer = trained(run_for(tmp_path / "run", pictures, "quantised", tmp_path / "start.pt", steps=1))
    assert trainer.step == 1 and trainer.model.integer
    assert thaw.main([str(tmp_path / "nothing"), "--out", str(tmp_path / "no.pt")]) == 1 and not (tmp_path / "no.pt").exists()


@pytest.mark.slow
def test_a_killed_run_leaves_no_process_behind(pictures: Path, tmp_path: Path) -> None:
    """The shell's kill and a service's stop send SIGTERM to the first process alone."""
    command = [sys.executable, "-m", "remac.train_codec", "--out", str(tmp_path / "run"), "--data", str(pictures), "--processes", "2", "--batch", "1"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, stderr=log, start_new_session=True)
    while not list((tmp_path / "run").glob("rendezvous.*")) and process.poll() is None:        # the workers write it
        time.sleep(0.1)
    process.terminate()
    assert process.wait(60) == Exit.INTERRUPTED, (tmp_path / "log").read_text()
    with pytest.raises(ProcessLookupError):
        for _ in range(100):
            os.killpg(process.pid, 0)
            time.sleep(0.1)


def test_qualities_that_missions_use_are_drawn_more_often() -> None:
    torch.manual_seed(4)
    plain, focused = (draw_qualities(TrainConfig(batch=4000, focus=focus), "cpu") for focus in (0.0, 0.5))
    for drawn in (plain, focused):
        assert drawn.shape == (4000,) and drawn.min() < 1 and QUALITIES - 2 < drawn.max() <= QUALITIES - 1
    share = [float(((drawn >= FOCUS[0]) & (drawn <= FOCUS[1])).float().mean()) for drawn in (plain, focused)]
    assert share == pytest.approx([40 / 63, 0.5 + 0.5 * 40 / 63], abs=0.03)


def test_a_cameras_processing_softens_colours_sharpens_and_adds_noise() -> None:
    """Maps stay as they are, flat grey stays flat without noise, brightness stays."""
    flat = torch.full((4, 64, 64), 90.0)
    edge = torch.zeros(3, 64, 64)
    edge[0, :, 31:] = 180.0
    noisy: set[int] = set()
    soft: set[int] = set()
    for seed in range(60):
        after = processed(flat, np.random.default_rng(seed))
        assert torch.equal(after[3], flat[3]) and abs(float(after[:3].mean()) - 90.0) < 0.5
        after_edge = processed(edge, np.random.default_rng(seed))
        assert torch.equal(after_edge, after_edge.round().clamp(0, 255))
        if float(after[:3].std()) > 0:
            noisy.add(seed)
        elif float(after_edge[1].max()) > 0:
            soft.add(seed)
    assert 5 <= len(noisy) <= 30 and 5 <= len(soft) <= 30


def test_relative_loss_counts_shares_of_each_patchs_own_cost() -> None:
    """Its gradient is the plain one's, divided by what the patch costs (plus the constant): a calm patch is not drowned by busy ones."""
    quality, constant = torch.tensor([10.0, 24.0, 40.0]), 0.15

    def gradient(relative: float) -> torch.Tensor:
        bpp = torch.tensor([0.05, 0.6, 2.0], requires_grad=True)
        rd_loss(bpp, torch.tensor([9.0, 30.0, 12.0]), quality, relative).backward()
        assert bpp.grad is not None
        return bpp.grad
    costs = torch.stack([rd_loss(bpp[None], mse[None], q[None], 0.0)
                         for bpp, mse, q in zip(torch.tensor([0.05, 0.6, 2.0]), torch.tensor([9.0, 30.0, 12.0]), quality, strict=True)])
    torch.testing.assert_close(gradient(constant), gradient(0.0) / (costs + constant))
    assert costs.max() > 3 * costs.min()


def test_learning_rate_warms_up_holds_and_decays() -> None:
    config = TrainConfig(steps=1000, warmup_steps=10, hold=0.5)
    rates = [learning_rate(step, config) for step in range(1000)]
    assert rates[0] < rates[9] == pytest.approx(config.learning_rate)
    assert rates[499] == pytest.approx(config.learning_rate)
    assert rates[-1] == pytest.approx(config.final_rate, rel=0.05)


def test_regridding_keeps_the_gain_of_each_lambda() -> None:
    torch.manual_seed(0)
    codec = Codec(TINY)
    old = RateConfig(lambda_low=0.0005, lambda_high=0.6)
    before = codec.log_gain.detach().clone()
    codec.regrid(old)
    again = codec.log_gain.detach()
    slope = (before[-1] - before[0]) / np.log(old.lambda_high / old.lambda_low)      # start: log gain is linear in log lambda
    expected = before[0] + slope * np.log(RateConfig().lambda_low / old.lambda_low)
    assert torch.allclose(again[0], expected, atol=1e-4)


def test_widening_changes_nothing_but_adds_what_was_missing(integer_codec: Codec) -> None:
    """The first latents, their symbols' parameters and the context stay as they were; the decoder gains when nothing is quantised."""
    wide_config = replace(TINY, latents=48)
    patches = torch.cat([as_tensor(picture(n)) for n in (20, 21, 22)])
    wide = widen(integer_codec, wide_config, patches)
    x = as_tensor(picture(20, 128, 128))
    with torch.no_grad():
        before, after = integer_codec.analysis(x), wide.analysis(x)
        assert torch.equal(before.y, after.y[:, :TINY.latents]) and torch.equal(before.z, after.z)

        def error(codec: Codec, analysed: Analysed) -> float:
            latents = analysed.y / codec.analysis.head.output_scale[:, None, None]
            return float((codec.decoder(latents, codec.knots(torch.tensor([63.0])), codec.latent_norm) - x).square().mean())
        assert error(wide, after) < 0.98 * error(integer_codec, before)


@pytest.mark.parametrize(("stage", "latents", "message"), [
    ("float", 48, "is a float checkpoint: run the quantised stage first"),
    ("quantised", 32, "has 32 latents, the profile rover-m 32: none are to be added"),
    ("quantised", 16, "has 32 latents, the profile rover-m 16: none are to be added")])
def test_widening_what_cannot_be_is_refused(stage: str, latents: int, message: str, integer_codec: Codec, pictures: Path, tmp_path: Path,
                                            monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(PROFILES, "rover-m", replace(TINY, name="rover-m", latents=latents))
    write_checkpoint(tmp_path / "start.pt", stage, asdict(RATE), integer_codec.state_dict())
    arguments = [str(tmp_path / "start.pt"), "--out", str(tmp_path / "wide.pt"), "--data", str(pictures)]
    assert widening.main(arguments) == Exit.FAILED and not (tmp_path / "wide.pt").exists()
    assert capsys.readouterr().err == f"remac: {tmp_path / 'start.pt'} {message}\n"
