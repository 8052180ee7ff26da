"""The benchmark of the ground decoders: the same streams for all, stale results go, fields of decoders whose field is known."""
from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_ground import small_module, write_small_decoder
from small_network import write_small_model

from benchmarks import ground, ground_field
from export import ground_decoder
from export.to_onnx_float import run_onnx, run_torch
from remac.config import DecoderConfig
from remac_runtime.errors import BadNetwork, RemacError
from remac_runtime.ground import INPUTS, GroundDecoder
from remac_runtime.model import load_model

PLAIN = DecoderConfig("plain", (1, 1, 1, 1), (0, 0, 0, 0))


def images(lift_db: float, decoder: str = "deep@2") -> dict[str, Any]:
    """Two pictures whose rate doubles every 3 dB."""
    def psnr(start: float) -> dict[str, dict[str, float]]:
        return {str(quality): {"named": start + 3 * n} for n, quality in enumerate(ground.QUALITIES)}
    return {f"test/{name}": {"shape": [10, 10], "bytes": {str(quality): 1000 * 2 ** n for n, quality in enumerate(ground.QUALITIES)},
                             "psnr": {"moderate@1": psnr(start), decoder: psnr(start + lift_db)}} for name, start in (("a", 20.0), ("b", 25.0))}


def test_summary_of_known_curves() -> None:
    found = ground.summarise(images(1.5), ["moderate@1", "deep@2"])["test"]
    deep = found["decoders"]["deep@2"]
    assert found["pictures"] == 2 and found["bits_per_pixel"][str(ground.QUALITIES[0])] == 80
    assert deep["bd_rate"] == pytest.approx(2 ** -0.5 - 1) and deep["bd_psnr"] == pytest.approx(1.5)
    assert deep["gain"]["0"] == pytest.approx([1.5, 1.5, 1.5]) and deep["psnr"]["0"]["named"] == pytest.approx(24.0)
    assert "bd_rate" not in found["decoders"]["moderate@1"]
    assert ground.summarise(images(1.5), ["moderate@1", "deep@3"]) == {}, "pictures that a decoder has not decoded are not counted"


def test_results_of_other_files_are_dropped(tmp_path: Path) -> None:
    path, decoders = tmp_path / "ground.json", {"moderate@1": "a", "deep@2": "b"}
    content = {"schema": ground.SCHEMA, "codec_hash": "c", "decoders": decoders, "costs": {"x": {}}, "fields": dict.fromkeys(decoders, 1),
               "images": images(1.0)}
    path.write_text(json.dumps(content))
    assert ground.earlier(path, "c", decoders) == content
    retrained = ground.earlier(path, "c", decoders | {"deep@2": "d"})
    assert list(retrained["fields"]) == ["moderate@1"] and [list(entry["psnr"]) for entry in retrained["images"].values()] == [["moderate@1"]] * 2
    assert list(ground.earlier(path, "c", {"moderate@1": "a"})["fields"]) == ["moderate@1"]
    assert ground.earlier(path, "other", decoders)["images"] == {} and ground.earlier(tmp_path / "none.json", "c", decoders)["costs"] == {}


def test_the_wrong_reference_is_another_one() -> None:
    drawn = [ground.wrong_entry(f"test/{n}", n % 5, 5) for n in range(50)]
    assert all(entry != n % 5 and 0 <= entry < 5 for n, entry in enumerate(drawn)) and len(set(drawn)) == 5
    assert drawn == [ground.wrong_entry(f"test/{n}", n % 5, 5) for n in range(50)]


def test_switching_the_coarsest_branch_off(tmp_path: Path) -> None:
    """As in PyTorch with its output zeroed."""
    import torch
    module = small_module()
    file, _ = ground_decoder.export_module(module, tmp_path, "0123456789abcdef")
    (tmp_path / "narrow").mkdir()
    narrow, inputs = ground.without_low(file.path, tmp_path / "narrow"), ground_decoder.example_inputs(16, 4, 6)
    with torch.no_grad():
        before = run_torch(module, inputs)
        module.decoder.rise.weight.zero_()
        module.decoder.rise.bias.zero_()
    after = run_torch(module, inputs).astype(int)
    assert np.abs(run_onnx(narrow, INPUTS, inputs) - after).max() <= 1 < np.abs(before - after).max()


def test_a_decoder_without_that_branch_is_refused(tmp_path: Path) -> None:
    write_small_model(tmp_path)
    write_small_decoder(tmp_path)
    with pytest.raises(RemacError, match="export it again"):
        ground.without_low(tmp_path / "ground" / "moderate@1.onnx", tmp_path)


# ---- how far decoders look

@pytest.mark.parametrize(("config", "side"), [
    (PLAIN, 64),                                        # blocks -1..1 by the 3x3 at 1/16; that at 1/4 reaches 4 pixels over one edge
    (replace(PLAIN, blocks=(5, 1, 0, 0)), 64 + 64),     # two more 3x3 at 1/16
    (replace(PLAIN, blocks=(0, 0, 1, 0)), 64 + 32),     # two at 1/8: from the leftmost 8 pixels to block -2, and over the right edge
    (replace(PLAIN, half=1, half_blocks=2), 64 + 16),   # five at 1/2: from the middle of a block over both edges
])
def test_theoretical_field_without_the_coarsest_branch(config: DecoderConfig, side: int) -> None:
    assert ground_field.theoretical(config, narrow=True) == side


def test_the_coarsest_branch_widens_the_field() -> None:
    fields = [ground_field.theoretical(replace(PLAIN, blocks=(count, 0, 0, 0))) for count in range(3)]
    assert fields[0] > ground_field.theoretical(PLAIN, narrow=True) and fields[1] - fields[0] == fields[2] - fields[1] == 4 * 32


def sample() -> ground_field.Sample:
    side = ground_field.WINDOW + 2
    y_hat, _, texture, _ = ground_decoder.example_inputs(16, side, side)
    return ground_field.Sample(np.random.default_rng(1).integers(0, 256, (16 * side - 5, 16 * side, 3), np.uint8), y_hat, texture)


def test_measured_field_of_a_small_decoder() -> None:
    """Everything that moves a pixel lies in the theoretical field, not everything in its own block; a window as large as that loses nothing."""
    module = small_module()
    found = ground_field.describe(module, {"a": sample()}, 30)
    shares, losses = list(found["share_within"].values()), list(found["loss_from_window"].values())
    assert shares == sorted(shares) and 0 < shares[0] < shares[1] < 1 and shares[-1] == 1
    assert found["share_within"][str(16 * (2 * (found["theoretical"] // 32 + 1) + 1))] == 1, "the field may reach one block farther to one side"
    assert losses[-1] == 0 == pytest.approx(losses[-2], abs=1e-3) and abs(losses[0]) > 1e-2 and found["theoretical"] > found["theoretical_narrow"]
    assert 0 < found["kmac_per_pixel"] < 5 and found["own_parameters"] == found["parameters"] > 0


def test_other_weights_than_the_exported_ones_are_refused(tmp_path: Path) -> None:
    import torch
    write_small_model(tmp_path)
    model, module = load_model(tmp_path), small_module()
    ground_decoder.export_module(module, tmp_path, model.network.hash.hex())
    decoder = GroundDecoder(model, 1, "tiny@1")
    ground_field.check_same(module, decoder, sample(), 30)
    with torch.no_grad():
        module.decoder.out.bias.add_(0.1)
    with pytest.raises(BadNetwork, match="exported from other weights"):
        ground_field.check_same(module, decoder, sample(), 30)
