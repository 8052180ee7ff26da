"""The blocks of figures that come from rd_summary.json: tables, the comparison with and without references, and the limits."""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.mosaics import FILTERED, UNFILTERED
from benchmarks.rd import PEER_TITLES, SET_TITLES
from benchmarks.sources import MISSING, SOURCES, NotMeasuredError, Sources, number, percent, share, table
from benchmarks.summary import ANCHOR, ANCHOR_QUALITIES, OPERATING_QUALITY, RIVAL, mean
from remac_runtime.format import BAND_ROWS

OURS, FIRST, UNREFERENCED, LOW_BANDS = "remac-m", "remac-m-first", "remac-m-noref", "remac-m-bands128"
TITLES = {OURS: "**remac, rover-m**", FIRST: "remac, rover-m, first ground decoder", UNREFERENCED: "the same, without references",
          LOW_BANDS: "first ground decoder, bands of 128 rows", **PEER_TITLES}
SHORT = {OURS: "remac", FIRST: "first decoder", UNREFERENCED: "no references", "jpeg444": "JPEG 4:4:4", "webp": "WebP", "jpeg2000": "JPEG 2000",
         "avif444": "AVIF 4:4:4", "avif420": "AVIF 4:2:0", "avif444-iq": "AVIF iq", "hevc444": "HEVC", "jpegxl": "JPEG XL"}
SHOWS = {       # what the evaluation pictures show: they may not be printed here
    "test/msl_mcam_sol0127_1": "layered outcrop",
    "test/msl_mcam_sol0176_1": "dark plain below the sky",
    "test/msl_mcam_sol0349_2": "boulders, hills in haze",
    "test/msl_mcam_sol0416_1": "gravel plain",
    "test/msl_mcam_sol0438_3": "bedrock and rubble",
    "test/msl_mcam_sol0465_2": "pale plain with stones",
    "test/msl_mcam_sol0509_2": "slope of layered rock",
    "test/msl_mcam_sol0527_1": "sand between outcrops",
    "test/msl_mcam_sol0563_1": "outcrop, hills in haze",
    "test/msl_mcam_sol0602_1": "layered outcrop",
    "test/msl_mcam_sol0713_1": "rippled sand",
    "test/msl_mcam_sol0739_2": "dark hillside below the sky",
    "test/msl_mcam_sol0744_1": "cracked bedrock",
    "test/msl_mcam_sol1035_1": "sandy slope, rover at the edge",
    "test/msl_mcam_sol1173_6": "bedrock and sand ripples",
    "test/msl_mcam_sol1196_1": "bedrock before a dune",
    "test/msl_mcam_sol1264_1": "flat bedrock",
    "test/msl_ncam_sol0002_deck": "deck of the rover, grey",
    "frames/m2020_fhaz_sol0749": "boulder, rover's arm, sky",
    "frames/m2020_fhaz_sol0764": "pebbles, wheel, sky",
    "frames/m2020_fhaz_sol0766_t02": "wheel tracks",
    "frames/m2020_fhaz_sol0768_t03": "flat slabs",
    "frames/m2020_fhaz_sol0770_t04": "slabs on a hillside",
    "frames/m2020_ncam_hardware": "rover hardware",
    "frames/m2020_ncam_sol0009_a": "gravel, raw colours",
    "frames/m2020_ncam_sol0731": "plain and sky, smooth",
    "frames/m2020_ncam_sol0757": "rocks on soil",
    "frames/m2020_rhaz_sol0770": "rocks, wheel",
    "frames/m2020_zcam_sol0038": "plain, hills in haze",
    "frames/m2020_zcam_sol0053": "plain with the helicopter",
}

ALL_COVERED = 0.995      # of the range of the BD-rates; what is missing then would change no digit

Summary = Mapping[str, Any]


def complete(entry: Summary, name: str) -> bool:
    """Whether a codec has a BD-rate on every picture of a set of rd_summary.json."""
    return name in entry["codecs"] and bool(entry["codecs"][name]["complete"])


