"""Ground decoders: which one decodes, what is noted in the picture, what references are worth, and that backends agree on the pixels."""
from __future__ import annotations

import copy
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_ground import small_module, write_small_decoder
from small_network import write_small_model
from streams import hollow

import remac_runtime
from export import ground_decoder
from export.to_onnx_float import Graph, check_against_torch, export, largest_difference, run_onnx, run_torch
from remac.weights import CODEC_FILE
from remac_runtime import cli, ground, ground_tensorrt, packets
from remac_runtime.backends.onnxruntime_backend import OPTIMISATION_LEVELS
from remac_runtime.codec import Decoder, EncodeOptions, Encoder
from remac_runtime.errors import BadInput, BadNetwork, CorruptStream, UnsupportedStream, WrongModel
from remac_runtime.format import SIDE_MAX
from remac_runtime.ground import INPUTS, GroundDecoder, GroundFile, OnnxSession, find_ground, ground_files
from remac_runtime.images import Picture, load_picture, psnr, save_picture
from remac_runtime.model import Model, load_model
from remac_runtime.png import png_bytes, png_text
from remac_runtime.terrain import terrain

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def model(tmp_path: Path) -> Model:
    write_small_model(tmp_path)
    write_small_decoder(tmp_path)
    return load_model(tmp_path)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, GroundFile]:
    """A decoder of few channels in PyTorch, and as exported."""
    module = small_module()
    file, check = ground_decoder.export_module(module, tmp_path_factory.mktemp("small"), "0123456789abcdef")
    assert check.passed
    return module, file


@pytest.fixture
def stream(model: Model) -> bytes:
    with Encoder(model, "numpy") as encoder:
        return encoder.encode(Picture(terrain(64, 128, 1)))


# ---- how large, and how much of it

