"""The benchmark of the ground decoders: the same streams for all, stale results go, fields of decoders whose field is known."""
from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_ground import small_module, write_small_decoder
from small_network import write_small_model

from benchmarks import ground, ground_blocks, ground_cost, ground_field
from benchmarks.datasets import EvalImage, pixel_hash
from benchmarks.measure import as_rgb
from benchmarks.metrics import psnr_db
from benchmarks.sources import Sources
from export import ground_decoder
from export.to_onnx_float import run_onnx, run_torch
from remac.config import DecoderConfig
from remac_runtime.codec import Decoder, EncodeOptions, Encoder
from remac_runtime.errors import BadNetwork, RemacError
from remac_runtime.ground import INPUTS, GroundDecoder, ground_files
from remac_runtime.images import Picture
from remac_runtime.model import GROUND_FOLDER, load_model
from remac_runtime.terrain import terrain

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
    assert ground.earlier(path, "other", decoders) == {"costs": {"x": {}}, "fields": {}, "images": {}}, "costs say of what files they are"
    assert ground.earlier(tmp_path / "none.json", "c", decoders)["costs"] == {}


def test_complete_results_of_another_picture_do_not_count(tmp_path: Path) -> None:
    """Nor the fields that were measured on it. A grey picture that was coded as three planes is measured again, its pixels are the same."""
    coloured, grey = terrain(20, 30, 1), np.repeat(terrain(20, 30, 2)[..., :1], 3, 2)
    chosen = tuple(EvalImage("test", tmp_path / f"{name}.png") for name in ("colour", "grey", "new"))
    for image, pixels in zip(chosen, (coloured, grey), strict=False):
        Image.fromarray(pixels).save(image.path)
    entries = {"test/colour": {"pixels": pixel_hash(coloured)}, "test/grey": {"pixels": pixel_hash(grey)}}
    fields = {label: {"measured": {"pictures": [key]}} for label, key in (("moderate@1", "test/colour"), ("deep@2", "test/grey"))}
    content: dict[str, Any] = {"images": entries, "fields": fields}
    ground.forget_changed(content, chosen)
    assert list(content["images"]) == ["test/colour"] and content["fields"] == fields
    content["images"]["test/grey"] = {"pixels": pixel_hash(grey), "planes": 1}
    ground.forget_changed(content, chosen)
    assert set(content["images"]) == {"test/colour", "test/grey"}
    Image.fromarray(terrain(20, 30, 3)).save(chosen[0].path)
    ground.forget_changed(content, chosen)
    assert list(content["images"]) == ["test/grey"] and list(content["fields"]) == ["deep@2"]


def test_a_run_compares_pictures_where_nothing_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --force it counts nothing of what is there."""
    write_small_model(tmp_path)
    write_small_decoder(tmp_path)
    model, out, image = load_model(tmp_path), tmp_path / "ground.json", EvalImage("test", tmp_path / "a.png")
    Image.fromarray(terrain(20, 30, 1)).save(image.path)
    seen: list[bool] = []

    def costs(*given: Any) -> dict[str, Any]:
        return {**given[5], "x": {"machine": {}, "engines": {}}}

    def measure_image(image: EvalImage, entry: dict[str, Any], *_: Any) -> None:
        seen.append("psnr" in entry)
        entry.update({"pixels": pixel_hash(image.load()), "planes": 3, "shape": [20, 30], "psnr": {}})
    monkeypatch.setattr(ground, "evaluation_images", lambda *_: (image,))
    monkeypatch.setattr(ground, "data_folder", lambda _: tmp_path)
    monkeypatch.setattr(ground, "measure_fields", lambda *_: None)
    monkeypatch.setattr(ground.ground_cost, "costs", costs)
    monkeypatch.setattr(ground, "measure_image", measure_image)

    def kept(force: bool = False) -> bool:
        """Whether the results of the picture count."""
        options = SimpleNamespace(data=None, sets=["test"], pictures=None, out=out, weights=tmp_path, marsqe=tmp_path, rounds=1, force=force)
        ground.measure(options, model, tmp_path)        # type: ignore[arg-type]
        return seen[-1]
    assert [kept(), kept(), kept(force=True), kept()] == [False, True, False, True]
    Image.fromarray(terrain(20, 30, 2)).save(image.path)
    assert [kept(), kept()] == [False, True]


@pytest.mark.parametrize("grey", [False, True])
def test_pictures_are_measured_as_users_get_them(tmp_path: Path, grey: bool) -> None:
    """Grey ones are coded as one plane, and what the decoder shows of them is the mean of its planes."""
    write_small_model(tmp_path)
    write_small_decoder(tmp_path)
    model, pixels = load_model(tmp_path), terrain(70, 90, 5)
    pixels = np.repeat(pixels[..., :1], 3, 2) if grey else pixels
    image, entry, streams = EvalImage("frames", tmp_path / "one.png"), dict[str, Any](), dict[str, bytes]()
    Image.fromarray(pixels).save(image.path)
    subjects = [ground.Subject(file, model, tmp_path, tmp_path) for file in ground_files(tmp_path / GROUND_FOLDER)]
    with Encoder(model, "numpy") as encoder, Decoder(model, "numpy") as decoder:
        ground.measure_image(image, entry, subjects, encoder, decoder)
        for quality in ground.QUALITIES:
            streams[str(quality)] = encoder.encode(Picture(pixels[..., 0].copy() if grey else pixels), EncodeOptions(quality))
        shown = {quality: as_rgb(decoder.decode(data).picture.samples) for quality, data in streams.items()}
    assert entry["planes"] == (1 if grey else 3) and entry["bytes"] == {quality: len(data) for quality, data in streams.items()}
    assert {quality: found["named"] for quality, found in entry["psnr"]["moderate@1"].items()} == {
        quality: pytest.approx(psnr_db(pixels, picture), abs=1e-4) for quality, picture in shown.items()}


# ---- what decoders cost

IDLE = {"clock_mhz": 1000.0, "celsius": None, "load": 0.1, "throttle_count": 0}
BUSY = {**IDLE, "load": 3.0}
RUN = {"seconds": 1.0, "loaded_bytes": 1, "peak_bytes": 3}


class Costs:
    """ground_cost.costs with runs that measure nothing, on a machine that is told."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.state, self.extension, self.versions, self.processor, self.runs = IDLE, "a", {"numpy": "1", "remac-runtime": "1"}, "X", 0
        (folder / "network.rmn").write_bytes(b"network")
        subjects = [ground_cost.Subject(stage, "one", folder / "network.rmn", ("numpy",)) for stage in (ground_cost.LATENTS, ground_cost.DECODER)]
        monkeypatch.setattr(ground_cost, "subjects", lambda model: subjects)
        monkeypatch.setattr(ground_cost, "write_inputs", lambda *given: None)
        monkeypatch.setattr(ground_cost, "run_child", self._run)
        monkeypatch.setattr(ground_cost, "extension", lambda: self.extension)
        monkeypatch.setattr(ground_cost.bench_environment, "state", lambda: self.state)
        monkeypatch.setattr(ground_cost.bench_environment, "versions", lambda: {"python": "3", **self.versions})
        monkeypatch.setattr(ground_cost.bench_environment, "processor", lambda: {"model": self.processor})
        self.found: dict[str, Any] = {}

    def _run(self, job: ground_cost.Job) -> dict[str, float]:
        self.runs += 1
        return dict(RUN)

    def measured(self, rounds: int = 2) -> int:
        """How many runs were made to complete what was found so far."""
        model: Any = SimpleNamespace(folder=Path())
        self.runs = 0
        self.found = ground_cost.costs(model, Path(), Path(), Path(), rounds, json.loads(json.dumps(self.found)), lambda found: None)
        return self.runs


