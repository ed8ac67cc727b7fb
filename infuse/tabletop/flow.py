"""Exact motion vectors: lift each pixel back onto the surface it shows, move that with its solid, and project it again.

A clip's `flow[k]` is the displacement in pixels (x to the right, y down) of the content from frame k - 1 to frame k, as
seen at frame k: what is at pixel p now was at p - flow[k][p]. `flow[0]` is zero. A codec's motion vector to a past frame
points the other way, from the block to its source: motion / motion_scale = src - dst. VideoComposer multiplies it by
`source`, which is -1 for the past, so its map holds dst - src: the same sign, and the same unit, as `flow`.
"""

from dataclasses import dataclass

import numpy as np

from infuse.tabletop.moves import Move, centre, scenes
from infuse.tabletop.render import FIRST_THING, Render, render
from infuse.tabletop.world import WALL_Y, Camera, Scene


@dataclass(frozen=True)
class Clip:
    """A move as seen in f frames. `segments` are numbered as in `Render`; `flow` as this file's head says."""

    rgb: np.ndarray  # (f, h, w, 3) uint8
    inverse_depth: np.ndarray  # (f, h, w) float32 in 0..1
    segments: np.ndarray  # (f, h, w) uint8
    edges: np.ndarray  # (f, h, w) uint8
    flow: np.ndarray  # (f, h, w, 2) float32, pixels
    centres: np.ndarray  # (things, f, 2) in 0..1 of the picture: the middle of each solid's box
    visible: np.ndarray  # (things, f): the fraction of each silhouette that no other solid covers


def film(move: Move, frames: int, size: tuple[int, int] = (128, 128)) -> Clip:
    """Draw a move in that many frames of `size` = (width, height) pixels."""
    stills = scenes(move, frames)
    pictures = [render(scene, size) for scene in stills]
    came = [-displacement(p, here, there) for p, here, there in zip(pictures[1:], stills[1:], stills, strict=False)]
    return Clip(
        rgb=np.stack([p.rgb for p in pictures]),
        inverse_depth=np.stack([p.inverse_depth for p in pictures]),
        segments=np.stack([p.segments for p in pictures]),
        edges=np.stack([p.edges for p in pictures]),
        flow=np.stack([np.zeros((size[1], size[0], 2)), *came], dtype=np.float32),
        centres=_centres(stills, size),
        visible=np.array([[p.visible for p in picture.positions] for picture in pictures]).T,
    )


def trajectories(move: Move, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each solid is seen: centres (things, frames, 2) in 0..1 of a square picture, and visibility (things, frames).

    Visibility is the fraction of its silhouette that no other solid covers, from small renders.
    """
    clip = film(move, frames, (48, 48))
    return clip.centres, clip.visible


def displacement(picture: Render, here: Scene, there: Scene) -> np.ndarray:
    """(h, w, 2) pixels: how far what is seen in `picture` of scene `here` lies from there in the picture of scene `there`.

    Both scenes hold the same solids in the same order. Whether the place is hidden in `there` does not matter.
    """
    height, width = picture.depth.shape
    points = here.camera.eye + picture.depth[..., None] * rays(here.camera, (width, height))
    for i, (a, b) in enumerate(zip(here.things, there.things, strict=True)):
        seen = picture.segments == FIRST_THING + i
        turn = b.yaw - a.yaw
        spin = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
        points[seen] = (points[seen] - (a.x, a.y, a.lift)) @ spin.T + (b.x, b.y, b.lift)
    right, up, depth = np.moveaxis((points - there.camera.eye) @ np.array(there.camera.axes).T, -1, 0)
    focal = there.camera.focal * min(width, height)
    columns, rows = np.meshgrid(np.arange(width) + 0.5 - width / 2, np.arange(height) + 0.5 - height / 2)
    return np.stack([focal * right / depth - columns, -focal * up / depth - rows], -1)


def rays(camera: Camera, size: tuple[int, int]) -> np.ndarray:
    """(h, w, 3) directions through the pixels' centres, one unit long along the camera's axis: depth times ray is a point."""
    width, height = size
    focal = camera.focal * min(width, height)
    columns, rows = np.meshgrid(np.arange(width) + 0.5 - width / 2, np.arange(height) + 0.5 - height / 2)
    right, up, forward = (np.array(axis) for axis in camera.axes)
    return forward + (columns / focal)[..., None] * right - (rows / focal)[..., None] * up


def empty_depth(camera: Camera, size: tuple[int, int]) -> np.ndarray:
    """(h, w) depth of the room with nothing in it."""
    directions = rays(camera, size)
    with np.errstate(divide="ignore"):
        floor = np.where(directions[..., 2] < 0, -camera.eye[2] / directions[..., 2], np.inf)
        wall = np.where(directions[..., 1] > 0, (WALL_Y - camera.eye[1]) / directions[..., 1], np.inf)
    return np.minimum(floor, wall)


def _centres(stills: tuple[Scene, ...], size: tuple[int, int]) -> np.ndarray:
    """The view spans the shorter side; the longer one shows more."""
    span = min(size) / np.array(size)
    places = np.array([[centre(thing, scene.camera) for thing in scene.things] for scene in stills])
    return 0.5 + (places.reshape(len(stills), len(stills[0].things), 2).swapaxes(0, 1) - 0.5) * span
