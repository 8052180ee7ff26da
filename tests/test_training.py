"""The training graph computes the normative integers, and a stopped run goes on as if it had never stopped."""
from __future__ import annotations

import lzma
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from remac_runtime.terrain import terrain

pytest.importorskip("torch")

import torch

from calibration import decoder, freeze, integer_network, tables, thaw
from remac import regrow
from remac.codec import Analysed, Codec, context_taps
from remac.config import DECODERS, FOCUS, PROFILES, RATE, CodecConfig, DecoderConfig, RateConfig, TrainConfig
from remac.data import processed
from remac.decoder import RefDecoder
from remac.integer import activation_ranges, prepare, set_integer
from remac.marsqe import MarsQE, conditions
from remac.quantise import IntegerQuantiser, dead_zone_rounding
from remac.refined import Refinement, stream_conditions
from remac.tensors import SUFFIX, load_tensors, save_tensors
from remac.train_codec import Run, Trainer, draw_qualities, learning_rate, load_weights
from remac.weights import CODEC_FILE, load_codec, load_ground, rover_layers, save_codec, save_decoder
from remac.widen import widen
from remac_runtime import arithmetic
from remac_runtime.analysis import analyse
from remac_runtime.backends import open_backend
from remac_runtime.enhance.input import stream_tables
from remac_runtime.entropy_path import EntropyPath
from remac_runtime.errors import BadNetwork
from remac_runtime.format import LATENT_OFFSET, PHASES, QUALITIES

TINY = CodecConfig("tiny", stem=16, body=16, deep=32, latents=32, context=16, hyper_hidden=16, hyper=16, side_hidden=16, side=32, reference=16,
                   entropy=32, decoder=DecoderConfig("tiny", (32, 32, 16, 16), (1, 1, 1, 1)))


def picture(seed: int, height: int = 256, width: int = 256) -> np.ndarray:
    return terrain(height, width, seed)


def as_tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float()


@pytest.fixture(scope="module")
def integer_codec() -> Codec:
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
    codec.rounding.copy_(dead_zone_rounding(0.4))
    prepare(codec, activation_ranges(codec, [as_tensor(picture(1)), as_tensor(picture(2))]))
    return codec


def write_network(codec: Codec, folder: Path) -> freeze.Network:
    provisional = {**tables.latent_tables(None), **tables.uniform_hyper_tables(codec.config.hyper)}
    return freeze.write(codec, folder, provisional, None)[0]


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
            mean, log_scale = integer_codec.entropy.phase(p, side, context_taps(p, decoded) if p else [])
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
                         {**integer_network.gain_tensors(integer_codec), **tables.latent_tables(None), **tables.uniform_hyper_tables(TINY.hyper)})
    changed = freeze.read_network(tmp_path / "changed" / "network.rmn")
    with open_backend("numpy", tmp_path / "changed", changed) as backend:
        assert not np.array_equal(analyse(backend, pixels).y, before)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for split, count in (("train", 3), ("val", 1)):
        (folder / split).mkdir()
        for n in range(count):
            Image.fromarray(picture(10 + n)).save(folder / split / f"{n}.png")
    return folder


def run_for(folder: Path, data: Path, stage: str, start: Path | None = None, steps: int = 4) -> Run:
    config = TrainConfig(stage, steps=steps, batch=1, patch=128 if stage == "float" else 256, warmup_steps=2)
    folder.mkdir(exist_ok=True)
    return Run(TINY, config, folder, data, 1, "cpu", start)


def trained(run: Run, stop_at: int | None = None) -> Trainer:
    trainer = Trainer(run, 0)
    while trainer.step < (stop_at or run.train.steps):
        trainer.one_step()
    trainer.save()
    return trainer


def test_a_stopped_run_resumes_to_the_exact_step(pictures: Path, tmp_path: Path) -> None:
    straight = trained(run_for(tmp_path / "straight", pictures, "float"))
    trained(run_for(tmp_path / "stopped", pictures, "float"), stop_at=2)
    resumed = trained(run_for(tmp_path / "stopped", pictures, "float"))
    for name, value in straight.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


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
    assert process.wait(60) == 128 + signal.SIGTERM, (tmp_path / "log").read_text()
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


