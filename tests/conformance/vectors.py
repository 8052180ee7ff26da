"""The vectors: pictures and how they are coded. Their names stay; what a name stands for changes only before a first release."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from conformance.odd import ODDITIES
from conformance.pictures import Recipe
from remac_runtime.choices import PATTERNS


@dataclass(frozen=True)
class Vector:
    """A recipe and how it is coded. `odd` names a valid stream that the shipped encoder would not write (see ODDITIES): only decoders run those.

    `latents` asks for a file with the latents themselves, `trace` for a checksum of every layer's output.
    """

    name: str
    recipe: Recipe
    quality: int
    band_rows: int = 128
    references: bool = True
    image_id: int | None = None
    mosaic: str = "none"
    odd: str | None = None
    covers: str = ""
    rules: tuple[str, ...] = ()
    latents: bool = False
    trace: bool = False


TABLES = ("6.1 order", "6.1 follows", "6.1 tables of z", "6.1 tables of y", "6.1 states", "1 LATENT_OFFSET", "1 HYPER_CONTEXTS", "1 SCORE_SIZES",
          "1 ADAPTATION_BITS", "1 CHANNEL_SHIFT", "1 POSITION_SHIFT")
CODEC = ("5.1", "5.2", "5.3", "5.5", *TABLES, "6.2 encode", "6.2 decode", "6.2 layout", "6.3 fill", "1 GAIN_BITS", "1 SCALE_FRACTION_BITS",
         "1 SCALE_LEVELS", "1 LEVEL_MAX", "1 PROBABILITY_BITS")
SIDES = ("2 width", "2 height", "3 pixels", "3 padding", "1 PAD_MULTIPLE", "1 LATENT_STRIDE", "1 HYPER_STRIDE")
PACKETS = ("2 stream", "2 sequence", "2 crc", "2 crc-32c", "2 codec_tag", "2 bank_tag", "2.1 size", "2.1 minor", "2.1 profile",
           "2.1 codec_rest", "2.1 bank_rest", "2.2 part", "2.2 coded band", "2.2 image id")
REFERENCES = ("4.3", "5.4", "2 reference_kind", "2 semantic", "2 texture")
SCENE = Recipe("terrain", 192, 64, seed=41)          # three bands of 64 rows, for odd and bad streams
SCENE_QUALITY = 13
CROP = Recipe("spirit_husband_hill_terrain", 60, 120, top=40, left=200)
NOISE = Recipe("noise", 256, 320, seed=30, grey=True)


def _edges() -> Iterator[Vector]:
    """Sizes at the edges of latents, hyper-latents and bands, qualities and references in turn."""
    sizes = [(15, 16), (16, 17), (17, 15), (63, 64), (64, 65), (65, 63), (127, 128), (128, 129), (129, 127), (1, 1), (1, 200), (200, 1), (97, 131)]
    for i, (height, width) in enumerate(sizes):
        quality, references = (32, 13, 50, 0, 63)[i % 5], i % 2 == 0
        rules = SIDES + CODEC + PACKETS + (REFERENCES if references else ("1 NO_REFERENCE",))
        yield Vector(f"edge_{height}x{width}", Recipe("terrain", height, width, seed=i + 1), quality, references=references,
                     covers="sizes around those of latents, hyper-latents and bands", rules=rules, latents=(height, width) in {(1, 1), (65, 63)},
                     trace=(height, width) in {(63, 64), (65, 63)})


def _qualities() -> Iterator[Vector]:
    for quality in (0, 13, 32, 50, 63):
        yield Vector(f"quality_{quality}", CROP, quality, covers="one picture at the ends and in the middle of the quality scale",
                     rules=("2 quality", "1 QUALITIES", *CODEC, *REFERENCES), latents=quality == 63)


def _others() -> Iterator[Vector]:
    bands = ("2 band", "2 band_units", "1 BAND_UNIT", "5.4", "5.5")
    samples = ("2 sample", "3 grey", "3 companding")
    yield Vector("no_references", CROP, 32, references=False, covers="the same picture without references", latents=True,
                 rules=("2 reference_kind", "2 bank_tag", "2 semantic", "2 texture", "1 NO_REFERENCE", "2.1 bank_rest"))
    yield Vector("rover_deck", Recipe("spirit_husband_hill_summit", 128, 128, top=240, left=900), 40, band_rows=64, rules=bands + CODEC,
                 covers="hardware, two bands")
    yield Vector("grey_8", Recipe("terrain", 65, 129, seed=22, grey=True), 32, covers="8-bit grey", rules=("2 sample", "3 grey"))
    yield Vector("grey_9", Recipe("terrain", 40, 40, seed=23, depth=9, grey=True), 50, covers="9-bit grey, companded", rules=samples, latents=True)
    yield Vector("grey_12", Recipe("terrain", 64, 96, seed=24, depth=12, grey=True), 32, references=False, rules=samples,
                 covers="12-bit grey, companded")
    yield Vector("grey_16", Recipe("noise", 50, 60, seed=25, depth=16, grey=True), 32, covers="16-bit grey of all values, companded", rules=samples)
    yield Vector("flat_black", Recipe("flat", 70, 64, seed=0), 20, covers="black", rules=("5.2", "3 pixels"))
    yield Vector("flat_white", Recipe("flat", 64, 64, seed=255, grey=True), 63, rules=("1 ACTIVATION_MAX", "5.2"),
                 covers="white: activations saturate")
    yield Vector("bands_64", Recipe("terrain", 193, 64, seed=26), 28, band_rows=64, rules=bands, trace=True,
                 covers="four bands of the smallest height")
    yield Vector("bands_512", Recipe("terrain", 513, 30, seed=27), 45, band_rows=512, covers="two bands, the second of 64 rows",
                 rules=(*bands, "1 BAND_ROWS"))
    yield Vector("bands_16320", Recipe("terrain", 130, 64, seed=28), 13, band_rows=16320, references=False, rules=bands,
                 covers="255 band units, more than the picture has rows")
    yield Vector("bands_128", Recipe("terrain", 129, 30, seed=29), 24, rules=bands, covers="two bands of 128 rows")
    yield Vector("image_id", Recipe("terrain", 30, 30, seed=29), 32, image_id=0xFFFFFFFF, covers="an image id that the operator gave",
                 rules=("2 image_id", "2.2 image id"))
    for pattern, height, width in zip(PATTERNS[1:], (70, 45, 64, 4), (45, 70, 4, 64), strict=True):
        yield Vector(f"mosaic_{pattern}", Recipe("terrain", height, width, seed=50), 50, mosaic=pattern,
                     covers=f"a {pattern} mosaic, interpolated anew",
                     rules=("2 mosaic", "1 MOSAICS", "1 MOSAIC_SIDE_MIN", "3.1 pattern", "3.1 anew", "3.1 mirrored"))
    yield Vector("fragments", NOISE, 63, band_rows=256, covers="a band of two fragments and of several lanes",
                 rules=("2 fragment", "2 fragments", "2 length", "1 PACKET_MAX", "2.2 fragments", "2.2 full fragments", "6.2 number of lanes",
                        "6.2 lanes", "6.3 escape", "6.3 escape bits"))


_ODD_RECIPES = {
    "qualities": (Recipe("terrain", 192, 64, seed=31), 32), "lanes": (Recipe("terrain", 64, 128, seed=32), 40),
    "texture_only": (Recipe("terrain", 64, 64, seed=35), 32), "semantic_only": (Recipe("terrain", 64, 64, seed=36), 32),
    "other_references": (Recipe("terrain", 64, 64, seed=38), 32), "fragments": (NOISE, 63), "symbols": (SCENE, 32),
    "hyper_latents": (Recipe("flat", 256, 256, seed=128, grey=True), 0), "surprises": (Recipe("terrain", 64, 512, seed=42), 50),
}


def _odd() -> Iterator[Vector]:
    for name, odd in ODDITIES.items():
        recipe, quality = _ODD_RECIPES.get(name, (SCENE, SCENE_QUALITY))
        yield Vector(f"odd_{name}", recipe, quality, band_rows=256 if name == "fragments" else 64, odd=name, covers=odd.covers, rules=odd.rules,
                     latents=name == "symbols")


VECTORS: tuple[Vector, ...] = (*_edges(), *_qualities(), *_others(), *_odd())
