"""`remac enhance`: what it reads of a JPEG, matching, tiles without seams, and the whole command, beside MarsQE in PyTorch on the whole picture."""
from __future__ import annotations

import io
import json
import math
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from small_ground import small_marsqe, write_small_decoder, write_small_ground
from small_network import write_small_model

from remac_runtime import cli
from remac_runtime.codec import EncodeOptions, Encoder
from remac_runtime.enhance import matching
from remac_runtime.enhance import tiles as enhance_tiles
from remac_runtime.enhance.command import CLASS_COLOURS
from remac_runtime.enhance.enhancer import Enhancer, planes
from remac_runtime.enhance.input import STANDARD_CHROMA, STANDARD_LUMA, Compressed, grey_chroma, nearest_quality, read_jpeg, upright
from remac_runtime.errors import BadInput, BadNetwork
from remac_runtime.exits import Exit
from remac_runtime.images import Picture, load_picture
from remac_runtime.model import load_model
from remac_runtime.png import png_text
from remac_runtime.terrain import terrain


def jpeg(pixels: np.ndarray, quality: int = 30, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, **options)
    return file.getvalue()


# ---- what is read

def zigzag() -> list[int]:
    """ITU-T T.81, figure A.6: natural index of each position in the file."""
    order = sorted(((r, c) for r in range(8) for c in range(8)), key=lambda rc: (sum(rc), rc[0] if sum(rc) % 2 else rc[1]))
    return [8 * r + c for r, c in order]


def test_tables_are_those_of_the_file() -> None:
    luma, chroma = (np.arange(64) % 200 + 1 + first for first in (0, 5))
    file = io.BytesIO()
    Image.fromarray(terrain(24, 40, 1)).save(file, "JPEG", qtables=[luma.tolist(), chroma.tolist()])
    data, source = file.getvalue(), read_jpeg(file.getvalue())
    assert np.array_equal(source.tables, [luma, chroma]) and source.tables.dtype == np.float32
    at = data.index(b"\xff\xdb") + 5        # marker, length, number of the table
    assert [data[at + place] for place in range(64)] == [source.tables[0, index] for index in zigzag()]
    assert source.bound and not source.grey and np.array_equal(source.pixels, np.asarray(Image.open(file)))


def test_a_grey_jpeg_gets_a_chroma_table() -> None:
    source = read_jpeg(jpeg(terrain(16, 16, 1)[:, :, 0], 50))
    assert source.grey and source.pixels.shape == (16, 16, 3) and np.ptp(source.pixels, axis=2).max() == 0
    assert np.array_equal(source.tables, [STANDARD_LUMA, STANDARD_CHROMA]), "quality 50 means the standard's tables"
    assert np.array_equal(grey_chroma(2 * STANDARD_LUMA.astype(np.float32)), 2 * STANDARD_CHROMA)


def test_trust_ends_where_the_edge_cuts_a_block() -> None:
    trust = read_jpeg(jpeg(terrain(19, 32, 1))).trust()
    assert trust[:16].all() and not trust[16:].any() and trust.shape == (19, 32)
    file = io.BytesIO()
    Image.fromarray(terrain(16, 16, 1)).save(file, "JPEG", keep_rgb=True)
    stored_rgb = read_jpeg(file.getvalue())
    assert not stored_rgb.bound and not stored_rgb.trust().any(), "no table is the luma's"


@pytest.mark.parametrize("quality", [5, 20, 30, 49, 50, 75, 95])
def test_the_nearest_quality(quality: int) -> None:
    assert nearest_quality(read_jpeg(jpeg(terrain(16, 16, 1), quality)).tables[0]) == quality


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_pillows(orientation: int) -> None:
    from PIL import ImageOps
    samples = terrain(5, 9, 2)
    image = Image.fromarray(samples)
    image.getexif()[0x0112] = orientation
    assert np.array_equal(upright(samples, orientation), np.asarray(ImageOps.exif_transpose(image)))


