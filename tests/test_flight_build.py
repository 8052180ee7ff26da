"""The C99 flight encoder as source and object: warnings, sanitizers, symbols, stack, memory, rules of the source, README, other processors."""
from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import small_network
from flight_library import FlightLibrary, Status
from test_flight import CASES, CHOSEN, picture

from benchmarks import flight as benchmark
from benchmarks import flight_checks
from benchmarks.flight_checks import ToolError
from export import c99_readme, flight_c, to_c99
from remac_runtime import reference
from remac_runtime.codec import EncodeOptions, Encoder
from remac_runtime.errors import BadInput
from remac_runtime.images import Picture
from remac_runtime.model import load_model
from remac_runtime.terrain import terrain

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
ROOT = Path(__file__).resolve().parents[1]
MEMORY_LIMIT, STACK_LIMIT = 8 << 20, 4096
SOURCES = ("remac_flight.c", "flight_encode.c", "flight_symbols.c")


@pytest.fixture(scope="module")
def folder(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The generated sources of the small model."""
    out = tmp_path_factory.mktemp("flight_build")
    flight_c.generate(small_model, out)
    return out


@pytest.fixture(scope="module")
def encoder(small_model: Path) -> Iterator[Encoder]:
    with Encoder(load_model(small_model), "numpy") as opened:
        yield opened


@pytest.fixture(scope="module")
def sanitized(folder: Path) -> Path:
    """The two test programs with address and undefined-behaviour sanitizers."""
    flags = ["-std=c99", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    for source in ("flight_encode", "flight_symbols"):
        extra = ["remac_flight.c"] if source == "flight_encode" else []
        done = subprocess.run(["gcc", *flags, "-o", source, f"{source}.c", *extra], cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"gcc cannot link with the sanitizers: {done.stderr.splitlines()[-1]}")
    return folder


def write_pnm(path: Path, source: Picture) -> Path:
    kind, top = (b"P5" if source.grey else b"P6"), 2 ** source.depth - 1
    height, width = source.samples.shape[:2]
    path.write_bytes(kind + b"\n# a comment\n%d %d\n%d\n" % (width, height, top) + source.samples.astype(">u2" if top > 255 else "u1").tobytes())
    return path


# ---- the compiler's view

@pytest.mark.parametrize("level", ["-O0", "-O2", pytest.param("-O3", marks=pytest.mark.slow)])
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_no_warnings(folder: Path, compiler: str, level: str) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"needs {compiler}")
    for source in SOURCES if level == "-O2" else SOURCES[:1]:
        flight_checks.compile_object(compiler, [level], folder, source, "warnings.o")


def test_a_warning_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "bad.c").write_text("int f(long x);\nint f(long x) { return x; }\n")
    with pytest.raises(ToolError, match=r"Wconversion|conversion"):
        flight_checks.compile_object("gcc", [], tmp_path, "bad.c", "bad.o")


def test_no_library_and_no_globals(folder: Path) -> None:
    for level in ("-O0", "-O2"):
        built = flight_checks.compile_object("gcc", [level, "-fno-stack-protector"], folder)
        assert flight_checks.undefined_symbols(built) <= flight_checks.LIBRARY
        assert flight_checks.section_bytes(built)["data"] == 0
    exported = [line.split()[-1] for line in flight_checks.tool(["nm", "-g", "--defined-only", built], folder).splitlines()]
    assert all(name.startswith("remac_") for name in exported)
    assert set(flight_checks.ENTRIES) <= set(exported)


def test_what_is_undefined_or_writable_is_seen(tmp_path: Path) -> None:
    (tmp_path / "bad.c").write_text("#include <stdlib.h>\nint counter = 1;\nvoid *f(void);\nvoid *f(void) { return malloc(4); }\n")
    built = flight_checks.compile_object("gcc", [], tmp_path, "bad.c", "bad.o")
    assert "malloc" in flight_checks.undefined_symbols(built) - flight_checks.LIBRARY
    assert flight_checks.section_bytes(built)["data"] == 4


def test_stack(folder: Path) -> None:
    built = flight_checks.compile_object("gcc", ["-O2", flight_checks.CALL_GRAPH], folder, out="stack.o")
    stack = flight_checks.measured_stack(built)
    assert 1024 < stack.size <= STACK_LIMIT      # remac_encode alone keeps 256 states of 4 bytes
    assert stack.path[0] in flight_checks.ENTRIES


def test_recursion_and_growing_frames_are_seen() -> None:
    frames, calls = {"a": 16, "b": 32, "c": 8, "d": 100}, {"a": {"b", "c"}, "b": {"d"}, "c": {"d"}}
    assert flight_checks.stack_bound(frames, calls, ["a"]) == flight_checks.Stack(148, ("a", "b", "d"))
    with pytest.raises(ToolError, match="recursion: a -> c -> a"):
        flight_checks.stack_bound(frames, {"a": {"c"}, "c": {"a"}}, ["a"])
    node = 'node: { title: "f" label: "f\\nf.c:1:1\\n48 bytes (%s)\\n0 dynamic objects" }'
    assert flight_checks.call_graph(node % "static")[0] == {"f": 48}
    with pytest.raises(ToolError, match="not static"):
        flight_checks.call_graph(node % "dynamic")


def test_working_memory(folder: Path, sanitized: Path) -> None:
    header = to_c99.header(load_model(ROOT / "weights" / "rover-m").network, None)
    assert sum(region.size for region in c99_readme.memory_map(header, 1600, 1200, 128, 0)) <= MEMORY_LIMIT
    header, library = (folder / to_c99.HEADER).read_text(), FlightLibrary(folder)
    for width, height, band_rows, keep in ((1600, 1200, 128, 0), (1, 1, 16320, 1), (16384, 16384, 64, 0), (333, 777, 192, 1)):
        arguments = [str(number) for number in (width, height, band_rows, keep)]
        printed = subprocess.run([sanitized / "flight_encode", "--map", *arguments], capture_output=True, text=True, check=True).stdout.splitlines()
        ours = c99_readme.memory_map(header, width, height, band_rows, keep)
        assert [line.split()[:2] for line in printed] == [*([r.name, str(r.size)] for r in ours), ["total", str(sum(r.size for r in ours))]]
        config = library.config(np.zeros((height, width), np.uint8), band_rows=band_rows, keep=keep)
        assert library.work_bytes(config) == sum(region.size for region in ours)
        assert all(region.size % 16 == 0 for region in ours)
    (folder / "constant.c").write_text('#include "remac_flight.h"\nchar work[REMAC_FLIGHT_WORK_BYTES(1600, 1200, 128, 0)];\n')
    flight_checks.compile_object("gcc", [], folder, "constant.c", "constant.o")


# ---- what it does when built otherwise

def test_sanitizers(sanitized: Path, encoder: Encoder) -> None:
    for number, (height, width, grey, depth, options) in enumerate(CASES):
        source = picture(height, width, grey, depth, seed=7)
        flags = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value))]
        path, keep = write_pnm(sanitized / "in.pnm", source), ["--keep"] if number % 2 else []
        command: list[str | Path] = [sanitized / "flight_encode", *flags, *keep, "--references", "chosen", "--strip-rows", "32", path]
        done = subprocess.run([*command, sanitized / "out.rmc"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        stream = encoder.encode(source, EncodeOptions(**options))
        assert (sanitized / "out.rmc").read_bytes() == stream
        assert json.loads(done.stdout)["bytes"] == len(stream)


@pytest.mark.parametrize(("content", "message"), [
    (b"P5 2 1 15\n\x00\x0f", "its largest value is below 255: scale"), (b"P6 1 1 254\n\x00\x0f\xff", "its largest value is below 255"),
    (b"P5 2 1 4000\n\x00\x00\x0f\xa1", "a sample above its largest value"), (b"P5 2 1 255\n\x00", "not a whole")])
def test_pictures_that_the_runtime_reads_otherwise_are_refused(sanitized: Path, content: bytes, message: str) -> None:
    """Else the same file gave two streams."""
    (sanitized / "in.pnm").write_bytes(content)
    done = subprocess.run([sanitized / "flight_encode", sanitized / "in.pnm", sanitized / "x.rmc"], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and message in done.stderr and done.stderr.count("\n") == 1 and not (sanitized / "x.rmc").exists()


def test_symbols(sanitized: Path, encoder: Encoder) -> None:
    for height, width, chosen in ((130, 70, True), (64, 128, False)):
        stream = encoder.encode(picture(height, width), EncodeOptions(band_rows=64, quality=40, references=chosen))
        (sanitized / "in.rmc").write_bytes(stream)
        subprocess.run([sanitized / "flight_symbols", sanitized / "in.rmc", sanitized / "out.y"], check=True)
        latents = reference.decode_latents(stream, encoder.model.network, encoder.model.bank).y_hat
        assert np.array_equal(np.fromfile(sanitized / "out.y", "<i4"), latents.ravel())


def test_without_bank(folder: Path, small_model: Path, encoder: Encoder, tmp_path: Path) -> None:
    source = picture(70, 70)
    plain = encoder.encode(source, EncodeOptions(references=False))
    flight_c.generate(small_model, tmp_path, with_bank=False)
    for library in (FlightLibrary(folder, ("-O1", "-DREMAC_FLIGHT_BANK=0", "-Wall", "-Wextra", "-Werror"), "libplain.so"),
                    FlightLibrary(tmp_path, ("-O1", "-Wall", "-Wextra", "-Werror"))):
        assert library.encode(source.samples).stream == plain
        config = library.config(source.samples, references=CHOSEN)
        assert library.work_bytes(config) == 0
        assert library.encode(source.samples, references=CHOSEN).status is Status.NO_BANK


@pytest.mark.slow
def test_other_processors(small_model: Path, tmp_path: Path) -> None:
    ready = [p for p in benchmark.PROCESSORS if shutil.which(p.compiler) and shutil.which(p.emulator[0])]
    if len(ready) < 2:
        pytest.skip("needs cross compilers and qemu-user: see benchmarks/flight.py")
    results = benchmark.run(small_model, ready, tmp_path)
    assert {build["processor"]: build["same_bytes"] for build in results["builds"]} == {p.name: True for p in ready}
    assert [build["data_bytes"] for build in results["builds"]] == [0] * len(ready)
    assert max(build["stack_bytes"] for build in results["builds"]) <= STACK_LIMIT


# ---- the source

FORBIDDEN = re.compile(r"\b(?:float|double|goto)\b|\b(?:setjmp|longjmp|malloc|calloc|realloc|free|alloca|printf) ?\(|for \(;;\)|while \((?:1|true)\)")


def code_of(text: str) -> str:
    """C without comments and strings; line numbers stay."""
    return re.sub(r'/\*.*?\*/|"(?:[^"\\\n]|\\.)*"', lambda match: "\n" * match[0].count("\n"), text, flags=re.DOTALL)


def long_functions(text: str, limit: int = 60) -> list[str]:
    """Functions of more lines than the limit; a function's braces stand in the first column."""
    found, start, name = [], 0, ""
    lines = code_of(text).splitlines()
    for number, line in enumerate(lines):
        if line == "{":
            start, name = number, next(before for before in reversed(lines[:number]) if re.match(r"\w", before))
        elif line == "}" and name:
            if number - start - 1 > limit:
                found.append(name)
            name = ""
    return found


def test_rules_of_the_source() -> None:
    for path in [*(to_c99.SOURCES / name for name in (to_c99.HEADER, *to_c99.CORE)), *to_c99.CSRC.glob("[!m]*.[ch]")]:
        text = path.read_text()
        assert FORBIDDEN.search(code_of(text)) is None, f"{path}: {FORBIDDEN.search(code_of(text))}"
        assert long_functions(text) == []
        assert max(map(len, text.splitlines())) <= to_c99.LINE


@pytest.mark.parametrize("breach", ["float x;", "goto end;", "for (;;)", "while (1)", "p = malloc(4);", "free(p);", "while (true)"])
def test_the_rules_catch(breach: str) -> None:
    assert FORBIDDEN.search(code_of(f"/* free */ {breach}"))
    assert not FORBIDDEN.search(code_of(f"/* {breach} */ \"{breach}\""))


def test_long_functions_are_seen() -> None:
    assert long_functions("int f(void)\n{\n" + "    x();\n" * 61 + "}\nint g(void)\n{\n" + "    x();\n" * 60 + "}\n") == ["int f(void)"]


def test_headers_come_once_and_templates_each_time(tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text('#include "h.h"\n#include "t.h"\n#include "t.h"\n#include <stddef.h>\nint a;\n')
    (tmp_path / "h.h").write_text("#ifndef REMAC_H_H\n#define REMAC_H_H\n#endif\n")
    (tmp_path / "t.h").write_text('#include "h.h"\nTEMPLATE\n')
    assert "".join(to_c99.inlined(tmp_path / "a.c", set())).split("\n") == [
        "#ifndef REMAC_H_H", "#define REMAC_H_H", "#endif", "TEMPLATE", "TEMPLATE", "#include <stddef.h>", "int a;", ""]


# ---- generator and README

def test_refuses_odd_channels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(small_network.WIDTHS, "side_mid", 18)
    small_network.write_small_model(tmp_path)
    assert flight_c.main(["--model", str(tmp_path), "-o", str(tmp_path / "out")]) == 1
    assert "side_mid: 18 channels, the C99 encoder needs a multiple of 4" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_refuses_what_is_not_there(tmp_path: Path, small_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert flight_c.main(["--profile", "rover-x", "-o", str(tmp_path)]) == 1
    assert "rover-x" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert flight_c.main(["--model", str(small_model), "-o", str(tmp_path / "file")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


README_PROGRAM = """
#include <stdio.h>
int32_t downlink_write(void *context, uint32_t offset, const uint8_t *data, uint32_t size)
{
    (void)context, (void)offset, (void)data, (void)size;
    return 0;
}
const uint8_t *camera_rows(uint32_t row)
{
    static const uint8_t rows[16 * 3 * 1600];
    (void)row;
    return rows;
}
int main(void)
{
    remac_flight_result result = {0};
    const int status = (int)encode_frame(&result);
    printf("%d %lu\\n", status, (unsigned long)result.bytes);
    return 0;
}
"""


def test_readme(folder: Path) -> None:
    text = (folder / "README.md").read_text()
    assert not re.search(r"@[A-Z_]+@", text)
    assert "header packet" not in " ".join(text.split())      # a stream has none
    snippet = re.search(r"```c\n(.*?)```", text, re.DOTALL)
    assert snippet
    (folder / "example.c").write_text("#include \"remac_flight.h\"\nremac_flight_status encode_frame(remac_flight_result *result);\n"
                                      + snippet[1] + README_PROGRAM)
    flight_checks.tool(["gcc", "-std=c99", "-O1", "-Wall", "-Wextra", "-Werror", "example.c", "remac_flight.c", "-o", "example"], folder)
    assert flight_checks.tool([folder / "example"], folder).split()[0] == str(Status.OK.value)      # also: the memory it declares is enough
    with pytest.raises(BadInput, match="NO_FIGURE"):
        c99_readme.fill("@NO_FIGURE@", {})


def test_the_check_on_a_host_of_the_readme(folder: Path, small_model: Path) -> None:
    """Its commands as printed, with the small model: the streams are equal, and with the references of the other line."""
    check = re.search(r"(?:^    (?:cc|\./flight_encode|remac|cmp) .*\n)+", (folder / "README.md").read_text(), re.MULTILINE)
    assert check and "build/small" in check[0]
    lines = re.sub(r"build/\S+", str(small_model), check[0])
    lines = lines.replace("    cc ", "    gcc ").replace("    remac ", f"    {sys.executable} -m remac_runtime ")
    write_pnm(folder / "picture.ppm", Picture(terrain(70, 90, 3)))
    for script in (lines, lines.replace("--quality", "--references chosen --quality", 1).replace(" --no-reference", "")):
        done = subprocess.run(["sh", "-e", "-c", script], cwd=folder, capture_output=True, text=True, check=False,
                              env={**os.environ, "PYTHONPATH": str(ROOT / "runtime")})
        assert done.returncode == 0, done.stdout + done.stderr
    script = lines.replace("--quality", "--references chosen --quality", 1)
    assert subprocess.run(["sh", "-e", "-c", script], cwd=folder, capture_output=True, check=False).returncode != 0


def test_the_licence_comes_along(folder: Path) -> None:
    assert (folder / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    named = re.findall(r"^\| `([\w.]+)` \|", (folder / "README.md").read_text().split("\n## ")[0], re.MULTILINE)
    assert named == ["remac_flight.h", "remac_flight.c", "flight_encode.c", "flight_symbols.c", "LICENSE"]


def test_requirements_name_tests() -> None:
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", c99_readme.TEMPLATE.read_text())
    assert len(named) > 15
    for file, name in named:
        assert re.search(rf"^def {name}\(", (ROOT / "tests" / file).read_text(), re.MULTILINE), f"{file} has no {name}"


def test_figures_in_the_readme_are_of_the_network(small_model: Path, tmp_path: Path) -> None:
    network = load_model(small_model).network
    build = {"processor": "P", "compiler": "c", "flags": "-O", "code_bytes": 1, "stack_bytes": 2345, "instructions_per_pixel": {"s": 1.0}}
    content = {"profile": "small", "widths": c99_readme.widths(network), "stages": ["s"], "builds": [build],
               "prediction": {"assumption": "guess", "boards": []}}
    path = tmp_path / "flight.json"
    path.write_text(json.dumps(content))
    assert c99_readme.measured(network, path) == content
    path.write_text(json.dumps({**content, "widths": {"stem": 1}}))
    assert c99_readme.measured(network, path) is None
    path.write_text("{")
    with pytest.raises(BadInput, match="damaged results"):
        c99_readme.measured(network, path)


def test_stages_of_counted_instructions() -> None:
    pushed = {"row": 600, "remac_crc32c": 10}
    whole = {"row": 1000, "remac_crc32c": 50, "remac_encode": 30, "remac_quantise": 7, "code_band": 3}
    assert benchmark.by_stage(pushed, whole, 10) == {"g_a, h_a": 61.0, "h_s, phases": 40.3, "quantise": 0.7, "rANS, packets": 7.0}
    assert sum(benchmark.by_stage(pushed, whole, 1).values()) == sum(whole.values())


def test_prediction() -> None:
    assert benchmark.FRAME == c99_readme.FRAME
    boards = benchmark.predict(10_000.0)["boards"]
    assert [board["clock_mhz"] for board in boards] == [133, 200]
    assert boards[1]["seconds"] == pytest.approx(10_000 * 1600 * 1216 / 200e6, abs=0.1)      # 1200 rows are padded to 1216
    assert boards[1]["joules"] == {"CPU": pytest.approx(486, abs=1), "board": pytest.approx(973, abs=1)}


@pytest.mark.parametrize("name", SOURCES[1:])
def test_programs_say_what_is_wrong(sanitized: Path, name: str) -> None:
    program = sanitized / Path(name).stem
    (sanitized / "bad.ppm").write_bytes(b"P6 4 4 255\nxx")
    for arguments in ([], [sanitized / "bad.ppm", sanitized / "x"], [sanitized / "missing", sanitized / "x"]):
        done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode in (1, 2)
        assert done.stderr.startswith(Path(name).stem) and done.stderr.count("\n") == 1


@pytest.mark.parametrize(("arguments", "message"), [
    ("--map 1600 1200 0", "--map BAND_ROWS: expected a whole number in 64..16320, a multiple of 64, found '0'"),
    ("--map 1600 1200 abc", "--map BAND_ROWS: expected a whole number in 64..16320, a multiple of 64, found 'abc'"),
    ("--map 1600 1200 96", "--map BAND_ROWS: expected"), ("--map 0 1200", "--map WIDTH: expected a whole number in 1..16384, found '0'"),
    ("--map 1600 16385", "--map HEIGHT: expected"), ("--map 1600 1200 128 2", "--map KEEP: expected a whole number in 0..1, found '2'"),
    ("--map 1600", "--map: expected WIDTH HEIGHT"), ("--map 1600 1200 128 1 5", "--map: expected WIDTH HEIGHT"),
    ("--quality foo in out", "--quality: expected a whole number in 0..63, found 'foo'"), ("--quality 64 in out", "--quality: expected"),
    ("--quality -1 in out", "--quality: expected"), ("--quality +1 in out", "--quality: expected"), ("--quality 3.5 in out", "--quality: expected"),
    ("--quality 0x in out", "--quality: expected"), ("--quality 4294967328 in out", "--quality: expected"),
    ("--target-bytes 60,000 in out", "--target-bytes: expected a whole number in 1..4294967295, found '60,000'"),
    ("--target-bytes 0 in out", "--target-bytes: expected"), ("--target-bytes 99999999999999999999999 in out", "--target-bytes: expected"),
    ("--band-rows 100 in out", "--band-rows: expected"), ("--strip-rows 8 in out", "--strip-rows: expected"),
    ("--image-id 0x100000000 in out", "--image-id: expected"), ("--references 1,2x in out", "--references: give"),
    ("--references 1 in out", "--references: give"), ("--references -1,2 in out", "--references: give"), ("--mosaic rgb in out", "--mosaic: give"),
    ("--speed 3 in out", "--speed: no such option"), ("--quality", "--quality: expected a value"), ("--keep in", "usage")])
def test_wrong_arguments_are_named(sanitized: Path, arguments: str, message: str) -> None:
    done = subprocess.run([sanitized / "flight_encode", *arguments.split()], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(f"flight_encode: {message}") and done.stderr.count("\n") == 1


def test_numbers_may_be_hexadecimal(sanitized: Path, encoder: Encoder) -> None:
    source = picture(64, 64)
    options, path = ["--image-id", "0xCafe1234", "--quality", "010"], write_pnm(sanitized / "in.pnm", source)
    subprocess.run([sanitized / "flight_encode", *options, path, sanitized / "out.rmc"], capture_output=True, check=True)
    assert (sanitized / "out.rmc").read_bytes() == encoder.encode(source, EncodeOptions(references=False, image_id=0xCAFE1234, quality=10))
