"""The one door: whatever an image file, object or frame holds, it leaves here upright, in sRGB, opaque, with 8 bits.

`seen` is how pictures are looked at, `drawn` how masks are. Both also say what was done, one sentence each.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from infuse.errors import RecipeError

NUMERIC = ("F", "I", "I;16", "I;16L", "I;16B", "I;16N")
"""Modes that hold numbers which may be no shades."""
WHITE_ENOUGH = 128
"""From this shade on a mask is white."""


def seen(image: Any, name: str, behind: str = "white") -> tuple[Any, tuple[str, ...]]:
    """(RGB image, what was done) of a PIL image in any mode, with any EXIF orientation and ICC profile.

    Numbers of 16 bits are divided by 257, floats from 0 to 1 stretched to 0-255. behind: the colour that is seen through
    what is transparent. Raises RecipeError for other numbers.
    """
    from PIL import Image

    image, notes = upright(image)
    icc = image.info.get("icc_profile")
    image, said = shades(image, name)
    notes += said
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        image = image.convert("RGB")
    image, said = in_srgb(image, icc)
    notes += said
    if alpha is not None and alpha.getextrema()[0] < 255:
        image = Image.composite(image, Image.new("RGB", image.size, behind), alpha)
        notes.append(f"what is transparent is seen on {behind}")
    return _bare(image), tuple(notes)


def drawn(image: Any, name: str) -> tuple[Any, tuple[str, ...]]:
    """(grey image, what was done): white is where a mask counts, black where it does not.

    Of a mask with transparency its alpha counts where its colour says nothing: opaque is white. Colours are taken as
    numbers, whatever their profile says. Raises RecipeError if colour and alpha say different things.
    """
    import numpy as np
    from PIL import Image

    image, notes = upright(image)
    image, said = shades(image, name)
    notes += said
    if not image.has_transparency_data:
        return _bare(image.convert("L")), tuple(notes)
    both = np.asarray(image.convert("RGBA").convert("LA"))
    grey, alpha = both[..., 0], both[..., 1]
    if alpha.min() == 255:
        return _bare(Image.fromarray(grey.copy())), tuple(notes)
    visible = grey[alpha > 0]
    one = visible.size == 0 or int(visible.max()) - int(visible.min()) < 8
    if not one and ((grey >= WHITE_ENOUGH) & (alpha > 0) != (alpha >= WHITE_ENOUGH))[alpha > 0].any():
        white, opaque = ((alpha > 0) & (grey >= WHITE_ENOUGH)).sum(), (alpha >= WHITE_ENOUGH).sum()
        raise RecipeError("", f"{name} has colours and transparency that say different things: {white} pixels are white, {opaque} are "
                              "opaque. Save it without transparency, white where it counts and black elsewhere.")  # fmt: skip
    notes.append("it is read by its transparency: what is opaque counts as white")
    return Image.fromarray(alpha.copy()), tuple(notes)


def as_mask(image: Any, name: str) -> Any:
    """`drawn` alone: how a film's reader looks at a frame of masks."""
    return drawn(image, name)[0]


def upright(image: Any) -> tuple[Any, list[str]]:
    """An image as it is meant to be held, whatever its camera wrote down."""
    from PIL import ImageOps

    try:
        turned = image.getexif().get(0x0112, 1)
        if turned not in range(2, 9):
            return image, []
        return ImageOps.exif_transpose(image), ["it was turned upright, as its EXIF says"]
    except Exception as error:  # EXIF is written by everybody, and a picture does not depend on it
        return image, [f"its EXIF data cannot be read ({type(error).__name__}), so it was not turned"]


def is_turned(image: Any) -> bool:
    """Does its EXIF say that it lies on its side? Then width and height change places."""
    try:
        return image.getexif().get(0x0112, 1) in range(5, 9)
    except Exception:
        return False


