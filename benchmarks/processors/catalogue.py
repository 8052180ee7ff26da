"""Every runtime and processor of `make verify-all`, in groups, each with a recipe of one line; and why one cannot run here, if it cannot."""
from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.processors.setup import HERE, ROOT, Setup, cpu_flags, is_x86
from remac_runtime.backends.onnxruntime_backend import OPTIMISATION_LEVELS
from remac_runtime.verify.runtimes import Runtime

OLD_ORT = "1.19.2"
EMULATED_PIXELS = 256 * 256         # the largest picture that an emulator is given: every vector, and the small ones of the pictures
EMULATED_LIMIT_S = 600.0
_WORKER = "-m remac_runtime.verify.worker JOB.json"


def _engine(name: str, engine: str, unsupported: str = "") -> Runtime:
    return Runtime(name, engine, unsupported=unsupported, recipe=f"remac verify IMAGE --encode-with {engine} --decode-with {engine}")


def numpy_runtimes(setup: Setup) -> Iterator[Runtime]:
    yield _engine("reference, int64", "reference")
    yield _engine("numpy", "numpy")
    yield _engine("numpy, coder in NumPy", "numpy:native=0")
    yield _engine("numpy, strips of 64 rows", "numpy:strip_rows=64")


def onnxruntime_runtimes(setup: Setup) -> Iterator[Runtime]:
    for level in OPTIMISATION_LEVELS:
        for threads in (1, 2):
            yield _engine(f"onnxruntime, level {level}, threads {threads}", f"onnxruntime:level={level},threads={threads}")
    yield _engine("onnxruntime, strips of 128 rows", "onnxruntime:strip_rows=128")
    problem = setup.tree("ort", f"ort-{OLD_ORT}", OLD_ORT)
    python = str(setup.folder / f"ort-{OLD_ORT}" / "bin" / "python")
    recipe = f"benchmarks/processors/trees.sh ort build/ort {OLD_ORT}; build/ort/bin/python {_WORKER}"
    for level, threads in (*((level, 1) for level in OPTIMISATION_LEVELS), ("all", 2)):
        yield Runtime(f"onnxruntime {OLD_ORT}, level {level}, threads {threads}", f"onnxruntime:level={level},threads={threads}", (python,),
                      unsupported=problem, recipe=recipe)


def packaging_runtimes(setup: Setup) -> Iterator[Runtime]:
    for packaging in ("float", "qdq"):
        for level in ("disabled", "all"):
            yield _engine(f"onnxruntime, {packaging} packaging, level {level}", f"onnxruntime:packaging={packaging},level={level}")


def x86_runtimes(setup: Setup) -> Iterator[Runtime]:
    """Processors without the newer instruction sets: emulated, and where CPUID can be masked, at native speed."""
    problem = "" if is_x86() else "this is no x86 processor"
    emulator = problem or setup.commands("qemu-x86_64")
    for cpu, what in (("Haswell", "AVX2, no AVX-512, no VNNI"), ("Nehalem", "SSE4.2, no AVX")):
        # OpenBLAS in NumPy takes AVX code on a Nehalem with qemu's model number unless it is told
        environment = {"OPENBLAS_CORETYPE": cpu}
        for engine in ("onnxruntime", "numpy", "c99"):
            yield Runtime(f"{engine}, x86 {cpu} (qemu): {what}", engine, ("qemu-x86_64", "-cpu", cpu, sys.executable), environment,
                          timeout_s=EMULATED_LIMIT_S, max_pixels=EMULATED_PIXELS, unsupported=emulator,
                          recipe=f"OPENBLAS_CORETYPE={cpu} qemu-x86_64 -cpu {cpu} python {_WORKER}")
    library = setup.folder / "cpumask.so"
    if not problem and "cpuid_fault" not in cpu_flags():
        problem = "CPUID cannot be masked: the processor (or its virtual machine) has no flag cpuid_fault"
    problem = problem or setup.commands("gcc") or setup.compiled(library, ["gcc", "-O2", "-shared", "-fPIC"], [HERE / "cpumask.c"])
    for mask, what in (("avx512", "AVX-512 without VNNI"), ("haswell", "AVX2, no AVX-512"), ("nehalem", "SSE4.2, no AVX")):
        yield Runtime(f"onnxruntime, x86 masked: {what}", "onnxruntime", environment={"LD_PRELOAD": str(library.resolve()), "CPUMASK": mask},
                      unsupported=problem, recipe=f"CPUMASK={mask} LD_PRELOAD=./cpumask.so python {_WORKER}")


