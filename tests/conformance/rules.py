"""The rules of FORMAT.md by name, so that every case of the suite says which ones it tests and nothing is left out unnoticed.

A rule is a row of a table of sections 1 and 2 ("2 width"), a sentence of sections 2, 3 and 6 (named here, with words that stand in it and nowhere
else in its section), or a whole section of 4 and 5. What no stream can test has a reason instead of a case.
"""
from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

DOCUMENT = Path(__file__).resolve().parents[2] / "runtime" / "FORMAT.md"
TABLE_SECTIONS = ("1", "2", "2.1")
PROSE_SECTIONS = ("2", "2.1", "2.2", "2.3", "3", "3.1", "6.1", "6.2", "6.3")
WHOLE_SECTIONS = ("4.1", "4.2", "4.3", "5.1", "5.2", "5.3", "5.4", "5.5")

# name: words of the sentence. The part of a name before the first blank is its section.
SENTENCES = {
    "2 stream": "A stream is the packets of its bands",
    "2 subset": "so any subset of the packets decodes",
    "2 crc-32c": "polynomial 0x1EDC6F41",
    "2.1 short": "shorter than this table or longer than its payload",
    "2.1 not used": "are not used, while the band behind them is",
    "2.2 part": "is its part of a band",
    "2.2 reference section": "With bit 4 of `coder`, the band begins",
    "2.2 coded band": "Then the coded band of section 6",
    "2.2 fragments": "is cut into fragments",
    "2.2 full fragments": "the payloads of all but the last are of full length",
    "2.2 first counts": "of packets that disagree, and of copies of a fragment, the first in the stream counts",
    "2.2 image id": "The image id, unless the operator gives one",
    "2.3 sync and crc": "Packets are found by their sync and CRC",
    "2.3 bytes between": "bytes between valid packets are skipped",
    "2.3 range": "A packet with a field outside the range",
    "2.3 unsupported": "reference kind 2 make the stream unsupported",
    "2.3 limits": "A reader may limit the pixels it accepts",
    "2.3 tags decide": "what decides is the tags",
    "2.3 foreign": "Packets of another image id than the first valid packet's",
    "2.3 lost": "A band with a missing or undecodable part is *lost*",
    "2.3 reported": "Lost bands are reported",
    "2.3 concealment": "Concealment is not normative",
    "2.3 texture beyond": "A stream that names a `texture` entry beyond the bank",
    "2.3 semantic beyond": "a `semantic` entry beyond the bank is corrupt",
    "3 pixels": "The pixel tensor is uint8[H, W, 3]",
    "3 grey": "Grey is repeated in the three channels",
    "3 companding": "a sample is coded as the n whose I(n) is nearest",
    "3 expansion": "Decoding gives I(n)",
    "3 padding": "The picture is padded to multiples of PAD_MULTIPLE",
    "3.1 pattern": "of each two rows and columns red stands at row",
    "3.1 one colour": "was interpolated from samples of one colour a pixel",
    "3.1 undefined": "another sample format with one is not defined",
    "3.1 anew": "are interpolated anew",
    "3.1 mirrored": "Beyond its sides the mosaic is mirrored",
    "3.1 decoded": "The decoded picture is interpolated from the mosaic",
    "3.1 choice": "An encoder is told the mosaic of a picture",
    "6.1 order": "The symbols of a band, in the order of decoding",
    "6.1 follows": "Which table a symbol has follows from the symbols",
    "6.1 tables of z": "z of channel c has the table",
    "6.1 tables of y": "The tables of y adapt",
    "6.1 states": "is 0 at the start of a band and goes on through its phases",
    "6.1 score": "The score says how far a symbol speaks",
    "6.2 lanes": "symbol number n of the band is coded by lane n mod L",
    "6.2 decode": "the entry with `c <= slot < c + f`",
    "6.2 encode": "(from the last symbol to the first)",
    "6.2 last state": "after decoding every state is 2^16 again, which the reader checks",
    "6.2 first state": "states below 2^16 at the start of the band are corrupt",
    "6.2 layout": "Encoded band: the L states that decoding starts from",
    "6.2 number of lanes": "The encoder chooses `lanes_log2 =",
    "6.3 escape": "A symbol outside its table is coded as the escape entry",
    "6.3 escape bits": "Escape bits are written in the order of decoding",
    "6.3 fill": "together they fill the band exactly",
    "6.3 unused bits": "Unused bits of the last escape byte",
    "6.3 limits": "are corrupt",
}

