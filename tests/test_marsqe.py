"""MarsQE computes the paper's equations, costs what the paper's does, and its training goes on exactly where it stopped."""
from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from remac_runtime.terrain import terrain

pytest.importorskip("torch")

import torch
import torch.nn.functional as F

from benchmarks import enhance_metrics, enhance_models
from remac import marsqe, marsqe_data, marsqe_modules, marsqe_weights, train_marsqe, train_segmenter
from remac.charts import chart, chart_pictures
from remac.coded import HEVC, SETTINGS, chart_name, coded_names, load_coded
from remac.data import DataMissing, load_picture, other_camera, picture_paths
from remac.marsqe import CELL, Bank, Enhanced, MarsQE, MarsQEConfig
from remac.marsqe_data import CompressedPatches, Dictionary
from remac.matching import jpeg, jpeg_with_tables, match
from remac.muon import orthogonalised
from remac.packing import unpacked
from remac.segmenter import IGNORED, Segmenter, cell_classes, class_map
from remac.tensors import load_tensors
from remac_runtime.enhance.matching import cut_dictionary, join_dictionary, texture

TINY = MarsQEConfig(8, (1, 1, 1), (1, 1, 1), (8, 8, 8), (1, 1, 1), (1, 1, 1))
CBDNET_PARAMETERS, PAPER_TMAC = 4.34, {"marsqe-lite": 0.99, "marsqe": 1.44}
PAPER_PARAMETERS = {"marsqe-lite": CBDNET_PARAMETERS * 0.33, "marsqe": CBDNET_PARAMETERS * 1.266}
TOLERANCE = 0.10


def tiny(seed: int = 1) -> MarsQE:
    """A small MarsQE whose layers that start at zero have been given values."""
    torch.manual_seed(seed)
    model = MarsQE(TINY).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1 and not parameter.detach().any():
            torch.nn.init.normal_(parameter, std=0.05)
    return model


def references(model: MarsQE, count: int) -> Bank:
    patches = torch.rand(count, 3, 128, 128) * 255
    tables = torch.full((count, 2, 64), 20.0)
    return Bank(model.encode_references(patches, tables), model.encode_references((patches + 9).clamp(0, 255), tables))


# ---- the equations

def test_texture_extraction_is_equations_2_to_4() -> None:
    torch.manual_seed(0)
    compressed, reference, raw = (torch.randn(2, 3, 8, 12 - 4) for _ in range(3))
    found = marsqe_modules.extract_texture(compressed, reference, raw)
    expected = torch.zeros_like(found)
    corners = [(y, x) for y in (0, 4) for x in (0, 4)]
    for p in range(2):
        for y, x in corners:
            block = compressed[p, :, y:y + 4, x:x + 4]
            scores = [float((block * other).sum() / (block.norm() * other.norm()))
                      for other in (reference[p, :, v:v + 4, u:u + 4] for v, u in corners)]
            v, u = corners[int(np.argmax(scores))]
            expected[p, :, y:y + 4, x:x + 4] = raw[p, :, v:v + 4, u:u + 4] * max(scores)
    assert torch.allclose(found, expected, atol=1e-5)


def test_texture_fusing_is_equation_5() -> None:
    torch.manual_seed(1)
    module = marsqe_modules.TextureFusing(8, 4)
    torch.nn.init.normal_(module.transfer.weight, std=0.1)
    decoded, moved = torch.randn(1, 8, 8, 8), torch.randn(1, 8, 8, 8)
    attention, (reduce, expand) = torch.zeros_like(decoded), (module.attention.reduce, module.attention.expand)
    assert reduce.bias is not None and expand.bias is not None
    for y in (0, 4):
        for x in (0, 4):
            mean = decoded[:, :, y:y + 4, x:x + 4].mean((2, 3))
            hidden = torch.relu(mean @ reduce.weight[:, :, 0, 0].T + reduce.bias)
            weight = torch.sigmoid(hidden @ expand.weight[:, :, 0, 0].T + expand.bias)
            attention[:, :, y:y + 4, x:x + 4] = weight[:, :, None, None]
    residual = module.transfer(moved) - decoded
    assert torch.allclose(module(decoded, moved), module.fuse(decoded + residual * attention), atol=1e-5)
    assert torch.allclose(module(decoded, None), module.fuse(decoded), atol=1e-5), "no reference: no residual"
    assert torch.allclose(module(decoded, moved, torch.zeros(1, 1, 8, 8)), module.fuse(decoded), atol=1e-5)


def test_non_local_attention_stays_in_class_and_cell() -> None:
    torch.manual_seed(2)
    module = marsqe_modules.NonLocal(8, 4)
    x, classes = torch.randn(1, 8, 4, 8), torch.randint(0, 2, (1, 4, 8))
    found = module.attend(x, classes)
    query, key, value = (layer(x)[0] for layer in (module.query, module.key, module.value))
    for y, column in ((0, 0), (3, 2), (1, 5), (2, 7)):
        start = column // 4 * 4
        others = [(v, u) for v in range(4) for u in range(start, start + 4) if classes[0, v, u] == classes[0, y, column]]
        weight = np.array([math.exp((query[:, y, column] @ key[:, v, u]).item() / 8) for v, u in others])
        expected = sum(w * value[:, v, u] for w, (v, u) in zip(weight / weight.sum(), others, strict=True))
        assert torch.allclose(found[0, :, y, column], expected, atol=1e-5)


