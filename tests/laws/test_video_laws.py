"""Clips and pictures in one engine; every port frame by frame; windows that agree where they must."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch

import mix
import tiny
from infuse import ControlNet, IPAdapter, Recipe, Text
from infuse.batch import Row, collate
from infuse.engine.engine import Engine
from infuse.engine.windows import blended, windows
from infuse.ports import Channel, Ports, Tokens, Voice

CLOSE = 1e-10


@cache
def parts() -> tuple[tiny.Tiny, tiny.Tiny, dict[str, Any]]:
    from infuse.network.spec import NetworkSpec

    clip = tiny.video(dtype=torch.float64)
    modules = {"canny": tiny.controlnet("sd1", 7), "face": video_adapter(clip.base.network.spec)}
    assert isinstance(clip.base.network.spec, NetworkSpec)
    return clip, tiny.base("sd1", dtype=torch.float64), modules


def video_adapter(spec: Any) -> Any:
    from infuse.encoders.ip_adapter import Adapter, Plain

    torch.manual_seed(9)
    widths = [w for _, w in spec.cross_layers]
    return tiny.randomized(Adapter("plain", Plain(24, 4, 32), len(widths), widths, 32), 9)


def engine(**options: Any) -> Engine:
    clip, still, modules = parts()
    made = tiny.engine(clip, {"face": modules["face"]}, **options)
    made.store.add("still", still.base)
    made.store.add("canny", tiny.cast(modules["canny"], torch.float64))
    made.store.add("look", tiny.cast(tiny.adapter("sd1", "plain", 9), torch.float64))
    return made


def clip_recipes() -> list[Recipe]:
    common = {"model": "tiny", "width": 32, "height": 32}
    return [
        Recipe(prompt="a red cube", frames=4, steps=3, guidance=4.0, scheduler="DDIM", **common),
        Recipe(prompt="many words " * 40, frames=4, steps=4, guidance=3.0, seed=1, scheduler="Euler", **common,
               conditions=(IPAdapter(model="face", image=mix.picture(3), weight=0.7),)),
        Recipe(prompt="two", frames=3, steps=3, seed=2, guidance={0: 5.0, 0.5: 1.0}, scheduler="DDIM", **common,
               conditions=(Text(prompt="a ball", weight=0.5, mask=mix.half()),)),
        Recipe(prompt="long", frames=9, steps=3, seed=3, guidance=2.0, scheduler="DDIM", **common),
    ]  # fmt: skip


def pictures() -> list[Recipe]:
    common = {"model": "still", "width": 32, "height": 32}
    return [
        Recipe(prompt="a cube", steps=5, guidance=4.0, scheduler="DDIM", **common),
        Recipe(prompt="a ball", steps=4, seed=1, scheduler="Euler a", guidance=3.0, **common,
               conditions=(ControlNet(model="canny", image=mix.picture(1)),)),
    ]  # fmt: skip


@pytest.mark.slow
def test_clips_and_pictures_side_by_side_equal_their_runs_alone() -> None:
    every = [*clip_recipes(), *pictures()]
    alone = [engine().run(r).latents for r in every]
    together = [r.latents for r in engine().run_all(*every)]
    assert max(float((a - b).abs().max()) for a, b in zip(alone, together, strict=True)) < CLOSE


@pytest.mark.slow
def test_memory_is_flat_in_the_number_of_windows() -> None:
    made, widest = engine(max_rows=8), []
    network = made.store.base("tiny").network
    own = network.predict

    def watched(batch: Any) -> Any:
        widest.append(batch.x.shape[0] * batch.x.shape[2])
        return own(batch)

    network.predict = watched  # type: ignore[method-assign]
    one, long = (
        Recipe(model="tiny", width=32, height=32, frames=f, steps=2, guidance=3.0, scheduler="DDIM") for f in (4, 40)
    )
    try:
        made.run(one)
        few = max(widest)
        made.run(long)
    finally:
        del network.predict
    assert max(widest) <= max(few, 8)


def test_frames_that_one_window_sees_are_that_window_s() -> None:
    assert windows(3, 16) == ((0, 3),) and windows(16, 16) == ((0, 16),)
    assert windows(40, 16) == ((0, 16), (12, 28), (24, 40))
    assert windows(17, 16) == ((0, 16), (1, 17))
    for count in range(17, 60):
        parts = windows(count, 16)
        assert parts[0][0] == 0 and parts[-1][1] == count and all(b - a == 16 for a, b in parts)
        assert all(c <= b for (_, b), (c, _) in zip(parts, parts[1:], strict=False)), "no frame is left out"
    answers = torch.randn(3, 4, 16, 2, 2, dtype=torch.float64)
    whole = blended(answers, windows(40, 16))
    assert torch.allclose(whole[:, :12], answers[0][:, :12], atol=1e-12)
    assert torch.allclose(whole[:, 16:24], answers[1][:, 4:12], atol=1e-12)
    same = torch.ones(3, 4, 16, 2, 2)
    assert torch.allclose(blended(same, windows(40, 16)), torch.ones(4, 40, 2, 2))


@pytest.mark.slow  # as in test_windows, of a network without conditions
def test_a_longer_clip_s_first_answer_equals_the_short_clip_s_inside_of_one_window() -> None:
    """Same noise in the first window: the network's answer to a long clip is its answer to the short one there."""
    made = engine()
    network = made.store.base("tiny").network
    x = torch.randn(4, 9, 16, 16, dtype=torch.float64)
    said = Ports(context=(Tokens(torch.randn(7, 32, dtype=torch.float64)),)).at(0.0)
    rows = [Row(x[:, a:b], torch.tensor(500.0), said.clip(a, b, 9)) for a, b in windows(9, 4)]
    with torch.no_grad():
        long = blended(network.predict(collate(rows, network.spec)), windows(9, 4))
        short = network.predict(collate([Row(x[:, :4], torch.tensor(500.0), said)], network.spec))[0]
    first = windows(9, 4)[1][0]
    assert float((long[:, :first] - short[:, :first]).abs().max()) < CLOSE