def test_bad_jpegs_tell_the_mend() -> None:
    whole, file = jpeg(terrain(64, 64, 1), 90), io.BytesIO()
    Image.fromarray(terrain(16, 16, 1)).convert("CMYK").save(file, "JPEG")
    for data, message in ((b"", "is empty"), (b"P6 1 1 255 abc", "not a JPEG.*decode --enhance"), (whole[:len(whole) // 2], "truncated or damaged"),
                          (whole[:30], "not a JPEG|truncated"), (file.getvalue(), "CMYK colours.*convert it to RGB")):
        with pytest.raises(BadInput, match=message):
            read_jpeg(data)
    assert read_jpeg(whole, 64 * 64).pixels.shape == (64, 64, 3)
    with pytest.raises(BadInput, match=r"is 64x64, beyond the limit of 4095 pixels: raise the limit \(max_pixels, --max-pixels\)"):
        read_jpeg(whole[:len(whole) // 2], 4095)        # before what is missing could be noticed


# ---- matching

def test_local_binary_patterns_by_hand() -> None:
    patch = np.random.default_rng(1).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    y = [[(77 * int(r) + 150 * int(g) + 29 * int(b) + 128) // 256 for r, g, b in row] for row in patch]
    around = [(-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1)]
    counts = [1] * 256
    for r in range(1, 127):
        for c in range(1, 127):
            counts[sum((y[r + dr][c + dc] >= y[r][c]) << bit for bit, (dr, dc) in enumerate(around))] += 1
    assert np.allclose(matching.texture(patch), np.array(counts) / (126 * 126 + 256), rtol=1e-12)
    assert matching.texture(patch).sum() == pytest.approx(1)


def test_the_reference_of_least_divergence() -> None:
    def divergence(a: np.ndarray, b: np.ndarray) -> float:
        return sum(p * math.log(p / q) for p, q in zip(a.tolist(), b.tolist(), strict=True))
    rng = np.random.default_rng(2)
    references, patch = rng.dirichlet(np.ones(256), 6) + 1e-6, rng.dirichlet(np.ones(256)) + 1e-6
    references, patch = references / references.sum(1, keepdims=True), patch / patch.sum()
    assert matching.nearest_reference(references, patch) == int(np.argmin([divergence(reference, patch) for reference in references]))
    assert matching.nearest_reference(np.stack([references[0]] * 3), patch) == 0


def test_cells_take_the_most_frequent_class() -> None:
    classes = np.zeros((16, 48), np.uint8)
    classes[:, 16:32] = 3
    classes[:8, 32:] = 2        # as many as of class 0: the smaller one wins
    assert matching.cell_classes(classes).tolist() == [[0, 3, 0]]
    classes[8, 32] = 2
    assert matching.cell_classes(classes).tolist() == [[0, 3, 2]]


def test_a_patch_is_matched_with_itself_within_its_class() -> None:
    references = np.stack([terrain(128, 128, seed) for seed in range(24)])
    pixels = np.concatenate([references[7], references[20]], 1)
    classes = np.repeat(np.array([[1, 3]], np.uint8), 16, 1).repeat(16, 0)
    assert matching.match(pixels, classes, references).tolist() == [[7, 20]]
    classes[:] = 0
    assert (matching.match(pixels, classes, references) < 6).all()
    assert np.array_equal(matching.cut_dictionary(matching.join_dictionary(references)).patches, references)


# ---- tiles

@given(st.integers(1, 130), st.integers(5, 16))
def test_spans_cover_a_length_and_add_up_to_one(cells: int, most: int) -> None:
    spans = enhance_tiles.spans(128 * cells, 128 * most)
    total = np.zeros(128 * cells)
    for span in spans:
        assert 0 <= span.start < span.stop <= 128 * cells and span.start % 128 == span.stop % 128 == 0 and span.stop - span.start <= 128 * most
        total[span.start:span.stop] += span.weight
    assert np.allclose(total, 1, atol=1e-6)
    for before, after in pairwise(spans):
        assert before.stop - after.start >= 256
        margin = 256 // 2 - 16
        assert not after.weight[:margin].any() and not before.weight[-margin:].any(), "nothing near a cut edge counts"


def test_tiles_of_an_identity_are_the_picture() -> None:
    picture = np.random.default_rng(1).random((1280, 768, 3)).astype(np.float32)
    sizes = []

    def run(rows: slice, columns: slice) -> np.ndarray:
        sizes.append((rows.stop - rows.start, columns.stop - columns.start))
        return picture[rows, columns]
    parts = list(enhance_tiles.tiled(1280, 768, run, 640))
    assert [first for first, _ in parts] == sorted(first for first, _ in parts) and max(max(size) for size in sizes) <= 640
    assert np.abs(np.concatenate([rows for _, rows in parts]) - picture).max() < 1e-6 and len(sizes) == enhance_tiles.tile_count(1280, 768, 640)


# ---- the whole

@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("enhance")
    write_small_ground(folder)
    return folder


@pytest.fixture(scope="module")
def enhancer(place: Path) -> Enhancer:
    return Enhancer(load_model(place), backend="numpy")


def in_pytorch(enhancer: Enhancer, data: bytes) -> np.ndarray:
    """MarsQE on the whole picture, matched by remac.matching, without our tiles, sessions and NumPy twins."""
    import torch

    from remac import matching as slow
    from remac.marsqe import Bank
    from remac.segmenter import Segmenter, cell_classes
    source, model = read_jpeg(data), small_marsqe()
    segmenter = Segmenter().eval()
    height, width = source.pixels.shape[:2]
    padded = np.pad(source.pixels, ((0, -height % 128), (0, -width % 128), (0, 0)), "edge")
    picture, tables = torch.from_numpy(planes(padded)), torch.from_numpy(source.tables)[None]
    with torch.inference_mode():
        classes = segmenter(picture).argmax(1)
        raw = enhancer.dictionary.patches
        compressed = np.stack([slow.jpeg_with_tables(patch, source.tables) for patch in raw])
        described = np.stack([matching.texture(patch) for patch in compressed])
        cells = [padded[r:r + 128, c:c + 128] for r in range(0, padded.shape[0], 128) for c in range(0, padded.shape[1], 128)]
        kinds = cell_classes(classes).reshape(-1).tolist()
        index = torch.tensor([slow.match(described, matching.texture(cell), kind) for cell, kind in zip(cells, kinds, strict=True)])
        banks = [model.encode_references(torch.from_numpy(patches.transpose(0, 3, 1, 2).astype(np.float32)), tables.expand(24, -1, -1))
                 for patches in (compressed, raw)]
        full = model(picture, tables, classes, Bank(*banks).taken(index), torch.ones(len(index))).full
        bound = model.constrained(full, picture, tables)
    inside = np.zeros((1, 1, *padded.shape[:2]), bool)
    inside[:, :, :height - height % 8, :width - width % 8] = True
    pixels = np.where(inside, bound.numpy(), full.numpy())[0].transpose(1, 2, 0)[:height, :width]
    return np.rint(pixels).clip(0, 255).astype(np.uint8)


def test_it_is_what_marsqe_gives_in_pytorch(place: Path, enhancer: Enhancer, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from export.marsqe import export_segmenter
    from remac.segmenter import Segmenter
    torch.manual_seed(8)
    segmenter = Segmenter().eval()
    export_segmenter(segmenter, place / "ground" / "enhance" / "segmenter.onnx")
    monkeypatch.setattr("remac.segmenter.Segmenter", lambda: segmenter)
    data = jpeg(terrain(140, 250, 3))
    found, expected = enhancer.enhance_jpeg(data), in_pytorch(enhancer, data)
    assert found.picture.samples.shape == (140, 250, 3) and np.abs(found.picture.samples.astype(int) - expected).max() <= 1
    assert np.abs(found.picture.samples.astype(int) - read_jpeg(data).pixels).max() > 3, "the random network does something"
    assert found.classes.shape == (32, 32) and found.index.shape == (2, 2) and found.warnings == ()


def test_tiles_leave_no_seams(place: Path, enhancer: Enhancer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture in tiles equals the whole one within a grey level; without an overlap it does not."""
    data = jpeg(terrain(100, 1000, 5))
    whole = enhancer.enhance_jpeg(data).picture.samples.astype(int)
    tiles: list[tuple[int, int]] = []
    small = Enhancer(load_model(place), backend="numpy", tile=640)
    small.watch = lambda done, total: tiles.append((done, total))
    assert np.abs(small.enhance_jpeg(data).picture.samples - whole).max() <= 1 and tiles == [(1, 2), (2, 2)]
    parts = {1024: [(0, 640), (640, 1024)], 128: [(0, 128)]}
    monkeypatch.setattr(enhance_tiles, "spans", lambda length, tile: [enhance_tiles.Span(a, b, np.ones(b - a, np.float32)) for a, b in parts[length]])
    seam = np.abs(small.enhance_jpeg(data).picture.samples - whole)
    assert seam.max() > 1 and seam[:, :400].max() <= 1


def test_small_grey_and_turned_pictures(enhancer: Enhancer) -> None:
    tiny = enhancer.enhance_jpeg(jpeg(terrain(16, 16, 1)))
    assert tiny.picture.samples.shape == (16, 16, 3), "padded to a cell by repeating its edge"
    grey = enhancer.enhance_jpeg(jpeg(terrain(40, 56, 1)[:, :, 0]))
    assert grey.picture.grey and grey.picture.samples.shape == (40, 56)
    assert np.array_equal(grey.picture.samples, (grey.pixels.astype(int).sum(2) + 1) // 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    straight, turned = (enhancer.enhance_jpeg(data) for data in (jpeg(terrain(40, 56, 2)), jpeg(terrain(40, 56, 2), exif=exif)))
    assert np.array_equal(np.rot90(straight.picture.samples, -1), turned.picture.samples)


def test_references_are_kept_while_the_tables_stay(enhancer: Enhancer, monkeypatch: pytest.MonkeyPatch) -> None:
    coded: list[bytes] = []
    original = Enhancer._as_jpeg

    def counted(self: Enhancer, source: Compressed) -> np.ndarray:
        coded.append(source.tables.tobytes())
        return original(self, source)
    monkeypatch.setattr(Enhancer, "_as_jpeg", counted)
    enhancer._last = None
    for quality in (30, 30, 40, 30):
        enhancer.enhance_jpeg(jpeg(terrain(16, 16, quality), quality))
    assert len(coded) == 3
    enhancer._last = None


def test_missing_networks_tell_the_mend(place: Path, tmp_path: Path) -> None:
    write_small_model(tmp_path)
    with pytest.raises(BadNetwork, match="no enhancement network"):
        Enhancer(load_model(tmp_path))
    with pytest.raises(BadNetwork, match="there are marsqe-lite@1, marsqe@1: choose one with --enhancer"):
        Enhancer(load_model(place), enhancer="marsqe@9")
    assert Enhancer(load_model(place)).file.label == "marsqe@1"


# ---- the commands

def remac(*arguments: str) -> int:
    try:
        return int(cli.main(list(arguments)))
    except SystemExit as stop:
        return int(stop.code or 0)


def test_enhance_command(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.jpg").write_bytes(jpeg(terrain(40, 136, 1)))
    Path("b.jpeg").write_bytes(jpeg(terrain(16, 16, 1), 90))
    Path("bad.jpg").write_bytes(b"hello")
    assert remac("enhance", "a.jpg", "-o", "a.png", "--map", "--model", str(place)) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("a.jpg -> a.png: 136x40, marsqe@1, ") and printed.err == ""
    notes = png_text(Path("a.png"))
    assert notes is not None and notes["remac-enhancer"] == "marsqe@1" and load_picture("a.png").samples.shape == (40, 136, 3)
    shown = load_picture("a.map.png").samples
    assert shown.shape == (40 + 18, 2 * 136 + 8, 3) and (shown[:40, 136:144] == 255).all()
    model = Enhancer(load_model(place), backend="numpy")
    enhanced = model.enhance_jpeg(Path("a.jpg").read_bytes())
    assert np.array_equal(shown[:40, 144:144 + 128], model.dictionary.patches[enhanced.index[0, 0]][:40])
    shade = 0.55 * enhanced.pixels[0, 0] + 0.45 * CLASS_COLOURS[enhanced.classes[0, 0]]
    assert np.abs(shown[0, 0] - shade).max() <= 0.5
    assert remac("enhance", "a.jpg", "bad.jpg", "b.jpeg", "-o", "out", "--model", str(place), "--enhancer", "marsqe-lite", "--json") == Exit.FAILED
    printed = capsys.readouterr()
    facts = json.loads(printed.out)
    assert [entry.get("enhancer") for entry in facts["files"]] == ["marsqe-lite@1", None, "marsqe-lite@1"] and "error" in facts["files"][1]
    assert "bad.jpg: is not a JPEG" in printed.err and "b.jpeg: quantised like JPEG quality 90, marsqe-lite@1 was trained for 20 to 50" in printed.err
    assert "Traceback" not in printed.err and sorted(path.name for path in Path("out").iterdir()) == ["a.png", "b.png"]
    assert remac("enhance", "a.jpg", "-o", "x.png", "--tile", "300", "--model", str(place)) == Exit.USAGE
    assert "multiple of 128" in capsys.readouterr().err
    assert remac("enhance", "a.jpg", "-o", "x.png", "--max-pixels", "5439", "--model", str(place)) == Exit.FAILED
    assert "a.jpg: is 136x40, beyond the limit of 5439 pixels" in capsys.readouterr().err and not Path("x.png").exists()


def test_decoded_streams_are_enhanced(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Encoder(load_model(place), "numpy") as encoder:
        (tmp_path / "a.rmc").write_bytes(encoder.encode(Picture(terrain(64, 130, 1)), EncodeOptions(20)))
        (tmp_path / "deep.rmc").write_bytes(encoder.encode(Picture((terrain(64, 64, 1)[:, :, 0].astype(np.uint16) << 4), 12), EncodeOptions(20)))
    common = ["--model", str(place), "--backend", "numpy"]
    for name in ("a", "deep"):
        assert remac("decode", str(tmp_path / f"{name}.rmc"), "-o", str(tmp_path / f"{name}.png"), *common) == 0
        assert remac("decode", str(tmp_path / f"{name}.rmc"), "-o", str(tmp_path / f"{name}+.png"), "--enhance", *common) == 0
        plain, mended = (load_picture(tmp_path / f"{name}{plus}.png") for plus in ("", "+"))
        assert plain.samples.dtype == mended.samples.dtype and plain.size == mended.size and not np.array_equal(plain.samples, mended.samples)
    notes = png_text(tmp_path / "a+.png")
    assert notes is not None and (notes["remac-decoder"], notes["remac-enhancer"]) == ("moderate@1", "marsqe@1")
    assert capsys.readouterr().err == ""
    with Encoder(load_model(place), "numpy") as encoder:
        (tmp_path / "fine.rmc").write_bytes(encoder.encode(Picture(terrain(64, 64, 1)), EncodeOptions(60)))
    assert remac("decode", str(tmp_path / "fine.rmc"), "-o", str(tmp_path / "fine.png"), "--enhance", *common) == 0
    assert "fine.rmc: coded at quality 60, marsqe@1 was trained for 10 to 50: expect less" in capsys.readouterr().err


def test_streams_are_enhanced_behind_the_decoder_of_the_training(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A newer ground decoder takes over decoding, but not what an enhancement network was trained to mend."""
    shutil.copytree(place, tmp_path / "model")
    write_small_decoder(tmp_path / "model", "newer@2", 120.0)
    with Encoder(load_model(place), "numpy") as encoder:
        (tmp_path / "a.rmc").write_bytes(encoder.encode(Picture(terrain(64, 130, 1)), EncodeOptions(20)))
    decoders = {}
    for name, options in (("plain", []), ("mended", ["--enhance"]), ("other", ["--enhance", "--decoder", "newer@2"])):
        path = tmp_path / f"{name}.png"
        assert remac("decode", str(tmp_path / "a.rmc"), "-o", str(path), *options, "--model", str(tmp_path / "model"), "--backend", "numpy") == 0
        decoders[name] = (png_text(path) or {})["remac-decoder"]
    assert decoders == {"plain": "newer@2", "mended": "moderate@1", "other": "newer@2"}
    assert "decoded by newer@2, marsqe@1 was trained behind moderate@1" in capsys.readouterr().err
    (tmp_path / "in").mkdir()
    shutil.copy(tmp_path / "a.rmc", tmp_path / "in")
    where = ["--model", str(tmp_path / "model"), "--backend", "numpy"]
    assert remac("ground", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--enhance", *where) == 0
    assert (png_text(tmp_path / "out" / "a.png") or {})["remac-decoder"] == "moderate@1"


@pytest.mark.slow
def test_the_shipped_networks_leave_no_seams(tmp_path: Path) -> None:
    """On a sample picture as large as two tiles: with trained weights, tiles equal the whole within a grey level."""
    root = Path(__file__).resolve().parents[1]
    built = root / "build" / "rover-m"
    if not (built / "ground" / "enhance" / "segmenter.onnx").is_file():
        pytest.skip("MarsQE is not built: run `python export/marsqe.py`")
    sample = np.asarray(Image.open(root / "samples" / "spirit_husband_hill_summit.png").convert("RGB"))
    data = jpeg(np.concatenate([sample, sample[:, ::-1]], 1)[:256, :1024])
    whole, tiled = (Enhancer(load_model(built), tile=tile).enhance_jpeg(data).picture.samples.astype(int) for tile in (1024, 640))
    assert np.abs(whole - tiled).max() <= 1