def arm64_runtimes(setup: Setup) -> Iterator[Runtime]:
    problem = setup.commands("debootstrap", "qemu-aarch64-static") or setup.tree("arm64", "arm64")
    tree = str(setup.folder / "arm64")
    recipe = "benchmarks/processors/trees.sh arm64 build/arm64; benchmarks/processors/arm64.sh build/arm64 {} " + _WORKER
    for cpu in ("cortex-a53", "neoverse-n1", "max"):
        for engine in ("onnxruntime", "numpy") if cpu == "cortex-a53" else ("onnxruntime",):
            yield Runtime(f"{engine}, ARM64 {cpu} (qemu)", engine, (str(HERE / "arm64.sh"), tree, cpu), timeout_s=EMULATED_LIMIT_S,
                          max_pixels=EMULATED_PIXELS, unsupported=problem, recipe=recipe.format(cpu))


def s390x_runtimes(setup: Setup) -> Iterator[Runtime]:
    problem = setup.commands("debootstrap", "qemu-s390x-static") or setup.tree("s390x", "s390x")
    root = setup.folder / "s390x" / "root"
    recipe = f"benchmarks/processors/trees.sh s390x build/s390x; qemu-s390x-static -L build/s390x/root build/s390x/root/usr/bin/python3 {_WORKER}"
    yield Runtime("numpy, big-endian s390x (qemu)", "numpy", ("qemu-s390x-static", "-L", str(root), str(root / "usr/bin/python3")),
                  timeout_s=EMULATED_LIMIT_S, max_pixels=EMULATED_PIXELS, unsupported=problem, recipe=recipe)


def torch_runtimes(setup: Setup) -> Iterator[Runtime]:
    yield _engine("torch, processor", "torch")
    for what, options in (("2 threads", "threads=2"), ("channels last", "layout=channels_last"), ("channels first", "layout=channels_first"),
                          ("float64", "dtype=float64"), ("mkldnn off", "mkldnn=0"), ("mkldnn off, channels last", "mkldnn=0,layout=channels_last")):
        yield _engine(f"torch, processor, {what}", f"torch:{options}")
    yield _engine("torch, CUDA, float64", "torch:device=cuda")


def c99_runtimes(setup: Setup) -> Iterator[Runtime]:
    """The C kernels of the Python extension, with each instruction set that this processor has."""
    yield _engine("c99 backend", "c99")
    yield _engine("c99 backend, threads 2", "c99:threads=2")
    for kernel, flag in (("portable", ""), ("sse41", "sse4_1"), ("avx2", "avx2"), ("avxvnni", "avx_vnni"), ("avx512vnni", "avx512_vnni")):
        missing = f"the processor has no {flag}" if flag and flag not in cpu_flags() else ""
        yield Runtime(f"c99 backend, {kernel} kernels", "c99", environment={"REMAC_KERNEL": kernel}, unsupported=missing,
                      recipe=f"REMAC_KERNEL={kernel} remac verify IMAGE --encode-with c99 --decode-with c99")


def tensorrt_runtimes(setup: Setup) -> Iterator[Runtime]:
    """Engines of the Q/DQ packaging are built here; only a GPU can run them."""
    facts = setup.folder / "tensorrt.json"
    command = [sys.executable, "-m", "benchmarks.processors.tensorrt_build", str(model_folder() / "qdq"), str(facts)]
    problem = setup.module("tensorrt_rtx") or setup.run(command, {"PYTHONPATH": f"{ROOT}:{ROOT / 'runtime'}"})
    built = {} if problem else json.loads(facts.read_text(encoding="utf-8"))
    problem = problem or built.get("error", "")
    reason = f"no engine could be built ({problem})" if problem else (
        f"TensorRT for RTX {built['version']} built engines of all {len(built['engines'])} graphs; no runner for them is part of this check, "
        "which needs an RTX GPU")
    yield Runtime("TensorRT, Q/DQ packaging", unsupported=reason,
                  recipe="pip install tensorrt_rtx; python -m benchmarks.processors.tensorrt_build build/rover-m/qdq OUT.json")


