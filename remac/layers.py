"""Blocks that have an integer twin.

Every block of the rover side runs in one of two modes. In float mode it is an ordinary layer. In integer mode its forward pass *is* the
normative arithmetic (FORMAT 5) carried in float32 or float64 tensors that hold integers, with straight-through gradients to the float weights.
Inputs are always centred (`value - offset`); exporting folds the offsets of the unsigned inputs into the bias.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from remac_runtime.format import ACTIVATION_MAX, HEAD_SHIFT_MIN, SHIFT_MAX, WEIGHT_MAX


class _Round(torch.autograd.Function):
    """Round half to even; the gradient passes unchanged."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return torch.round(x)

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        return grad


def round_through(x: Tensor) -> Tensor:
    """Round half to even in the forward pass, identity in the backward pass."""
    return _Round.apply(x)


def space_to_depth(x: Tensor, block: int) -> Tensor:
    """float[B,C,H,W] -> float[B,block*block*C,H/block,W/block]; output channel = (dy * block + dx) * C + c, so that HWC memory stays in runs."""
    b, c, h, w = x.shape
    x = x.reshape(b, c, h // block, block, w // block, block)
    return x.permute(0, 3, 5, 1, 2, 4).reshape(b, block * block * c, h // block, w // block)


def depth_to_space(x: Tensor, block: int) -> Tensor:
    """The inverse of `space_to_depth`."""
    b, c, h, w = x.shape
    c //= block * block
    x = x.reshape(b, block, block, c, h, w)
    return x.permute(0, 3, 4, 1, 5, 2).reshape(b, c, h * block, w * block)


class IntegerConv(nn.Module):
    """Convolution, 3x3 or 1x1, that becomes a QLinearConv (ReLU, uint8 out) or a MatMulInteger head (int32 out).

    Integer mode: `acc = conv(x, W) + B` with `W = clamp(round(weight * weight_scale), +-64)`, `B = round(bias * bias_scale)`, then for a ReLU layer
    `clamp(round_half_even(acc * 2**-shift), 0, 255)`. Without ReLU it returns `acc * 2**-shift` (exact in float32) for its user to round, since
    training wants the unrounded value too. `prepare` sets the scales from activation ranges. With `rounded` off it computes the same in real numbers:
    nothing is rounded, but what lies beyond +-64 or 0..255 is cut off all the same.

    Shapes: float[B,C_in,H,W] -> float[B,C_out,H/stride,W/stride].
    """

    input_scale: Tensor
    output_scale: Tensor
    shift: Tensor

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, relu: bool = True) -> None:
        super().__init__()
        self.kernel, self.stride, self.relu = kernel, stride, relu
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu" if relu else "linear")
        self.register_buffer("input_scale", torch.ones(inputs))    # integer units per float unit, of each input channel
        self.register_buffer("output_scale", torch.ones(outputs))  # the same of the outputs (a head: of the accumulator)
        self.register_buffer("shift", torch.zeros(outputs))
        self.integer, self.rounded = False, True

    def prepare(self, input_scale: Tensor, output_scale: Tensor | None = None) -> Tensor:
        """Fix the scales of integer mode; returns the output scale.

        The shift of each channel is the largest that keeps |W| <= 64. Without `output_scale` it is 0 and the accumulator itself is the output,
        on the scale that uses the whole range of the weights.
        """
        self.input_scale.copy_(input_scale)
        largest = (self.weight.detach() / input_scale[None, :, None, None]).abs().amax((1, 2, 3)).clamp_min(1e-9)
        if output_scale is None:
            self.output_scale.copy_(WEIGHT_MAX / largest)
        else:
            self.output_scale.copy_(output_scale)
            lowest = 0 if self.relu else HEAD_SHIFT_MIN
            self.shift.copy_(torch.floor(torch.log2(WEIGHT_MAX / (largest * output_scale))).clamp(lowest, SHIFT_MAX))
        return self.output_scale.clone()

    def exact_parameters(self) -> tuple[Tensor, Tensor]:
        """Weight and bias in integer units, before rounding."""
        gain = self.output_scale * torch.exp2(self.shift)
        return self.weight * gain[:, None, None, None] / self.input_scale[None, :, None, None], self.bias * gain

    def integer_parameters(self) -> tuple[Tensor, Tensor]:
        """(W, B) of integer mode, integers in the parameters' dtype, differentiable straight through."""
        weight, bias = self.exact_parameters()
        weight = weight.clamp(-WEIGHT_MAX, WEIGHT_MAX)
        return (round_through(weight), round_through(bias)) if self.rounded else (weight, bias)

    def _convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        if self.kernel == 1:   # on a CPU a matrix product is several times faster than a 1x1 convolution in float32
            return F.linear(x.permute(0, 2, 3, 1), weight[:, :, 0, 0]).permute(0, 3, 1, 2)
        return F.conv2d(x, weight, None, self.stride, self.kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        if not self.integer:
            x = self._convolve(x, self.weight) + self.bias[:, None, None].to(x.dtype)
            return F.relu(x) if self.relu else x
        weight, bias = self.integer_parameters()
        x = (self._convolve(x, weight) + bias[:, None, None]) * torch.exp2(-self.shift)[:, None, None]
        if not self.relu:
            return x
        x = x.clamp(0, ACTIVATION_MAX)
        return round_through(x) if self.rounded else x
