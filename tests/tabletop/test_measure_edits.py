import numpy as np
import pytest

from infuse.tabletop.edits import Edit, View, darkened, edit_at
from infuse.tabletop.judge import Seen
from infuse.tabletop.maps import KIND_COLOURS, kinds, painted
from infuse.tabletop.measure import truth
from infuse.tabletop.measure_edits import edited, map_iou
from infuse.tabletop.render import render
from infuse.tabletop.world import scene_at


def drawn(view: View) -> np.ndarray:
    rgb = render(view.scene).rgb
    return darkened(rgb) if view.dark else rgb


def eye(view: View) -> Seen:
    return truth(view.scene, render(view.scene))


@pytest.mark.parametrize("index", range(12))
def test_the_wanted_scene_is_perfect_and_the_old_one_has_kept_all_but_changed_nothing(index: int) -> None:
    edit: Edit = edit_at(2, index, reverse=bool(index % 2))
    a, b = drawn(edit.before), drawn(edit.after)
    done = edited(edit, b, a, b, lambda _: eye(edit.after))
    assert (done.asked, done.kept, done.only) == (1, 1, 1)
    undone = edited(edit, a, a, b, lambda _: eye(edit.before))
    assert (undone.asked, undone.kept, undone.only) == (0, 1, 1)


def test_a_map_agrees_with_its_own_scene_only() -> None:
    scenes = [scene_at(2, i) for i in (0, 1)]
    maps = [kinds(s, render(s).segments) for s in scenes]
    seen = truth(scenes[0], render(scenes[0]))
    assert map_iou(seen, maps[0]) == 1.0
    assert map_iou(seen, maps[1]) < 0.5
    assert {tuple(c) for c in painted(maps[0]).reshape(-1, 3).tolist()} <= set(KIND_COLOURS.values())
