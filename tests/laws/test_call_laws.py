"""At a fixed width of calls, a row's float32 answer is its own to the last bit, whatever it asks for and whoever is beside it."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from some import some
from torch import Tensor

import tiny
from infuse.batch import Row
from infuse.network.attention import install
from infuse.network.call import SteadySiLU, calls, evaluate, structure
from infuse.network.unet import Network
from infuse.ports import Channel, Decoupled, Ports, Residual, Tokens, Vector, Voice

MOST = 64
SIDE, FRAMES = 16, 4


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def heard(net: Any) -> Any:
    install(net)
    return net


@cache
def parts() -> dict[str, Any]:
    clip = tiny.video().base.network
    return {
        "picture": tiny.base("sd1").base.network,
        "nine channels": tiny.base("sd1", 9).base.network,
        "sdxl": tiny.base("sdxl").base.network,
        "clip": clip,
        "canny": heard(tiny.controlnet("sd1", 7)),
        "depth": heard(tiny.controlnet("sd1", 8)),
        "face": tiny.adapter("sd1", "plain", 9),
        "style": tiny.adapter("sd1", "plus", 10),
        "moving face": film_adapter(clip),
        "brush": tiny.brushnet(False),
        "powerpaint": tiny.brushnet(True),
        "sdxl canny": heard(tiny.controlnet("sdxl", 7)),
    }


def film_adapter(network: Network) -> Any:
    from infuse.encoders.ip_adapter import Adapter, Plain

    widths = [w for _, w in network.spec.cross_layers]
    return tiny.randomized(Adapter("plain", Plain(24, 4, 32), len(widths), widths, 32), 9)


REGION = (noise(32, 32, seed=70) > 0).float()


def text(n: int, seed: int = 1, width: int = 32, **voice: Any) -> Ports:
    return Ports(context=(Tokens(noise(n, width, seed=seed), Voice(**voice)),))


def control(name: str, seed: int = 2, sites: tuple[float, ...] | None = None, **voice: Any) -> Ports:
    return Ports(residuals=(Residual(parts()[name], noise(3, 32, 32, seed=seed).sigmoid(), sites, Voice(**voice)),))


def brush(name: str, own: Ports | None = None, seed: int = 2, **voice: Any) -> Ports:
    tokens = () if own is None else own.context
    hint = noise(5, SIDE, SIDE, seed=seed)
    return Ports(residuals=(Residual(parts()[name], hint, voice=Voice(**voice), context=tokens),))


def image(name: str, n: int = 4, seed: int = 3, layers: tuple[float, ...] | None = None, **voice: Any) -> Ports:
    return Ports(decoupled=(Decoupled(parts()[name], noise(n, 32, seed=seed), layers, Voice(**voice)),))


def everything() -> dict[str, Ports]:
    """What a row of pictures can say."""
    guess = (0.1, 0.3, 0.6, 0.8, 1.0)
    half = tuple(float(i % 2) for i in range(len(parts()["picture"].spec.cross_layers)))
    long, short = text(3 * 77), text(77)
    return {
        "plain": short,
        "other words": text(77, 5),
        "long": long,
        "odd": text(20),
        "weighted": short + text(20, 6, weight=0.7),
        "as long as weighted": text(97, 8),
        "regional": short + text(77, 7, mask=REGION),
        "regional and weighted": short + text(77, 7, mask=REGION, weight=1.4),
        "controlled": short + control("canny"),
        "controlled less": short + control("canny", 4, weight=0.3),
        "guessing": short + control("canny", 4, guess),
        "controlled in a region": short + control("canny", 5, mask=REGION),
        "controlled by another": short + control("depth"),
        "controlled by both": short + control("canny") + control("depth", weight=0.5),
        "controlled by both, reversed": short + control("depth", weight=0.5) + control("canny"),
        "controlled twice by one": short + control("canny", 6) + control("canny", 7, mask=REGION),
        "controlled, long": long + control("canny"),
        "shown": short + image("face"),
        "shown less": short + image("face", seed=8, weight=0.4),
        "shown in a region": short + image("face", mask=REGION),
        "shown to some layers": short + image("face", layers=half),
        "shown two": short + image("face", 8),
        "shown one, and another": short + image("face") + image("face", 12, 9),
        "shown a style": short + image("style", 16, weight=0.8),
        "shown both": short + image("face") + image("style", 16, mask=REGION),
        "brushed": short + brush("brush"),
        "brushed in a region": short + brush("brush", mask=REGION),
        "painted": short + brush("powerpaint"),
        "painted with its words": short + brush("powerpaint", text(77, 10)),
        "painted with more words": short + brush("powerpaint", text(154, 10)),
        "painted with weighed words": short + brush("powerpaint", text(77, 10, weight=0.5)),
        "all at once": long + text(9, 11, mask=REGION) + control("canny", mask=REGION) + image("style", 16) + image("face")
        + brush("powerpaint", text(77, 12)) + control("depth", sites=guess),
    }  # fmt: skip


def pictures() -> tuple[Network, dict[str, Row]]:
    said = everything()
    rows = {
        k: Row(noise(4, SIDE, SIDE, seed=i), torch.tensor(900.0 - 7 * i), p) for i, (k, p) in enumerate(said.items())
    }
    return parts()["picture"], rows


def inpainted() -> tuple[Network, dict[str, Row]]:
    hole, image_ = noise(1, SIDE, SIDE, seed=80).sign(), noise(4, SIDE, SIDE, seed=81)
    channels = {
        "no picture": (),
        "a hole": (Channel("mask", hole), Channel("masked_image", image_)),
        "a faint hole": (Channel("mask", hole, Voice(0.5)), Channel("masked_image", image_, Voice(0.5, mask=REGION))),
        "ground": (Channel("masked_image", image_, ground=True),),
    }
    rows = {
        k: Row(noise(4, SIDE, SIDE), torch.tensor(500.0), text(77) + Ports(channels=c)) for k, c in channels.items()
    }
    rows["a hole, controlled"] = replace(rows["a hole"], ports=rows["a hole"].ports + control("canny"))
    return parts()["nine channels"], rows


def sized() -> tuple[Network, dict[str, Row]]:
    def vectors(seed: int) -> Ports:
        ids = torch.tensor([32.0 + seed, 32.0, 0.0, 0.0, 32.0, 32.0])
        return Ports(embedding=(Vector("text_embeds", noise(32, seed=seed)), Vector("time_ids", ids)))

    hint = Residual(parts()["sdxl canny"], noise(3, 32, 32))
    rows = {
        "plain": vectors(1) + text(77, width=64),
        "long": vectors(2) + text(154, width=64),
        "heavier": vectors(3) + text(77, width=64) + Ports(embedding=(Vector("text_embeds", noise(32), Voice(0.3)),)),
        "controlled": vectors(4) + text(77, width=64) + Ports(residuals=(hint,)),
    }
    return parts()["sdxl"], {k: Row(noise(4, SIDE, SIDE), torch.tensor(300.0), p) for k, p in rows.items()}


def films() -> tuple[Network, dict[str, Row]]:
    rising = (0.0, 0.3, 0.6, 1.0)
    film = Ports(residuals=(Residual(parts()["canny"], noise(3, FRAMES, 32, 32)),))
    said = {
        "plain": text(77),
        "other words": text(77, 5),
        "long": text(231),
        "weighted": text(77) + text(77, 6, weight=0.5),
        "weighted by frame": text(77) + text(77, 6, frames=rising),
        "regional": text(77) + text(77, 6, mask=REGION),
        "controlled": text(77) + control("canny", frames=rising),
        "controlled in a region": text(77) + control("canny", mask=REGION),
        "controlled by a film": text(77) + film,
        "shown": text(77) + image("moving face", weight=0.7),
        "shown by frame": text(77) + image("moving face", frames=rising, mask=REGION),
        "all at once": text(154) + control("canny") + image("moving face") + text(9, 8, mask=REGION),
    }
    rows = {
        k: Row(noise(4, FRAMES, SIDE, SIDE, seed=i), torch.tensor(900.0 - 7 * i), p) for i, (k, p) in enumerate(said.items())
    }  # fmt: skip
    return parts()["clip"], rows


KINDS = {"pictures": pictures, "inpainted": inpainted, "sized": sized, "clips": films}


@torch.no_grad()
def answers(network: Network, rows: Sequence[Row], width: int | None) -> list[Tensor]:
    found = evaluate(network, rows, MOST, width)
    assert len(found) == len(rows) and all(a.shape == r.x.shape for a, r in zip(found, rows, strict=True))
    return found


def differing(
    network: Network,
    rows: Mapping[str, Row],
    width: int | None,
    alone: Mapping[str, Tensor],
) -> set[str]:
    """Who has other bits than alone, beside all others in several orders and numbers."""
    wrong = set()
    for seed in range(3):
        order = random.Random(seed).choices(list(rows), k=len(rows)) + list(rows)
        random.Random(seed).shuffle(order)
        found = answers(network, [rows[k] for k in order], width)
        wrong |= {k for k, a in zip(order, found, strict=True) if not torch.equal(a, alone[k])}
    return wrong


FEW = ("pictures", 2, 4)
"""Every fourth row of pictures, in calls of two."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "width", "every"), some([FEW, *((kind, 8, 1) for kind in KINDS)], quick=[("inpainted", 8, 1)])
)
def test_a_row_s_bits_are_its_own(kind: str, width: int, every: int) -> None:
    network, rows = KINDS[kind]()
    rows = {name: rows[name] for name in list(rows)[::every]}
    alone = {k: answers(network, [row], width)[0] for k, row in rows.items()}
    assert not differing(network, rows, width, alone)
    assert len({float(a.sum()) for a in alone.values()}) == len(rows), "everybody says something else"