@pytest.fixture
def timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Costs:
    return Costs(tmp_path, monkeypatch)


def test_timings_of_another_machine_or_library_do_not_count(timed: Costs) -> None:
    assert timed.measured() == 4 and timed.measured() == 0 and timed.measured(3) == 2
    assert timed.found["decoder one"]["machine"] == {"processor": "X", "versions": {"numpy": "1", "remac-runtime": "1"}}
    timed.extension = "b"
    assert timed.measured() == 2 and timed.measured() == 0, "of bytes to latents alone"
    timed.versions = {**timed.versions, "numpy": "2"}
    assert timed.measured() == 4
    timed.processor = "Y"
    assert timed.measured() == 4 and all(len(cost["engines"]["numpy"]["samples"]) == 2 for cost in timed.found.values())


def test_timings_beside_another_load_say_so_until_the_machine_is_idle(timed: Costs, capsys: pytest.CaptureFixture[str]) -> None:
    timed.state = BUSY
    assert timed.measured() == 4
    assert capsys.readouterr().err.count("ground: warning: other load (load average 3.00 before the run): another program") == 1
    run = timed.found["decoder one"]["engines"]["numpy"]
    assert run["valid"] is False and [sample["warnings"][0]["warning"] for sample in run["samples"]] == ["other load"] * 2
    told = {"ground": {"costs": timed.found, "threads": 1, "environment": {"processor": {"model": "X"}, "versions": {}}}}
    assert "*Warning of 4 of 4 runs: other load (load average 3.00 before the run).*" in ground_blocks.costs(Sources(told, Path()))
    assert timed.measured() == 0, "now they would be no better"
    timed.state = IDLE
    assert timed.measured() == 4 and timed.found["decoder one"]["engines"]["numpy"]["valid"] is True
    assert "Warning" not in ground_blocks.costs(Sources({"ground": {**told["ground"], "costs": timed.found}}, Path()))


def test_timings_of_files_that_name_the_machine_once(timed: Costs, tmp_path: Path) -> None:
    """They count for what is the same here; that of the extension is not known, so bytes to latents are timed again."""
    assert timed.measured() == 4
    for cost in timed.found.values():
        del cost["machine"]
        cost["engines"]["numpy"] = {"samples": [dict(RUN), dict(RUN)]}
    environment = {"processor": {"model": "X"}, "versions": {"python": "2", **timed.versions}, "emulated": None, **IDLE}
    content = {"schema": ground.SCHEMA, "codec_hash": "c", "decoders": {}, "fields": {}, "images": {}, "costs": timed.found,
               "environment": environment}
    (tmp_path / "ground.json").write_text(json.dumps(content))
    timed.found = ground.earlier(tmp_path / "ground.json", "c", {})["costs"]
    assert timed.found["decoder one"]["engines"]["numpy"]["valid"] is True
    assert timed.measured() == 2
    (tmp_path / "ground.json").write_text(json.dumps({**content, "environment": {**environment, "load": 0.7}}))
    assert ground.earlier(tmp_path / "ground.json", "c", {})["costs"]["decoder one"]["engines"]["numpy"]["valid"] is False


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
