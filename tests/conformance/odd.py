"""Valid streams that the shipped encoder would not write. Every decoder must give the latents of the reference, with nothing lost."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from conformance.writer import Scene, join, parts_of
from remac_runtime import reference, reference_coder
from remac_runtime.format import HYPER_CONTEXTS, LATENT_OFFSET, MOSAICS, NO_REFERENCE, SYMBOL_LIMIT
from remac_runtime.reference_packets import FIELDS, HEADER_BYTES, OTHER_SYNC, PAYLOAD_MAX, Packet, write_packet


@dataclass(frozen=True)
class Odd:
    """What is odd, which rules it tests, how a scene becomes the stream; `entries` chooses (semantic, texture) by their choice of FORMAT 5.4."""

    covers: str
    rules: tuple[str, ...]
    make: Callable[[Scene], bytes]
    entries: Callable[[int, int, int], tuple[int, int]] | None = None


ODDITIES: dict[str, Odd] = {}


def odd(covers: str, *rules: str, entries: Callable[[int, int, int], tuple[int, int]] | None = None) -> Callable[[Callable[[Scene], bytes]], None]:
    """Enter a function of a scene into ODDITIES under its name."""
    def enter(make: Callable[[Scene], bytes]) -> None:
        ODDITIES[make.__name__] = Odd(covers, rules, make, entries)
    return enter


def _as_usual(scene: Scene) -> bytes:
    return join(scene.packets)


def _lanes(scene: Scene, lanes_log2: list[int]) -> bytes:
    coded = [(scene.quality, n, reference_coder.encode_symbols(symbols, n)) for n, symbols in zip(lanes_log2, scene.symbols, strict=True)]
    return join(scene.packets_of(coded))


# ---- bands

@odd("every band has its own quality", "2 quality", "1 QUALITIES", "5.5")
def qualities(scene: Scene) -> bytes:
    values = [(21 * i + 63) % 64 for i in range(scene.common.bands())]
    return join(scene.packets_of([(q, 0, reference_coder.encode_symbols(scene.coded(band, q), 0)) for band, q in enumerate(values)]))


@odd("256 lanes for few symbols", "2 coder", "1 LANES_LOG2_MAX", "6.2 lanes", "6.2 layout", "6.2 decode")
def lanes(scene: Scene) -> bytes:
    return _lanes(scene, [8] * scene.common.bands())


@odd("2, 16 and 128 lanes in one picture", "2 coder", "6.2 lanes", "6.2 layout", "6.2 decode")
def lanes_mixed(scene: Scene) -> bytes:
    return _lanes(scene, [1, 4, 7])


@odd("hyper-latents and symbols of any value: in the table, beside it and as far as escapes go, so that latents and planes are cut",
     "1 SYMBOL_LIMIT", "1 LATENT_OFFSET", "6.1 order", "6.3 escape", "6.3 escape bits", "6.3 fill", "6.2 decode", "5.5")
def symbols(scene: Scene) -> bytes:
    rng = np.random.Generator(np.random.PCG64(7))
    tables = reference_coder.tables_of(scene.network.y_tables)
    corners = (-SYMBOL_LIMIT + 1, SYMBOL_LIMIT - 1)

    def choose(number: int, place: tuple[int, int, int]) -> int:
        kind, first, entries = int(rng.integers(0, 1000)), tables[number].first, tables[number].escape()
        if kind < 960:
            return first + int(rng.integers(0, 1 << 30)) % entries
        if kind < 998:
            return (first - 1, first + entries)[int(rng.integers(0, 2))] + int(rng.integers(-1, 2))
        return corners[int(rng.integers(0, 2))]

    shape = (1, scene.z.shape[1], scene.network.hyper)
    hyper = [(rng.integers(0, 256, shape), 63), (np.zeros(shape, np.int64), 44), (np.full(shape, 255), 20)]
    coded = [(q, 2, reference_coder.encode_symbols(scene.freely_coded(z, q, choose), 2)) for z, q in hyper]
    return join(scene.packets_of(coded))


@odd("every context of the hyper-latents, entries of their tables as far as the positions go, and escapes; all symbols 0",
     "1 LATENT_OFFSET", "1 HYPER_CONTEXTS", "6.1 order", "6.1 tables of z", "6.3 escape", "5.4", "5.5")
def hyper_latents(scene: Scene) -> bytes:
    rows, columns, _ = scene.z.shape
    tables = reference_coder.tables_of(scene.network.z_tables)
    z = np.zeros_like(scene.z)
    for row, column, channel in np.ndindex(z.shape):                        # in the order of coding; a band is one row
        number = channel + row * columns + column
        if column % 2 == 0:                                                 # sets the context of the one to its right
            z[row, column, channel] = LATENT_OFFSET + number % HYPER_CONTEXTS - HYPER_CONTEXTS // 2
            continue
        table = tables[reference.hyper_table(z[row:row + 1], 0, column, channel)]
        values = range(max(table.first - 1, 0), min(table.first + table.escape(), 255) + 1)        # one beside each end of the table
        z[row, column, channel] = values[(number // 2 * max(2 * len(values) // (rows * columns), 1) + channel) % len(values)]
    coded = [scene.freely_coded(z[band:band + 1], scene.quality, lambda table, place: 0) for band in range(rows)]
    return join(scene.packets_of([(scene.quality, 0, reference_coder.encode_symbols(band, 0)) for band in coded]))


@odd("latents whose sizes are not what their scales say, channel by channel: zeros, large ones, either in turn, so that tables adapt to both ends",
     "6.1 tables of y", "6.1 states", "1 SCORE_SIZES", "1 ADAPTATION_BITS", "1 ADAPTATION_LIMIT", "1 CHANNEL_SHIFT", "1 POSITION_SHIFT",
     "1 SCALE_LEVELS", "6.3 escape")
def surprises(scene: Scene) -> bytes:
    def choose(table: int, place: tuple[int, int, int]) -> int:
        _, column, channel = place
        large = (0, 0, 0, 1, 0, 0, column % 2, 0)[channel % 8]
        return large * (12 + channel % 7) * (1 - 2 * (column // 2 % 2))

    coded = scene.freely_coded(scene.z, scene.quality, choose)
    return join(scene.packets_of([(scene.quality, 0, reference_coder.encode_symbols(coded, 0))]))


@odd("the unused bits of the last escape byte are 1", "6.3 unused bits", "6.3 escape bits")
def unused_bits(scene: Scene) -> bytes:
    payloads = []
    for coded in scene.symbols:
        table, _ = coded[-1]
        parts = parts_of([*coded[:-1], (table, table.first - 3)])        # sees to an escape; the last symbol is no other's context
        if len(parts.bits) % 8 == 0:
            parts = parts_of([*coded[:-1], (table, table.first - 1)])
        payloads.append((scene.quality, 0, parts.payload("1")))
    return join(scene.packets_of(payloads))


# ---- references

@odd("a texture reference, but none for the entropy parameters", "2 semantic", "1 NO_REFERENCE", "5.4", entries=lambda s, t, n: (NO_REFERENCE, t))
def texture_only(scene: Scene) -> bytes:
    return _as_usual(scene)


@odd("a reference for the entropy parameters, but none for the ground decoder", "2 texture", "1 NO_REFERENCE", "5.4",
     entries=lambda s, t, n: (s, NO_REFERENCE))
def semantic_only(scene: Scene) -> bytes:
    return _as_usual(scene)


@odd("references that are not the nearest of the bank", "2 semantic", "2 texture", "5.4", "4.3", entries=lambda s, t, n: ((s + 1) % n, (t + 2) % n))
def other_references(scene: Scene) -> bytes:
    return _as_usual(scene)


@odd("a bank is named, but no entry of it", "2 reference_kind", "2 bank_tag", "5.4", entries=lambda s, t, n: (NO_REFERENCE, NO_REFERENCE))
def no_entries(scene: Scene) -> bytes:
    return _as_usual(scene)


@odd("a texture reference beyond the bank", "2.3 texture beyond", "2 texture", entries=lambda s, t, n: (s, n))
def texture_beyond(scene: Scene) -> bytes:
    return _as_usual(scene)


# ---- packets

def _written(scene: Scene) -> list[bytes]:
    return [write_packet(*packet) for packet in scene.packets]


@odd("packets in reverse order, noise between them, one of them twice", "2.3 bytes between", "2.3 sync and crc", "2.2 first counts", "2 sync")
def order(scene: Scene) -> bytes:
    written = _written(scene)
    return b"RMP1 noise".join([*reversed(written), written[1]])


@odd("the first packet comes last and twice", "2 subset", "2 stream")
def first_last(scene: Scene) -> bytes:
    first, *others = _written(scene)
    return b"".join([*others, first, first])


def _detailed(scene: Scene, change: Callable[[bytes], bytes]) -> bytes:
    """The stream with other details."""
    header, *others = scene.packets[0][0], *_written(scene)[1:]
    return write_packet(header, change(scene.details) + scene.parts[0]) + b"".join(others)


def _longer(details: bytes, minor: int, added: bytes) -> bytes:
    return bytes([len(details) + len(added), minor]) + details[2:] + added


@odd("a later minor version with longer details", "2.1 minor", "2.1 size")
def minor(scene: Scene) -> bytes:
    return _detailed(scene, lambda details: _longer(details, 7, b"later fields"))


@odd("fields appended to the details that read like a packet of band 1: what lies in a valid packet is not looked for packets",
     "2.3 bytes between", "2.1 minor", "2.1 size")
def nested(scene: Scene) -> bytes:
    trap = write_packet(scene.packets[1][0], scene.parts[0][:100])        # short enough for details, whose size is one byte
    return _detailed(scene, lambda details: _longer(details, 1, trap))


@odd("the details have a profile that cannot be printed and other hashes behind the tags: they are not used, and the tags decide",
     "2.1 profile", "2.1 codec_rest", "2.1 bank_rest", "2.1 not used", "2.3 tags decide")
def details_lie(scene: Scene) -> bytes:
    return _detailed(scene, lambda details: details[:2] + b"\xff" * 8 + bytes(len(details) - 10))


@odd("sequence numbers in disorder, an image id of 0", "2 sequence", "2 image_id", "2.2 image id")
def numbers(scene: Scene) -> bytes:
    return join((header._replace(sequence=(7 - 9 * i) & 0xFFFF, image_id=0), payload) for i, (header, payload) in enumerate(scene.packets))


@odd("noise before, between and after the packets: parts of syncs, the beginning of a packet, a packet whose length spans the next ones",
     "2.3 bytes between", "2.3 sync and crc", "2 length", "1 PACKET_MAX")
def false_packets(scene: Scene) -> bytes:
    written = _written(scene)
    spanning = FIELDS.pack(*scene.packets[1][0]._replace(length=len(written[1]) + len(written[2]))) + bytes(4)
    longest = FIELDS.pack(*scene.packets[1][0]._replace(length=PAYLOAD_MAX)) + bytes(4)
    return b"".join([b"R", b"RM", b"RMH", b"RMRMP", written[0], spanning, written[1], b"RMP1", longest, written[2],
                     written[1][:HEADER_BYTES - 1]])


@odd("a second packet of every band follows with another payload and a fitting CRC: the first counts", "2.2 first counts")
def copies(scene: Scene) -> bytes:
    turned = [*scene.parts[1:], scene.parts[0]]
    beginnings = [scene.details, *[b""] * (len(turned) - 1)]
    second = [(header, beginning + other) for (header, _), beginning, other in zip(scene.packets, beginnings, turned, strict=True)]
    return join([*scene.packets, *second])


@odd("packets that disagree with the first of their band in quality, lanes or number of fragments are left out", "2.2 first counts", "2 fragments")
def contradictions(scene: Scene) -> bytes:
    changes = ({"quality": 63 - scene.quality}, {"coder": 3}, {"fragments": 2, "fragment": 1})
    wrong: list[Packet] = [(header._replace(**change), payload)  # type: ignore[arg-type]
                           for (header, payload), change in zip(scene.packets, changes, strict=True)]
    return join([*scene.packets, *wrong])


@odd("packets of other pictures, networks and sizes come in between, for the same bands", "2.3 foreign", "2 image_id")
def foreign(scene: Scene) -> bytes:
    first, second, third = scene.packets
    h = scene.common
    changes: tuple[dict[str, object], ...] = (
        {"image_id": 1}, {"codec_tag": b"none"}, {"bank_tag": b"none"}, {"width": h.width + 1}, {"height": h.height + 1}, {"sample": h.sample ^ 16},
        {"band_units": h.band_units + 4}, {"semantic": h.semantic ^ 1}, {"texture": h.texture ^ 1}, {"mosaic": 2})
    strange = [(first[0]._replace(**change), scene.details + scene.parts[1]) for change in changes]  # type: ignore[arg-type]
    return join([second, *strange, first, third])


@odd("the fragments of a band in reverse order, the last one twice", "2 fragment", "2 fragments", "2.2 fragments", "2.2 full fragments", "2.2 part")
def fragments(scene: Scene) -> bytes:
    return join([scene.packets[-1], *reversed(scene.packets)])


@odd("no packets: of another place with the first packet's sync, of its place with another sync, with a field out of range, with too short or too "
     "long details", "2 sync", "2 band", "2.3 range", "2.1 short", "2.1 size")
def false_first(scene: Scene) -> bytes:
    header, details, wrong = scene.packets[0][0], scene.details, scene.parts[1]
    changes: tuple[dict[str, object], ...] = (
        {"band": 1}, {"fragment": 1, "fragments": 2}, {"sync": OTHER_SYNC}, {"mosaic": MOSAICS}, {"quality": 64})
    false = [(header._replace(**change), details + wrong) for change in changes]  # type: ignore[arg-type]
    short, long = bytes([len(details) - 1]) + details[1:-1], bytes([len(details) + len(wrong) + 1]) + details[1:]
    return join([*false, (header, short + wrong), (header, long + wrong), *scene.packets])
