"""`remac info`, `compare` and `view`, with the stand-in codec of fake_codec.py."""
from __future__ import annotations

import argparse
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_codec import CODEC, PICTURE, FakeEncoder, FakeModel, damaged, remac
from PIL import Image

from remac_runtime import compare, packets, view
from remac_runtime.codec import EncodeOptions
from remac_runtime.exits import Exit
from remac_runtime.format import NO_REFERENCE
from remac_runtime.images import Picture, save_picture

# ---- info

def test_info(fake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    remac("encode", "a.png", "-o", "a.rmc", "--image-id", "0xCAFE", "--quality", "9")
    capsys.readouterr()
    assert remac("info", "a.rmc") == 0
    text = capsys.readouterr().out
    assert all(part in text for part in ("90x300, 8-bit colour", "0x0000cafe", "fake", CODEC.hex(), "3 of 128 rows, 3 intact", "damage      none",
                                         "band 2, quality 9, 4 lanes"))
    assert remac("info", "a.rmc", "--json") == 0
    content = json.loads(capsys.readouterr().out)
    data = Path("a.rmc").read_bytes()
    assert [packet["band"] for packet in content["packets"]] == [0, 1, 2]
    assert sum(packet["bytes"] for packet in content["packets"]) == content["bytes"] == len(data)
    assert content["packets"][0]["crc"] == data[36:40][::-1].hex()
    assert content["references"] == {"kind": "none", "semantic": None, "texture": None, "bank_hash": None, "earlier_image": None}


def test_info_of_damaged_streams(fake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = FakeEncoder(FakeModel()).encode(Picture(PICTURE), EncodeOptions())
    other = FakeEncoder(FakeModel()).encode(Picture(PICTURE[:50]), EncodeOptions())
    Path("a.rmc").write_bytes(damaged(damaged(data, 0), 2) + other)
    assert remac("info", "a.rmc") == Exit.LOSS
    text = capsys.readouterr().out
    assert all(part in text for part in ("the details of the stream are lost", "lost bands 0, 2", "packets missing: at least 2",
                                         "packets of other pictures: 1", "bytes outside intact packets",
                                         "of another picture"))
    Path("a.rmc").write_bytes(b"")
    assert remac("info", "a.rmc") == Exit.FAILED
    assert capsys.readouterr().err.startswith("remac: error: a.rmc: the file is empty")
    assert remac("info", "absent.rmc", "--json") == Exit.FAILED
    assert "no such file" in json.loads(capsys.readouterr().out)["error"]


# ---- compare

def test_compare_pictures(fake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed = PICTURE.copy()
    changed[7, 5, 2] ^= 4
    changed[9, 1, 0] ^= 1
    save_picture(Picture(changed), "c.ppm")
    assert remac("compare", "a.png", "a.png") == Exit.OK
    assert "equal: 81,000 elements, uint8[300,90,3]" in capsys.readouterr().out
    assert remac("compare", "a.png", "c.ppm") == Exit.DIFFERENT
    text = capsys.readouterr().out
    values = f"{PICTURE[7, 5, 2]} and {changed[7, 5, 2]}"
    assert "2 of 81,000 elements differ; first at [7, 5, 2] (row, column, channel): " + values + "; largest difference 4" in text
    assert remac("compare", "a.png", "c.ppm", "--json") == Exit.DIFFERENT
    facts = json.loads(capsys.readouterr().out)
    assert (facts["different"], facts["first"], facts["largest"]) == (2, [7, 5, 2], 4)
    assert facts["psnr_db"] == pytest.approx(10 * np.log10(255 ** 2 / (17 / 81000)), abs=1e-3)
    save_picture(Picture(PICTURE[:-1]), "c.png")
    assert remac("compare", "a.png", "c.png") == Exit.SHAPES_DIFFER
    save_picture(Picture(PICTURE[:, :, 0]), "c.png")
    assert remac("compare", "a.png", "c.png") == Exit.SHAPES_DIFFER
    assert "uint8[300,90,3] and uint8[300,90]" in capsys.readouterr().out


def test_compare_deep_pictures(fake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The peak is that of the depth which holds both, in either order, also where one file tells no depth."""
    deep = np.arange(64, dtype=np.uint16).reshape(8, 8) * 60
    save_picture(Picture(deep, 12), "a.pgm")
    save_picture(Picture(deep + 1, 16), "b.png")
    for pair in (("a.pgm", "b.png"), ("b.png", "a.pgm")):
        assert remac("compare", *pair) == Exit.DIFFERENT
        assert f"PSNR {20 * np.log10(4095):.2f} dB (peak 4095)" in capsys.readouterr().out
    save_picture(Picture(deep + 4095, 16), "b.png")
    assert remac("compare", "a.pgm", "b.png") == Exit.DIFFERENT
    assert "(peak 65535)" in capsys.readouterr().out


def test_compare_arrays(fake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = np.array([[1.0, np.nan], [3.0, 4.0]])
    nearly = a.copy()
    nearly[1, 1] += 1e-3
    for name, array in (("a", a), ("b", nearly), ("c", a.astype(np.float32)), ("d", np.int32(5)), ("e", np.int32(6))):
        np.save(name, array)
    assert [remac("compare", "a.npy", name) for name in ("a.npy", "b.npy", "c.npy")] == [Exit.OK, Exit.DIFFERENT, Exit.SHAPES_DIFFER]
    assert "1 of 4 elements differ; first at [1, 1]: 4.0 and 4.001; largest difference 0.001" in capsys.readouterr().out
    capsys.readouterr()
    assert remac("compare", "d.npy", "e.npy") == Exit.DIFFERENT
    assert capsys.readouterr().out.rstrip().endswith("largest difference 1")
    Path("x.npy").write_bytes(b"rubbish")
    assert remac("compare", "a.npy", "x.npy") == Exit.FAILED
    assert remac("compare", "a.npy", "a.png") == Exit.FAILED
    assert "one kind" in capsys.readouterr().err


@pytest.mark.parametrize("dtype", [np.uint64, np.int64])
def test_compare_integers_that_floating_point_cannot_hold(fake: Path, dtype: type, capsys: pytest.CaptureFixture[str]) -> None:
    large = 2 ** 62
    for name, values in (("a", [7, large, 5]), ("b", [7, large + 1, 5]), ("c", [7, large + 1025, 4])):
        np.save(name, np.array(values, dtype))
    assert remac("compare", "a.npy", "b.npy") == Exit.DIFFERENT
    assert capsys.readouterr().out == f"1 of 3 elements differ; first at [1]: {large} and {large + 1}; largest difference 1\n"
    assert remac("compare", "c.npy", "a.npy", "--json") == Exit.DIFFERENT
    facts = json.loads(capsys.readouterr().out)
    assert facts["largest"] == 1025 and isinstance(facts["largest"], int)


def test_compare_arrays_of_odd_values(fake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files that are no plain arrays are one line; NaN and infinities come out as text, which JSON has."""
    Path("zip.npy").write_bytes(b"PK\x03\x04rubbish")
    np.save("complex.npy", np.ones(3, np.complex64))
    np.savez("archive", a=np.ones(3))
    os.replace("archive.npz", "archive.npy")
    for name, message in (("zip.npy", "not a NumPy array"), ("archive.npy", "not a NumPy array"), ("complex.npy", "an array of complex64")):
        assert remac("compare", name, name) == Exit.FAILED
        assert message in capsys.readouterr().err
    np.save("a.npy", np.array([np.inf, 1.0, np.nan]))
    np.save("b.npy", np.array([np.inf, np.inf, np.nan]))
    assert remac("compare", "a.npy", "b.npy", "--json") == Exit.DIFFERENT
    facts = json.loads(capsys.readouterr().out)
    assert (facts["different"], facts["first"], facts["value_a"], facts["value_b"], facts["largest"]) == (1, [1], 1.0, "inf", "inf")


def test_compare_streams_says_where(fake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    remac("encode", "a.png", "-o", "a.rmc")
    data = Path("a.rmc").read_bytes()
    Path("b.rmc").write_bytes(damaged(data, 1))
    Path("c.rmc").write_bytes(data + b"x")
    capsys.readouterr()
    assert remac("compare", "a.rmc", "b.rmc") == Exit.DIFFERENT
    assert "in the coded band of packet 1, band 1" in capsys.readouterr().out
    assert remac("compare", "a.rmc", "c.rmc") == Exit.SHAPES_DIFFER
    assert f"lengths differ: {len(data):,} and {len(data) + 1:,} bytes; 0 of the first" in capsys.readouterr().out
    assert compare.load(Path("a.rmc")).kind == "bytes"


# ---- view

def test_view_page_is_self_contained(fake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    remac("encode", "a.png", "-o", "a<b>.rmc")
    Path("a<b>.rmc").write_bytes(damaged(Path("a<b>.rmc").read_bytes(), 1))
    assert remac("view", "a<b>.rmc") == Exit.LOSS
    text = Path("a<b>.html").read_text()
    assert "<b>" not in text and "a&lt;b&gt;.rmc" in text
    assert not re.search(r"""(href|src)=["'](?!data:)""", text) and "url(http" not in text
    assert text.count('class="lost"') == 2 and text.count('class="band"') == 4, "two figures, three bands"
    assert "concealed" in text and "rows 128-255" in text
    uris = re.findall(r'href="data:image/png;base64,([^"]+)"', text)
    assert len(uris) == 3


def test_view_names_what_it_cannot_show(fake: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty.rmc").write_bytes(b"")
    for name, message in (("empty.rmc", "the file is empty"), ("a.png", "not a remac stream")):
        assert remac("view", name, "-o", "view.html") == Exit.FAILED
        assert capsys.readouterr().err.startswith(f"remac: error: {name}: {message}")
    remac("encode", "a.png", "-o", "a.rmc")
    Path("a.html").write_bytes(Path("a.rmc").read_bytes())
    assert remac("view", "a.html") == Exit.USAGE and Path("a.html").read_bytes() == Path("a.rmc").read_bytes()
    name = os.fsdecode(b"bad\xff.rmc")
    Path("a.rmc").rename(name)
    assert remac("view", name, "-o", "view.html") == 0 and "bad\\udcff.rmc" in Path("view.html").read_text()


def test_view_picture(fake: Path) -> None:
    remac("encode", "a.png", "-o", "a.rmc")
    assert remac("view", "a.rmc", "-o", "view.png") == 0
    shown = np.asarray(Image.open("view.png"))
    assert np.array_equal(shown[16:16 + 128, 16:16 + 90], PICTURE[:128]), "the decoded picture, up to the line of the second band"
    assert np.array_equal(shown[16 + 128, 16], view._BAND_COLOUR)
    blocks = shown[16:16 + 300, 16 + 90 + 16:16 + 90 + 16 + 90]
    assert len(np.unique(blocks[:16, :16].reshape(-1, 3), axis=0)) == 1, "a colour for each block"


def test_heat_map_is_brighter_where_more_bits_are() -> None:
    heat = view.heat_map(np.linspace(0, 1000, 400, dtype=np.float32).reshape(20, 20))
    brightness = heat.colours.reshape(-1, 3).astype(int).sum(1)
    assert np.all(np.diff(brightness) >= 0) and heat.top == pytest.approx(1000 / 256, rel=0.02)
    assert np.array_equal(view.heat_map(np.zeros((2, 2), np.float32)).colours[0, 0], view._ANCHORS[0])


def test_references_in_the_view() -> None:
    header = packets.StreamHeader(64, 64, CODEC, reference_kind=1, semantic=3, texture=NO_REFERENCE, bank_hash=b"01234567")
    decoded: Any = argparse.Namespace(header=header)
    assert view.reference_text(decoded) == f"entry 3 for the entropy parameters; bank {b'01234567'.hex()}"