def measured_sets(sources: Sources) -> Summary:
    """The sets of rd_summary.json. NotMeasuredError where ours was not measured on all their pictures."""
    sets: Summary = sources["rd"]["sets"]
    if not all(complete(entry, OURS) for entry in sets.values()):
        raise NotMeasuredError(f"{SOURCES['rd'].file} with all pictures")
    return sets


def _title(name: str, entry: Summary) -> str:
    return f"{SET_TITLES.get(name, name)} ({entry['images']})"


def _shown(sets: Summary) -> list[str]:
    return [name for name in TITLES if any(complete(entry, name) for entry in sets.values())]


def rate_distortion(sources: Sources) -> str:
    """BD-rate and bytes at the operating point of every codec on each set."""
    sets = measured_sets(sources)
    heads = ["codec", *(head for name, entry in sets.items() for head in (f"{_title(name, entry)}: BD-rate", f"bytes at JPEG q{OPERATING_QUALITY}"))]
    rows = []
    for name in _shown(sets):
        cells = [TITLES[name]]
        for entry in sets.values():
            codec = entry["codecs"][name] if complete(entry, name) else {}
            cells += [percent(codec.get("bd_rate_mean")), share(codec.get("bytes_at_jpeg_q85"))]
        rows.append(cells)
    low, high = ANCHOR_QUALITIES
    return "\n".join([table(heads, rows), "",
                      f"In brackets: pictures. Real file sizes, PSNR over RGB. BD-rate: bytes against {TITLES[ANCHOR]} at equal PSNR "
                      f"(negative: fewer), per picture, then averaged, between the PSNRs of JPEG qualities {low} and {high}. The other column: "
                      f"bytes at the PSNR of JPEG quality {OPERATING_QUALITY}, the usual setting in flight, as a share of JPEG's. "
                      "Streams are decoded by the newest ground decoder, as `remac decode` does; in the rows of the first decoder by the one that "
                      "the codec was trained with. "
                      f"{_coverage(sets)} {_span(sets)}"])


def _coverage(sets: Summary) -> str:
    """Who does not reach all of the PSNRs that the BD-rate averages over: it is taken over the rest then."""
    short = {name: entry["codecs"].items() for name, entry in sets.items()}
    parts = []
    for name, codecs in short.items():
        partly = [f"{SHORT.get(codec, codec)} {share(fields['covered'])}" for codec, fields in codecs
                  if codec in SHORT and fields["complete"] and fields["covered"] < ALL_COVERED]
        parts.append(f"{', '.join(partly) or 'none'} ({SET_TITLES[name]})")
    return f"Codecs whose lowest quality lies inside that range, so that their BD-rate is taken over a part of it: {'; '.join(parts)}."


def plot(sources: Sources) -> str:
    """The plot of mean PSNR over mean rate."""
    measured_sets(sources)
    path = Path("benchmarks", "results", "rd.svg")
    if not (sources.root / path).is_file():
        raise NotMeasuredError(path.name)
    return f"![mean PSNR over mean bits per pixel of each codec]({path.as_posix()})"


def _span(sets: Summary) -> str:
    parts = []
    for name, entry in sets.items():
        points = [point for point in entry["codecs"][OURS]["qualities"] if point["psnr"] is not None]
        first, last = points[0], points[-1]
        parts.append(f"{number(first['bpp'], 3)} bit/pixel at {number(first['psnr'], 1)} dB (quality {first['quality']:g}) to "
                     f"{number(last['bpp'])} at {number(last['psnr'], 1)} dB (quality {last['quality']:g}) on {SET_TITLES[name]}")
    return f"The one model spans, on average, {'; '.join(parts)}."


