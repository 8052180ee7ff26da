"""MarsQE computes the paper's equations and costs what the paper's does."""
from __future__ import annotations

import math

import numpy as np
import pytest

from remac_runtime.terrain import terrain

pytest.importorskip("torch")

import torch

from benchmarks import enhance_metrics, enhance_models
from remac import marsqe, marsqe_modules, train_segmenter
from remac.marsqe import Bank, Enhanced, MarsQE, MarsQEConfig
from remac.matching import jpeg, match
from remac.muon import orthogonalised
from remac.segmenter import IGNORED, Segmenter, cell_classes, class_map
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
