"""Teach an autoencoder the tabletop on crops around the solids: where the edges are, the decibels are.

The loss is the mean absolute difference plus that of the gradients at three scales (blur is what L1 alone forgives),
and a whisper of KL that keeps the latents centred. Left to itself such a network paints grey for a thousand steps before
it finds colour, so differences are taken in opponent colours, and at first three latent channels are anchored to a
thumbnail of the picture in these colours. The decoder can be
trained alone, on an encoder others rely on.
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional as F

from infuse.tabletop.dataset import Dataset
from infuse.tabletop.render import FIRST_THING

# brightness, red-green and yellow-blue: orthonormal, colour counted twice, since it varies half as much as brightness does
OPPONENT = (
    torch.tensor([[1.0, 1.0, 1.0], [1.0, -1.0, 0.0], [1.0, 1.0, -2.0]]) * torch.tensor([[1 / 3], [2.0], [2 / 3]]).sqrt()
)


@torch.no_grad()
def tabletop_vae() -> AutoencoderKL:
    """Stable Diffusion's autoencoder (8 pixels to a latent, 4 channels) in a small edition of 2.7 M parameters."""
    vae = AutoencoderKL(  # its annotations say tuple[str] where tuples of any length are meant
        down_block_types=("DownEncoderBlock2D",) * 4,  # type: ignore[arg-type]
        up_block_types=("UpDecoderBlock2D",) * 4,  # type: ignore[arg-type]
        block_out_channels=(16, 32, 64, 128),  # type: ignore[arg-type]
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=128,
    )
    nn.init.constant_(vae.quant_conv.bias[4:], -4.0)  # type: ignore[union-attr,index]  # log variance: begin with little noise
    return vae


class VaeObjective:
    """Reconstruction of crops, `crop` pixels wide. `decoder_only` freezes the encoder and feeds the decoder its means.

    `anchor` weighs the pull of the first three latent channels to `thumbnail`: 1 for the first few hundred steps, then 0.
    `noise` is the standard deviation of what is added to the latents, relative to theirs, when only the decoder learns:
    it will be fed a diffusion model's latents, which are never quite an encoder's.
    """

    def __init__(
        self, vae: AutoencoderKL, data: Dataset, *, batch_size: int = 64, crop: int = 64, kl: float = 1e-6,
        anchor: float = 0.0, decoder_only: bool = False, noise: float = 0.0,
    ) -> None:  # fmt: skip
        self.vae, self.data = vae, data
        self.batch_size, self.crop, self.kl, self.anchor = batch_size, crop, kl, anchor
        self.decoder_only, self.noise = decoder_only, noise

    def modules(self) -> Mapping[str, nn.Module]:
        """The whole autoencoder, or its decoder's half."""
        decoder = {"decoder": self.vae.decoder, "post_quant_conv": self.vae.post_quant_conv}
        encoder = {"encoder": self.vae.encoder, "quant_conv": self.vae.quant_conv}
        return decoder if self.decoder_only else decoder | encoder

    def batch(self, rng: np.random.Generator) -> Tensor:
        """(b, 3, crop, crop) in -1..1; three crops in four hold part of a solid's outline."""
        picks = rng.integers(len(self.data), size=self.batch_size)
        return to_input(np.stack([self._crop(int(i), rng) for i in picks]))

    def _crop(self, index: int, rng: np.random.Generator) -> np.ndarray:
        rgb, size = self.data.rgb[index], self.crop
        limit = rgb.shape[0] - size
        top, left = rng.integers(limit + 1, size=2)
        if rng.random() < 0.75:
            rows, columns = np.nonzero((self.data.edges[index] > 0) & (self.data.segments[index] >= FIRST_THING))
            if len(rows):
                pick = rng.integers(len(rows))
                top = np.clip(rows[pick] - rng.integers(size), 0, limit)
                left = np.clip(columns[pick] - rng.integers(size), 0, limit)
        return rgb[top : top + size, left : left + size]

    def loss(self, batch: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """L1, gradient differences at full, half and quarter size, and KL."""
        with torch.set_grad_enabled(not self.decoder_only):
            posterior = self.vae.encode(batch).latent_dist  # type: ignore[union-attr]
        if self.decoder_only:
            z = posterior.mean.float()
            z = z + self.noise * z.std() * torch.randn(z.shape, generator=generator)
            kl = torch.zeros(())
        else:
            z = posterior.sample(generator)
            kl = posterior.kl().mean() / z[0].numel()
        error = self.vae.decode(z).sample.float() - batch  # type: ignore[union-attr]
        difference = torch.einsum("ij,bjhw->bihw", OPPONENT, error)
        l1 = difference.abs().mean()
        total = l1 + _gradients(difference) + self.kl * z[0].numel() * kl
        if self.anchor:
            total = total + self.anchor * F.mse_loss(posterior.mean[:, :3].float(), thumbnail(batch))
        psnr = 10 * math.log10(4 / float(error.detach().square().mean()))
        return total, {"l1": float(l1.detach()), "kl": float(kl.detach()), "psnr": psnr}


def _gradients(difference: Tensor) -> Tensor:
    total = torch.zeros(())
    for scale in (1, 2, 4):
        d = F.avg_pool2d(difference, scale) if scale > 1 else difference
        total = total + (d[..., 1:] - d[..., :-1]).abs().mean() + (d[..., 1:, :] - d[..., :-1, :]).abs().mean()
    return total


def thumbnail(pictures: Tensor) -> Tensor:
    """(b, 3, h, w) in -1..1 to (b, 3, h/8, w/8): brightness, red-green and yellow-blue, each of about unit variance."""
    r, g, b = F.avg_pool2d(pictures, 8).unbind(1)
    return torch.stack([1.2 * (r + g + b), 6.0 * (r - g), 4.0 * ((r + g) / 2 - b)], 1)


def to_input(rgb: np.ndarray) -> Tensor:
    """(b, h, w, 3) uint8 to (b, 3, h, w) float32 in -1..1."""
    return torch.from_numpy(np.array(rgb)).permute(0, 3, 1, 2).float().div(127.5).sub(1)


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, pictures: Tensor, batch_size: int = 32) -> Tensor:
    """Whole pictures (b, 3, h, w) in -1..1 through the posterior's mean and back, clamped to -1..1."""
    parts = [
        vae.decode(vae.encode(part).latent_dist.mean).sample  # type: ignore[union-attr]
        for part in pictures.split(batch_size)
    ]
    return torch.cat(parts).clamp(-1, 1)


