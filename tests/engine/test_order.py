"""Conditions have one order, wherever a recipe has them and however loud they are."""

from __future__ import annotations

import numpy as np
from PIL import Image

from infuse import ControlNet, IPAdapter
from infuse.engine.digests import order_of


def shown(shade: int) -> Image.Image:
    return Image.fromarray(np.full((64, 64, 3), shade, np.uint8))


def test_what_speaks_comes_before_what_it_is_shown_and_how_loud() -> None:
    nets = [
        ControlNet(model=m, image=shown(s), weight=w)
        for m, s, w in (("edges", 9, 1.0), ("edges", 5, 0.3), ("depths", 7, 0.5))
    ]
    look = IPAdapter(model="ip-adapter", image=(shown(3),))
    one = order_of(dict(zip("abcd", (*nets, look), strict=True)))
    other = order_of(dict(zip("dcba", (*nets, look), strict=True)))
    places = [sorted(found, key=found.__getitem__) for found in (one, other)]
    back = dict(zip("dcba", "abcd", strict=True))
    assert places[0] == [back[who] for who in places[1]]
    assert places[0].index("c") < min(places[0].index(w) for w in "ab"), "depths before edges, whatever their pictures"
    louder = order_of(dict(zip("abcd", (nets[0].model_copy(update={"weight": 0.1}), *nets[1:], look), strict=True)))
    assert one["c"] == louder["c"] and one["d"] == louder["d"]
    assert len(set(one.values())) == 4


def test_only_those_alike_are_looked_into() -> None:
    net, look = ControlNet(model="edges", image=shown(9)), IPAdapter(model="ip-adapter", image=(shown(3),))
    order_of({"a": net, "b": look})
    assert "source" not in vars(net.image), "no file is made of a picture to find a place"