def test_shipped_weights_rebuild_the_codec(integer_codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Network file and codec file give the same integers, float weights within 1/30 of a step, the same decoder but for 8 bits."""
    monkeypatch.setitem(PROFILES, "tiny", TINY)
    write_network(integer_codec, tmp_path)
    save_codec(integer_codec, tmp_path / CODEC_FILE)
    again = integer_network.shipped_codec(tmp_path)
    for name, layer in rover_layers(integer_codec).items():
        for mine, theirs in zip(layer.integer_parameters(), rover_layers(again)[name].integer_parameters(), strict=True):
            assert torch.equal(mine, theirs), name
        exact, loaded = layer.exact_parameters()[0], rover_layers(again)[name].exact_parameters()[0]
        assert (exact.clamp(-64.5, 64.5) - loaded).abs().max() <= 1.01 / 30, name
    y = torch.randn(1, TINY.latents, 4, 4)
    knots = integer_codec.knots(torch.tensor([40.0]))
    with torch.no_grad():
        mine, theirs = (codec.decoder(y, knots, codec.latent_norm) for codec in (integer_codec, again))
    assert (mine - theirs).abs().max() < 0.02 * (mine - mine.mean()).abs().max()


def test_deep_decoder_starts_as_the_moderate_one(integer_codec: Codec, tmp_path: Path) -> None:
    deeper = DecoderConfig("tiny-deep", TINY.decoder.widths, (2, 2, 3, 2), half=16, half_blocks=1)
    deep = Codec(replace(TINY, decoder=deeper))
    assert load_weights(deep, integer_codec.state_dict()) == []
    torch.manual_seed(1)
    y, texture, knots = torch.randn(1, 32, 8, 10), torch.randn(1, 32, 16, 16), integer_codec.knots(torch.tensor([30.0]))
    with torch.no_grad():
        mine, theirs = (codec.decoder(y, knots, codec.latent_norm, texture, torch.ones(1)) for codec in (integer_codec, deep))
    torch.testing.assert_close(theirs, mine)
    assert load_weights(deep, {**integer_codec.state_dict(), "analysis.other": y}) == ["analysis.other"]
    assert load_weights(deep, {key: value for key, value in integer_codec.state_dict().items() if key != "analysis.stem.weight"})


def test_a_deeper_decoder_follows_its_codec(integer_codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the codec stays, so does the decoder; else its trunk becomes the codec's, what both share moves as far, what is its own stays."""
    config = replace(TINY, decoder=replace(TINY.decoder, name="tiny-deep", blocks=(1, 1, 2, 1), trunk_of="tiny"))
    torch.manual_seed(5)
    deep = Codec(config)
    load_weights(deep, integer_codec.state_dict())
    grown = {name: value + 0.1 * torch.randn_like(value) if name.startswith("decoder.at") else value for name, value in deep.state_dict().items()}
    former = integer_codec.state_dict()
    moved = {name: value + 0.5 if name.startswith(("decoder.", "log_gain")) else value for name, value in former.items()}
    same, after = regrow.regrow(config, grown, former, former), regrow.regrow(config, grown, former, moved)
    trunk = {f"decoder.{name}" for name in deep.decoder.trunk_state()}
    assert any(name in former for name in grown if name not in trunk and name.startswith("decoder.at8"))
    for name, value in grown.items():
        torch.testing.assert_close(same[name], former[name] if name in trunk else value)
        expected = moved[name] if name in trunk or not name.startswith("decoder.") else value + 0.5 if name in former else value
        torch.testing.assert_close(after[name], expected, msg=name)
    monkeypatch.setitem(PROFILES, "rover-m", TINY)
    monkeypatch.setitem(DECODERS, "deep", config.decoder)
    for name, state in (("deep.pt", grown), ("former.pt", former), ("new.pt", moved), ("other.pt", {**moved, "stranger": moved["log_gain"]})):
        torch.save({"stage": "quantised", "rate": asdict(RATE), "model": state}, tmp_path / name)
    paths = [str(tmp_path / "deep.pt"), "--former", str(tmp_path / "former.pt"), "--out", str(tmp_path / "out.pt"), "--codec"]
    assert regrow.main([*paths, str(tmp_path / "other.pt")]) == 1 and not (tmp_path / "out.pt").exists()
    with pytest.raises(ValueError, match="name its own with --profile"):
        regrow.regrow(replace(config, latents=16), grown, former, moved)
    assert regrow.main([*paths, str(tmp_path / "new.pt")]) == 0
    written = torch.load(tmp_path / "out.pt", weights_only=True)["model"]
    assert all(torch.equal(written[name], value) for name, value in after.items())


def test_a_checkpoint_of_another_profile_is_refused(integer_codec: Codec, tmp_path: Path) -> None:
    torch.save({"stage": "quantised", "model": integer_codec.state_dict()}, tmp_path / "tiny.pt")
    with pytest.raises(SystemExit, match=r"tiny\.pt is not of the profile rover-s: name its own with --profile"):
        freeze.load_checkpoint(tmp_path / "tiny.pt", "rover-s")


def test_damaged_tensors_are_refused(tmp_path: Path) -> None:
    path, tensors = tmp_path / f"a{SUFFIX}", {"x": torch.arange(100, dtype=torch.int8).reshape(10, 10).T}
    save_tensors(path, tensors, {"version": "1"})
    loaded, metadata = load_tensors(path)
    assert torch.equal(loaded["x"], tensors["x"]) and metadata == {"version": "1"}
    whole = path.read_bytes()
    for damaged in (whole[:-20], b"", lzma.compress(b"abc"), lzma.compress(lzma.decompress(whole)[:-1])):
        path.write_bytes(damaged)
        with pytest.raises(BadNetwork, match=r"is damaged .*: take it from the repository again"):
            load_tensors(path)


def test_a_deeper_decoder_keeps_the_trunk_and_ships_without_it(integer_codec: Codec, tmp_path: Path, pictures: Path,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    deeper = replace(TINY.decoder, name="tiny-deep", blocks=(1, 1, 2, 1), trunk_of="tiny")
    write_network(integer_codec, tmp_path)
    save_codec(integer_codec, tmp_path / CODEC_FILE)
    monkeypatch.setitem(PROFILES, "tiny", TINY)
    monkeypatch.setitem(DECODERS, "tiny-deep", deeper)
    start = tmp_path / "start.pt"
    torch.save({"stage": "quantised", "rate": asdict(RATE), "model": integer_network.shipped_codec(tmp_path).state_dict()}, start)
    run = run_for(tmp_path / "deep", pictures, "decoder", start, steps=2)
    codec = trained(replace(run, codec=replace(TINY, decoder=deeper))).model
    decoder.check_same_trunk(codec, tmp_path)
    path = save_decoder(codec.decoder, tmp_path, "00")
    assert not any(name.removeprefix("decoder.").startswith(RefDecoder.TRUNK) for name in load_tensors(path)[0])
    again = load_ground(tmp_path, "tiny-deep").decoder.state_dict()
    for name, value in codec.decoder.state_dict().items():
        torch.testing.assert_close(again[name], value, atol=float(value.abs().max()) / 128, rtol=0)
    with torch.no_grad():
        codec.decoder.entry.weight.mul_(1.1)
    with pytest.raises(BadNetwork, match="differs from codec"):
        decoder.check_same_trunk(codec, tmp_path)


def test_a_refined_decoder_ships_its_refinement_alone(integer_codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Untrained it shows what the decoder that it refines shows; trained it comes back from its file and that decoder's."""
    deeper = replace(TINY.decoder, name="tiny-deep", blocks=(1, 1, 2, 1), trunk_of="tiny")
    monkeypatch.setitem(PROFILES, "tiny", TINY)
    monkeypatch.setitem(DECODERS, "tiny-deep", deeper)
    monkeypatch.setitem(DECODERS, "tiny-refined", replace(deeper, name="tiny-refined", version=3, trunk_of="", refines="tiny-deep"))
    save_codec(integer_codec, tmp_path / CODEC_FILE)
    base = RefDecoder(deeper, TINY.latents)
    base.load_state_dict(base.state_dict() | load_codec(tmp_path, {}).decoder.trunk_state())
    save_decoder(base, tmp_path, "00")
    torch.manual_seed(5)
    refinement = Refinement()
    y_hat = torch.randint(-9000, 9000, (4, 6, TINY.latents), dtype=torch.int32)
    inputs = (y_hat, torch.tensor([20.0]), torch.full((4, 8, 8, TINY.latents), LATENT_OFFSET, dtype=torch.uint8), torch.zeros(1))
    plain = load_ground(tmp_path, "tiny-deep")(*inputs)
    for trained in (False, True):
        if trained:
            torch.nn.init.normal_(refinement.network.sam.image.weight, std=0.05)
        torch.save({"name": "refinement", "average": refinement.state_dict()}, tmp_path / "run.pt")
        refined = decoder.load_refined(tmp_path / "run.pt", tmp_path, "tiny-refined")
        path = save_decoder(refined, tmp_path, "00")
        assert all(name.startswith("decoder.refinement.") for name in load_tensors(path)[0])
        again = load_ground(tmp_path, "tiny-refined")
        assert (again.decoder.config.version, torch.equal(again(*inputs), plain)) == (3, not trained)
        torch.testing.assert_close(again.decoder.state_dict()["refinement.network.head.weight"], refinement.network.head.weight.detach(),
                                   atol=0.01, rtol=0)
    torch.save({"name": "marsqe", "average": {}}, tmp_path / "run.pt")
    with pytest.raises(BadNetwork, match="no checkpoint of a refinement"):
        decoder.load_refined(tmp_path / "run.pt", tmp_path, "tiny-refined")


def test_a_refinement_starts_from_marsqe() -> None:
    torch.manual_seed(5)
    marsqe, refinement = MarsQE(), Refinement()
    refinement.start_from(marsqe.state_dict())
    theirs = marsqe.main.state_dict()
    taken = refinement.network.state_dict()
    assert len(taken) > 60 and all(torch.equal(value, theirs[name]) for name, value in taken.items())


@pytest.mark.parametrize("quality", [0, 20, 63])
def test_qualities_are_described_as_their_tables_would_be(quality: int) -> None:
    tables = torch.from_numpy(stream_tables(quality))[None]
    torch.testing.assert_close(stream_conditions(torch.tensor([float(quality)])), conditions(tables), atol=1e-5, rtol=0)


def test_decoder_for_another_codec_is_refused(integer_codec: Codec, tmp_path: Path) -> None:
    network = write_network(integer_codec, tmp_path)
    decoder.check_same_rover(integer_codec, network)
    other = Codec(TINY)
    other.load_state_dict(integer_codec.state_dict())
    with torch.no_grad():
        other.analysis.body.weight.mul_(-1)
    set_integer(other)
    with pytest.raises(BadNetwork, match="layer body"):
        decoder.check_same_rover(other, network)
