"""Who may import whom. A board installs numpy and the runtime alone, calibration and export meet only in the network file, and nothing leans on
benchmarks or tests; each rule is shown to catch its own breach."""
from __future__ import annotations

import ast
import fnmatch
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = {"remac_runtime", "remac", "calibration", "export", "benchmarks", "boards", "tests"}


@dataclass(frozen=True)
class Rule:
    """`anywhere`: packages that any module of the folder may import (beside the standard library); `inside`: only within a function;
    `only_in`: only in modules whose name matches the pattern, at any place. A `*` in `inside` allows every package that is not ours."""

    anywhere: frozenset[str]
    inside: frozenset[str] = frozenset()
    only_in: dict[str, tuple[str, ...]] = field(default_factory=dict)


RULES = {
    "runtime/remac_runtime": Rule(frozenset({"numpy", "remac_runtime"}), frozenset({"onnxruntime", "torch", "PIL", "dask", "tqdm"})),
    "remac": Rule(frozenset({"torch", "numpy", "PIL", "remac", "remac_runtime"}), frozenset({"tqdm", "matplotlib", "safetensors"}),
                  {"compressai": ("compressai_import",), "safetensors": ("weights",)}),
    "calibration": Rule(frozenset({"torch", "numpy", "calibration", "remac", "remac_runtime"}), frozenset({"tqdm", "PIL"})),
    "export": Rule(frozenset({"numpy", "export", "remac_runtime"}),
                   frozenset({"remac", "torch", "onnx", "onnxsim", "onnxruntime", "fvcore", "tensorrt", "PIL"}),
                   dict.fromkeys(("remac", "torch", "onnx", "onnxsim"), ("to_*", "onnx_*"))),
    "benchmarks": Rule(frozenset({"numpy", "scipy", "PIL", "tqdm", "benchmarks", "remac_runtime"}), frozenset({"*", "remac", "calibration"}),
                       dict.fromkeys(("remac", "torch"), ("enhance*",))),      # ground networks are compared in PyTorch
}


def imports(source: str) -> Iterator[tuple[int, str, bool]]:
    """(line, top-level package, whether inside a function or for type checkers only) of every import."""
    def visit(node: ast.AST, inside: bool) -> Iterator[tuple[int, str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((child.lineno, alias.name.split(".")[0], inside) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                yield child.lineno, (child.module or "").split(".")[0] if not child.level else "a relative import", inside
            typing_only = isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING")
            yield from visit(child, inside or typing_only or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)))
    yield from visit(ast.parse(source), False)


def breaches(folder: str, module: str, source: str) -> list[str]:
    """What in a module of a folder breaks its rule."""
    rule, found = RULES[folder], []
    for line, package, inside in imports(source):
        patterns = rule.only_in.get(package, ())
        lazily = package in rule.inside or ("*" in rule.inside and package not in OURS)
        allowed = (package in sys.stdlib_module_names or package in rule.anywhere or (inside and lazily)
                   or any(fnmatch.fnmatch(module, pattern) for pattern in patterns))
        if not allowed:
            found.append(f"{folder}/{module}.py:{line}: {package}{'' if inside else ' at the top of the module'}")
    return found


def modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("folder", RULES)
def test_modules_import_only_what_their_folder_may(folder: str) -> None:
    assert modules(folder), f"{folder} has no modules: was it renamed?"
    found = [breach for path in modules(folder) for breach in breaches(folder, path.stem, path.read_text())]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(("folder", "module", "source"), [
    ("runtime/remac_runtime", "codec", "import onnxruntime"),
    ("runtime/remac_runtime", "codec", "try:\n    from PIL import Image\nexcept ImportError:\n    pass"),
    ("runtime/remac_runtime", "codec", "def f():\n    import scipy"),
    ("runtime/remac_runtime", "codec", "class A:\n    import torch"),
    ("runtime/remac_runtime", "codec", "def f():\n    from remac.codec import Codec"),
    ("runtime/remac_runtime", "codec", "from . import rans"),
    ("remac", "codec", "from export.to_onnx import export"), ("remac", "layers", "import compressai.entropy_models"),
    ("remac", "codec", "def f():\n    import benchmarks.rd"),
    ("calibration", "tables", "import export"), ("export", "to_onnx", "from calibration import tables"),
    ("export", "rover_encoder", "import torch"), ("export", "rover_encoder", "import numpy, onnx"),
    ("benchmarks", "rd", "import tests.conftest"), ("benchmarks", "rd", "def f():\n    import export"),
])
def test_each_breach_is_found(folder: str, module: str, source: str) -> None:
    assert breaches(folder, module, source)


def test_what_the_rules_allow() -> None:
    assert not breaches("runtime/remac_runtime", "ground", "import json\nimport numpy as np\ndef f():\n    import onnxruntime")
    assert not breaches("runtime/remac_runtime", "m", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from PIL import Image")
    assert not breaches("export", "to_onnx", "import onnx")
    assert not breaches("remac", "compressai_import", "def f():\n    import compressai.entropy_models")


def test_no_file_is_named_after_a_dependency() -> None:
    """A script's own folder comes first on the path, so `export/onnx.py` would hide the real onnx."""
    dependencies = {name for rule in RULES.values() for name in rule.anywhere | rule.inside | set(rule.only_in)} | set(sys.stdlib_module_names)
    clashes = [path for folder in RULES if folder != "runtime/remac_runtime" for path in modules(folder) if path.stem in dependencies - {"__main__"}]
    assert not clashes
