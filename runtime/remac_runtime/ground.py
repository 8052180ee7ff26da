"""The ground decoder: latents to pixels with the replaceable float network `ground/decoder.onnx`, run by ONNX Runtime."""
from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from remac_runtime.errors import BadNetwork
from remac_runtime.format import LATENT_OFFSET, PHASES
from remac_runtime.model import DECODER_FILE, Model

TEXTURE_PLANE = (8, 8)      # a reference of 256x256 pixels


class GroundDecoder:
    """Opens the network on first use, so that a board without it can still decode latents."""

    def __init__(self, model: Model, threads: int = 1) -> None:
        self.path = model.folder / DECODER_FILE
        self.threads = threads
        self.session: Any = None

    def _open(self) -> Any:
        if not self.path.exists():
            raise BadNetwork(f"{self.path}: no ground decoder, so no pixels: build it with `make encoder` or copy ground/ beside the network")
        try:
            import onnxruntime
        except ImportError:
            raise BadNetwork("decoding pixels needs onnxruntime: pip install onnxruntime") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        return onnxruntime.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])

    def decode(self, y_hat: NDArray[np.int32], quality: int, texture: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Latents int32[h,w,M] at a quality, with the planes uint8[4,8,8,M] of a texture reference -> uint8[16h,16w,3]."""
        if self.session is None:
            self.session = self._open()
        share = np.array([0.0 if texture is None else 1.0], np.float32)
        planes = np.full((len(PHASES), *TEXTURE_PLANE, y_hat.shape[2]), LATENT_OFFSET, np.uint8) if texture is None else texture
        (pixels,) = self.session.run(None, {"y_hat": y_hat, "quality": np.array([quality], np.float32), "texture": planes, "share": share})
        result: NDArray[np.uint8] = pixels
        return result