def pairs(sources: Sources) -> str:
    """Ours against each codec, over the whole of the range that both cover."""
    sets = measured_sets(sources)
    against = {name: entry["codecs"][OURS]["bd_rate_mean_against"] for name, entry in sets.items()}
    others = [name for name in TITLES if any(name in rates for rates in against.values())]
    rows = [(TITLES[other], *(percent(rates.get(other)) for rates in against.values())) for other in others]
    return "\n".join([table(["remac against", *(_title(name, entry) for name, entry in sets.items())], rows), "",
                      "BD-rate of each pair over the PSNRs that both reach, with no limits but these."])


def curve(sources: Sources) -> str:
    """Mean rate and PSNR at each quality that was measured."""
    sets = measured_sets(sources)
    points = {name: {point["quality"]: point for point in entry["codecs"][OURS]["qualities"]} for name, entry in sets.items()}
    qualities = sorted(set().union(*points.values()))
    rows = [[f"{quality:g}", *(cell for name in sets for cell in _point(points[name].get(quality)))] for quality in qualities]
    return table(["quality", *(head for name in sets for head in (f"{SET_TITLES[name]}: bit/pixel", "PSNR, dB"))], rows)


def _point(point: Summary | None) -> tuple[str, str]:
    return (number(point["bpp"], 3), number(point["psnr"])) if point else (MISSING, MISSING)


def images(sources: Sources) -> str:
    """BD-rate against JPEG 4:2:0 of each picture."""
    sets = measured_sets(sources)
    names = [name for name in _shown(sets) if name not in (ANCHOR, LOW_BANDS)]
    rows = []
    for entry in sets.values():
        for key in sorted(entry["codecs"][OURS]["bd_rate"]):
            rates = (entry["codecs"].get(name, {}).get("bd_rate", {}).get(key) for name in names)
            rows.append([key, SHOWS.get(key, MISSING), *(percent(rate).removesuffix(" %") for rate in rates)])
    return table(["picture", "shows", *(f"{SHORT[name]}, %" for name in names)], rows, left=2)


def _against(sets: Summary, name: str, other: str) -> str:
    """BD-rate of one variant of ours against another on each set, in words."""
    rates = {title: entry["codecs"].get(name, {}).get("bd_rate_mean_against", {}).get(other) for title, entry in sets.items()}
    return ", ".join(f"{percent(rate)} ({SET_TITLES[title]})" for title, rate in rates.items())


def references(sources: Sources) -> str:
    """What the reference bank brings and costs."""
    sets, report = measured_sets(sources), sources["encoder"]
    layers = {layer: count for graph in report["mac_per_pixel"].values() for layer, count in graph.items()}
    total = sum(layers.values()) / 1000
    rows = []
    for name, label, cost in ((FIRST, "with references", total), (UNREFERENCED, "without", total - layers["reference"] / 1000)):
        known = [entry["codecs"][name] if complete(entry, name) else {} for entry in sets.values()]
        rows.append([label, *(percent(codec.get("bd_rate_mean")) for codec in known), f"{cost:.3f}"])
    return "\n".join([table(["same model", *(f"{_title(name, entry)}: BD-rate" for name, entry in sets.items()), "kMAC/px"], rows), "",
                      f"With references against without them, same model, first ground decoder: {_against(sets, FIRST, UNREFERENCED)}."])


def bands(sources: Sources) -> str:
    """What low bands cost: a lost packet takes fewer rows along, but there are more headers, and contexts end at more edges."""
    costs = _against(measured_sets(sources), LOW_BANDS, FIRST)
    return f"Bytes in bands of 128 rows against bands of {BAND_ROWS}, same model, first ground decoder, at equal PSNR: {costs}."


def adaptation(sources: Sources) -> str:
    """What tables that adapt save, by quality."""
    sets = sources["adaptation"]["sets"]
    qualities = list(next(iter(sets.values())))
    return table(("bytes with tables that adapt against the same tables without, quality", *qualities),
                 [(SET_TITLES[name], *(percent(found[quality]) for quality in qualities)) for name, found in sets.items()])


