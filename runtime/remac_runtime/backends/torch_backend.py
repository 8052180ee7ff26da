"""The network in PyTorch, for machines that have it anyway (training, ground stations), on a processor or a GPU."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from remac_runtime import topology
from remac_runtime.backends.base import Array, Backend
from remac_runtime.errors import RemacError
from remac_runtime.format import ACTIVATION_MAX, LATENT_OFFSET
from remac_runtime.network import Layer, Network


class TorchOps(topology.Ops[Any]):
    """Tensors are [n,c,h,w], floats that hold integers. float32 is exact below ACCUMULATOR_LIMIT = 2^24 on processors; on GPUs float64 is used, which
    has no TF32 and no Winograd kernels."""

    def __init__(self, device: str = "cpu") -> None:
        import torch
        self.torch: Any = torch
        self.device = torch.device(device)
        self.dtype: Any = torch.float32 if self.device.type == "cpu" else torch.float64
        self._prepared: dict[str, tuple[Any, Any, Any]] = {}

    def load(self, x: Array) -> Any:
        """[n,h,w,c] -> tensor."""
        return self.torch.from_numpy(x.copy() if not x.flags.writeable else x).to(self.device).to(self.dtype).permute(0, 3, 1, 2)

    def store(self, x: Any, head: bool) -> Array:
        """Tensor -> int32 or uint8 [n,h,w,c]."""
        stored: Array = x.permute(0, 2, 3, 1).to(self.torch.int32 if head else self.torch.uint8).contiguous().cpu().numpy()
        return stored

    def _prepare(self, layer: Layer) -> tuple[Any, Any, Any]:
        if layer.name not in self._prepared:
            values = (layer.weight.transpose(0, 3, 1, 2), layer.bias, np.ldexp(1.0, -layer.shift.astype(np.int32)).reshape(1, -1, 1, 1))
            weight, bias, scale = (self.torch.from_numpy(np.array(value)).to(self.device, self.dtype) for value in values)
            self._prepared[layer.name] = weight, bias, scale
        return self._prepared[layer.name]

    def layer(self, layer: Layer, *inputs: Any) -> Any:
        weight, bias, scale = self._prepare(layer)
        x = inputs[0] if len(inputs) == 1 else self.torch.cat(inputs, 1)
        acc = self.torch.nn.functional.conv2d(x, weight, bias, layer.stride, weight.shape[-1] // 2)
        return acc if layer.head else acc.mul_(scale).round_().clamp_(0, ACTIVATION_MAX)      # round_ is half to even (FORMAT 5.1)

    def space_to_depth(self, x: Any, block: int) -> Any:
        n, c, h, w = x.shape
        split = x.reshape(n, c, h // block, block, w // block, block)
        return split.permute(0, 3, 5, 1, 2, 4).reshape(n, block * block * c, h // block, w // block)

    def repeat2x2(self, x: Any) -> Any:
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

    def neighbour(self, x: Any, rows: int, columns: int) -> Any:
        h, w = x.shape[2:]
        padded = self.torch.nn.functional.pad(x, (1, 1, 1, 1), value=LATENT_OFFSET)
        return padded[:, :, 1 + rows:1 + rows + h, 1 + columns:1 + columns + w]

    def join(self, x: Any) -> Any:
        return x.reshape(1, -1, *x.shape[2:])


@contextmanager
def exact(torch: Any, threads: int) -> Iterator[None]:
    """No gradients, and NNPACK off, whose Winograd kernels (batches of 16 and more) sum in fractions; both restored afterwards.

    bfloat16 and TF32 short cuts would do no harm: activations of 8 bits and weights of 7 fit them, and they add up in float32.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode(), torch.backends.nnpack.flags(enabled=False):
            yield
    finally:
        torch.set_num_threads(before)


class TorchBackend(Backend):
    """`device` as torch names it: cpu, cuda, cuda:1."""

    name = "torch"

    def __init__(self, network: Network, threads: int = 1, device: str = "cpu") -> None:
        super().__init__(network)
        try:
            import torch
        except ImportError:
            raise RemacError("the torch backend needs torch: install it, or choose the numpy backend") from None
        try:
            torch.zeros(1, device=device)
        except (RuntimeError, AssertionError) as error:
            raise RemacError(f"torch has no device {device!r} here ({(str(error).splitlines() or ['unknown'])[0]})") from None
        self._torch, self._threads, self._ops = torch, threads, TorchOps(device)

    def compute(self, graph: str, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
        with exact(self._torch, self._threads):
            outputs = topology.run(self._ops, self.network, graph, [self._ops.load(x) for x in inputs])
            return tuple(self._ops.store(x, self.network.layers[name].head) for name, x in zip(topology.OUTPUTS[graph], outputs, strict=True))
