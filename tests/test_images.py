"""Pictures in and out (FORMAT 3), every kind of bad input, and writing whole files or none."""
from __future__ import annotations

import io
import sys
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from remac_runtime import images
from remac_runtime.concealment import conceal
from remac_runtime.enhance.input import read_jpeg
from remac_runtime.errors import BadInput
from remac_runtime.images import (
    Picture,
    as_picture,
    companding_table,
    expanding_table,
    from_pixels,
    load_picture,
    save_picture,
    to_pixels,
)
from remac_runtime.png import png_bytes

RNG = np.random.default_rng(7)
GREY = RNG.integers(0, 256, (37, 53), dtype=np.uint8)
RGB = RNG.integers(0, 256, (37, 53, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 4096, (37, 53), dtype=np.uint16)


# ---- companding

@pytest.mark.parametrize("depth", [9, 10, 11, 12])
def test_companding_is_the_nearest_code_the_lower_on_a_tie(depth: int) -> None:
    """Brute force over all samples and codes, in Python integers, from the text of FORMAT 3."""
    top = 2 ** depth - 1
    values = [(n * n * top + 32512) // 65025 for n in range(256)]
    assert expanding_table(depth).tolist() == values
    nearest = [min(range(256), key=lambda n, sample=sample: (abs(values[n] - sample), n)) for sample in range(top + 1)]  # type: ignore[misc]
    assert companding_table(depth).tolist() == nearest


def test_companding_of_16_bits_at_the_ends_and_at_ties() -> None:
    values = expanding_table(16).astype(int)
    codes = companding_table(16)
    assert (values[0], values[255], codes[0], codes[65535]) == (0, 65535, 0, 255)
    for n in range(255):
        middle, odd = divmod(int(values[n] + values[n + 1]), 2)
        assert codes[middle] == n and codes[middle + 1] == n + 1, f"code {n}, {'no tie' if odd else 'tie'}"


@pytest.mark.parametrize("depth", range(9, 17))
def test_a_decoded_sample_codes_to_itself(depth: int) -> None:
    values = expanding_table(depth)
    assert np.array_equal(values[companding_table(depth)[values]], values)
    assert np.all(np.diff(companding_table(depth).astype(int)) >= 0)


def test_pixels_of_pictures_and_back() -> None:
    assert np.array_equal(to_pixels(Picture(RGB)), RGB)
    assert all(np.array_equal(to_pixels(Picture(GREY))[:, :, c], GREY) for c in range(3))
    deep = to_pixels(Picture(DEEP, 12))
    assert np.array_equal(deep[:, :, 1], companding_table(12)[DEEP])
    back = from_pixels(deep, 12, True)
    assert back.depth == 12 and back.samples.dtype == np.uint16 and np.array_equal(back.samples, expanding_table(12)[deep[:, :, 0]])


def test_decoded_grey_is_the_rounded_mean() -> None:
    pixels = np.array([[[a, b, c] for c in range(4)] for a in range(4) for b in range(4)], np.uint8)
    expected = [[int(sum(map(int, p)) / 3 + 0.5) for p in row] for row in pixels]
    assert from_pixels(pixels, 8, True).samples.tolist() == expected
    assert from_pixels(np.full((1, 1, 3), 255, np.uint8), 8, True).samples.tolist() == [[255]]


# ---- arrays

def test_arrays_that_are_pictures() -> None:
    assert as_picture(GREY).depth == as_picture(RGB).depth == 8
    assert as_picture(DEEP).depth == 16 and as_picture(DEEP, 12).depth == 12
    assert as_picture(DEEP.astype(">u2"), 12).samples.dtype == np.dtype("=u2")


@pytest.mark.parametrize(("array", "depth", "message"), [
    (GREY.astype(np.float32), None, "float32"), (np.zeros((2, 2, 4), np.uint8), None, r"uint8\[2, 2, 4\]"),
    (RGB.astype(np.uint16), None, "16-bit colour"), (np.zeros((0, 5), np.uint8), None, "5x0"), (np.zeros((1, 16385), np.uint8), None, "16384 a side"),
    (GREY, 12, "8-bit samples"), (DEEP, 8, "9..16"), (DEEP, 17, "9..16"),
    (np.array([[4096]], np.uint16), 12, "larger --depth"), (np.zeros(5, np.uint8), None, "expected"),
])
def test_arrays_that_are_not(array: Any, depth: int | None, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        as_picture(array, depth)


# ---- files

def write(folder: Path, name: str, samples: np.ndarray, **options: Any) -> Path:
    path = folder / name
    Image.fromarray(samples).save(path, **options)
    return path


LOSSLESS = [("a.png", {}), ("a.tif", {}), ("b.tif", {"compression": "tiff_lzw"}), ("a.webp", {"lossless": True}), ("a.ppm", {})]


@pytest.mark.parametrize(("name", "options"), LOSSLESS)
def test_reading_colour(tmp_path: Path, name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)           # it is not asked, from the header to the last pixel
    picture = load_picture(write(tmp_path, name, RGB, **options))
    assert np.array_equal(picture.samples, RGB) and picture.depth == 8


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_reading_grey(tmp_path: Path, name: str) -> None:
    picture = load_picture(write(tmp_path, name, GREY))
    assert np.array_equal(picture.samples, GREY) and picture.grey


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_reading_deep_grey(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, name, DEEP)
    assert np.array_equal(load_picture(path).samples, DEEP) and load_picture(path).depth == 16
    assert load_picture(path, 12).depth == 12
    with pytest.raises(BadInput, match=r"a\.(png|tif).*larger --depth"):
        load_picture(path, 10)


def test_reading_jpeg_is_what_pillow_decodes(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jpg", RGB, quality=90)
    assert np.array_equal(load_picture(path).samples, np.asarray(Image.open(path)))
    assert load_picture(write(tmp_path, "g.jpg", GREY)).grey


def test_reading_netpbm_without_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    (tmp_path / "a.ppm").write_bytes(b"P6 # made by hand\n53 37\n# a comment\n255\n" + RGB.tobytes())
    assert np.array_equal(load_picture(tmp_path / "a.ppm").samples, RGB)
    (tmp_path / "a.pgm").write_bytes(b"P5 53 37 4095\n" + DEEP.astype(">u2").tobytes())
    deep = load_picture(tmp_path / "a.pgm")
    assert deep.depth == 12 and np.array_equal(deep.samples, DEEP)
    (tmp_path / "b.pgm").write_bytes(b"P5 3 1 15\n" + bytes([0, 7, 15]))
    assert load_picture(tmp_path / "b.pgm").samples.tolist() == [[0, 119, 255]]
    with pytest.raises(BadInput, match="needs Pillow"):
        load_picture(_written(tmp_path / "a.png", png_bytes(RGB)))


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_a_damaged_header_of_blanks_is_refused_at_once() -> None:
    """Each blank once doubled the time."""
    start = time.perf_counter()
    with pytest.raises(BadInput, match="damaged PGM/PPM header"):
        images._read_netpbm(b"P5" + b" " * 20_000 + b"x")
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize("opened", [load_picture, lambda path: read_jpeg(path.read_bytes())])
def test_pillows_limit_survives_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: Callable[[Path], object]) -> None:
    """Two threads that read at once, the first of which is done first: the limit is the process's, not ours, and neither may feel it."""
    both, first_done, really, turns, read = threading.Barrier(2), threading.Event(), Image.open, iter((0, 1)), []

    def slow(*arguments: Any, **options: Any) -> Any:
        turn = next(turns)
        both.wait(10)
        if turn:
            first_done.wait(10)
        return really(*arguments, **options)

    def run() -> None:
        read.append(opened(path))
        first_done.set()

    path = write(tmp_path, "a.jpg", GREY)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)
    monkeypatch.setattr(Image, "open", slow)
    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read) == 2 and Image.MAX_IMAGE_PIXELS == 5


def test_palettes_alpha_and_one_bit(tmp_path: Path) -> None:
    few = (GREY >> 6) * 85
    palette = Image.fromarray(np.stack([few, few // 2, few], -1)).convert("P", palette=Image.Palette.ADAPTIVE)
    palette.save(tmp_path / "p.png")
    assert np.array_equal(load_picture(tmp_path / "p.png").samples, np.asarray(palette.convert("RGB")))
    Image.fromarray(few).convert("P").save(tmp_path / "g.png")
    assert np.array_equal(load_picture(tmp_path / "g.png").samples, few), "a palette of greys is a grey picture"
    opaque = np.dstack([RGB, np.full(GREY.shape, 255, np.uint8)])
    assert np.array_equal(load_picture(write(tmp_path, "o.png", opaque)).samples, RGB)
    assert np.array_equal(load_picture(write(tmp_path, "la.png", np.dstack([GREY, opaque[:, :, 3]]))).samples, GREY)
    Image.fromarray(GREY > 128).save(tmp_path / "one.png")
    assert np.array_equal(load_picture(tmp_path / "one.png").samples, (GREY > 128) * np.uint8(255))


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = write(tmp_path, "a.png", RGB, exif=exif)
    assert np.array_equal(load_picture(path).samples, np.rot90(RGB, -1))


def _bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    whole = png_bytes(RGB)
    wide = io.BytesIO()
    Image.new("L", (60_000, 1)).save(wide, "PNG")
    animation = [Image.fromarray(RGB), Image.fromarray(RGB[::-1])]
    animation[0].save(folder / "two.webp", save_all=True, append_images=animation[1:], lossless=True)
    animation[0].save(folder / "two.tif", save_all=True, append_images=animation[1:])
    Image.fromarray(np.dstack([RGB, GREY])).save(folder / "rgba.png")
    Image.fromarray(RGB).convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(RGB).convert("CMYK").save(folder / "cmyk.tif")
    Image.fromarray(GREY.astype(np.float32)).save(folder / "float.tif")
    Image.fromarray(DEEP.astype(np.int32) * 100).save(folder / "int32.tif")
    Image.fromarray(RGB).save(folder / "whole.jpg")
    (folder / "folder.png").mkdir()
    jpeg = (folder / "whole.jpg").read_bytes()
    return {
        "not an image": (_written(folder / "text.png", b"this is a text, not a picture"), "not a picture"),
        "another format": (_written(folder / "a.gif", _gif()), "not a picture that remac reads"),
        "empty": (_written(folder / "empty.png", b""), "empty"), "absent": (folder / "absent.png", "no such file"),
        "folder": (folder / "folder.png", "is a folder"), "header only": (_written(folder / "header.png", whole[:33]), "header is damaged"),
        "truncated PNG": (_written(folder / "cut.png", whole[:len(whole) // 2]), "truncated or damaged"),
        "damaged PNG": (_written(folder / "damaged.png", whole[:500] + bytes(64) + whole[564:]), "truncated or damaged"),
        "truncated JPEG": (_written(folder / "cut.jpg", jpeg[:len(jpeg) // 2]), "truncated or damaged"),
        "truncated PPM": (_written(folder / "cut.ppm", b"P6 53 37 255\n" + bytes(100)), "truncated: 100 of 5883"),
        "PPM header": (_written(folder / "header.ppm", b"P6 fifty 37 255\n" + bytes(100)), "damaged PGM/PPM header"),
        "huge PPM": (_written(folder / "huge.ppm", b"P6 999999999 999999999 255\n" + bytes(100)), "16384 a side"),
        "text PGM": (_written(folder / "text.pgm", b"P2 2 1 4095\n2003 2071\n"), "text or of 1-bit.*binary PGM"),
        "text PPM": (_written(folder / "text.ppm", b"P3 1 1 65535\n1 2 3\n"), "text or of 1-bit"),
        "PPM maximum": (_written(folder / "maximum.ppm", b"P6 5 3 70000\n" + bytes(100)), "1..65535"),
        "60,000 wide": (_written(folder / "wide.png", wide.getvalue()), "60000x1 .*cut it into tiles"),
        "CMYK JPEG": (folder / "cmyk.jpg", "CMYK.*convert it to RGB"), "CMYK TIFF": (folder / "cmyk.tif", "CMYK"),
        "16-bit colour": (_written(folder / "sixteen.png", _png16()), "16-bit colour"),
        "16-bit PPM": (_written(folder / "x.ppm", b"P6 4 4 65535\n" + bytes(4 * 4 * 6)), "16-bit colour"),
        "transparent": (folder / "rgba.png", "transparent parts"), "floating point": (folder / "float.tif", "floating-point"),
        "32-bit": (folder / "int32.tif", "up to 16 bits"), "animation": (folder / "two.webp", "2 pictures"),
        "pages": (folder / "two.tif", "2 pictures"),
    }


def _gif() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(GREY).save(buffer, "GIF")
    return buffer.getvalue()


def _png16() -> bytes:
    """A PNG of 16-bit colour, which neither Pillow nor png_bytes writes: a wider 8-bit one with its header changed."""
    wide = np.zeros((4, 8, 3), np.uint8)
    content = bytearray(png_bytes(wide))
    content[16:26] = (4).to_bytes(4, "big") + (4).to_bytes(4, "big") + bytes([16, 2])
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


def test_bad_files_say_what_and_how_to_mend_it(tmp_path: Path) -> None:
    for kind, (path, message) in _bad_files(tmp_path).items():
        with pytest.raises(BadInput, match=message) as caught:
            load_picture(path)
        text = str(caught.value)
        assert text.startswith(str(path)) and "\n" not in text, kind
        assert ":" in text[len(str(path)) + 1:], f"{kind}: says no mend: {text}"


def _tiff(values: np.ndarray, bits: int, photometric: int, packed: bytes) -> bytes:
    """A grey TIFF written out by hand."""
    rows, columns = values.shape
    entries = [(256, 3, columns), (257, 3, rows), (258, 3, bits), (259, 3, 1), (262, 3, photometric), (273, 4, 200), (277, 3, 1), (278, 3, rows),
               (279, 4, len(packed))]
    directory = len(entries).to_bytes(2, "little")
    for tag, kind, value in entries:
        directory += tag.to_bytes(2, "little") + kind.to_bytes(2, "little") + (1).to_bytes(4, "little") + value.to_bytes(4, "little")
    return (b"II*\0" + (8).to_bytes(4, "little") + directory + bytes(4)).ljust(200, b"\0") + packed


def test_a_12_bit_tiff_says_its_depth(tmp_path: Path) -> None:
    values = np.arange(64, dtype=np.uint16).reshape(4, 16) * 64
    packed = b"".join(bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in values.reshape(-1, 2).tolist())
    picture = load_picture(_written(tmp_path / "a.tif", _tiff(values, 12, 1, packed)))
    assert picture.depth == 12 and np.array_equal(picture.samples, values)


def test_a_tiff_whose_zero_is_white(tmp_path: Path) -> None:
    values = np.arange(64, dtype=np.uint16).reshape(4, 16)
    eight = load_picture(_written(tmp_path / "a.tif", _tiff(values, 8, 0, values.astype(np.uint8).tobytes())))
    sixteen = load_picture(_written(tmp_path / "b.tif", _tiff(values, 16, 0, values.astype("<u2").tobytes())))
    assert np.array_equal(eight.samples, 255 - values) and np.array_equal(sixteen.samples, 65535 - values)


# ---- writing

@pytest.mark.parametrize("samples", [GREY, RGB, DEEP, GREY[:1, :1], RGB[:1], DEEP[:, :1]])
def test_png_is_read_back_by_pillow(tmp_path: Path, samples: np.ndarray) -> None:
    save_picture(as_picture(samples), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        image.verify()
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == {(2, 1): "L", (3, 1): "RGB", (2, 2): "I;16"}[samples.ndim, samples.itemsize]
        assert np.array_equal(np.asarray(image), samples)


def test_netpbm_is_read_back(tmp_path: Path) -> None:
    for name, picture in (("a.pgm", Picture(GREY)), ("a.ppm", Picture(RGB)), ("b.pgm", Picture(DEEP, 12))):
        save_picture(picture, tmp_path / name)
        back = load_picture(tmp_path / name)
        assert back.depth == picture.depth and np.array_equal(back.samples, picture.samples)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.ppm")), RGB)


def test_a_deep_png_keeps_its_depth(tmp_path: Path) -> None:
    """The samples are those of 12 bits, in 16: its text says so, and `--depth` is stronger."""
    save_picture(Picture(DEEP, 12), tmp_path / "a.png", {"remac-decoder": "deep@2"})
    assert load_picture(tmp_path / "a.png").depth == 12 and load_picture(tmp_path / "a.png", 13).depth == 13
    assert Image.open(tmp_path / "a.png").info == {"remac-decoder": "deep@2", images.DEPTH_NOTE: "12"}
    for foreign in ({images.DEPTH_NOTE: "7"}, {images.DEPTH_NOTE: "many"}, {}):
        (tmp_path / "b.png").write_bytes(png_bytes(DEEP, foreign))
        assert load_picture(tmp_path / "b.png").depth == 16
    (tmp_path / "c.png").write_bytes(png_bytes(GREY, {images.DEPTH_NOTE: "12"}))
    assert load_picture(tmp_path / "c.png").depth == 8, "8 bits a sample are 8 bits"


@pytest.mark.parametrize("name", ["a.jpg", "a", "a.ppm"])
def test_unwritable_kinds(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput, match=r"name a \.png or \.pgm"):
        save_picture(Picture(GREY), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_psnr() -> None:
    assert images.psnr(Picture(GREY), Picture(GREY)) == float("inf")
    zero, ten = np.zeros((4, 4), np.uint8), np.full((4, 4), 10, np.uint8)
    assert images.psnr(Picture(zero), Picture(ten)) == pytest.approx(28.1308, abs=1e-4)   # 10 log10(255^2 / 100)


# ---- concealment (FORMAT 2.3)

def test_lost_rows_are_interpolated_between_the_nearest_intact_ones() -> None:
    y_hat = np.zeros((12, 1, 2), np.int32)
    y_hat[3], y_hat[8] = (100, -7), (200, 2 ** 31 - 1)
    y_hat[4:8] = 12345
    filled = conceal(y_hat, [(4, 8)])
    assert filled[4:8, 0, 0].tolist() == [120, 140, 160, 180]
    assert filled[7, 0, 1] == round((-7 + 4 * (2 ** 31 - 1)) / 5)
    assert np.array_equal(filled[:4], y_hat[:4]) and np.array_equal(filled[8:], y_hat[8:]) and y_hat[5, 0, 0] == 12345


def test_lost_rows_at_the_ends_repeat_and_all_lost_is_zero() -> None:
    y_hat = np.arange(24, dtype=np.int32).reshape(12, 2, 1)
    top = conceal(y_hat, [(0, 4), (8, 12)])
    assert np.array_equal(top[:4], np.repeat(y_hat[4:5], 4, 0)) and np.array_equal(top[8:], np.repeat(y_hat[7:8], 4, 0))
    assert not conceal(y_hat, [(0, 8), (8, 12)]).any()
    assert conceal(y_hat, []) is y_hat
