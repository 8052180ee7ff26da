"""FORMAT.md and the code say the same: constants, the header of a packet, phases and neighbours."""
from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from remac_runtime import format as constants
from remac_runtime import packets
from remac_runtime.network import LAYERS

DOCUMENT = (Path(__file__).resolve().parents[1] / "runtime" / "FORMAT.md").read_text()


def section(title: str) -> str:
    """The text of a numbered section, such as "2.1"; subsections belong to it."""
    start = re.search(rf"^#+ {re.escape(title)}\.? ", DOCUMENT, re.MULTILINE)
    assert start, f"FORMAT.md has no section {title}"
    level = start.group().split(" ")[0]
    end = re.search(rf"^{level} \d", DOCUMENT[start.end():], re.MULTILINE)
    return DOCUMENT[start.start():start.end() + end.start() if end else None]


def rows(text: str) -> list[list[str]]:
    """Cells of the lines of the tables in a text, without the rule below the heading."""
    lines = [line for line in text.splitlines() if line.startswith("|") and not set(line) <= set("|-: ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def value(text: str) -> int:
    base, _, exponent = text.partition("^")
    return int(base) ** int(exponent or 1)


def disagreements(table: list[list[str]]) -> list[str]:
    """Names whose value in the table is not that of format.py."""
    return [name for name, number, *_ in table if getattr(constants, name, None) != value(number)]


def test_every_constant_of_the_table_has_the_same_value_in_the_code() -> None:
    table = rows(section("1"))[1:]
    assert len(table) >= 20
    assert not disagreements(table)


def test_a_changed_constant_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "GAIN_BITS", 29)
    assert disagreements(rows(section("1"))[1:]) == ["GAIN_BITS"]


def test_rounding_of_each_index() -> None:
    parts = re.search(r"`rounding`, in 256ths of a step, by index: ([\d,\s]+), then 128 up to index 63\.", section("5.5"))
    assert parts, "FORMAT.md has no rounding in section 5.5"
    listed = [int(part) for part in parts[1].split(",")]
    assert tuple(part << 22 for part in listed + [128] * (constants.SCALE_LEVELS - len(listed))) == constants.ROUNDING


def test_constants_that_stand_in_the_text() -> None:
    assert f"down to {constants.HEAD_SHIFT_MIN}" in section("1")
    assert f"`gain` i32[64, M] in [1, 2^{constants.GAIN_MAX.bit_length() - 1})" in section("4.2") and constants.GAIN_MAX.bit_count() == 1
    assert f"`inverse_gain` i32[64, M] in [1, 2^{constants.INVERSE_GAIN_MAX.bit_length() - 1})" in section("4.2")
    lanes = f"clamp(floor(log2(max(n, 1) / {constants.ENCODER_SYMBOLS_PER_LANE})), 0, {constants.ENCODER_LANES_LOG2_MAX})"
    assert lanes in section("6.2")


def test_phases_and_neighbours() -> None:
    assert ", ".join(f"({row},{column})" for row, column in constants.PHASES) in section("1")
    table = rows(section("5.5"))[1:5]
    for phase, (number, position, neighbours) in enumerate(table):
        assert (int(number), position) == (phase, "({},{})".format(*constants.PHASES[phase]))
        found = [("AB".index(plane), int(row), int(column)) for plane, row, column in re.findall(r"([AB])\((-?\d),(-?\d)\)", neighbours)]
        assert tuple(found) == constants.NEIGHBOURS[phase]


def test_layers() -> None:
    names = [row[0] for row in rows(section("4.2"))[1:]]
    numbered = [name[:-4] for name in names if name.endswith("0..3")]
    expected = [name for name in names if not name.endswith("0..3")] + [f"{name}{phase}" for phase in range(4) for name in numbered]
    assert list(LAYERS) == expected


def test_fields_of_a_packet_follow_each_other_as_the_code_packs_them() -> None:
    text = section("2")
    tables = [rows(text[:text.index("### 2.1")])[1:], rows(section("2.1"))[1:]]
    for table, bytes_packed in zip(tables, (packets.HEADER_BYTES, packets.DETAILS_BYTES + 8), strict=True):
        end = 0
        for offset, size, _, _ in table:
            assert int(offset) == end
            end += int(size)
        assert end == bytes_packed
    sizes = [int(size) for _, size, _, _ in tables[0]]
    codes = packets._FIELDS.format.lstrip("<") + packets._CRC.format.lstrip("<")
    packed = [struct.calcsize("<" + code) for code in re.findall(r"\d*s|[A-Z]", codes)]
    assert packed == sizes
