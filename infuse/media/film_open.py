"""What a film's bytes are is told by themselves: a folder, an animation, a zip of pictures, or a video, each with its reader."""

from __future__ import annotations

import io
from pathlib import Path

from infuse.errors import CapacityError, InfuseError, RecipeError
from infuse.media.film_readers import PICTURES, Reader, animated_reader, loose_reader, zipped_reader
from infuse.media.pictures import must_be_file
from infuse.media.png_text import SIGNATURE, wordless
from infuse.media.reading import OWN, Reading, shown
from infuse.media.video_reader import video_reader

ZIP = b"PK\3\4"


def opened(name: str, source: Path | bytes, reading: Reading = OWN) -> Reader:
    """The headers of a folder, picture, animation, zip of pictures, or video. Raises RecipeError or CapacityError."""
    from PIL import Image, UnidentifiedImageError

    try:
        if isinstance(source, Path):
            if source.is_dir():
                names = [p.name for p in source.iterdir() if p.is_file()]
                return loose_reader(name, names, lambda part: part_of(source, part, reading), reading)
            must_be_file(source)
            reading.weigh(name, source.stat().st_size, film=True)
        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
            if not (head := file.read(4)):
                raise RecipeError("", f"{name} is empty (0 bytes). Make or copy it again.")
            file.seek(0)
            if head == ZIP:
                return zipped_reader(name, file.read(), reading)
            if SIGNATURE.startswith(head):
                reading.weigh(name, file.seek(0, 2))
                file.seek(0)
                source = wordless(file.read())
                file = io.BytesIO(source)
            try:
                with Image.open(file, formats=PICTURES) as image:
                    return animated_reader(name, source, image, reading)
            except UnidentifiedImageError:
                pass
        return video_reader(name, source, reading)
    except Image.DecompressionBombError as error:
        raise CapacityError("", f"{name} is too large to open ({error}). Scale it down first.") from None
    except OSError as error:
        raise RecipeError(
            "", f"{shown(name)} cannot be read ({error.strerror or error}). Check the path, or make the file again."
        ) from None
    except InfuseError:
        raise
    except Exception as error:  # Pillow has many words for a broken file
        raise RecipeError("", f"{name} is not a film that can be read ({error}). Make or copy it again.") from None


def part_of(folder: Path, part: str, reading: Reading) -> bytes:
    """One file of a folder of frames."""
    reading.weigh(f"{part} in {folder}", (folder / part).stat().st_size)
    return (folder / part).read_bytes()
