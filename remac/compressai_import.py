"""The one place where compressai is imported.

compressai 1.2.8 imports torchvision, torch_geometric, pandas and others for its data sets and point-cloud transforms, none of which remac
uses and some of which do not load beside a CPU build of torch. Stand-ins are put into `sys.modules` for the duration of the import only:
left there they would break tools that look for torchvision later (torch.utils.flop_counter).
"""
from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Sequence
from typing import Any

STUBBED = ("torchvision", "torch_geometric", "pandas", "requests", "pytorch_msssim")
STUBBED_MODULES = ("compressai._CXX", "compressai.ans")     # compiled range coder: not used, and absent where the package travels as source


class _StandIn(types.ModuleType):
    """A module whose every public attribute is a class that does nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"__init__": lambda self, *args, **kwargs: None, "__call__": lambda self, value: value})


def _is_stubbed(name: str) -> bool:
    return name.split(".", maxsplit=1)[0] in STUBBED or name in STUBBED_MODULES


class _StandInFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None) -> importlib.machinery.ModuleSpec | None:
        if _is_stubbed(fullname):
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


def _import_with_stand_ins() -> types.ModuleType:
    finder = _StandInFinder()
    kept = {name: module for name, module in sys.modules.items() if _is_stubbed(name)}
    for name in kept:
        del sys.modules[name]
    sys.meta_path.insert(0, finder)
    try:
        import compressai.entropy_models
        return compressai.entropy_models
    finally:
        sys.meta_path.remove(finder)
        for name in [n for n in sys.modules if _is_stubbed(n)]:
            del sys.modules[name]
        sys.modules.update(kept)


_entropy_models = _import_with_stand_ins()
EntropyBottleneck = _entropy_models.EntropyBottleneck
GaussianConditional = _entropy_models.GaussianConditional

__all__ = ["EntropyBottleneck", "GaussianConditional"]
