"""The harness of the rate-distortion benchmark with toy codecs: results files, resuming, the summary and its report."""
from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import rd, rd_remac
from benchmarks.datasets import EvalImage, evaluation_images
from benchmarks.measure import Peer, Picture, components, run
from benchmarks.metrics import RDPoint
from benchmarks.peers import all_peers
from benchmarks.store import ImageResults, Results, ResultsError, load, merge, save
from benchmarks.summary import summarise
from remac_runtime import mosaics
from remac_runtime.mars import DataMissing
from remac_runtime.packets import BandPayload, StreamHeader, pack_stream, scan

VERSIONS = {"toy": "1"}


class ToyCodec:
    """Keeps the upper bits of each sample and counts how often it was called."""

    def __init__(self) -> None:
        self.calls = 0

    def peer(self, settings: str = "toy", qualities: tuple[float, ...] = (4, 6, 8)) -> Peer:
        """As a codec under test; the quality is the bits kept."""
        return Peer("toy", settings, qualities, self.encode, self.decode)

    def encode(self, picture: Picture, quality: float) -> bytes:
        """Shape, then the samples, coarser and repeated less the lower the quality."""
        self.calls += 1
        coarse = picture >> (8 - int(quality)) << (8 - int(quality))
        return bytes(picture.shape[:2]) + coarse.tobytes() + bytes(int(quality))

    def decode(self, coded: bytes) -> Picture:
        """The samples."""
        height, width = coded[:2]
        return np.frombuffer(coded, np.uint8, height * width * 3, 2).reshape(height, width, 3)


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[EvalImage, ...]:
    """Two small pictures in files."""
    generator = np.random.default_rng(1)
    found = []
    for name in ("a", "b"):
        path = tmp_path / f"{name}.png"
        Image.fromarray(generator.integers(0, 256, (12, 16, 3), np.uint8)).save(path)
        found.append(EvalImage("test", path))
    return tuple(found)


def test_points_that_are_there_are_not_measured_again(pictures: tuple[EvalImage, ...], tmp_path: Path) -> None:
    codec, path = ToyCodec(), tmp_path / "out" / "results.json"
    run([codec.peer()], pictures[:1], path, VERSIONS)
    assert codec.calls == 3
    results = run([codec.peer()], pictures, path, VERSIONS)
    assert codec.calls == 6
    assert run([codec.peer(qualities=(6, 8))], pictures, tmp_path / "fewer.json", VERSIONS).images["test/a"].curves["toy"][0].quality == 6
    codec.calls = 0
    more = run([codec.peer(qualities=(2, 6, 8))], pictures, tmp_path / "fewer.json", VERSIONS)
    assert codec.calls == 2 and [point.quality for point in more.images["test/b"].curves["toy"]] == [2, 6, 8]
    read = load(path)
    assert (read.versions, read.codecs, read.images.keys()) == (results.versions, results.codecs, results.images.keys())
    for key, image in results.images.items():
        for point, again in zip(image.curves["toy"], read.images[key].curves["toy"], strict=True):
            assert (again.quality, again.num_bytes) == (point.quality, point.num_bytes)
            assert again.psnr_db == pytest.approx(point.psnr_db, abs=1e-4)
    assert read.images["test/a"].curves["toy"][-1].psnr_db == math.inf


def test_a_codec_that_is_run_otherwise_is_measured_again(pictures: tuple[EvalImage, ...], tmp_path: Path) -> None:
    codec, path = ToyCodec(), tmp_path / "results.json"
    run([codec.peer()], pictures, path, VERSIONS)
    run([replace(codec.peer(), settings="other")], pictures, path, VERSIONS)
    assert codec.calls == 12


def test_results_of_other_libraries_or_pictures_are_not_mixed(pictures: tuple[EvalImage, ...], tmp_path: Path) -> None:
    codec, path = ToyCodec(), tmp_path / "results.json"
    run([codec.peer()], pictures, path, VERSIONS)
    with pytest.raises(ResultsError, match="toy 1, here is 2"):
        run([codec.peer()], pictures, path, {"toy": "2"})
    Image.new("RGB", (16, 12)).save(pictures[0].path)
    with pytest.raises(ResultsError, match="another picture"):
        run([codec.peer()], pictures, path, VERSIONS)


def test_what_is_there_is_measured_again_when_asked_for(pictures: tuple[EvalImage, ...], tmp_path: Path) -> None:
    """A file of this codec alone counts for nothing then, not even its versions; another codec in it keeps both."""
    codec, other, path = ToyCodec(), ToyCodec(), tmp_path / "results.json"
    run([codec.peer()], pictures, path, VERSIONS)
    run([codec.peer()], pictures, path, {"toy": "2"}, force=True)
    assert codec.calls == 12 and load(path).versions == {"toy": "2"}
    run([replace(other.peer(), name="other")], pictures, path, {"toy": "2"})
    run([codec.peer()], pictures, path, {"toy": "2"}, force=True)
    assert codec.calls == 18 and other.calls == 6 and set(load(path).codecs) == {"toy", "other"}
    with pytest.raises(ResultsError, match="toy 2, here is 3: move it away or name another --out"):
        run([codec.peer()], pictures, path, {"toy": "3"}, force=True)