def test_a_stream_without_a_band_has_latents_and_no_picture(model: Model, stream: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Some bytes that claim any size once cost as much as a picture of it."""
    empty = hollow(stream)
    with Decoder(model, "numpy") as decoder:
        decoded = decoder.decode(empty)
        assert decoded.report.lost_bands == (0,) and decoded.y_hat.shape == (4, 8, 32) and not decoded.y_hat.any()
        with pytest.raises(CorruptStream, match=r"no band of 1 is intact.*receive the stream again"):
            _ = decoded.picture
    (tmp_path / "a.rmc").write_bytes(empty)
    for command, output in (("decode", "a.png"), ("view", "a.html"), ("view", "a.view.png"), ("ground", "out")):
        assert cli.main([command, str(tmp_path / "a.rmc"), "-o", str(tmp_path / output), "--model", str(model.folder), "--backend", "numpy"]) == 1
        error = capsys.readouterr().err
        assert "no band of 1 is intact" in error and "Traceback" not in error and "internal" not in error
        assert not [path for path in tmp_path.rglob("*") if path.suffix in (".png", ".html")]


def test_the_limit_of_pixels_is_every_callers_to_raise(model: Model, stream: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnsupportedStream, match="128x64 is beyond the limit of 8191"):
        remac_runtime.decode(stream, backend="numpy", model=model.folder, max_pixels=8191)
    assert remac_runtime.decode(stream, backend="numpy", model=model.folder, max_pixels=8192).shape == (64, 128, 3)
    (tmp_path / "a.rmc").write_bytes(stream)
    for command, output in (("decode", "a.png"), ("view", "a.html"), ("ground", "out")):
        arguments = [command, str(tmp_path / "a.rmc"), "-o", str(tmp_path / output), "--model", str(model.folder), "--backend", "numpy"]
        assert [cli.main([*arguments, "--max-pixels", limit]) for limit in ("8191", "8192")] == [1, 0]


def test_a_search_for_a_psnr_opens_one_decoder_and_takes_any_size(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, limits, really, scan = [], [], OnnxSession, packets.scan

    def session(path: Path, threads: int = 1) -> OnnxSession:
        opened.append(threads)
        return really(path, threads)

    def noted(data: bytes, max_pixels: int) -> packets.Scanned:
        limits.append(max_pixels)
        return scan(data, max_pixels)

    monkeypatch.setattr(ground, "OnnxSession", session)
    monkeypatch.setattr(packets, "scan", noted)
    picture = Picture(terrain(64, 64, 1))
    with Encoder(model, "numpy", threads=2) as encoder, Decoder(model, "numpy") as decoder:
        for target in (5.0, 6.0):
            assert psnr(decoder.decode(encoder.encode(picture, EncodeOptions(target_psnr=target))).picture, picture) >= target
    assert opened == [2, 1] and limits[:6] == [SIDE_MAX ** 2] * 6


def test_a_search_for_a_psnr_goes_below_qualities_whose_bands_are_too_long(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = Picture(terrain(64, 64, 1))
    with Encoder(model, "numpy") as encoder:
        monkeypatch.setattr(packets, "FRAGMENTS_MAX", 1)
        monkeypatch.setattr(packets, "PAYLOAD_MAX", len(encoder.encode(picture, EncodeOptions(quality=20))))
        assert packets.scan(encoder.encode(picture, EncodeOptions(target_psnr=1.0))).header.quality == 0
        with pytest.raises(BadInput, match=r"dB cannot be reached: quality|choose a lower quality"):
            encoder.encode(picture, EncodeOptions(target_psnr=90.0))


# ---- which decoder

def labels(folder: Path, *names: str) -> list[str]:
    for name in names:
        (folder / name).write_bytes(b"")
    return [file.label for file in ground_files(folder)]


def test_decoders_are_ordered_by_version_then_variants_come_first(tmp_path: Path) -> None:
    assert labels(tmp_path, "deep@10.onnx", "moderate@9.onnx", "deep-small@10.onnx", "moderate@1.onnx") == [
        "moderate@1", "moderate@9", "deep-small@10", "deep@10"]
    assert labels(tmp_path, "decoder.onnx", "deep@x.onnx", "Deep@11.onnx", "deep@12.engine", "marsqe@13.references.onnx")[-1] == "deep@10"


def test_a_decoder_is_found_by_name_and_version(tmp_path: Path) -> None:
    labels(tmp_path, "deep@2.onnx", "deep@3.onnx", "moderate@1.onnx")
    for wanted, found in ((None, "deep@3"), ("deep", "deep@3"), ("deep@2", "deep@2"), ("moderate", "moderate@1")):
        assert find_ground(tmp_path, wanted).label == found
    with pytest.raises(BadNetwork, match="no ground decoder deep@7; there are moderate@1, deep@2, deep@3: choose one with --decoder"):
        find_ground(tmp_path, "deep@7")
    for wanted in ("../deep", "deep@", "@1", "deep@1@2", ""):
        with pytest.raises(BadInput, match="is not NAME@VERSION"):
            find_ground(tmp_path, wanted)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadNetwork, match="make encoder"):
        find_ground(tmp_path / "empty", None)


def test_the_decoder_is_chosen_and_noted(model: Model, stream: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_small_decoder(model.folder, "deep@2", shift=100.0)
    (tmp_path / "a.rmc").write_bytes(stream)
    arguments = ["decode", str(tmp_path / "a.rmc"), "--model", str(model.folder), "--backend", "numpy", "-o"]
    assert cli.main([*arguments, str(tmp_path / "new.png")]) == 0
    assert cli.main([*arguments, str(tmp_path / "old.png"), "--decoder", "moderate@1"]) == 0
    assert cli.main([*arguments, str(tmp_path / "old.ppm"), "--decoder", "moderate"]) == 0
    new, old = (load_picture(tmp_path / name).samples.astype(int) for name in ("new.png", "old.png"))
    inside, tag = (old > 28) & (old < 227), model.network.hash.hex()[:8]
    assert np.array_equal(new[inside], old[inside] - 28) and np.array_equal(load_picture(tmp_path / "old.ppm").samples, old)
    notes = [png_text(tmp_path / name) or {} for name in ("new.png", "old.png")]
    assert [(n["remac-decoder"], n["remac-codec"]) for n in notes] == [("deep@2", tag), ("moderate@1", tag)]
    assert Image.open(tmp_path / "new.png").info["remac-decoder"] == "deep@2", "as any reader of PNG shows it"
    assert b"# remac-decoder: moderate@1\n" in (tmp_path / "old.ppm").read_bytes()[:200]
    capsys.readouterr()
    assert cli.main([*arguments, str(tmp_path / "x.png"), "--decoder", "deep@3"]) == 1
    assert "there are moderate@1, deep@2" in capsys.readouterr().err and not (tmp_path / "x.png").exists()


def test_a_decoder_of_another_codec_is_refused(model: Model, stream: bytes, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    write_small_model(foreign, seed=2)
    (model.folder / "ground" / "moderate@3.onnx").write_bytes(write_small_decoder(foreign).read_bytes())
    with Decoder(model, "numpy") as decoder, pytest.raises(WrongModel, match="export it again"):
        _ = decoder.decode(stream).picture
    (model.folder / "ground" / "moderate@4.onnx").write_bytes(b"no network")
    with Decoder(model, "numpy") as decoder, pytest.raises(BadNetwork, match="not a network that onnxruntime"):
        _ = decoder.decode(stream).picture
    removed = ground_decoder.remove_foreign(model.folder, model.network.hash.hex())
    assert [path.name for path in removed] == ["moderate@3.onnx", "moderate@4.onnx"] and len(ground_files(model.folder / "ground")) == 1


def test_an_engine_of_another_codec_is_refused(model: Model, stream: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would give a picture, only a wrong one."""
    class Engine(OnnxSession):
        codec = ""

        @classmethod
        def beside(cls, onnx: Path) -> OnnxSession:
            opened = cls(onnx)
            opened.properties["codec_hash"] = cls.codec or opened.properties["codec_hash"]
            return opened
    monkeypatch.setattr(ground_tensorrt, "EngineSession", Engine)
    with Decoder(model, "numpy", ground=GroundDecoder(model, engine="tensorrt")) as decoder:
        assert decoder.decode(stream).picture.size == "128x64"
    Engine.codec = "0" * 64
    with Decoder(model, "numpy", ground=GroundDecoder(model, engine="tensorrt")) as decoder, pytest.raises(WrongModel, match="export it again"):
        _ = decoder.decode(stream).picture


def test_references_can_be_taken_away_and_exchanged(model: Model, stream: bytes) -> None:
    """For evaluations: the same latents with the stream's texture reference, with another one, with none."""
    write_small_decoder(model.folder, "deep@2", texture=0.1)
    with Decoder(model, "numpy") as decoder:
        decoded = decoder.decode(stream)
        assert model.bank is not None and decoded.texture is not None
        right = decoded.picture.samples.astype(int)
        for planes in (None, *model.bank.planes):
            other = decoded.with_texture(planes).picture.samples.astype(int)
            change = 0.1 * ((0 if planes is None else planes.mean()) - decoded.texture.mean())
            inside = (right > 40) & (right < 215)
            assert np.abs((other - right)[inside] - change).max() <= 1
        assert decoder.texture(len(model.bank)) is None and np.array_equal(decoder.texture(1), model.bank.planes[1])      # type: ignore[arg-type]


# ---- the text of a PNG

def test_png_text_round_trip_and_damage(tmp_path: Path) -> None:
    path, samples = tmp_path / "a.png", terrain(9, 7, 1)
    notes = {"Software": "remac", "remac-source": "aé b"}
    save_picture(Picture(samples), path, notes)
    whole = path.read_bytes()
    assert png_text(path) == notes and np.array_equal(np.asarray(Image.open(path)), samples)
    assert {key: Image.open(path).info[key] for key in notes} == notes
    changed = (whole[:n] + bytes([whole[n] ^ 1]) + whole[n + 1:] for n in range(0, len(whole), 5))
    for content in (b"", whole[:-1], whole[:40], whole + b"x", b"GIF" + whole[3:], *changed):
        path.write_bytes(content)
        assert png_text(path) is None
    assert png_text(tmp_path / "absent.png") is None
    path.write_bytes(png_bytes(samples)[:-12])          # all chunks whole, but the last one missing
    assert png_text(path) is None
    path.write_bytes(whole[:8] + struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND")))
    assert png_text(path) is None, "a PNG starts with its header"


# ---- backends agree

def test_backends_differ_by_at_most_a_grey_level(small: tuple[Any, GroundFile]) -> None:
    """PyTorch and every optimisation level of ONNX Runtime, on several sizes and qualities, with and without a texture reference."""
    module, file = small
    assert (file.label, file.path.name) == ("tiny@1", "tiny@1.onnx")
    for seed, size in enumerate(((2, 2), (4, 10))):
        inputs = ground_decoder.example_inputs(16, *size, seed)
        expected = run_torch(module, inputs)
        assert expected.shape == (16 * size[0], 16 * size[1], 3) and expected.dtype == np.uint8 and expected.std() > 5
        for level in OPTIMISATION_LEVELS:
            assert largest_difference(expected, run_onnx(file.path, INPUTS, inputs, level)) <= 1


def test_the_check_against_pytorch_can_fail(small: tuple[Any, GroundFile]) -> None:
    import torch
    module, file = copy.deepcopy(small[0]), small[1]
    cases = [ground_decoder.example_inputs(16, 4, 4)]
    with torch.no_grad():
        module.decoder.out.bias.add_(2 / 128)        # two grey levels
    check = check_against_torch("tiny@1", module, file.path, INPUTS, cases)
    assert (not check.passed and "largest difference 2" in check.detail) or "largest difference 3" in check.detail
    assert not check_against_torch("tiny@1", module, file.path, INPUTS, []).passed


def test_outputs_that_are_no_numbers_fail_the_check(tmp_path: Path) -> None:
    """In PyTorch and in ONNX Runtime alike, so that nothing differs but what cannot be compared."""
    import torch

    class Root(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sqrt(x)
    path = export(Root(), (torch.ones(3),), Graph(("x",), ("y",), {}), tmp_path / "root.onnx", {})
    sound, none = np.ones(3, np.float32), np.array([1, -1, 4], np.float32)
    assert check_against_torch("root", Root(), path, ("x",), [(sound,)]).passed
    for cases in ([(none,)], [(sound,), (none,)], [(none,), (sound,)]):
        check = check_against_torch("root", Root(), path, ("x",), cases)
        assert not check.passed and check.detail.startswith("largest difference nan, bound 1")


def test_every_output_is_compared_with_a_bound_of_its_own(tmp_path: Path) -> None:
    import torch

    class Two(torch.nn.Module):
        moved = 0.0

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return 2 * x, 1000 * x + self.moved
    module, case = Two(), (np.arange(3, dtype=np.float32),)
    path = export(module, (torch.ones(3),), Graph(("x",), ("a", "b"), {}), tmp_path / "two.onnx", {})
    assert check_against_torch("two", module, path, ("x",), [case], (0.1, 0.1)).passed
    module.moved = 0.5
    check = check_against_torch("two", module, path, ("x",), [case], (0.1, 0.1))
    assert not check.passed and check.detail == "largest difference 0, 0.5, bound 0.1, 0.1, 1 pictures"
    assert check_against_torch("two", module, path, ("x",), [case], (0.1, 0.6)).passed
    assert not check_against_torch("two", module, path, ("x",), [case], (9.0,)).passed, "an output without a bound"


def test_shipped_decoders_agree_with_pytorch(small: tuple[Any, GroundFile], tmp_path: Path) -> None:
    """Every decoder of weights/rover-m: the export checks itself; what belongs to another codec is removed with its engines."""
    weights = ROOT / "weights" / "rover-m"
    if not (weights / CODEC_FILE).exists():
        pytest.skip("weights/rover-m holds no trained decoder")
    (tmp_path / "ground").mkdir()
    stale = tmp_path / "ground" / "tiny@1.onnx"
    stale.write_bytes(small[1].path.read_bytes())
    (tmp_path / "ground" / "tiny@1.sm86.fp16.engine").write_bytes(b"")
    exported = ground_decoder.export_decoders(weights, tmp_path)
    assert exported and all(check.passed for _, check in exported), exported
    assert not stale.exists() and sorted(path.name for path in (tmp_path / "ground").iterdir()) == sorted(file.path.name for file, _ in exported)
    with pytest.raises(BadNetwork, match="it holds"):
        ground_decoder.export_decoders(weights, tmp_path, ["none"])


def test_grey_levels_of_engines_are_rounded(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    class Floats:
        def run(self, inputs: dict[str, np.ndarray]) -> tuple[np.ndarray, ...]:
            return (np.array([[[-3.0, 254.6, 99.5]]], np.float32),)
    decoder = GroundDecoder(model)
    monkeypatch.setattr(decoder, "_open", Floats)
    assert decoder.decode(np.zeros((1, 1, 32), np.int32), 3).tolist() == [[[0, 255, 100]]]
