"""A part of a picture, to be worked on at a size of its own: which part, how it is cut out, how it is put back.

Source: only-masked inpainting of the webui (modules/masking.py and images.py of stable-diffusion-webui-forge@dfdcbab). All boxes
are (left, top, right, bottom) in pixels, right and bottom excluded; all sizes are (width, height).
"""

from __future__ import annotations

from typing import Any

Box = tuple[int, int, int, int]
Size = tuple[int, int]


def around(mask: Any, padding: int = 0) -> Box | None:
    """The smallest box around all that is not black in a grey PIL image, and `padding` pixels around that; None if all is."""
    found = mask.getbbox()
    if found is None:
        return None
    left, top, right, bottom = found
    return (
        max(left - padding, 0),
        max(top - padding, 0),
        min(right + padding, mask.width),
        min(bottom + padding, mask.height),
    )


def shaped(box: Box, size: Size, picture: Size) -> Box:
    """A box grown to the shape of `size`, as far as a picture of this size has room; moved inwards at its rim."""
    left, top, right, bottom = box
    width, height, ratio = right - left, bottom - top, size[0] / size[1]
    if width / height > ratio:
        top, bottom = _grown(top, bottom, int(width / ratio - height), picture[1])
    else:
        left, right = _grown(left, right, int(height * ratio - width), picture[0])
    return left, top, right, bottom


def _grown(first: int, last: int, more: int, room: int) -> tuple[int, int]:
    first, last = first - more // 2, last + more - more // 2
    if last >= room:
        first, last = first - (last - room), room
    if first < 0:
        first, last = 0, last - first
    return first, min(last, room)


def cut(image: Any, box: Box, size: Size) -> Any:
    """The box of a PIL image at this size, whole: where the shapes differ, its first and last row or column are stretched."""
    from PIL import Image

    part = image.crop(box)
    inner, (x, y) = _inside(part.size, size, whole=True)
    return edged(part.resize(inner, Image.Resampling.LANCZOS) if inner != part.size else part, (x, y), size)


def cut_hole(mask: Any, box: Box, size: Size, soft: bool = False) -> Any:
    """The same of a hole: whatever it touches is white, however thin it is; `soft` keeps its greys."""
    from infuse.media.fitting import fitted_hole

    part = mask.crop(box)
    inner, at = _inside(part.size, size, whole=True)
    return edged(fitted_hole(part, inner, soft=soft, laid_on=False), at, size)


def put(image: Any, box: Box) -> Any:
    """What was made of a box, at the box's own size: `cut` undone, what had been stretched is left out."""
    from PIL import Image

    size = (box[2] - box[0], box[3] - box[1])
    inner, (x, y) = _inside(image.size, size, whole=False)
    if inner != image.size:
        image = image.resize(inner, Image.Resampling.LANCZOS)
    return image.crop((-x, -y, size[0] - x, size[1] - y))


def edged(image: Any, at: tuple[int, int], size: Size) -> Any:
    """An image on a canvas, the outermost pixels repeated around it."""
    import numpy as np
    from PIL import Image

    if image.size == size:
        return image
    (x, y), pixels = at, np.asarray(image)
    more = ((y, size[1] - y - image.height), (x, size[0] - x - image.width), *([(0, 0)] * (pixels.ndim - 2)))
    return Image.fromarray(np.pad(pixels, more, "edge"))


def _inside(own: Size, size: Size, whole: bool) -> tuple[Size, tuple[int, int]]:
    """((width, height), (x, y)) of a picture brought to a size in its own shape: the `whole` of it inside, or so that all is covered."""
    (w, h), (width, height) = own, size
    across, along = (width, max(h * width // w, 1)), (max(w * height // h, 1), height)
    wider = width * h > height * w
    inner = size if width * h == height * w else along if wider == whole else across
    return inner, (width // 2 - inner[0] // 2, height // 2 - inner[1] // 2)