def mosaics(sources: Sources) -> str:
    """What coding the mosaic of pictures that were interpolated from one brings: those of the sets in which one is found, and simulated ones."""
    content = sources["mosaics"]
    kinds = (FILTERED, UNFILTERED)
    rows = [(name, *(percent(change[kind]) for kind in kinds))
            for name, change in sorted(content["found"].items(), key=lambda item: float(item[1][kinds[0]]))]
    simulated = content["simulated"]
    rows.append((f"mean of {len(simulated)} {SET_TITLES[content['simulated_from']]} at half size, as a camera would have made them",
                 *(percent(mean(change[kind] for change in simulated.values())) for kind in kinds)))
    return table(("picture", "bytes at equal PSNR, mosaic against picture", "without the ground decoder's filters"), rows)


def rate_ranges(sources: Sources) -> str:
    """How the mean BD-rates depend on the range of JPEG qualities they are taken over."""
    sets, spans = measured_sets(sources), sources["rd"]["ranges"]
    names = [name for name in _shown(sets) if name not in (ANCHOR, FIRST, UNREFERENCED, LOW_BANDS)]
    rows = [(f"{SET_TITLES[set_name]}, q{span}", *(percent(rates.get(name)).removesuffix(" %") for name in names))
            for set_name in sets for span, rates in spans[set_name].items()]
    own = {name: [rates[OURS] for rates in spans[name].values() if rates[OURS] is not None] for name in sets}
    best = all(rates[0] <= min(rates) for rates in own.values())
    return "\n".join([table(("JPEG qualities", *(f"{SHORT[name]}, %" for name in names)), rows), "",
                      "The first range of each set is the one used everywhere else. It was chosen after results had been seen (why: "
                      f"`benchmarks/summary.py`){', and it is the kindest of these to remac' if best else ''}: read its figures with the others."])


def float_gap(sources: Sources) -> str:
    """What the integers cost against the same weights in float."""
    sets = sources["float-gap"]["sets"]
    rows = [(SET_TITLES[name], percent(entry["integer_estimate"]), percent(entry["real_bytes"])) for name, entry in sets.items()]
    return table(("BD-rate against float mode, estimated bits", "integer mode, estimated bits", "real bytes, headers included"), rows)


def _named(rates: Summary) -> str:
    """Pictures with what they show and their BD-rates."""
    return ", ".join(f"`{key}` ({SHOWS.get(key, 'not described')}) {percent(rate)}" for key, rate in rates.items())


def _behind(sets: Summary) -> Iterator[str]:
    """Codecs that are ahead of ours in the mean of a set, by either of the two measures, with both."""
    for name, entry in sets.items():
        own, against = entry["codecs"][OURS]["bd_rate_mean"], entry["codecs"][OURS]["bd_rate_mean_against"]
        ahead = [f"{TITLES[peer]} ({percent(entry['codecs'][peer]['bd_rate_mean'])}; remac against it {percent(against[peer])})"
                 for peer in against if peer in PEER_TITLES and complete(entry, peer)
                 and (entry["codecs"][peer]["bd_rate_mean"] <= own or (against[peer] or 0) > 0)]
        yield f"on {SET_TITLES[name]} (remac {percent(own)}): {', '.join(ahead) or 'none'}"


def limits(sources: Sources) -> str:
    """Where ours is weak, by name."""
    sets = measured_sets(sources)
    costlier = {key: rate for entry in sets.values() for key, rate in entry["codecs"][OURS]["costlier_than_jpeg2000"].items()}
    total = sum(entry["images"] for entry in sets.values())
    names = f" (BD-rate over the range of both): {_named(costlier)}" if costlier else ""
    lines = [f"- {len(costlier)} of {total} pictures cost more than in {TITLES[RIVAL]}{names}."]
    lines.append(f"- Other codecs ahead of remac in the mean, by the BD-rate against {TITLES[ANCHOR]} or by that of the pair, "
                 f"{'; '.join(_behind(sets))}.")
    for name, entry in sets.items():
        lines.append(f"- The five worst against {TITLES[ANCHOR]} on {_title(name, entry)}: {_named(entry['codecs'][OURS]['worst'])}.")
    return "\n".join(lines)
