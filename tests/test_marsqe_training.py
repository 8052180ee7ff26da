"""What MarsQE learns from is a function of seed and step, its training goes on exactly where it stopped, and what was trained is shipped."""
from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from remac_runtime.terrain import terrain

pytest.importorskip("torch")

import torch
import torch.nn.functional as F

from remac import cameras, marsqe_data, marsqe_weights, train_marsqe, train_segmenter
from remac.cameras import other_camera, sensed, shown
from remac.charts import chart, chart_pictures
from remac.checkpoints import read_checkpoint
from remac.coded import HEVC, SETTINGS, chart_name, coded_names, load_coded
from remac.config import TrainConfig
from remac.data import load_picture, picture_paths
from remac.marsqe import MarsQE, MarsQEConfig, loss_of
from remac.marsqe_data import EVERYTHING, CompressedPatches, Dictionary, Narrowed
from remac.matching import jpeg, jpeg_with_tables
from remac.packing import unpacked
from remac.segmenter import SEGMENTER_FILE, Segmenter
from remac.tensors import load_tensors, save_tensors
from remac.train_codec import autocast
from remac_runtime import mosaics
from remac_runtime.enhance.matching import CELL
from remac_runtime.errors import BadNetwork
from remac_runtime.mars import DataMissing

TINY = MarsQEConfig(8, (1, 1, 1), (1, 1, 1), (8, 8, 8), (1, 1, 1), (1, 1, 1))


# ---- data

@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mars")
    for split, count in (("train", 3), ("val", 1)):
        (folder / split).mkdir()
        for i in range(count):
            Image.fromarray(terrain(256, 288, 10 * count + i)).save(folder / split / f"{i}.png")
    return folder


def patches(data: Path, seed: int = 1) -> CompressedPatches:
    torch.manual_seed(7)
    dictionary = Dictionary(np.stack([terrain(128, 128, seed) for seed in range(24)]))
    return CompressedPatches(picture_paths(data / "train"), seed, dictionary, Segmenter().eval())


def test_patches_are_a_function_of_seed_and_step(data: Path) -> None:
    first, second = patches(data).compressed_batch(3, 17, True), patches(data).compressed_batch(3, 17, True)
    for name in ("raw", "compressed", "tables", "classes", "weight"):
        assert torch.equal(getattr(first, name), getattr(second, name)), name
    assert first.references is not None and second.references is not None
    assert all(torch.equal(a, b) for a, b in zip(first.references, second.references, strict=True))
    for other in (patches(data).compressed_batch(3, 18, True), patches(data, 2).compressed_batch(3, 17, True)):
        assert not torch.equal(first.raw, other.raw)
    without = patches(data).compressed_batch(3, 17, False)
    assert without.references is None and torch.equal(without.raw, first.raw)


def test_what_is_learned_can_be_narrowed(data: Path, coded: Path) -> None:
    """To some JPEG qualities, and to pictures as they are, all or a share: such patches lie in one of them, perhaps mirrored."""
    paths = picture_paths(data / "train")
    pictures = [load_picture(path) for path in paths]
    kinds_of_patches = Narrowed((30,), 1.0), Narrowed((), 0.5), EVERYTHING
    narrow, shared, wide = (CompressedPatches(paths, 3, None, None, (coded,), 0.5, only) for only in kinds_of_patches)

    def found(raw: torch.Tensor) -> bool:
        patch = raw.permute(1, 2, 0).byte().numpy()
        return any((window == mirrored).all() for mirrored in (patch, patch[:, ::-1], patch[::-1], patch[::-1, ::-1]) for picture in pictures
                   for window in np.lib.stride_tricks.sliding_window_view(picture, (CELL, CELL, 3))[:, :, 0].reshape(-1, CELL, CELL, 3)
                   if window[0, 0, 0] == mirrored[0, 0, 0] and window[1, 2, 1] == mirrored[1, 2, 1])
    one = jpeg(pictures[0][:CELL, :CELL], 30)[1]
    batches = [narrow.compressed_batch(1, step, False) for step in range(12)]
    kinds = {torch.equal(batch.tables[0], torch.from_numpy(one)) for batch in batches}
    assert kinds == {True, False}                                    # JPEG, and coded beforehand
    assert all(found(batch.raw[0]) for batch in batches)
    others = [wide.compressed_batch(1, step, False) for step in range(12)]
    counts = [sum(found(batch.raw[0]) for batch in drawn) for drawn in (others, [shared.compressed_batch(1, step, False) for step in range(12)])]
    assert counts[0] < counts[1] < 12
    tables = {batch.tables.numpy().tobytes() for batch in others}
    assert len(tables) > len({batch.tables.numpy().tobytes() for batch in batches})


