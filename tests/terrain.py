"""The synthetic terrain of the runtime, under the name that the tests know."""
from __future__ import annotations

from remac_runtime.terrain import hashed, terrain

__all__ = ["hashed", "terrain"]