# name: (compiler and its flags, emulator)
FLIGHT: dict[str, tuple[str, str]] = {
    "x86-64, gcc -O0": ("gcc -O0", ""), "x86-64, gcc -O2": ("gcc -O2", ""), "x86-64, gcc -O3": ("gcc -O3", ""),
    "x86-64, gcc -O2 -mavx2, SIMD": ("gcc -O2 -mavx2 -DREMAC_SIMD=1", ""), "x86-64, clang -O2": ("clang -O2", ""),
    "x86-64, gcc, address and undefined-behaviour sanitizers": ("gcc -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all", ""),
    "ARM64 cortex-a53 (qemu), gcc -O2": ("aarch64-linux-gnu-gcc -O2 -static", "qemu-aarch64 -cpu cortex-a53"),
    "ARM64 cortex-a53 (qemu), gcc -O2, NEON": ("aarch64-linux-gnu-gcc -O2 -static -DREMAC_SIMD=1", "qemu-aarch64 -cpu cortex-a53"),
    "ARM64 neoverse-n1 (qemu), gcc -O2, dot products": ("aarch64-linux-gnu-gcc -O2 -static -march=armv8.2-a+dotprod -DREMAC_SIMD=1",
                                                        "qemu-aarch64 -cpu neoverse-n1"),
    "RISC-V 64 (qemu), gcc -O2": ("riscv64-linux-gnu-gcc -O2 -static", "qemu-riscv64"),
    "PPC750, big-endian (qemu), gcc -O2": ("powerpc-linux-gnu-gcc -O2 -mcpu=750 -static", "qemu-ppc -cpu 750"),
}


def flight_runtimes(setup: Setup) -> Iterator[Runtime]:
    """The flight encoder in C99, and the test tool that decodes to latents."""
    sources = setup.folder / "flight"
    problem = setup.run([sys.executable, str(ROOT / "export" / "flight_c.py"), "--model", str(model_folder()), "-o", str(sources)])
    for name, (compiler, emulator) in FLIGHT.items():
        command, prefix = compiler.split(), f"{emulator} " if emulator else ""
        folder = setup.folder / "flight-build" / re.sub(r"[^a-z0-9]+", "-", " ".join(command).lower())
        wrong = problem or ("" if is_x86() or not name.startswith("x86") else "this is no x86 processor")
        wrong = wrong or setup.commands(command[0], *emulator.split()[:1])
        wrong = wrong or _flight_programs(setup, command, sources, folder)
        encode, decode = f"{prefix}{folder / 'flight_encode'}", f"{prefix}{folder / 'flight_symbols'}"
        yield Runtime(f"flight encoder, {name}", encode=f"{encode} --quality {{quality}} --band-rows {{band_rows}} --references {{references}} "
                      "--mosaic {mosaic} [--image-id {image_id}] {input} {output}", decode=f"{decode} {{input}} {{output}}",
                      plain_streams=True, unsupported=wrong, timeout_s=EMULATED_LIMIT_S if emulator else None,
                      max_pixels=EMULATED_PIXELS if emulator else None,
                      recipe=f"python export/flight_c.py; {compiler} -std=c99 -o flight_encode flight_encode.c remac_flight.c; "
                             f"{prefix}./flight_encode IN.ppm OUT.rmc")


def _flight_programs(setup: Setup, command: list[str], sources: Path, folder: Path) -> str:
    header, encoder, flags = sources / "remac_flight.h", sources / "remac_flight.c", [*command, "-std=c99", "-I", str(sources)]
    problem = setup.compiled(folder / "flight_encode", flags, [sources / "flight_encode.c", encoder], [header])
    # flight_symbols.c includes the encoder
    return problem or setup.compiled(folder / "flight_symbols", flags, [sources / "flight_symbols.c"], [encoder, header])


def model_folder() -> Path:
    """The rover model that is verified."""
    return Path("build", "rover-m")


GROUPS: dict[str, tuple[str, Callable[[Setup], Iterator[Runtime]]]] = {
    "numpy": ("NumPy", numpy_runtimes), "onnxruntime": ("ONNX Runtime on this processor", onnxruntime_runtimes),
    "packagings": ("Float graphs that carry integers", packaging_runtimes), "x86": ("Older x86 processors", x86_runtimes),
    "arm64": ("ARM64", arm64_runtimes), "s390x": ("Big-endian Python", s390x_runtimes), "torch": ("PyTorch", torch_runtimes),
    "c99": ("C kernels of the runtime", c99_runtimes), "flight": ("Flight encoder in C99", flight_runtimes),
    "tensorrt": ("TensorRT", tensorrt_runtimes),
}