def test_a_change_that_the_codec_hash_does_not_name_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other bytes of a plain picture or of a mosaic alone, and another ground decoder on either: each makes other settings."""
    plain = rd_remac.probe_picture()
    assert mosaics.found(plain) == 0 and mosaics.found(mosaics.interpolated(plain, rd_remac.PROBE_PATTERN)) == rd_remac.PROBE_PATTERN

    def described(other_bytes: bool | None = None, other_pixels: bool | None = None) -> str:
        """With the change on the plain picture (False) or on the mosaic (True)."""
        def encode(samples: Picture, quality: int, **keywords: object) -> bytes:
            mosaic = bool(mosaics.found(samples))
            content = bytes([quality, mosaic, mosaic is other_bytes])
            return pack_stream(StreamHeader(samples.shape[1], samples.shape[0], bytes(range(8))), [BandPayload(content, quality, 0)])

        def decode(coded: bytes, **keywords: object) -> Picture:
            return np.full((256, 256), 128 + (bool(scan(coded).bands[0].payload[1]) is other_pixels), np.uint8)
        monkeypatch.setattr("remac_runtime.encode", encode)
        monkeypatch.setattr("remac_runtime.decode", decode)
        return rd_remac.describe({}, {})
    texts = [described(), described(other_bytes=False), described(other_bytes=True), described(other_pixels=False), described(other_pixels=True)]
    assert len(set(texts)) == 5 and described() == texts[0] and all("codec hash 0001020304050607;" in text for text in texts)


def test_missing_pictures_are_one_line_that_names_the_variable(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match="REMAC_DATA") as caught:
        evaluation_images(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema": 99}'])
def test_what_is_no_results_file_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(ResultsError, match=r"results\.json"):
        load(path)


def test_remac_is_measured_through_its_public_interface(pictures: tuple[EvalImage, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variants are keywords of encode, the codec hash is read from the stream, grey pictures are coded as grey."""
    shapes, references, decoders = [], set(), set()

    def encode(samples: Picture, quality: int, **keywords: object) -> bytes:
        shapes.append(samples.shape)
        references.add(keywords.get("references", True))
        header = StreamHeader(samples.shape[1], samples.shape[0], bytes(range(8)))
        return pack_stream(header, [BandPayload(bytes(quality), quality, 0)])

    def decode(coded: bytes, **keywords: object) -> Picture:
        decoders.add(keywords["decoder"])
        header = scan(coded).header
        return np.full((header.height, header.width), 128, np.uint8)

    for name in ("network.rmn", "ground/deep@2.onnx", "ground/moderate@1.onnx"):
        (tmp_path / "model" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "model" / name).write_bytes(b"")
    assert rd_remac.first_decoder(tmp_path / "model") == "moderate@1"
    monkeypatch.setattr(rd_remac, "PROBE_SIDE", 64)
    monkeypatch.setattr("remac_runtime.encode", encode)
    monkeypatch.setattr("remac_runtime.decode", decode)
    Image.new("L", (16, 12), 128).save(pictures[0].path)
    folder = tmp_path / "data" / "test"
    folder.mkdir(parents=True)
    for picture in pictures:
        picture.path.rename(folder / picture.path.name)
    arguments = ["--data", str(tmp_path / "data"), "--sets", "test", "--out", str(tmp_path / "own.json"), "--variant", "noref"]
    model = ["--model", str(tmp_path / "model")]
    assert rd_remac.main([*arguments, *model]) == 0
    results = load(tmp_path / "own.json")
    assert references == {False} and decoders == {"moderate@1"}
    decoders.clear()
    assert rd_remac.main([*arguments[:-2], *model]) == 0
    assert references == {False, True} and decoders == {None}
    assert "references=False; codec hash 0001020304050607" in results.codecs["remac-m-noref"]
    assert {(12, 16), (12, 16, 3), (64, 64, 3)} == set(shapes)
    assert [point.quality for point in results.images["test/a"].curves["remac-m-noref"]] == list(rd_remac.QUALITIES)
    assert results.images["test/a"].curves["remac-m-noref"][0].psnr_db == math.inf


def image_with(**factors: float) -> ImageResults:
    """Results of a 100x80 picture: curves that are the anchor's times a factor."""
    curves = {}
    for name, factor in factors.items():
        curves[name] = tuple(RDPoint(quality, 1e6 * factor * 2 ** (index / 3), 28.0 + index) for index, quality in enumerate((8, 30, 60, 85, 90)))
    return ImageResults(100, 80, "p", curves)