def test_non_local_module_is_equation_6() -> None:
    torch.manual_seed(3)
    module = marsqe_modules.NonLocal(8, 4)
    for layer in (module.project, module.narrow):
        torch.nn.init.normal_(layer.weight, std=0.1)
    x, classes = torch.randn(1, 8, 4, 4), torch.zeros(1, 4, 4, dtype=torch.int64)

    def layer_norm(f: torch.Tensor) -> torch.Tensor:
        return (f - f.mean(1, keepdim=True)) / (f.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()
    middle = module.project(module.attend(layer_norm(x), classes)) + x
    wide = module.widen(layer_norm(middle))
    gelu = 0.5 * wide * (1 + torch.tanh(math.sqrt(2 / math.pi) * (wide + 0.044715 * wide ** 3)))
    assert torch.allclose(module(x, classes), module.narrow(gelu) + middle, atol=1e-4)


def test_loss_is_equation_7() -> None:
    raw, lite, full = (torch.rand(2, 3, 4, 4) for _ in range(3))
    expected = [float(((lite[i] - raw[i]) ** 2).mean() + 0.5 * ((full[i] - raw[i]) ** 2).mean()) for i in range(2)]
    assert marsqe.loss_of(Enhanced(lite, full), raw, 0.5).tolist() == pytest.approx(expected, rel=1e-5)


def naive_lbp(patch: np.ndarray) -> np.ndarray:
    luma = [[(77 * int(r) + 150 * int(g) + 29 * int(b) + 128) // 256 for r, g, b in row] for row in patch]
    counts = np.ones(256)
    for y in range(1, len(luma) - 1):
        for x in range(1, len(luma[0]) - 1):
            ring = [luma[y - 1][x - 1], luma[y - 1][x], luma[y - 1][x + 1], luma[y][x + 1], luma[y + 1][x + 1], luma[y + 1][x], luma[y + 1][x - 1],
                    luma[y][x - 1]]
            counts[sum(1 << bit for bit, value in enumerate(ring) if value >= luma[y][x])] += 1
    return counts / counts.sum()


def test_matching_is_equation_1() -> None:
    patches = [terrain(128, 128, seed) for seed in range(24)]
    assert np.allclose(texture(patches[0][:20, :30]), naive_lbp(patches[0][:20, :30]))
    described = np.stack([texture(patch) for patch in patches])
    probe = texture(jpeg(patches[9], 30)[0])
    for kind in range(4):
        divergences = [sum(r * math.log(r / p) for r, p in zip(described[i], probe, strict=True)) for i in range(6 * kind, 6 * kind + 6)]
        assert match(described, probe, kind) == 6 * kind + int(np.argmin(divergences))


# ---- structure

def test_cells_and_blocks_come_back() -> None:
    x = torch.randn(2, 3, 8, 16)
    cells = marsqe_modules.to_cells(x, 8)
    assert torch.equal(cells[1], x[0, :, :, 8:]) and torch.equal(marsqe_modules.from_cells(cells, 8, 8, 16), x)
    assert torch.equal(marsqe_modules.from_blocks(marsqe_modules.blocks_of(cells), 3), cells)
    mosaic = terrain(512, 768, 1)
    patches = cut_dictionary(mosaic).patches
    assert np.array_equal(join_dictionary(patches), mosaic) and np.array_equal(patches[7], mosaic[128:256, 128:256])


def test_untrained_it_changes_nothing_and_share_switches_references_off() -> None:
    picture, tables, classes = torch.rand(1, 3, 128, 256) * 255, torch.full((1, 2, 64), 20.0), torch.zeros(1, 16, 32, dtype=torch.int64)
    with torch.no_grad():
        untouched = MarsQE(TINY)(picture, tables, classes)
        assert torch.allclose(untouched.lite, picture, atol=1e-3) and torch.allclose(untouched.full, picture, atol=1e-3)
        model = tiny()
        bank = references(model, 2)
        with_them, off = model(picture, tables, classes, bank), model(picture, tables, classes, bank, torch.zeros(2))
        assert torch.allclose(off.full, model(picture, tables, classes).full, atol=1e-3)
        assert (with_them.full - off.full).abs().max() > 1e-2
        half = model(picture, tables, classes, bank, torch.tensor([1.0, 0.0])).full
    assert (half - off.full)[..., :64].abs().max() > 1e-2 and (half - off.full)[..., 224:].abs().max() < (half - off.full)[..., :64].abs().max()


def test_constraint_is_the_projection_onto_the_quantisation_set() -> None:
    raw = terrain(64, 64, 5)
    coded, tables = jpeg(raw, 20)
    picture, table = (torch.from_numpy(np.array(x)).float() for x in (coded, tables))
    planes = picture.permute(2, 0, 1)[None]
    model, torch_raw = MarsQE(TINY), torch.from_numpy(raw.copy()).float().permute(2, 0, 1)[None]
    torch.manual_seed(4)
    wild = planes + torch.randn_like(planes) * 30
    bound = model.constrained(wild, planes, table[None])

    def coefficients(x: torch.Tensor) -> np.ndarray:
        from scipy.fft import dctn
        luma = (x[0] * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0).numpy() - 128
        return dctn(luma.reshape(8, 8, 8, 8).swapaxes(1, 2), axes=(2, 3), norm="ortho").reshape(-1, 64)
    step = tables[0]
    level = np.round(coefficients(planes) / step)
    assert np.abs(coefficients(bound) - level * step).max() <= (step / 2).max() + marsqe.DCT_SLACK + 1e-3
    assert (np.abs(coefficients(bound) - level * step) <= step / 2 + marsqe.DCT_SLACK + 1e-3).all()
    assert (bound - torch_raw).square().mean() < (wild - torch_raw).square().mean()
    assert torch.equal(model.constrained(wild, planes, torch.zeros(1, 2, 64)), wild), "steps of 0 leave everything free"
    assert (model.constrained(torch_raw, planes, table[None]) - torch_raw).abs().mean() < 0.05, "the true picture is in the set"


def test_cost_is_that_of_the_paper() -> None:
    pytest.importorskip("fvcore")
    for name, cost in enhance_models.cost_of(MarsQE().eval()).items():
        assert abs(cost["tmac"] / PAPER_TMAC[name] - 1) < TOLERANCE, cost
        assert abs(cost["parameters"] / PAPER_PARAMETERS[name] - 1) < TOLERANCE, cost
        assert cost["tmac_features_kept"] < cost["tmac"]


def test_muon_orthogonalises() -> None:
    torch.manual_seed(5)
    for shape in ((12, 40), (40, 12)):
        singular = torch.linalg.svdvals(orthogonalised(torch.randn(shape)))
        assert singular.min() > 0.5 and singular.max() < 1.4


# ---- segmenter

def test_segmenter_maps_and_metrics() -> None:
    model = Segmenter().eval()
    assert 0.5e6 < sum(p.numel() for p in model.parameters()) < 1.05e6
    assert class_map(model, torch.rand(3, 100, 130) * 255).shape == (13, 17)
    classes = torch.zeros(1, 16, 32, dtype=torch.int64)
    classes[0, :9, 16:] = 3
    assert cell_classes(classes).tolist() == [[[0, 3]]]
    matrix = np.array([[6, 2, 0, 0], [1, 9, 0, 0], [0, 0, 0, 0], [0, 0, 0, 4]])
    metrics = train_segmenter.segmentation_metrics(matrix)
    assert metrics["iou"] == {"sand": 6 / 9, "soil": 9 / 12, "rock": None, "sky": 1.0} and metrics["accuracy"]["sand"] == 6 / 8
    assert metrics["miou"] == pytest.approx((6 / 9 + 9 / 12 + 1) / 3) and metrics["pixel_accuracy"] == 19 / 22


# ---- data and training

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


def test_a_run_is_shipped(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The averaged weights, the post-enhancement's coarser than the others; the index says what they are for and how they were trained."""
    trainer = run_in(tmp_path / "run", data, monkeypatch, "marsqe")
    trainer.one_step()
    trainer.save()
    config = {"command": "train", "device": "cpu", "train": {"batch": 2}}
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    (tmp_path / "dictionary.json").write_text('{"count": 6}')
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


def test_labels_are_read_at_the_centres_of_blocks() -> None:
    labels = torch.full((16, 24), IGNORED, dtype=torch.uint8)
    labels[4, 12] = 2
    assert train_segmenter.coarse_labels(labels).tolist() == [[255, 2, 255], [255, 255, 255]]


# ---- measures

def test_psnr_b_counts_steps_at_block_borders() -> None:
    rng = np.random.default_rng(0)
    raw = np.full((32, 40, 3), 100, np.uint8)
    smooth = raw + rng.integers(0, 2, raw.shape, dtype=np.uint8)
    blocky = raw + np.kron(rng.integers(0, 9, (4, 5, 1)), np.ones((8, 8, 3))).astype(np.uint8)
    plane = blocky[..., 0].astype(float)
    border = [(plane[y, x] - plane[y, x + 1]) ** 2 for y in range(32) for x in (7, 15, 23, 31)]
    border += [(plane[y, x] - plane[y + 1, x]) ** 2 for x in range(40) for y in (7, 15, 23)]
    effect = 3 / math.log2(32) * float(np.mean(border))          # inside the blocks nothing changes
    assert enhance_metrics.blocking_effect(plane) == pytest.approx(effect)
    error = float(((raw.astype(float) - blocky) ** 2).mean())
    assert enhance_metrics.psnr_b_db(raw, blocky) == pytest.approx(10 * math.log10(255 ** 2 / (error + effect)))
    assert enhance_metrics.blocking_effect(np.indices((32, 32)).sum(0) * 2.0) == 0.0, "a ramp has no blocks"
    assert enhance_metrics.psnr_b_db(raw, smooth) > enhance_metrics.psnr_b_db(raw, blocky)
