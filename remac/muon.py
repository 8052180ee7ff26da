"""Muon (K. Jordan et al., 2024): momentum whose matrix is orthogonalised by a Newton-Schulz iteration, for convolutions flattened to matrices.

torch.optim.Muon takes matrices only. Per step it learns here what Adam learns in about twice as many.
"""
from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


def orthogonalised(matrix: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrix, roughly (singular values within 0.7 to 1.2): float[m,n] -> float[m,n]."""
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix / (matrix.norm() + 1e-7)
    x = (x.T if tall else x).bfloat16()
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if tall else x).to(matrix.dtype)


def is_inner(name: str, parameter: nn.Parameter, outer: Collection[str]) -> bool:
    """Whether a parameter of a model is the weight of a convolution that Muon suits: from and to no pixels, and in no module of the names `outer`."""
    return parameter.ndim == 4 and 3 not in parameter.shape[:2] and not set(name.split(".")) & set(outer)


class Muon(torch.optim.Optimizer):
    """For parameters of two or more dimensions; the first is the output's."""

    def __init__(self, parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]], lr: float, momentum: float = 0.95) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                mean = self.state[parameter].setdefault("mean", torch.zeros_like(parameter))
                mean.lerp_(parameter.grad, 1 - group["momentum"])
                update = orthogonalised(parameter.grad.lerp(mean, group["momentum"]).flatten(1))
                scale = max(1.0, update.shape[0] / update.shape[1]) ** 0.5
                parameter.add_(update.reshape(parameter.shape), alpha=-group["lr"] * scale)
