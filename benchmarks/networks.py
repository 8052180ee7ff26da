"""Networks that are timed for their cost only: encoders of published learned codecs, untrained, and our own analysis in float32.

Everything is float32 through PyTorch or ONNX Runtime, one thread. The published ones run pixels -> latents, rounding and entropy parameters, without
an entropy coder: their time is a lower bound. Weights are random, which changes no time; of rate and quality they say nothing.
"""
from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from remac_runtime import topology
from remac_runtime.files import replacing
from remac_runtime.network import Layer, Network

if TYPE_CHECKING:
    import torch

OPSET = 17
PADDING = 64
PUBLISHED = {               # name: title, class in compressai.models, its arguments
    "bmshj2018-factorized": ("bmshj2018-factorized, N 128", "google.FactorizedPrior", (128, 192)),
    "bmshj2018-hyperprior": ("bmshj2018-hyperprior, N 128", "google.ScaleHyperprior", (128, 192)),
    "mbt2018-mean": ("mbt2018-mean, N 128", "google.MeanScaleHyperprior", (128, 192)),
    "cheng2020-anchor": ("cheng2020-anchor, N 128", "waseda.Cheng2020Anchor", (128,)),
    "elic": ("ELIC", "sensetime.Elic2022Official", ()),
}


@dataclass(frozen=True)
class Timed:
    """A network ready to run on one picture; `mac_per_pixel` counted by hooks on its convolutions."""

    name: str
    title: str
    run: Callable[[], object]
    mac_per_pixel: float


