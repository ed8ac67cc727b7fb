"""Renders on disk: scenes are regenerated from (seed, index), so only their pixels are kept, in memory-mapped arrays.

Training and held-out pictures come from two streams of scenes, `TRAIN` and `HELD_OUT`, that share no scene.
"""

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from rich.progress import track

from infuse.errors import RecipeError
from infuse.tabletop._rays import COMPILED
from infuse.tabletop.render import inverse_depth, render
from infuse.tabletop.world import VERSION, Scene, scene_at

TRAIN, HELD_OUT = 1, 2  # seeds of the two streams
CHUNK = 250  # renders between two marks of progress
LAYERS: dict[str, tuple[int, ...]] = {"rgb": (3,), "segments": (), "inverse_depth": (), "edges": ()}


def cache_root() -> Path:
    """`$INFUSE_CACHE`, or the platform's cache folder for infuse. Not created here."""
    if told := os.environ.get("INFUSE_CACHE"):
        return Path(told)
    home = Path.home()
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "infuse"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local")) / "infuse" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME", home / ".cache")) / "infuse"


@dataclass(frozen=True)
class Dataset:
    """`count` renders of the stream `seed`, `pixels` wide and high. Arrays are read from disk as they are touched.

    rgb (n, h, w, 3), segments (n, h, w), inverse_depth (n, h, w; 255 is near) and edges (n, h, w; 0 or 255): all uint8.
    """

    seed: int
    rgb: np.ndarray
    segments: np.ndarray
    inverse_depth: np.ndarray
    edges: np.ndarray

    def __len__(self) -> int:
        return len(self.rgb)

    def scene(self, index: int) -> Scene:
        """The scene behind picture `index`."""
        return scene_at(self.seed, index)


def load(count: int, seed: int = TRAIN, *, pixels: int = 128, root: Path | None = None, workers: int = 0) -> Dataset:
    """Open the cache of these renders, and draw what is missing in `workers` processes (0: one per core).

    A run that was cut off goes on at the chunk it had reached.
    """
    folder = (root or cache_root()) / "tabletop" / f"v{VERSION}-seed{seed}-{count}x{pixels}"
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {name: array(folder, name, (count, pixels, pixels, *tail)) for name, tail in LAYERS.items()}
    done = array(folder, "done", (-(-count // CHUNK),))
    missing = [(folder, seed, int(chunk)) for chunk in np.flatnonzero(done == 0)]
    for chunk in track(
        drawn(missing, workers, _draw_chunk), f"rendering {count} scenes", len(missing), disable=not missing
    ):
        done[chunk] = 1
    return Dataset(seed, **{name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in arrays})


def array(folder: Path, name: str, shape: tuple[int, ...], dtype: type = np.uint8) -> np.memmap:
    """Open an array for writing; create it, filled with zeros, if it is not there yet."""
    path = folder / f"{name}.npy"
    if not path.exists():
        np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    return np.lib.format.open_memmap(path, mode="r+")


Chunk = tuple[Path, int, int]
"""(folder, seed, number)"""


def drawn(jobs: list[Chunk], workers: int, draw: Callable[[Chunk], int]) -> Iterator[int]:
    """Draw chunks in processes of their own; yields each when it is done. Raises RecipeError if numba is not there."""
    if jobs and not COMPILED:
        raise RecipeError(
            "", "drawing so many scenes takes days without the package numba. Run: pip install 'infuse[train]'"
        )
    if len(jobs) < 2 or workers == 1:
        yield from map(draw, jobs)
        return
    with get_context("spawn").Pool(workers or os.cpu_count()) as pool:  # fork would copy torch's and numba's threads
        yield from pool.imap_unordered(draw, jobs)


def _draw_chunk(job: tuple[Path, int, int]) -> int:
    folder, seed, chunk = job
    arrays = {name: np.lib.format.open_memmap(folder / f"{name}.npy", mode="r+") for name in LAYERS}
    count, height, width = arrays["edges"].shape
    for index in range(chunk * CHUNK, min((chunk + 1) * CHUNK, count)):
        picture = render(scene_at(seed, index), (width, height))
        arrays["rgb"][index], arrays["edges"][index] = picture.rgb, picture.edges
        arrays["segments"][index] = picture.segments
        arrays["inverse_depth"][index] = (inverse_depth(picture.depth) * 255).round()
    for array in arrays.values():
        array.flush()
    return chunk