@pytest.mark.slow
@pytest.mark.parametrize("kind", some(KINDS, quick=["sized"]))
def test_without_a_width_they_are_close_only(kind: str) -> None:
    """So the law above says something."""
    network, rows = KINDS[kind]()
    alone = {k: answers(network, [row], None)[0] for k, row in rows.items()}
    assert differing(network, rows, None, alone)
    found = answers(network, list(rows.values()), None)
    assert max(float((a - b).abs().max()) for a, b in zip(found, alone.values(), strict=True)) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("kind", some(KINDS, quick=["clips"]))
def test_branches_and_adapters_see_as_many_rows_in_every_call(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, rows = KINDS[kind]()
    own, width = network.predict, 8 // FRAMES if kind == "clips" else 8

    def watched(batch: Any) -> Tensor:
        assert len(batch.x) == width
        for said in (*batch.residuals, *batch.decoupled):
            per_row = torch.bincount(said.rows, minlength=width)
            assert len(set(per_row.tolist())) == 1, "each row as often as every other"
        return own(batch)

    monkeypatch.setattr(network, "predict", watched)
    answers(network, [*rows.values(), *list(rows.values())[::3]], 8)


@pytest.mark.slow
def test_rows_share_calls_as_far_as_they_can() -> None:
    network, rows = pictures()
    plain = [rows[k] for k in ("plain", "other words", "plain", "long", "other words")]
    assert calls(plain, MOST, 4) == [([0, 1, 2, 4], 4), ([3], 4)]
    assert calls(plain, MOST, 2) == [([0, 1], 2), ([2, 4], 2), ([3], 2)]
    assert calls(plain, 3, None) == [([0, 1, 2, 3, 4], 5)], (
        "pictures: the scheduler sees to it that they are few enough"
    )
    clips = list(films()[1].values())[:5]
    assert [part for part, _ in calls(clips, 8, None)] == [[0, 1], [2, 3], [4]]
    assert [width for _, width in calls(clips, 8, None)] == [2, 2, 1]
    assert [width for _, width in calls(clips, 8, 3)] == [1] * 5, "wider than a call: one by one"
    assert evaluate(network, [], MOST, 8) == []


def test_only_what_decides_shapes_and_kernels_is_structure() -> None:
    rows = pictures()[1]
    same = [
        {"plain", "other words"},
        {"controlled", "controlled less", "guessing", "controlled in a region"},
        {"shown", "shown less", "shown in a region", "shown to some layers"},
        {"brushed", "brushed in a region"},
    ]
    for names in same:
        assert len({structure(rows[k]) for k in names}) == 1
    assert len({structure(row) for row in rows.values()}) == len(rows) - sum(len(names) - 1 for names in same)


@pytest.mark.parametrize("threads", [1, 3])
def test_silu_s_bits_do_not_depend_on_the_place(threads: int) -> None:
    """With 3 threads, or numbers of elements that fill no whole vectors, PyTorch's own do."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for shape in ((33, 7), (32, 17, 17), (77, 641)):
            x = noise(*shape)
            with SteadySiLU():
                found = torch.nn.SiLU()(x.expand(8, *shape).contiguous())
            assert all(torch.equal(found[0], r) for r in found)
            assert torch.allclose(found[0], torch.nn.functional.silu(x), rtol=1e-6, atol=1e-7)
        with SteadySiLU():
            assert torch.nn.SiLU()(torch.tensor([-1e4, 0.0, 1e4])).tolist() == [0.0, 0.0, 1e4]
    finally:
        torch.set_num_threads(before)
