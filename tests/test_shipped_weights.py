"""What is shipped of a trained codec and its ground decoders rebuilds them, and what does not belong together is refused."""
from __future__ import annotations

import copy
import lzma
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

pytest.importorskip("torch")

import numpy as np
import torch
from PIL import Image
from tiny_codec import TINY, run_for, trained, write_network

from calibration import counting, decoder, freeze, integer_network, thaw
from export import ground_decoder
from remac import regrow
from remac.codec import Codec
from remac.config import DECODERS, PROFILES, RATE, DecoderConfig
from remac.decoder import RefDecoder
from remac.integer import set_integer
from remac.marsqe import conditions
from remac.refined import RefinedDecoder, decoder_of, stream_conditions
from remac.runs import CHECKPOINT_FILE
from remac.tensors import SUFFIX, load_tensors, save_tensors
from remac.train_codec import load_weights
from remac.weights import CODEC_FILE, ground_decoders, load_codec, load_ground, rover_layers, save_codec, save_decoder
from remac_runtime.enhance.input import stream_tables
from remac_runtime.errors import BadNetwork
from remac_runtime.exits import Exit
from remac_runtime.format import LATENT_OFFSET

ROOT = Path(__file__).resolve().parents[1]


def test_the_card_makes_every_file_that_its_runs_start_from() -> None:
    card = (ROOT / "weights" / "rover-m" / "README.md").read_text()
    started = set(re.findall(r"--start (runs/\S+)", card))
    made = {f"{folder}/checkpoint.pt" for folder in re.findall(r"--out (runs/[\w-]+) ", card)}
    made |= set(re.findall(r"^    (?:python|cp) .* (runs/\w+\.pt)\b", card, re.MULTILINE))
    assert len(started) > 10 and started <= made, started - made