def psnr(pictures: Tensor, others: Tensor) -> float:
    """Mean over pictures of the peak signal-to-noise ratio in decibels; both (b, 3, h, w) in -1..1."""
    error = (pictures - others).square().flatten(1).mean(1)
    return float((10 * torch.log10(4 / error)).mean())


@torch.no_grad()
def latent_means(vae: AutoencoderKL, data: Dataset | np.ndarray, batch_size: int = 64) -> np.ndarray:
    """(n, 4, h/8, w/8) float16: the posterior means of every picture (n h w 3), not yet scaled."""
    parts, rgb = [], data if isinstance(data, np.ndarray) else data.rgb
    for start in range(0, len(rgb), batch_size):
        part = to_input(rgb[start : start + batch_size])
        parts.append(vae.encode(part).latent_dist.mean.half().numpy())  # type: ignore[union-attr]
    return np.concatenate(parts)


@torch.no_grad()
def rebuilt(vae: AutoencoderKL, data: Dataset, count: int, noise: float = 0.2, seed: int = 1) -> np.ndarray:
    """(count h w 3) uint8: the first pictures decoded from their latents with noise of up to that relative strength."""
    rng, generator, out = np.random.default_rng(seed), torch.Generator().manual_seed(seed), []
    for start in range(0, count, 50):
        z = vae.encode(to_input(data.rgb[start : min(start + 50, count)])).latent_dist.mean.float()  # type: ignore[union-attr]
        strength = torch.from_numpy(rng.choice([0, noise / 4, noise / 2, noise], (len(z), 1, 1, 1))).float()
        z = z + strength / vae.config["scaling_factor"] * torch.randn(z.shape, generator=generator)
        pictures = vae.decode(z).sample.float().clamp(-1, 1)  # type: ignore[union-attr]
        out.append(((pictures + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy())
    return np.concatenate(out)