@pytest.mark.slow
def test_a_weight_for_each_frame() -> None:
    """A curve over the frames: where it is 0 the frame hears nothing, where it is 1 it hears all."""
    network = engine().store.base("tiny").network
    x = torch.randn(4, 4, 16, 16, dtype=torch.float64)
    text, more = (torch.randn(7, 32, dtype=torch.float64) for _ in range(2))

    def context(frames: Any) -> Any:
        said = Ports(context=(Tokens(text), Tokens(more, Voice(frames=frames)))).at(0.0).clip(0, 4, 4)
        batch = collate([Row(x, torch.tensor(500.0), said)], network.spec)
        from infuse.unroll import unrolled

        return unrolled(batch).context.bias_for(256)

    rising = context({0: 0.0, 1: 1.0})
    assert rising.shape == (4, 1, 1, 14)
    assert rising[0, 0, 0, 7:].max() < -15 and torch.allclose(rising[3, 0, 0, 7:], torch.zeros(7, dtype=torch.float64))
    assert torch.allclose(rising[2, 0, 0, 7:].exp(), torch.full((7,), 2 / 3, dtype=torch.float64))
    with torch.no_grad():

        def predict(*tokens: Tokens) -> torch.Tensor:
            said = Ports(context=tokens).at(0.0).clip(0, 4, 4)
            return network.predict(collate([Row(x, torch.tensor(500.0), said)], network.spec))[0]

        loud = predict(Tokens(text), Tokens(more, Voice(frames=1.0)))
        assert float((loud - predict(Tokens(text), Tokens(more))).abs().max()) < CLOSE


@pytest.mark.slow
def test_channels_have_frames_too() -> None:
    spec = tiny.video(12).base.network.spec
    x, value = torch.zeros(4, 4, 8, 8), torch.ones(8, 4, 8, 8)
    said = Ports(channels=(Channel("stc", value, Voice(0.5, frames={0: 0.0, 1: 1.0})), Channel("stc", 2 * value)))
    row = Row(x, torch.tensor(1.0), (said + Ports(context=(Tokens(torch.zeros(2, 32)),))).at(0.0).clip(0, 4, 4))
    channels = collate([row], spec).channels
    assert channels is not None
    assert torch.allclose(channels[0, 0, :, 0, 0], torch.tensor([2.0, 2 + 1 / 6, 2 + 2 / 6, 2.5]))


def test_a_picture_network_says_what_to_do_about_frames() -> None:
    with pytest.raises(Exception, match="makes pictures"):
        engine().check(Recipe(model="still", frames=8))


@pytest.mark.slow
def test_a_clip_carries_its_recipe(tmp_path: Any) -> None:
    pytest.importorskip("av")
    from infuse.media.film_writer import read_record_of

    asked = clip_recipes()[0]
    made = engine().run(asked)
    for name in ("a.mp4", "a.gif", "frames"):
        (path,) = made.save(tmp_path / name)
        assert Recipe.load(read_record_of(path)["recipe"]) == asked
