"""Clips on disk: moves are regenerated from (seed, index), so only their pixels are kept, in memory-mapped arrays.

The same two seeds as for pictures, `TRAIN` and `HELD_OUT`, make two streams of moves that share no move.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import track

from infuse.tabletop.dataset import HELD_OUT, TRAIN, Chunk, array, cache_root, drawn
from infuse.tabletop.flow import film
from infuse.tabletop.moves import MOVES_VERSION, Move, move_at
from infuse.tabletop.world import VERSION

__all__ = ["CELL", "HELD_OUT", "TRAIN", "Clips", "load_clips"]

CHUNK = 50  # clips between two marks of progress
CELL = 4  # motion is kept as the mean over cells of 4 x 4 pixels: at full size it would outweigh the pictures


@dataclass(frozen=True)
class Clips:
    """`count` clips of the stream `seed`, f frames each. Arrays are read from disk as they are touched.

    rgb (n, f, h, w, 3), segments (n, f, h, w), inverse_depth (n, f, h, w; 255 is near) and edges (n, f, h, w; 0 or 255)
    are uint8. motion (n, f, h / 4, w / 4, 2) is float16: `flow` in pixels of the full size, averaged over 4 x 4 pixels;
    `infuse.tabletop.flow.film` draws a clip again where the flow of every pixel is needed.
    """

    seed: int
    rgb: np.ndarray
    segments: np.ndarray
    inverse_depth: np.ndarray
    edges: np.ndarray
    motion: np.ndarray

    def __len__(self) -> int:
        return len(self.rgb)

    @property
    def frames(self) -> int:
        """How many frames each clip has."""
        return self.rgb.shape[1]

    def move(self, index: int) -> Move:
        """The move behind clip `index`."""
        return move_at(self.seed, index)


def load_clips(
    count: int, seed: int = TRAIN, *, frames: int = 8, pixels: int = 128, root: Path | None = None, workers: int = 0
) -> Clips:
    """Open the cache of these clips, and draw what is missing in `workers` processes (0: one per core).

    `pixels`, a multiple of 4, is the width and height. A run that was cut off goes on at the chunk it had reached.
    """
    if pixels % CELL:
        raise ValueError(f"pixels: {pixels} is not a multiple of {CELL}, the width of a cell of motion.")
    name = f"clips-v{VERSION}.{MOVES_VERSION}-seed{seed}-{count}x{frames}x{pixels}"
    folder = (root or cache_root()) / "tabletop" / name
    folder.mkdir(parents=True, exist_ok=True)
    still, cells = (count, frames, pixels, pixels), (count, frames, pixels // CELL, pixels // CELL, 2)
    array(folder, "rgb", (*still, 3))
    for layer in ("segments", "inverse_depth", "edges"):
        array(folder, layer, still)
    array(folder, "motion", cells, np.float16)
    done = array(folder, "done", (-(-count // CHUNK),))
    missing = [(folder, seed, int(chunk)) for chunk in np.flatnonzero(done == 0)]
    for chunk in track(
        drawn(missing, workers, _draw_chunk), f"rendering {count} clips", len(missing), disable=not missing
    ):
        done[chunk] = 1
    return Clips(seed, **_open(folder, "r"))


def _open(folder: Path, mode: str) -> dict[str, np.memmap]:
    layers = ("rgb", "segments", "inverse_depth", "edges", "motion")
    return {name: np.lib.format.open_memmap(folder / f"{name}.npy", mode=mode) for name in layers}


def _draw_chunk(job: Chunk) -> int:
    folder, seed, chunk = job
    arrays = _open(folder, "r+")
    count, frames, height, width = arrays["edges"].shape
    for index in range(chunk * CHUNK, min((chunk + 1) * CHUNK, count)):
        clip = film(move_at(seed, index), frames, (width, height))
        arrays["rgb"][index], arrays["edges"][index] = clip.rgb, clip.edges
        arrays["segments"][index] = clip.segments
        arrays["inverse_depth"][index] = (clip.inverse_depth * 255).round()
        arrays["motion"][index] = cells(clip.flow)
    for layer in arrays.values():
        layer.flush()
    return chunk


def cells(flow: np.ndarray) -> np.ndarray:
    """(f, h, w, 2) flow to its means over cells of 4 x 4 pixels, (f, h / 4, w / 4, 2) float16; still in full-size pixels."""
    frames, height, width, _ = flow.shape
    return flow.reshape(frames, height // CELL, CELL, width // CELL, CELL, 2).mean((2, 4)).astype(np.float16)