def toy_results() -> tuple[Results, Results]:
    """Peers and ours on two pictures; ours is smaller than JPEG 2000 on one of them only."""
    peers = Results({"pillow": "1"}, {"jpeg420": "s", "jpeg2000": "s"},
                    {"test/a": image_with(jpeg420=1, jpeg2000=0.5), "test/b": image_with(jpeg420=1, jpeg2000=0.75)})
    ours = Results({}, {"remac-m": "hash"}, {"test/a": image_with(**{"remac-m": 0.625}), "test/b": image_with(**{"remac-m": 0.375})})
    return peers, ours


def test_merge_refuses_other_pictures_of_the_same_name_and_a_codec_twice() -> None:
    peers, ours = toy_results()
    ours.images["test/a"].pixels = "other"
    with pytest.raises(ResultsError, match="test/a"):
        merge([peers, ours])
    with pytest.raises(ResultsError, match="two results files"):
        merge([peers, peers])


def test_summary_of_known_factors() -> None:
    codec = summarise(merge(toy_results()))["test"].codecs["remac-m"]
    assert codec.bd_rate == pytest.approx({"test/a": -0.375, "test/b": -0.625})
    assert codec.bd_rate_mean == pytest.approx(-0.5)
    assert codec.bytes_at_operating_point == pytest.approx(0.5)
    assert codec.worst == ("test/a", "test/b")
    assert codec.costlier_than_rival == ("test/a",)
    assert codec.rival_bd_rate["test/a"] == pytest.approx(0.25)
    assert codec.bits_per_pixel_range == pytest.approx((375, 625 * 2 ** (4 / 3)))
    assert codec.qualities[0].psnr_db == 28.0
    assert codec.qualities[0].bits_per_pixel == pytest.approx(500)


def test_a_mean_over_some_of_the_pictures_is_none() -> None:
    """A codec that does not reach JPEG's quality 85 on one picture has no mean there, one that was measured on one picture has none at all."""
    peers, ours = toy_results()
    short = ours.images["test/b"].curves["remac-m"]
    ours.images["test/b"].curves["remac-m"] = short[:3]
    peers.images["test/b"].curves.pop("jpeg2000")
    codecs = summarise(merge([peers, ours]))["test"].codecs
    assert math.isnan(codecs["remac-m"].bytes_at_operating_point) and codecs["remac-m"].complete
    assert codecs["remac-m"].covered == pytest.approx((1 + 0.5) / 2)
    assert not codecs["jpeg2000"].complete and codecs["jpeg2000"].measured == 1


def test_report_is_complete_and_repeatable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, results in zip(("peers.json", "ours.json"), toy_results(), strict=True):
        save(tmp_path / name, results)
    arguments = ["--peers", str(tmp_path / "peers.json"), "--codec-results", str(tmp_path / "ours.json"), "--out", str(tmp_path)]
    assert rd.main(arguments) == 0
    table = capsys.readouterr().out
    assert "| remac-m | -50.0 % | 0.50 |" in table
    assert "costlier than JPEG 2000: test/a +25.0 %" in table
    first = (tmp_path / "rd.svg").read_bytes()
    assert rd.main(arguments) == 0
    assert (tmp_path / "rd.svg").read_bytes() == first
    summary = json.loads((tmp_path / "rd_summary.json").read_text())
    assert summary["sets"]["test"]["codecs"]["remac-m"]["costlier_than_jpeg2000"] == {"test/a": pytest.approx(0.25, abs=1e-3)}


def test_report_without_results_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rd.main(["--peers", str(tmp_path / "none.json")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("peer", all_peers(), ids=lambda peer: peer.name)
@pytest.mark.parametrize("grey", [False, True])
def test_every_peer_decodes_to_the_size_and_improves_with_quality(peer: Peer, grey: bool) -> None:
    """On a small smooth picture of odd size; the qualities of a peer are listed from coarse to fine."""
    pytest.importorskip("pillow_heif")
    pytest.importorskip("imagecodecs")
    row, column = np.mgrid[0:70, 0:91]
    planes = [128 + 60 * np.sin(row / 9 + shift) + 50 * np.cos(column / (5 + shift)) for shift in ((0, 0, 0) if grey else (0, 1, 2))]
    picture = np.clip(np.stack(planes, -1), 0, 255).astype(np.uint8)
    assert (components(picture).ndim == 2) == grey
    coarse, fine = (peer.encode(components(picture), quality) for quality in (peer.qualities[0], peer.qualities[-1]))
    decoded = [peer.decode(coded).astype(int) for coded in (coarse, fine)]
    assert [image.shape for image in decoded] == [picture.shape, picture.shape]
    assert len(coarse) < len(fine)
    errors = [np.square(image - picture).mean() for image in decoded]
    assert errors[0] > errors[1]
    assert not grey or np.ptp(decoded[1], axis=2).max() <= 2       # WebP has no grey mode and rounds its planes apart
