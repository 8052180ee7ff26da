"""References for training: patches of the training pictures, coded once by the integer codec, the nearest chosen by descriptors (FORMAT 5.4)."""
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from remac.codec import Analysed, Codec, Latents, References, merge_phases
from remac_runtime.format import LATENT_OFFSET, PHASES

REFERENCE_PIXELS = 256          # sides of a reference, in the bank too
REFERENCE_QUALITY = 44


@dataclass(frozen=True)
class ReferencePool:
    """R coded patches of 256x256: see References; descriptors float[R,C] are channel means of the body and deep features."""

    planes: Tensor
    z: Tensor
    latents: Tensor
    texture: Tensor
    semantic: Tensor

    def nearest(self, analysed: Analysed, share: Tensor) -> References:
        """The semantic reference by L1 on deep features, the texture reference by L2 on shallow ones."""
        semantic = torch.cdist(analysed.deep.float().mean((2, 3)), self.semantic, p=1).argmin(1)
        texture = torch.cdist(analysed.shallow.float().mean((2, 3)), self.texture).argmin(1)
        return References(self.planes[semantic], self.z[semantic], self.latents[texture], share)


@torch.no_grad()
def code_pool(codec: Codec, patches: Tensor) -> ReferencePool:
    """Code float[R,3,256,256] in integer mode, without references themselves, at REFERENCE_QUALITY."""
    training = codec.training
    codec.eval()
    analysed = codec.analysis(patches)
    z = torch.round(analysed.z.clamp(-LATENT_OFFSET, LATENT_OFFSET - 1))
    log_gain = codec.gains(torch.full((len(patches),), REFERENCE_QUALITY, device=patches.device))[:, :, None, None]
    planes = torch.cat(codec.code_latents(Latents(analysed.y, z, log_gain, None), noisy=False)[2], 1)
    codec.train(training)
    return ReferencePool(planes, z, latents_of(codec, planes), analysed.shallow.mean((2, 3)), analysed.deep.mean((2, 3)))


def latents_of(codec: Codec, planes: Tensor) -> Tensor:
    """Centred planes of the four phases float[R,4M,h,w] -> latents in latent units float[R,M,2h,2w]."""
    unit = codec.analysis.head.output_scale * torch.exp2(-codec.context_shift)
    return merge_phases([plane / unit[:, None, None] for plane in planes.chunk(len(PHASES), 1)])