def test_patches_are_what_jpeg_with_these_tables_makes(data: Path) -> None:
    batch = patches(data).compressed_batch(2, 3, True)
    for raw, compressed, tables in zip(batch.raw, batch.compressed, batch.tables, strict=True):
        again = jpeg_with_tables(raw.permute(1, 2, 0).byte().numpy(), tables.numpy())
        assert np.array_equal(again, compressed.permute(1, 2, 0).byte().numpy())


@pytest.fixture(scope="module")
def coded(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The training pictures through a codec that keeps the upper bits, as many of them as its setting says."""
    folder = tmp_path_factory.mktemp("coded") / HEVC
    for bits, number in enumerate(SETTINGS[HEVC], 1):
        (folder / str(number)).mkdir(parents=True)
        for i, path in enumerate(picture_paths(data / "train")):
            for name, picture in zip(coded_names(path), (load_picture(path), other_camera(load_picture(path), i)), strict=True):
                Image.fromarray(kept_bits(picture, bits)).save(folder / str(number) / name)
        for i, drawn in enumerate(chart_pictures(CELL)):
            Image.fromarray(kept_bits(drawn, bits)).save(folder / str(number) / chart_name(i))
        Image.fromarray(np.full((512, 768, 3), bits, np.uint8)).save(folder / str(number) / "dictionary.png")
    return folder


def kept_bits(pixels: np.ndarray, bits: int) -> np.ndarray:
    return pixels >> (8 - bits) << (8 - bits)


def test_patches_of_pictures_coded_beforehand(data: Path, coded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raw and coded patch show the same place, mirrored or not; tables and references are the setting's, weights partly."""
    dictionary = Dictionary(np.stack([terrain(128, 128, seed) for seed in range(24)]))
    monkeypatch.setattr(marsqe_data, "CHART_SHARE", 0.0)
    torch.manual_seed(7)
    batch = CompressedPatches(picture_paths(data / "train"), 1, dictionary, Segmenter().eval(), (coded,), 1.0).compressed_batch(12, 0, True)
    steps = {round(2.0 ** ((number - 4) / 6), 4): bits for bits, number in enumerate(SETTINGS[HEVC], 1)}
    found = [steps[round(float(tables[0, 0]), 4)] for tables in batch.tables]
    assert set(found) == set(steps.values()) and batch.references is not None
    for bits, raw, compressed, reference in zip(found, batch.raw, batch.compressed, batch.references[1], strict=True):
        assert np.array_equal(kept_bits(raw.byte().numpy(), bits), compressed.byte().numpy())
        assert (reference == bits).all()
    monkeypatch.setattr(marsqe_data, "CHART_SHARE", 1.0)
    charts = CompressedPatches(picture_paths(data / "train"), 1, dictionary, Segmenter().eval(), (coded,), 1.0).compressed_batch(8, 1, False)
    for raw, compressed, weight in zip(charts.raw, charts.compressed, charts.weight, strict=True):
        assert any(np.array_equal(kept_bits(raw.byte().numpy(), bits), compressed.byte().numpy()) for bits in steps.values())
        assert weight <= 1 / (marsqe_data.OWN_SHARE * (raw - compressed).square().mean()).clamp_min(0.5) + 1e-4
    squares = [np.square(np.float64(p) - kept_bits(p, 2)).mean() for p in map(load_picture, picture_paths(data / "train"))]
    patch = found.index(2)
    own = float((batch.raw[patch] - batch.compressed[patch]).square().mean())
    expected = 1 / (marsqe_data.OWN_SHARE * own + (1 - marsqe_data.OWN_SHARE) * np.mean(squares))
    assert float(batch.weight[patch]) == pytest.approx(expected, rel=1e-5)


def test_another_camera_shows_the_same_place() -> None:
    """Maps move with the pixels: where the magnified picture shows a half of the terrain, so does its map. Grey cameras occur."""
    picture = np.zeros((96, 160, 4), np.uint8)
    picture[:, 80:, :3], picture[:, 80:, 3] = (160, 120, 90), 1
    others = [other_camera(picture, number) for number in range(24)]
    for other in others:
        assert other.shape == picture.shape and other.dtype == np.uint8
        left, right = (other[8:-8, other[8, :, 3] == kind] for kind in (0, 1))
        if right.size:
            assert left[:, :-4, :3].max() < right[:, 4:, :3].min(initial=255)
    widths = {int(other[0, :, 3].sum()) for other in others}
    assert 80 in widths and len(widths) > 4
    assert 2 < sum(np.ptp(other[0, -1, :3].astype(int)) == 0 for other in others) < 22
    assert np.array_equal(others[3], other_camera(picture, 3))


@pytest.mark.parametrize("seed", range(12))
def test_a_sensor_sees_one_colour_a_pixel(seed: int) -> None:
    """Binned, red and blue come from opposite corners of each two by two; a mosaic is interpolated as the codec would do it."""
    column = 2 * torch.arange(32.0).expand(4, 24, 32)
    plain = torch.cat([column[:3] + 4 * torch.arange(24.0)[:, None], column[3:]])
    seen, told = sensed(plain, np.random.default_rng(seed))
    assert seen.shape == (4, 12, 16) and torch.equal(seen[3], plain[3, ::2, ::2])
    rng = np.random.default_rng(seed)
    pattern, binned, noisy = int(rng.integers(1, 5)), rng.random() < cameras.BINNED_SHARE, rng.random() < cameras.NOISY_SHARE
    assert told == (0 if binned else pattern)
    if noisy:
        assert not torch.equal(seen[:3], sensed(plain, np.random.default_rng(seed + 100))[0][:3])
    elif binned:
        right, down = (2, -2)[(pattern - 1) % 2], (4, -4)[(pattern - 1) // 2]
        assert torch.all(seen[2] - seen[0] == right + down) and torch.all((seen[0] + seen[2]) / 2 == seen[1])
    else:
        picture = seen[:3].permute(1, 2, 0).numpy().astype(np.uint8)
        assert np.array_equal(mosaics.sharpened(picture, pattern), picture)


def test_what_is_shown_of_a_mosaic_is_what_the_ground_makes_of_it() -> None:
    """As the codec does it but for the rounding, each picture of a batch by its own pattern; an error where there is no sample is not seen."""
    pictures = np.random.default_rng(5).integers(0, 256, (5, 12, 18, 3), dtype=np.uint8)
    patterns = torch.tensor([2, 0, 1, 4, 3])
    seen = shown(torch.from_numpy(pictures).permute(0, 3, 1, 2).float(), patterns).permute(0, 2, 3, 1).numpy()
    for picture, pattern, got in zip(pictures, patterns.tolist(), seen, strict=True):
        assert np.abs(got - mosaics.restored(picture, pattern)).max() <= (0.5 if pattern else 0)
    unseen = torch.ones(1, 3, 8, 8)
    unseen[0, 0, 0::2, 1::2] = 0        # RGGB has red in even rows and columns only
    assert torch.equal(shown(unseen, torch.tensor([1])), torch.ones(1, 3, 8, 8))


def test_charts_show_what_terrain_does_not() -> None:
    """Pure colours, flat planes, grey pictures and noise all occur; a chart is a function of the generator's state."""
    charts = [chart(64, np.random.default_rng(seed)) for seed in range(120)]
    for drawn in charts:
        assert drawn.shape == (3, 64, 64) and drawn.dtype == torch.float32
        assert torch.equal(drawn, drawn.round().clamp(0, 255))
    grey = sum(bool((drawn[0] == drawn[1]).all() and (drawn[1] == drawn[2]).all()) for drawn in charts)
    assert 20 < grey < 80
    assert any(set(drawn[:, 0, 0].tolist()) == {0.0, 255.0} for drawn in charts)
    spreads = [drawn.std().item() for drawn in charts]
    assert min(float((drawn - drawn.mean((1, 2), keepdim=True)).abs().max()) for drawn in charts) == 0 and max(spreads) > 80
    assert torch.equal(charts[5], chart(64, np.random.default_rng(5)))


def test_a_share_of_the_patches_are_charts(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They count mostly by their own error, which may be a hundred times that of terrain."""
    monkeypatch.setattr(marsqe_data, "CHART_SHARE", 1.0)
    monkeypatch.setattr(marsqe_data, "chart", lambda side, rng: torch.from_numpy(rng.integers(0, 2, (3, side, side)) * 255).float())
    batch = CompressedPatches(picture_paths(data / "train"), 1).compressed_batch(4, 0, False)
    errors = (batch.raw - batch.compressed).square().mean((1, 2, 3))
    typical = (1 / batch.weight - marsqe_data.OWN_SHARE * errors) / (1 - marsqe_data.OWN_SHARE)
    assert errors.min() > 500 and all(min(abs(value - known) for known in marsqe_data.TYPICAL_MSE.values()) < 1 for value in typical.tolist())


def test_missing_coded_pictures_are_named(data: Path, coded: Path, tmp_path: Path) -> None:
    for folder, message in ((tmp_path / "webp", "no pictures coded by hevc or remac"), (tmp_path / HEVC, "no pictures coded")):
        with pytest.raises(DataMissing, match=message):
            load_coded(folder, (27,), [], ([], []), 128)
    paths = picture_paths(data / "train")
    with pytest.raises(DataMissing, match=r"27 lacks another\.png and 1 more: run"):
        load_coded(coded, (27,), [*paths, Path("another.png")], ([], []), 128)


# ---- training

def run_in(folder: Path, data: Path, monkeypatch: pytest.MonkeyPatch, model: str, *more: str) -> train_marsqe.Trainer:
    torch.manual_seed(7)
    segmenter = Segmenter().eval()
    monkeypatch.setattr(train_marsqe, "load_segmenter", lambda weights: segmenter)
    monkeypatch.setattr(train_marsqe, "load_dictionary", lambda path: np.stack([terrain(128, 128, seed) for seed in range(24)]))
    builders: dict[str, Any] = {"marsqe": lambda: MarsQE(TINY), "dncnn": lambda: train_marsqe.BASELINES["dncnn"](3, 8)}
    monkeypatch.setattr(train_marsqe, "build", lambda name: builders[name]())
    folder.mkdir(exist_ok=True)
    return train_marsqe.Trainer(train_marsqe.parse(["--out", str(folder), "--data", str(data), "--device", "cpu", "--model", model, "--steps", "6",
                                                    "--batch", "2", "--parts", "0.3", "0.6", *more]))


@pytest.mark.parametrize("model", ["marsqe", "dncnn"])
def test_a_resumed_run_takes_the_same_steps(model: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    straight = run_in(tmp_path / "straight", data, monkeypatch, model)
    expected = [straight.one_step() for _ in range(6)]
    stopped = run_in(tmp_path / "stopped", data, monkeypatch, model)
    for _ in range(3):
        stopped.one_step()
    stopped.save()
    resumed = run_in(tmp_path / "stopped", data, monkeypatch, model)
    assert resumed.step == 3 and [resumed.one_step() for _ in range(3)] == expected[3:]
    for name, value in straight.average.items():
        assert torch.equal(value, resumed.average[name]), name
    assert ("gain_full" in expected[5]) == (model == "marsqe") and "gain_full" not in expected[0]


def test_training_lowers_the_loss(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = run_in(tmp_path / "run", data, monkeypatch, "marsqe", "--steps", "40", "--parts", "2", "2", "--set", "warmup_steps=1")
    before = trainer.model(*(getattr(trainer.pictures[""][0], n) for n in ("compressed", "tables", "classes"))).lite
    trainer.train(lambda step, record: None)
    after = trainer.model(*(getattr(trainer.pictures[""][0], n) for n in ("compressed", "tables", "classes"))).lite
    raw = trainer.pictures[""][0].raw
    assert F.mse_loss(after, raw) < F.mse_loss(before, raw)
    assert (tmp_path / "run" / "checkpoint.pt").exists() and (tmp_path / "run" / "log.jsonl").read_text().count("evaluation") == 1


def test_the_post_enhancement_learns_alone(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = run_in(tmp_path / "run", data, monkeypatch, "marsqe", "--post-only", "--parts", "0", "2")
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.one_step()
    changed = {name.split(".")[0] for name, value in trainer.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"post"}


def test_two_processes_step_by_the_mean_of_their_gradients(data: Path, tmp_path: Path) -> None:
    arguments = ["--data", str(data), "--device", "cpu", "--model", "arcnn", "--steps", "1", "--batch", "1", "--set", "warmup_steps=1"]
    assert train_marsqe.main([*arguments, "--out", str(tmp_path / "two"), "--processes", "2"]) == 0
    (tmp_path / "one").mkdir()
    alone = train_marsqe.Trainer(train_marsqe.parse([*arguments, "--out", str(tmp_path / "one")]))
    halves = [alone.data.compressed_batch(1, 0, False, rank) for rank in (0, 1)]
    assert not torch.equal(halves[0].raw, halves[1].raw)
    for half in halves:
        with autocast("cpu"):
            enhanced = train_marsqe.apply(alone.model, half, False)
        (loss_of(enhanced, half.raw) * half.weight / 2).mean().backward()
    torch.nn.utils.clip_grad_norm_(alone.model.parameters(), alone.run.train.clip)
    for optimizer in alone.optimizers:
        optimizer.step()
    assert train_marsqe.main([*arguments, "--out", str(tmp_path / "one")]) == 0
    expected, half, trained = (alone.model.state_dict(), *(read_checkpoint(tmp_path / name / "checkpoint.pt")["model"] for name in ("one", "two")))
    assert all(torch.allclose(trained[name], value, atol=1e-6) for name, value in expected.items())
    assert not all(torch.allclose(half[name], value, atol=1e-6) for name, value in expected.items())      # the first layers have no gradient yet
    assert not list((tmp_path / "two").glob("rendezvous.*"))


def test_a_run_goes_on_from_shipped_weights(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Their folder is named as the start; what is shipped then tells all stages, each once."""
    shipped = tmp_path / "weights"
    shipped.mkdir()
    (shipped / "dictionary.json").write_text("{}")
    monkeypatch.setattr(train_marsqe, "load_marsqe", lambda folder: MarsQE(TINY))
    refused = ["--out", str(tmp_path / "no"), "--data", str(data), "--device", "cpu", "--start", str(shipped)]
    assert train_marsqe.main(refused) == 1 and "no shipped weights (it lacks marsqe.json): name weights/marsqe" in capsys.readouterr().err
    (shipped / "marsqe.json").write_text(json.dumps({"model": {"stages": [{"command": "first"}]}}))
    trainer = run_in(tmp_path / "run", data, monkeypatch, "marsqe", "--start", str(shipped))
    trainer.save()
    config = {"model": "marsqe", "command": "second", "device": "cpu", "train": {"batch": 2}, "processes": 2, "start": [str(shipped)]}
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    for _ in range(2):
        assert marsqe_weights.main([str(tmp_path / "run"), "--out", str(shipped)]) == 0
        stages = json.loads((shipped / "marsqe.json").read_text())["model"]["stages"]
        assert [entry["command"] for entry in stages] == ["first", "second"]


def test_a_run_is_shipped(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The averaged weights, the post-enhancement's coarser than the others; the index says what they are for and how they were trained."""
    trainer = run_in(tmp_path / "run", data, monkeypatch, "marsqe")
    trainer.one_step()
    trainer.save()
    config = {"model": "marsqe", "command": "train", "device": "cpu", "train": {"batch": 2}}
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    segmenter = tmp_path / "segmenter"
    segmenter.mkdir()
    save_tensors(segmenter / SEGMENTER_FILE, {"x": torch.ones(3)}, {"version": "1"})
    arguments = [str(tmp_path / "run"), "--out", str(tmp_path), "--segmenter", str(segmenter)]
    assert marsqe_weights.main(arguments) == 1 and sorted(path.name for path in tmp_path.iterdir()) == ["run", "segmenter"]
    (tmp_path / "dictionary.json").write_text('{"count": 6}')
    assert marsqe_weights.main(arguments) == 0 and (tmp_path / SEGMENTER_FILE).read_bytes() == (segmenter / SEGMENTER_FILE).read_bytes()
    assert marsqe_weights.main([str(tmp_path / "run"), "--out", str(tmp_path), "--kinds", "jpeg", "hevc"]) == 0
    index = json.loads((tmp_path / "marsqe.json").read_text())
    assert index["model"]["kinds"] == {"jpeg": [20, 50], "hevc": [27, 42]} and index["dictionary"]["count"] == 6
    assert [(stage["steps"], stage["patches"]) for stage in index["model"]["stages"]] == [(1, 2)]
    shipped, coarse = unpacked(load_tensors(tmp_path / index["model"]["file"])[0]), 0.0
    for name, value in trainer.average.items():
        step = value.abs().amax() / (15 if name.startswith("post.") and value.ndim == 4 else 127)
        assert (shipped[name] - value).abs().max() <= 0.51 * step + 1e-3, name
        coarse = max(coarse, float((shipped[name] - value).abs().max() / step)) if name.startswith("post.") else coarse
    assert coarse > 0.3
    assert marsqe_weights.main([str(tmp_path / "nothing"), "--out", str(tmp_path)]) == 1
    (tmp_path / "run" / "config.json").write_text(json.dumps({**config, "model": "dncnn"}))
    assert marsqe_weights.main([str(tmp_path / "run"), "--out", str(tmp_path)]) == 1


def test_who_made_the_coded_pictures_is_kept(data: Path, coded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert train_marsqe.coded_by([]) == train_marsqe.coded_by([coded]) == {}
    made = tmp_path / "coded" / HEVC
    shutil.copytree(coded, made)
    (made / "made_by.json").write_text('{"codec": "ab12", "decoder": "deep@2:34cd"}')
    trainer = run_in(tmp_path / "run", data, monkeypatch, "dncnn", "--coded", str(made))
    arguments = ["--out", str(tmp_path / "run"), "--data", str(data), "--device", "cpu", "--model", "dncnn", "--steps", "1", "--coded", str(made)]
    assert train_marsqe.main(arguments) == 0 and trainer.coded_by["coded_by"] == {"codec": "ab12", "decoder": "deep@2:34cd"}
    for content in (read_checkpoint(tmp_path / "run" / "checkpoint.pt"), json.loads((tmp_path / "run" / "config.json").read_text())):
        assert content["coded_by"] == {"codec": "ab12", "decoder": "deep@2:34cd"}


@pytest.mark.parametrize("field", train_marsqe.UNUSED)
def test_settings_that_change_nothing_are_refused(field: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        train_marsqe.main(["--out", str(tmp_path / "run"), "--data", str(data), "--set", f"{field}=1"])
    assert ended.value.code == 2 and f"--set {field}=1: expected FIELD=NUMBER with a field of" in capsys.readouterr().err


def test_processes_prepare_their_own_batches(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        train_marsqe.main(["--out", str(tmp_path / "run"), "--data", str(data), "--processes", "2", "--workers", "3"])
    assert ended.value.code == 2 and "--workers: the processes of --processes prepare their own batches" in capsys.readouterr().err


def test_a_run_starts_from_the_mean_of_several(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = []
    for seed in range(3):
        trainer = run_in(tmp_path / str(seed), data, monkeypatch, "marsqe")
        generator = torch.Generator().manual_seed(seed)
        trainer.average = {name: torch.randn(value.shape, generator=generator) for name, value in trainer.average.items()}
        trainer.save()
        paths.append(trainer.checkpoint)
    states = [read_checkpoint(path)["average"] for path in paths]
    started = run_in(tmp_path / "run", data, monkeypatch, "marsqe", "--start", *map(str, paths))
    for name, value in started.model.state_dict().items():
        assert torch.allclose(value, torch.stack([state[name] for state in states]).mean(0), atol=1e-6)
        assert torch.equal(value, started.average[name])
    alone = run_in(tmp_path / "alone", data, monkeypatch, "marsqe", "--start", str(paths[1])).model.state_dict()
    assert all(torch.equal(alone[name], states[1][name]) for name in alone)


def test_a_share_of_the_patches_is_from_0_to_1(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        train_marsqe.main(["--out", str(tmp_path / "run"), "--data", str(data), "--own-camera", "60"])
    assert ended.value.code == 2 and "--own-camera 60: a share of the patches, from 0 to 1" in capsys.readouterr().err
    shares = [train_marsqe.parse(["--out", str(tmp_path / "run"), "--data", str(data), *more]).only.own_camera
              for more in ([], ["--own-camera"], ["--own-camera", "0.25"])]
    assert shares == [0, 1, 0.25]


def test_another_models_weights_are_refused(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = run_in(tmp_path / "other", data, monkeypatch, "dncnn")
    other.save()
    with pytest.raises(BadNetwork, match="trained dncnn, which marsqe cannot start from"):
        run_in(tmp_path / "run", data, monkeypatch, "marsqe", "--start", str(tmp_path / "other" / "checkpoint.pt"))


def test_the_segmenter_resumes_to_the_exact_step(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt keeps the step that it came in; the log goes on from there."""
    monkeypatch.setattr(train_segmenter, "BATCH", 1)
    monkeypatch.setattr(train_segmenter, "SAVE_EVERY", 1)
    labels = data / "labels"
    labels.mkdir()
    Image.fromarray(np.random.default_rng(1).integers(0, 4, (256, 288), np.uint8)).save(labels / "0.png")
    config = TrainConfig(steps=3, warmup_steps=1)
    for name in ("straight", "run"):
        (tmp_path / name).mkdir()
    straight = train_segmenter.Trainer(tmp_path / "straight", data, config, "cpu")
    straight.train()
    stopped = train_segmenter.Trainer(tmp_path / "run", data, config, "cpu")
    step = stopped.one_step

    def disturbed() -> float:
        if stopped.step == 1:
            signal.raise_signal(signal.SIGTERM)
        return step()
    monkeypatch.setattr(stopped, "one_step", disturbed)
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    resumed = train_segmenter.Trainer(tmp_path / "run", data, config, "cpu")
    assert resumed.step == 2
    resumed.train()
    for name, value in straight.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert [json.loads(line)["step"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()] == [1, 3]