def shades(image: Any, name: str) -> tuple[Any, list[str]]:
    """Numbers of more than 8 bits as shades of grey; other images stay as they are."""
    import numpy as np
    from PIL import Image

    if image.mode not in NUMERIC:
        return image, []
    # the usual numbers: of a float picture 0 to 1, of an integer one those of 16 bits
    values, most = np.asarray(image), 1 if image.mode == "F" else 65535
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= most):
        raise RecipeError("", f"{name} holds numbers from {values.min():g} to {values.max():g}, and black is 0, white {most}. "
                              "Scale them, or save it with 8 bits.")  # fmt: skip
    grey = (values * 255).round() if most == 1 else values // 257
    what = "floats" if most == 1 else "16 bits"
    out = Image.fromarray(grey.astype(np.uint8))
    if "icc_profile" in image.info:
        out.info["icc_profile"] = image.info["icc_profile"]
    dark = most > 1 and 0 < values.max() <= 255
    told = (
        f", and of 0 to 65535 they reach {values.max()} only, which is next to black: save it with 8 bits"
        if dark
        else ""
    )
    return out, [f"its {what} were made 8 bits{told}"]


def in_srgb(image: Any, icc: bytes | None) -> tuple[Any, list[str]]:
    """An image without alpha as RGB in sRGB, by its own ICC profile if it has one."""
    from PIL import ImageCms

    plain = image if image.mode in ("L", "RGB", "CMYK", "LAB") else image.convert("RGB")
    if not icc and plain.mode != "LAB":
        said = ["its CMYK has no profile, so its colours are a guess"] if plain.mode == "CMYK" else []
        return plain.convert("RGB"), said
    try:
        found = to_srgb(icc or b"", plain.mode)
        if found is None:
            return plain.convert("RGB"), []
        transform, called = found
        return ImageCms.applyTransform(plain, transform), [f"its colours were converted from {called} to sRGB"]
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        grey = plain.convert("RGB") if plain.mode != "LAB" else plain.convert("L").convert("RGB")
        return grey, [f"its colour profile cannot be used ({' '.join(str(error).split())[:80]}) and was left out"]


@lru_cache(maxsize=8)
def to_srgb(icc: bytes, mode: str) -> tuple[Any, str] | None:
    """(transform, the profile's name) of an ICC profile; None if it changes nothing: sRGB by any name."""
    import numpy as np
    from PIL import Image, ImageCms

    profile = ImageCms.ImageCmsProfile(io.BytesIO(icc)) if icc else ImageCms.createProfile("LAB")
    intent = ImageCms.Intent(ImageCms.getDefaultIntent(profile))
    black = ImageCms.Flags.BLACKPOINTCOMPENSATION
    transform = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), mode, "RGB", intent, black)
    called = ImageCms.getProfileDescription(profile).strip() if icc else "Lab"
    if mode in ("RGB", "L"):
        steps = np.arange(0, 256, 15, dtype=np.uint8)
        cube = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(1, -1, 3) if mode == "RGB" else steps[None]
        asked = Image.fromarray(cube)
        there = np.asarray(ImageCms.applyTransform(asked, transform)).astype(int)
        if np.abs(there - np.asarray(asked.convert("RGB"))).max() <= 1:
            return None
    return transform, called[:60]


def said_of_many(image: Any, content: bytes) -> list[str]:
    """What is said of an image file that holds more than the picture which is taken from it."""
    try:
        count = getattr(image, "n_frames", 1)
    except Exception:  # the first has been read, and no other is wanted
        return ["the first of its pictures is taken; the others are damaged"]
    if count < 2:
        return ["its HDR gain map is left out"] if _gains(content) else []
    if image.format == "MPO":
        return ["its HDR gain map is left out" if _gains(content) else f"the first of its {count} pictures is taken"]
    return [f"the first of its {count} pictures is taken"]


GAINS: Sequence[bytes] = (b"hdrgm:", b"urn:iso:std:iso:ts:21496", b"HDRGainMap", b"hdrgainmap")
"""What Ultra HDR, ISO 21496 and Apple write into a file with a gain map."""


def _gains(content: bytes) -> bool:
    return content[:2] == b"\xff\xd8" and any(mark in content for mark in GAINS)


def _bare(image: Any) -> Any:
    """Pixels only: nothing that somebody could apply again."""
    image.info = {}
    return image