# Rules that no stream can test, and what does.
REASONS = {
    "1 WEIGHT_MAX": "a bound on network files: tests/test_network_files.py",
    "1 ACCUMULATOR_LIMIT": "a bound on network files: tests/test_network_files.py",
    "1 HEAD_LIMIT": "a bound on network files: tests/test_network_files.py",
    "1 SHIFT_MAX": "a bound on network files: tests/test_network_files.py",
    "1 SCORE_LIMIT": "a bound on network files: tests/test_network_files.py",
    "2.1 earlier_image": "reference kind 2 is reserved: version 1 only has to reject it (2.3 unsupported)",
    "2.3 limits": "a reader's own choice: no stream must be refused or accepted for it",
    "2.3 concealment": "not normative: of lost rows nothing is compared",
    "3 expansion": "of decoded pixels; the suite ends at the latents, since the ground decoder is not normative: tests/test_images.py",
    "3.1 decoded": "of decoded pixels, as 3 expansion: tests/test_mosaics.py",
    "3.1 choice": "no rule for streams: tests/test_mosaics.py",
    "3.1 one colour": "what a mosaic is, no rule: tests/test_mosaics.py",
    "4.1": "files, not streams: tests/test_network_files.py",
    "4.2": "files, not streams: tests/test_network_files.py; the values of the network decide every vector",
    "6.1 score": "what the numbers of a network mean, no rule: tests/test_adaptation.py",
}


def section(text: str, title: str) -> str:
    """The text of a numbered section without its subsections."""
    start = re.search(rf"^#+ {re.escape(title)}\.? .*$", text, re.MULTILINE)
    assert start, f"FORMAT.md has no section {title}"
    end = re.search(r"^#", text[start.end():], re.MULTILINE)
    return text[start.end():start.end() + end.start() if end else None]


def rows(text: str) -> list[list[str]]:
    """Cells of the lines of the tables in a text, without headings and rules."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    body = [line for before, line in zip(["", *lines], lines, strict=False) if not set(line) <= set("|-: ") and before]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in body]


def table_rules(text: str) -> list[str]:
    """Names of the rules that are rows: section 1 names them in the first column, section 2 in the third."""
    return [f"{title} {cells[0] if title == '1' else cells[2]}" for title in TABLE_SECTIONS for cells in rows(section(text, title))]


def sentences(text: str, title: str) -> list[str]:
    """The sentences of a section's prose and lists, in one line each; not those that only lead to a list."""
    lines = [line for line in section(text, title).splitlines() if not line.startswith(("|", "    "))]
    paragraphs = re.split(r"\n\s*\n|\n(?=- )", "\n".join(lines))
    joined = (" ".join(paragraph.split()).strip("* ") for paragraph in paragraphs)
    return [sentence for paragraph in joined for sentence in re.split(r"(?<=\.) (?=[A-Z`])", paragraph) if sentence and not sentence.endswith(":")]


def all_rules(text: str | None = None) -> list[str]:
    """Every rule's name, in the order of the document's sections."""
    text = DOCUMENT.read_text() if text is None else text
    names = [*table_rules(text), *SENTENCES, *WHOLE_SECTIONS]
    return sorted(names, key=lambda name: [int(n) for n in name.split(" ")[0].split(".")])


def unnamed(text: str) -> list[str]:
    """Sentences of the sections that hold none of the words of SENTENCES, and words that stand in no sentence or in several: both should be none."""
    problems = []
    for title in PROSE_SECTIONS:
        own = {name: words for name, words in SENTENCES.items() if name.split(" ")[0] == title}
        found = sentences(text, title)
        problems += [f"{title}: no rule for: {sentence}" for sentence in found if not any(words in sentence for words in own.values())]
        problems += [f"{name}: words found {n} times" for name, words in own.items() if (n := sum(words in sentence for sentence in found)) != 1]
    return problems


def uncovered(covered: Iterable[str], text: str | None = None) -> list[str]:
    """Rules with neither a case nor a reason, and names that are no rules."""
    names, covered = all_rules(text), set(covered)
    return [f"{name}: no case and no reason" for name in names if name not in covered and name not in REASONS] + \
        [f"{name}: not a rule of FORMAT.md" for name in sorted((covered | set(REASONS)) - set(names))]