def test_shipped_weights_rebuild_the_codec(integer_codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Network file and codec file give the same integers, float weights within 1/30 of a step, the same decoder but for 8 bits."""
    monkeypatch.setitem(PROFILES, "tiny", TINY)
    write_network(integer_codec, tmp_path)
    save_codec(integer_codec, tmp_path / CODEC_FILE)
    again = integer_network.shipped_codec(tmp_path)
    for name, layer in rover_layers(integer_codec).items():
        for mine, theirs in zip(layer.integer_parameters(), rover_layers(again)[name].integer_parameters(), strict=True):
            assert torch.equal(mine, theirs), name
        exact, loaded = layer.exact_parameters()[0], rover_layers(again)[name].exact_parameters()[0]
        assert (exact.clamp(-64.5, 64.5) - loaded).abs().max() <= 1.01 / 30, name
    y = torch.randn(1, TINY.latents, 4, 4)
    knots = integer_codec.knots(torch.tensor([40.0]))
    with torch.no_grad():
        mine, theirs = (codec.decoder(y, knots, codec.latent_norm) for codec in (integer_codec, again))
    assert (mine - theirs).abs().max() < 0.02 * (mine - mine.mean()).abs().max()


def test_deep_decoder_starts_as_the_moderate_one(integer_codec: Codec, tmp_path: Path) -> None:
    deeper = DecoderConfig("tiny-deep", TINY.decoder.widths, (2, 2, 3, 2), half=16, half_blocks=1)
    deep = Codec(replace(TINY, decoder=deeper))
    assert load_weights(deep, integer_codec.state_dict()) == []
    torch.manual_seed(1)
    y, texture, knots = torch.randn(1, 32, 8, 10), torch.randn(1, 32, 16, 16), integer_codec.knots(torch.tensor([30.0]))
    with torch.no_grad():
        mine, theirs = (codec.decoder(y, knots, codec.latent_norm, texture, torch.ones(1)) for codec in (integer_codec, deep))
    torch.testing.assert_close(theirs, mine)
    assert load_weights(deep, {**integer_codec.state_dict(), "analysis.other": y}) == ["analysis.other"]
    assert load_weights(deep, {key: value for key, value in integer_codec.state_dict().items() if key != "analysis.stem.weight"})


def test_a_deeper_decoder_follows_its_codec(integer_codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the codec stays, so does the decoder; else its trunk becomes the codec's, what both share moves as far, what is its own stays."""
    config = replace(TINY, decoder=replace(TINY.decoder, name="tiny-deep", blocks=(1, 1, 2, 1), trunk_of="tiny"))
    torch.manual_seed(5)
    deep = Codec(config)
    load_weights(deep, integer_codec.state_dict())
    grown = {name: value + 0.1 * torch.randn_like(value) if name.startswith("decoder.at") else value for name, value in deep.state_dict().items()}
    former = integer_codec.state_dict()
    moved = {name: value + 0.5 if name.startswith(("decoder.", "log_gain")) else value for name, value in former.items()}
    same, after = regrow.regrow(config, grown, former, former), regrow.regrow(config, grown, former, moved)
    trunk = {f"decoder.{name}" for name in deep.base.trunk_state()}
    assert any(name in former for name in grown if name not in trunk and name.startswith("decoder.at8"))
    for name, value in grown.items():
        torch.testing.assert_close(same[name], former[name] if name in trunk else value)
        expected = moved[name] if name in trunk or not name.startswith("decoder.") else value + 0.5 if name in former else value
        torch.testing.assert_close(after[name], expected, msg=name)
    monkeypatch.setitem(PROFILES, "rover-m", TINY)
    monkeypatch.setitem(DECODERS, "deep", config.decoder)
    for name, state in (("deep.pt", grown), ("former.pt", former), ("new.pt", moved), ("other.pt", {**moved, "stranger": moved["log_gain"]})):
        torch.save({"stage": "quantised", "rate": asdict(RATE), "model": state}, tmp_path / name)
    paths = [str(tmp_path / "deep.pt"), "--former", str(tmp_path / "former.pt"), "--out", str(tmp_path / "out.pt"), "--codec"]
    assert regrow.main([*paths, str(tmp_path / "other.pt")]) == 1 and not (tmp_path / "out.pt").exists()
    with pytest.raises(BadNetwork, match="name its own with --profile"):
        regrow.regrow(replace(config, latents=16), grown, former, moved)
    assert regrow.main([*paths, str(tmp_path / "new.pt")]) == 0
    written = torch.load(tmp_path / "out.pt", weights_only=True)["model"]
    assert all(torch.equal(written[name], value) for name, value in after.items())


def test_a_checkpoint_of_another_profile_is_refused(integer_codec: Codec, tmp_path: Path) -> None:
    torch.save({"stage": "quantised", "model": integer_codec.state_dict()}, tmp_path / "tiny.pt")
    with pytest.raises(BadNetwork, match=r"tiny\.pt is not of the profile rover-s: name its own with --profile"):
        freeze.load_checkpoint(tmp_path / "tiny.pt", "rover-s")


def test_a_checkpoint_with_another_decoder_is_told_which(tmp_path: Path) -> None:
    with torch.device("meta"):
        names = Codec(replace(PROFILES["rover-s"], decoder=DECODERS["deep"])).state_dict()
    torch.save({"stage": "decoder", "model": {name: torch.zeros(value.shape) for name, value in names.items()}}, tmp_path / "deep.pt")
    with pytest.raises(BadNetwork, match=r"deep\.pt is of the profile rover-s with the decoder deep, not with its own, small: "
                                         r"ship that decoder with `python -m calibration\.decoder .*deep\.pt --decoder deep`"):
        freeze.load_checkpoint(tmp_path / "deep.pt", "rover-s")


def test_damaged_tensors_are_refused(tmp_path: Path) -> None:
    path, tensors = tmp_path / f"a{SUFFIX}", {"x": torch.arange(100, dtype=torch.int8).reshape(10, 10).T}
    save_tensors(path, tensors, {"version": "1"})
    loaded, metadata = load_tensors(path)
    assert torch.equal(loaded["x"], tensors["x"]) and metadata == {"version": "1"}
    whole = path.read_bytes()
    for damaged in (whole[:-20], b"", lzma.compress(b"abc"), lzma.compress(lzma.decompress(whole)[:-1])):
        path.write_bytes(damaged)
        with pytest.raises(BadNetwork, match=r"is damaged .*: take it from the repository again"):
            load_tensors(path)


def test_the_same_tensors_make_the_same_file(tmp_path: Path) -> None:
    names = "abcdefgh"      # safetensors alone writes metadata in an order that changes from process to process
    save_tensors(tmp_path / "a", {"x": torch.arange(5)}, {name: name for name in reversed(names)})
    text = lzma.decompress((tmp_path / "a").read_bytes())
    assert text.index(b'"a":"a"') < text.index(b'"h":"h"') and sorted(load_tensors(tmp_path / "a")[1]) == list(names)
    assert [text.index(f'"{name}":'.encode()) for name in names] == sorted(text.index(f'"{name}":'.encode()) for name in names)
    save_tensors(tmp_path / "b", {"x": torch.arange(5)}, {name: name for name in names})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_unrounded_layers_keep_the_limits(integer_codec: Codec) -> None:
    """What integers are measured against: nothing rounded, the same saturation; close to the integers, not equal to them."""
    layer = integer_codec.analysis.stem
    pixels = torch.randint(-102, 154, (1, 192, 8, 8), generator=torch.Generator().manual_seed(3)).float()
    rounded = layer(pixels)
    set_integer(integer_codec, rounded=False)
    real = layer(pixels)
    set_integer(integer_codec)
    assert torch.equal(rounded, layer(pixels))
    assert real.min() >= 0 and real.max() <= 255 and not torch.equal(real, real.round())
    assert 0 < (real - rounded).abs().mean() < 4


def test_a_deeper_decoder_keeps_the_trunk_and_ships_without_it(integer_codec: Codec, tmp_path: Path, pictures: Path,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    deeper = replace(TINY.decoder, name="tiny-deep", blocks=(1, 1, 2, 1), trunk_of="tiny")
    network = write_network(integer_codec, tmp_path)
    save_codec(integer_codec, tmp_path / CODEC_FILE)
    monkeypatch.setitem(PROFILES, "tiny", TINY)
    monkeypatch.setitem(DECODERS, "tiny-deep", deeper)
    start = tmp_path / "start.pt"
    torch.save({"stage": "quantised", "rate": asdict(RATE), "model": integer_network.shipped_codec(tmp_path).state_dict()}, start)
    run = run_for(tmp_path / "deep", pictures, "decoder", start, steps=2)
    codec = trained(replace(run, codec=replace(TINY, decoder=deeper))).model
    decoder.check_same_shared(codec.decoder, load_codec(tmp_path, {}), tmp_path, start)
    path = save_decoder(codec.decoder, tmp_path, network.hash.hex())
    assert not any(name.removeprefix("decoder.").startswith(RefDecoder.TRUNK) for name in load_tensors(path)[0])
    again = load_ground(tmp_path, "tiny-deep").decoder.state_dict()
    for name, value in codec.decoder.state_dict().items():
        torch.testing.assert_close(again[name], value, atol=float(value.abs().max()) / 128, rtol=0)
    with torch.no_grad():
        codec.base.entry.weight.mul_(1.1)
    with pytest.raises(BadNetwork, match=r"decoder\.entry.* differs"):
        decoder.check_same_shared(codec.decoder, load_codec(tmp_path, {}), tmp_path, start)


def test_a_refined_decoder_is_trained_and_ships_without_what_it_refines(integer_codec: Codec, tmp_path: Path, pictures: Path,
                                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    """Untrained it shows what the decoder that it refines shows; trained it comes back from its file and that decoder's, which stays as it was."""
    deeper = replace(TINY.decoder, name="tiny-deep", blocks=(1, 1, 2, 1), half=16, half_blocks=1, trunk_of="tiny")
    finer = replace(deeper, name="tiny-refined", version=3, trunk_of="", refines="tiny-deep")
    monkeypatch.setitem(PROFILES, "tiny", TINY)
    for config in (deeper, finer):
        monkeypatch.setitem(DECODERS, config.name, config)
    network = write_network(integer_codec, tmp_path)
    save_codec(integer_codec, tmp_path / CODEC_FILE)
    base = RefDecoder(deeper, TINY.latents)
    base.load_state_dict(base.state_dict() | load_codec(tmp_path, {}).base.trunk_state())
    save_decoder(base, tmp_path, network.hash.hex())
    torch.manual_seed(5)
    untrained = decoder_of(finer, TINY.latents)
    assert isinstance(untrained, RefinedDecoder)
    untrained.base.load_state_dict(load_ground(tmp_path, "tiny-deep").decoder.state_dict())
    save_decoder(untrained, tmp_path, network.hash.hex())
    y_hat = torch.randint(-9000, 9000, (4, 6, TINY.latents), dtype=torch.int32)
    inputs = (y_hat, torch.tensor([20.0]), torch.full((4, 8, 8, TINY.latents), LATENT_OFFSET, dtype=torch.uint8), torch.zeros(1))
    assert torch.equal(load_ground(tmp_path, "tiny-refined")(*inputs), load_ground(tmp_path, "tiny-deep")(*inputs))

    start, run = tmp_path / "start.pt", tmp_path / "run"
    for left_behind in (untrained, base):       # by an older codec: both are a start, neither shows pictures
        path = save_decoder(left_behind, tmp_path, "0123456789abcdef")
        with pytest.raises(BadNetwork, match=f"^{re.escape(str(path))}: made for codec 0123456789abcdef"):
            load_ground(tmp_path, "tiny-refined")
        assert thaw.main([str(tmp_path), "--decoder", "tiny-refined", "--out", str(start)]) == 0
        save_decoder(left_behind, tmp_path, network.hash.hex())
    assert thaw.main([str(tmp_path), "--decoder", "tiny-refined", "--out", str(start)]) == 0
    codec = trained(replace(run_for(run, pictures, "decoder", start, steps=3), codec=replace(TINY, decoder=finer))).model
    shipped = decoder.load_trained(run / CHECKPOINT_FILE, tmp_path, "tiny", "tiny-refined", network)
    path = save_decoder(shipped, tmp_path, network.hash.hex())
    assert all(name.startswith("decoder.refinement.") for name in load_tensors(path)[0])
    again = load_ground(tmp_path, "tiny-refined").decoder
    assert again.config.version == 3
    for name, value in codec.decoder.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, atol=float(value.abs().max()) / 128 + 1e-6, rtol=0)
    assert all(value.any() for name, value in codec.decoder.state_dict().items() if ".hints." in name and name.endswith("weight"))
    state = torch.load(run / CHECKPOINT_FILE, weights_only=True)
    state["model"]["decoder.base.at2.0.first.weight"].mul_(1.1)
    torch.save(state, run / CHECKPOINT_FILE)
    with pytest.raises(BadNetwork, match=r"decoder\.base\.at2.* differs"):
        decoder.load_trained(run / CHECKPOINT_FILE, tmp_path, "tiny", "tiny-refined", network)


@pytest.mark.parametrize("quality", [0, 20, 63])
def test_qualities_are_described_as_their_tables_would_be(quality: int) -> None:
    tables = torch.from_numpy(stream_tables(quality))[None]
    torch.testing.assert_close(stream_conditions(torch.tensor([float(quality)])), conditions(tables), atol=1e-5, rtol=0)


# ---- decoders that do not belong to the network

@pytest.fixture
def shipped(integer_codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A weights folder of the tiny codec with a decoder beside its own."""
    monkeypatch.setitem(PROFILES, "tiny", TINY)
    config = replace(TINY.decoder, name="tiny-deep", blocks=(1, 1, 2, 1), trunk_of="tiny", version=2)
    monkeypatch.setitem(DECODERS, "tiny-deep", config)
    network = write_network(integer_codec, tmp_path)
    save_codec(integer_codec, tmp_path / CODEC_FILE)
    save_decoder(RefDecoder(config, TINY.latents), tmp_path, network.hash.hex())
    return tmp_path


PERTURBED: dict[str, tuple[Callable[[Codec], object], str]] = {
    "weights": (lambda codec: codec.analysis.body.weight.mul_(-1), "layer body"),
    "gains": (lambda codec: codec.log_gain.add_(0.01), "gain"),
    "gains of one quality": (lambda codec: codec.log_gain[3].add_(0.01), "gain"),
    "planes": (lambda codec: codec.context_shift[5].add_(1), "context_shift"),
    "norms": (lambda codec: codec.latent_norm[7].mul_(1.01), "latent_norm"),
    "units of one latent, weights alike": (lambda codec: _rescale(codec, 1.01), r"scale_offset|analysis\.head\.output_scale")}


def _rescale(codec: Codec, factor: float) -> None:
    """Other latent units, with the same integers in the network file but for the scale offset."""
    head = codec.analysis.head
    head.output_scale.mul_(factor)
    head.weight.div_(factor)
    head.bias.div_(factor)
    codec.log_gain.add_(float(np.log(factor)))


@pytest.mark.parametrize("changed", PERTURBED)
def test_decoder_for_another_codec_is_refused(changed: str, integer_codec: Codec, shipped: Path) -> None:
    network, there = integer_network.read_network(shipped / "network.rmn"), load_codec(shipped, {})
    decoder.check_same_rover(integer_codec, network, there)
    change, message = PERTURBED[changed]
    other = copy.deepcopy(integer_codec)
    with torch.no_grad():
        change(other)
    with pytest.raises(BadNetwork, match=f"^({message}) of the checkpoint differs from .*: train the decoder on the frozen codec"):
        decoder.check_same_rover(other, network, there)


def test_units_that_no_integer_shows_are_compared(integer_codec: Codec, shipped: Path) -> None:
    network, there = integer_network.read_network(shipped / "network.rmn"), load_codec(shipped, {})
    with torch.no_grad():
        there.analysis.head.output_scale[2].mul_(1.01)
    with pytest.raises(BadNetwork, match=r"^analysis\.head\.output_scale of the checkpoint differs from the codec that was shipped"):
        decoder.check_same_rover(integer_codec, network, there)


def test_gains_may_differ_as_sums_of_other_machines_do(integer_codec: Codec, shipped: Path) -> None:
    network, there = integer_network.read_network(shipped / "network.rmn"), load_codec(shipped, {})
    moved = {name: getattr(network, name) + 1 for name in ("gain", "inverse_gain", "scale_offset")}
    decoder.check_same_rover(integer_codec, replace(network, **moved), there)


def test_the_codecs_own_decoder_is_not_shipped_beside_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = ROOT / "weights" / "rover-s"
    (tmp_path / "network.rmn").write_bytes((weights / "network.rmn").read_bytes())
    assert decoder.main(["run.pt", "--profile", "rover-s", "--decoder", "small", "--out", str(tmp_path)]) == Exit.FAILED
    assert capsys.readouterr().err == (f"remac: small is the own decoder of rover-s, which {CODEC_FILE} holds: ship it with "
                                       f"`python -m calibration.freeze run.pt --out {tmp_path}`\n")
    assert [path.name for path in tmp_path.iterdir()] == ["network.rmn"]


@pytest.mark.parametrize(("codec", "version", "message"), [
    ("0123456789abcdef", 2, "made for codec 0123456789abcdef, the network is {hash}"), (None, 1, "version 1 of tiny-deep, today's is 2")])
def test_a_decoder_that_an_older_codec_left_behind_is_refused(codec: str | None, version: int, message: str, shipped: Path) -> None:
    """It is neither shown nor exported; but training goes on from it, on purpose."""
    network = integer_network.read_network(shipped / "network.rmn").hash.hex()
    assert load_ground(shipped, "tiny-deep") and [config.name for config in ground_decoders(shipped)] == ["tiny", "tiny-deep"]
    former = RefDecoder(replace(DECODERS["tiny-deep"], version=version), TINY.latents)
    path = save_decoder(former, shipped, codec or network)
    mend = r": train it again \(`--stage decoder --decoder tiny-deep`\), or remove the file"
    expected = f"^{re.escape(f'{path}: {message.format(hash=network)}')}{mend}$"
    for refused in (lambda: load_ground(shipped, "tiny-deep"), lambda: ground_decoders(shipped),
                    lambda: ground_decoder.export_decoders(shipped, shipped / "built")):
        with pytest.raises(BadNetwork, match=expected):
            refused()
    assert not (shipped / "built").exists()
    assert thaw.main([str(shipped), "--decoder", "tiny-deep", "--out", str(shipped / "start.pt")]) == 0
    start = torch.load(shipped / "start.pt", weights_only=True)["model"]
    grown = former.state_dict()["at8.1.first.weight"]
    torch.testing.assert_close(start["decoder.at8.1.first.weight"], grown, atol=float(grown.abs().max()) / 128, rtol=0)
    path.unlink()
    assert [config.name for config in ground_decoders(shipped)] == ["tiny"]


def test_a_decoder_of_other_layers_is_one_line(shipped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = integer_network.read_network(shipped / "network.rmn").hash.hex()
    save_decoder(RefDecoder(replace(DECODERS["tiny-deep"], blocks=(1, 1, 3, 1)), TINY.latents), shipped, network)
    assert thaw.main([str(shipped), "--decoder", "tiny-deep", "--out", str(shipped / "start.pt")]) == Exit.FAILED
    error = capsys.readouterr().err
    assert "its tensors are not those of tiny-deep for this codec: train it anew, or remove the file" in error and error.count("\n") == 1


def test_shipped_decoders_are_for_their_network() -> None:
    assert [config.name for config in ground_decoders(ROOT / "weights" / "rover-m")] == ["moderate", "deep", "refined"]


# ---- what freezing refuses

SPOILT: dict[str, tuple[Callable[[Codec], object], str]] = {
    "weight": (lambda codec: codec.analysis.deep.weight[0, 0, 0, 0].fill_(np.nan), "layer deep: a weight is nan, no integer of -128..127"),
    "endless bias": (lambda codec: codec.analysis.stem.bias[0].fill_(np.inf), "layer stem: a bias is inf, no integer of"),
    "large bias": (lambda codec: codec.entropy.side_in.bias[3].fill_(1e12), "layer side_in: a bias is "),
    "shift": (lambda codec: codec.entropy.side_out.shift[3].fill_(0.5), "layer side_out: a shift is 0.5, no integer"),
    "shift of z": (lambda codec: codec.analysis.hyper_out.shift[1].fill_(-1), "layer hyper_out: a shift is -1"),
    "gain": (lambda codec: codec.log_gain[0, 0].fill_(80), "gain: a value is "),
    "no gain": (lambda codec: codec.log_gain[0, 0].fill_(np.nan), "gain: a value is nan"),
    "planes": (lambda codec: codec.context_shift[0].fill_(np.nan), "context_shift: a value is nan")}


@pytest.mark.parametrize("spoilt", SPOILT)
def test_what_integers_do_not_hold_is_refused(spoilt: str, integer_codec: Codec, tmp_path: Path) -> None:
    change, message = SPOILT[spoilt]
    codec = copy.deepcopy(integer_codec)
    with torch.no_grad():
        change(codec)
    with pytest.raises(BadNetwork, match=f"^{re.escape(message)}.*: go on from a sound checkpoint$"):
        write_network(codec, tmp_path)
    assert not list(tmp_path.iterdir())


def test_small_pictures_are_counted_too(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    for name, size in (("narrow", (200, 300)), ("low", (300, 192)), ("large", (700, 600))):
        Image.fromarray(np.random.default_rng(1).integers(0, 256, (*size[::-1], 3), np.uint8)).save(tmp_path / "train" / f"{name}.png")
    windows = [window.shape for window in freeze.training_windows(tmp_path, None)]
    rows = counting.COUNTED_BAND_ROWS
    assert windows == [(2 * rows, 2 * rows, 3)] * 2 + [(rows, rows, 3)] * 4


def test_a_limit_counts_pictures(capsys: pytest.CaptureFixture[str]) -> None:
    for limit in ("0", "-3", "many"):
        with pytest.raises(SystemExit) as ended:
            freeze.main(["run.pt", "--out", "none", "--limit", limit])
        assert ended.value.code == 2 and f"argument --limit: '{limit}' is not a whole number from 1 on" in capsys.readouterr().err