def padded(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8[1,H,W,3], H and W multiples of 64."""
    rows, columns = (-n % PADDING for n in pixels.shape[:2])
    return np.ascontiguousarray(np.pad(pixels, ((0, rows), (0, columns), (0, 0)), "edge")[None])


def session(path: Path) -> Any:
    """ONNX Runtime with one thread."""
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def export(module: torch.nn.Module, pixels: NDArray[np.uint8], path: Path) -> Path:
    """Write `module` for pictures of this size, uint8[1,H,W,3], as ONNX; the file appears whole or not at all."""
    import torch
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (torch.from_numpy(pixels),), str(temporary), dynamo=False, opset_version=OPSET, input_names=["pixels"])
    return path


def count_mac(module: torch.nn.Module, side: int = 4 * PADDING) -> float:
    """Multiply-accumulates a pixel in convolutions, from the sizes that hooks see."""
    import torch
    total = 0.0

    def seen(layer: Any, inputs: Any, output: torch.Tensor) -> None:
        nonlocal total
        positions = inputs[0] if isinstance(layer, torch.nn.ConvTranspose2d) else output
        total += layer.weight.numel() * positions.shape[-1] * positions.shape[-2]
    convolutions = (torch.nn.Conv2d, torch.nn.ConvTranspose2d)
    hooks = [layer.register_forward_hook(seen) for layer in module.modules() if isinstance(layer, convolutions)]
    with torch.inference_mode():
        module(torch.zeros(1, side, side, 3, dtype=torch.uint8))
    for hook in hooks:
        hook.remove()
    return total / side ** 2


# ---- published codecs

def _fixed_gdn(module: torch.nn.Module) -> None:
    """Replace every GDN by the convolution that it is: its parameters are reparametrised by a function that cannot be exported."""
    import torch
    from compressai.layers import GDN

    class Fixed(torch.nn.Module):
        def __init__(self, layer: Any) -> None:
            super().__init__()
            beta, gamma = layer.beta_reparam(layer.beta).detach(), layer.gamma_reparam(layer.gamma).detach()
            self.norm = torch.nn.Conv2d(len(beta), len(beta), 1)
            self.norm.weight.data, self.norm.bias.data = gamma[:, :, None, None].clone(), beta.clone()     # type: ignore[union-attr]
            self.inverse = layer.inverse

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            norm = self.norm(x * x)
            return x * (torch.sqrt(norm) if self.inverse else torch.rsqrt(norm))

    for name, child in module.named_children():
        if isinstance(child, GDN):
            setattr(module, name, Fixed(child))
        else:
            _fixed_gdn(child)


def _elic_parameters(codec: Any, y: torch.Tensor) -> list[torch.Tensor]:
    """Entropy parameters of ELIC's channel groups: hyperprior, earlier groups, and the checkerboard's neighbours (He et al. 2022, section 3)."""
    import torch
    side = codec.hyper.h_s(torch.round(codec.hyper.h_a(y)))
    groups = torch.split(torch.round(y), codec.y.groups, 1)
    found = []
    for k, group in enumerate(groups):
        part = codec.y.latent_codec[f"y{k}"]
        context = [codec.y.channel_context[f"y{k}"](torch.cat(groups[:k], 1) if _sees_all(codec, k) else groups[k - 1])] if k else []
        found.append(part.entropy_parameters(torch.cat([part.context_prediction(group), *context, side], 1)))
    return found


def _sees_all(codec: Any, k: int) -> bool:
    """Whether the channel context of group k takes all earlier groups, or the one before it."""
    return bool(codec.y.channel_context[f"y{k}"][0].in_channels == sum(codec.y.groups[:k]))


def published(name: str) -> torch.nn.Module:
    """The encoder side of a codec of PUBLISHED as a module: uint8[1,H,W,3] to rounded latents and entropy parameters."""
    import importlib

    import torch

    import remac.compressai_import  # noqa: F401  (makes compressai importable)
    _, place, arguments = PUBLISHED[name]
    module, _, kind = place.partition(".")
    torch.manual_seed(1)
    model = getattr(importlib.import_module(f"compressai.models.{module}"), kind)(*arguments).eval()
    _fixed_gdn(model)

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
            y = self.model.g_a(pixels.permute(0, 3, 1, 2).to(torch.float32) / 255)
            if name == "elic":
                return (torch.round(y), *_elic_parameters(self.model.latent_codec, y))
            if not hasattr(self.model, "h_a"):
                return (torch.round(y),)
            z = self.model.h_a(torch.abs(y) if name == "bmshj2018-hyperprior" else y)
            side = self.model.h_s(torch.round(z))
            if hasattr(self.model, "context_prediction"):
                side = self.model.entropy_parameters(torch.cat([side, self.model.context_prediction(torch.round(y))], 1))
            return torch.round(y), torch.round(z), side
    return Encoder().eval()


def published_systems(names: Sequence[str], pixels: NDArray[np.uint8], folder: Path) -> list[Timed]:
    """Exported into `folder` where they are not there yet."""
    picture, systems = padded(pixels), []
    for name in names:
        path, module = folder / f"{name}-{picture.shape[2]}x{picture.shape[1]}.onnx", published(name)
        if not path.exists():
            export(module, picture, path)
        systems.append(Timed(name, PUBLISHED[name][0], _runner(session(path), picture), count_mac(module)))
    return systems


def _runner(engine: Any, picture: NDArray[np.uint8]) -> Callable[[], object]:
    return lambda: engine.run(None, {"pixels": picture})


# ---- our own analysis in float32

def twin(network: Network) -> torch.nn.Module:
    """g_a and h_a of a network (FORMAT 5.3) as a float network: the same layers and sizes, ReLU in place of the saturation, no rounding."""
    import torch

    # The operations that `topology.analysis` asks for.
    class FloatOps:
        def __init__(self, layers: dict[str, torch.nn.Conv2d]) -> None:
            self.layers = layers

        def layer(self, layer: Layer, *inputs: Any) -> Any:
            x = self.layers[layer.name](inputs[0] if len(inputs) == 1 else torch.cat(inputs, 1))
            return x if layer.head else torch.relu(x)

        def space_to_depth(self, x: Any, block: int) -> Any:
            return torch.nn.functional.pixel_unshuffle(x, block)

    class Twin(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name in ("stem", "body", "reduce", "deep", "head", "hyper_in", "hyper_out"):
                layer = network.layers[name]
                kernel = layer.weight.shape[1]
                convolution = torch.nn.Conv2d(layer.weight.shape[3], len(layer.bias), kernel, layer.stride, kernel // 2)
                scale = np.ldexp(1.0, -layer.shift.astype(np.int32))
                convolution.weight.data = torch.from_numpy((layer.weight.transpose(0, 3, 1, 2) * scale.reshape(-1, 1, 1, 1)).astype(np.float32))
                convolution.bias.data = torch.from_numpy((layer.bias * scale).astype(np.float32))     # type: ignore[union-attr]
                self.add_module(name, convolution)
            self.ops = FloatOps({name: layer for name, layer in self.named_children() if isinstance(layer, torch.nn.Conv2d)})

        def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return topology.analysis(cast(topology.Ops[Any], self.ops), network, pixels.permute(0, 3, 1, 2).to(torch.float32))
    return Twin().eval()


def own_float_systems(network: Network, pixels: NDArray[np.uint8], folder: Path) -> list[Timed]:
    """Our g_a and h_a in float32 through PyTorch and through ONNX Runtime."""
    import torch
    module, picture = twin(network), padded(pixels)
    engine = session(export(module, picture, folder / "twin.onnx"))
    tensor = torch.from_numpy(picture)

    def eager() -> object:
        with torch.inference_mode():
            return module(tensor)

    mac = count_mac(module)
    return [Timed("float-torch", "our g_a and h_a, float32, PyTorch", eager, mac),
            Timed("float-onnx", "our g_a and h_a, float32, ONNX Runtime", _runner(engine, picture), mac)]
