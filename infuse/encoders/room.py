"""How much memory does a VAE take beside its weights, and is there as much on its device now? No torch is asked about a CPU.

Values that are held at a time, for each pixel and each channel of its first level: of a whole map 7.5 measured on a CPU in float32
(six tensors, and what convolutions take beside them); in strips (`encoders.strips`) four tensors.
"""

from __future__ import annotations

from infuse import processor

WHOLE, STRIPS = 8, 5


def decoding(width: int, pixels: int, each: int, values: int = WHOLE) -> int:
    """Bytes of decoding so many pixels, or of encoding them, which takes less. width: channels of the first level; each: bytes of a
    number."""
    return values * width * pixels * each


def free(device: str) -> int:
    """Bytes that could be had on the device now."""
    if device.startswith("cuda"):
        import torch

        spare = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch keeps them for itself
        return torch.cuda.mem_get_info(device)[0] + spare
    return processor.free() if device == "cpu" else 2**63
