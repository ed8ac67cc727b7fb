"""A network of pictures learns to move and to hear: nothing is lost at the start, and only what is asked for learns."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from noise_clips import FRAMES, Noise, clips, objective
from some import some

import tiny
from infuse import RecipeError, WeightsError
from infuse.batch import Row, collate
from infuse.encoders.kit import Base
from infuse.engine.model_store import ModelStore
from infuse.network.stc import STCEncoder
from infuse.ports import Channel, Ports, Tokens
from infuse.tabletop.making.saving import save_base
from infuse.training.saving import halved, save_video
from infuse.training.trainer import TrainConfig, Trainer
from infuse.training.video import MOVING, STYLE, Batch, Learn, Silence, video_objective
from infuse.training.video_models import CHANNELS, composed_base, is_temporal, joined, video_base
from infuse.weights.formats import read_header
from infuse.weights.library import Library

pytestmark = pytest.mark.slow  # all of it: a few seconds together, and seldom touched


NAMES = ("text", *CHANNELS, STYLE)


# ── who falls silent ────────────────────────────────────────────────────────────────────────────────────────────────


def test_who_falls_silent_is_drawn_as_the_original_draws() -> None:
    rng, n, rounds = np.random.default_rng(0), 64, 300
    heard = [Silence().heard(NAMES, n, rng) for _ in range(rounds)]
    every = np.stack([np.stack([h[name] for name in NAMES]) for h in heard])  # rounds names n
    # a tenth is all zero, a tenth all kept, and of the free 0.8 each condition takes half of the batch: 5/8 of them
    assert abs(float((~every).all(1).mean()) - (0.1 + 0.8 * 0.625**8)) < 0.01
    assert abs(float(every.all(1).mean()) - (0.1 + 0.8 * 0.375**8)) < 0.01
    assert all(abs(float(every[:, i].mean()) - 0.4) < 0.02 for i in range(len(NAMES)))
    # independent of each other among those: two are both heard in 0.1 + 0.8 * 0.375^2
    both = float((every[:, 1] & every[:, 2]).mean())
    assert abs(both - (0.1 + 0.8 * 0.375**2)) < 0.02


def test_all_zero_and_all_kept_are_disjoint_and_motion_may_stand_alone() -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        heard = np.stack([*Silence(zero=0.5, keep=0.5, each=0.0).heard(NAMES, 6, rng).values()])
        assert (heard.all(0) | (~heard).all(0)).all(), "each = 0: everybody or nobody"
        kept = np.stack([*Silence(zero=0.0, keep=1.0, each=1.0).heard(NAMES, 6, rng).values()])
        assert kept.all()
    alone = [Silence(own={"motion": 0.9}).heard(NAMES, 100, rng) for _ in range(50)]
    assert abs(np.mean([h["motion"].mean() for h in alone]) - 0.1) < 0.02
    assert abs(np.mean([h["depth"].mean() for h in alone]) - 0.4) < 0.03
    assert MOVING.null == "empty" and 0.85 < MOVING.heard(("text",), 1000, rng)["text"].mean() < 0.95


def test_some_clips_hear_only_what_is_asked_for_beside_words() -> None:
    only = ((0.3, ("motion", "local_image")), (0.2, ("depth",)))
    silence, rng = Silence(zero=0.0, keep=1.0, own={"text": 0.25}, only=only), np.random.default_rng(2)
    heard = silence.heard(NAMES, 4000, rng)
    told = np.stack([heard[name] for name in NAMES[1:]])  # all but words
    chosen = [np.array([name in names for name in NAMES[1:]])[:, None] for names in (*(n for _, n in only), NAMES)]
    pair, depth, every = ((told == some).all(0) for some in chosen)
    assert (pair | depth | every).all(), "the others are drawn as ever: here all are kept"
    assert abs(pair.mean() - 0.3) < 0.03 and abs(depth.mean() - 0.2) < 0.03
    for chosen in (pair, depth, every):
        assert abs(heard["text"][chosen].mean() - 0.75) < 0.05, "words fall silent on their own"


def test_a_new_encoder_speaks_as_loud_as_latents() -> None:
    class Faint(Noise):
        def seen(self, condition: str, pick: int, frame: int | None, rng: np.random.Generator) -> torch.Tensor | None:
            if condition == "depth":
                return None
            return 0.01 * torch.rand(CHANNELS[condition], FRAMES, 24, 24, generator=torch.Generator().manual_seed(pick))

    made = video_objective(composed_base(clips()), Faint())
    encoders: Any = made.base.composer.stc  # type: ignore[union-attr]
    untaught = encoders["depth"].convs[0].weight.clone()
    shown: Any = Faint().seen("motion", 3, None, np.random.default_rng(0))

    def loud() -> float:
        return float(encoders["motion"].look(shown[None], (8, 8)).detach().std((-1, -2)).mean())

    before = loud()
    made.settle(("motion", "depth"))
    after = loud()
    assert before < 0.05 and 0.5 < after < 2
    assert torch.equal(encoders["depth"].convs[0].weight, untaught), "nobody knows what it will be shown"


def test_silence_is_nothing_beside_the_latents_and_zeros_among_the_words() -> None:
    base = composed_base(clips())
    made, rng = objective(base), np.random.default_rng(0)
    nobody = Batch(np.array([1, 2]), None, FRAMES, np.zeros(2), dict.fromkeys(made.names, np.zeros(2, bool)), rng)
    silent = made.ports(nobody, (8, 8))
    assert not any(p.channels for p in silent)
    assert all(not t.values.any() for p in silent for t in p.context) and len(silent[0].context) == 2
    loud = made.ports(replace(nobody, heard=dict.fromkeys(made.names, np.ones(2, bool))), (8, 8))
    assert [len(p.channels) for p in loud] == [len(CHANNELS)] * 2
    assert all(c.value.shape == (8, FRAMES, 8, 8) for p in loud for c in p.channels)  # type: ignore[union-attr]
    made.silence = Silence(null="empty")
    words = made.ports(nobody, (8, 8))[0].context[0].values
    assert torch.equal(words, base.texts.batch([""])[0])


def test_what_is_alike_in_all_frames_is_looked_at_once() -> None:
    """The same as the encoder's own answer to the picture, repeated."""
    encoder = STCEncoder(3).eval()
    one = torch.rand(2, 3, 1, 24, 24)
    whole = encoder(one.expand(-1, -1, FRAMES, -1, -1), (16, 16))
    parts = encoder.after(encoder.look(one, (16, 16)).expand(-1, -1, FRAMES, -1, -1))
    assert float((whole - parts).detach().abs().max()) < 1e-6


# ── where it begins ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.parametrize("family", ["sd1", "sd2"])
def test_a_clip_is_at_first_its_pictures_side_by_side(family: str) -> None:
    """By the same heads (sd1: four in every level; sd2: four and eight), before and after the channels are widened."""
    still = tiny.base(family, dtype=torch.float64).base
    moving = video_base(still, FRAMES)
    wide = composed_base(moving)
    x, said = torch.randn(2, 4, FRAMES, 16, 16, dtype=torch.float64), torch.randn(2, 7, 32, dtype=torch.float64)
    t = torch.tensor([300.0, 700.0])

    def clip(base: Base, how: str = "predict", ports: Ports | None = None) -> torch.Tensor:
        rows = [Row(x[i], t[i], Ports(context=(Tokens(said[i]),)) + (ports or Ports())) for i in range(2)]
        return getattr(base.network, how)(collate(rows, base.spec))

    with torch.no_grad():
        rows = [Row(x[i, :, k], t[i], Ports(context=(Tokens(said[i]),))) for i in range(2) for k in range(FRAMES)]
        pictures = still.network.predict(collate(rows, still.spec)).unflatten(0, (2, FRAMES)).transpose(1, 2)
        heard = Ports(channels=(Channel("stc", torch.randn(8, FRAMES, 16, 16, dtype=torch.float64)),))
        answers = [clip(moving), clip(wide), clip(wide, ports=heard), clip(moving, "stills"), clip(wide, "stills")]
        assert max(float((a - pictures).abs().max()) for a in answers) < 1e-9
        for name, parameter in moving.network.unet.named_parameters():
            if is_temporal(name):
                parameter.normal_(std=0.1)
        assert float((clip(moving) - pictures).abs().max()) > 1e-3
        assert float((clip(moving, "stills") - pictures).abs().max()) < 1e-9, "stills pass the temporal layers by"


def test_networks_without_a_counterpart_are_refused() -> None:
    with pytest.raises(RecipeError, match="SD 1.x and 2.x"):
        video_base(tiny.base("sdxl").base)
    with pytest.raises(RecipeError, match="makes pictures"):
        composed_base(tiny.base("sd1").base)


# ── what learns ─────────────────────────────────────────────────────────────────────────────────────────────────────


LEARN = [(False, "temporal", False), (False, "all", True), (True, "new", False), (True, "temporal", False),
         (True, "attention", False), (True, "all", False)]  # fmt: skip


@pytest.mark.parametrize(("composed", "learn", "text"), some(LEARN, quick=[LEARN[1], LEARN[2], LEARN[4]]))
def test_gradients_reach_only_what_is_asked(composed: bool, learn: Learn, text: bool) -> None:
    base = composed_base(clips()) if composed else clips()
    made = objective(base, learn, learn_text=text, silence=Silence(0, 1, 0))
    before = made.base.network.unet.conv_in
    loss, _ = made.loss(made.batch(np.random.default_rng(0)), torch.Generator().manual_seed(0))
    loss.backward()
    unet = {n for n, p in base.network.unet.named_parameters() if p.grad is not None and p.grad.any()}
    spatial = {n for n in unet if not is_temporal(n)}
    if learn != "all":
        selfish = {n for n in spatial if ".attn1." in n}
        assert spatial - selfish == ({"conv_in.learned.weight"} if composed else set())
        assert bool(selfish) == (learn == "attention")
        assert any(map(is_temporal, unet)) == (learn != "new")
    else:
        assert "conv_in.weight" in unet and "up_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight" in unet
    assert any(p.grad is not None for p in base.texts.models[0].parameters()) == text
    assert all(p.grad is None for p in base.vae.parameters())
    assert set(made.modules()) == {"unet", *(["stc", "style"] if composed else []), *(["text_encoder"] if text else [])}
    if composed and learn == "new":
        joined(base.network.unet)
        assert before is not base.network.unet.conv_in and base.network.unet.conv_in.weight.shape[1] == 12  # type: ignore[union-attr,index]


@pytest.mark.slow
@pytest.mark.parametrize("still", [0.0, 1.0])
def test_the_loss_falls_on_one_batch_and_a_step_can_be_repeated(tmp_path: Path, still: float) -> None:
    made = objective(composed_base(clips()), still=still, silence=Silence(0, 1, 0))
    one = made.batch(np.random.default_rng(0))
    made.batch = lambda rng: replace(one, rng=np.random.default_rng(0))  # type: ignore[method-assign]
    own = made.loss
    made.loss = lambda batch, generator: own(batch, torch.Generator().manual_seed(7))  # type: ignore[method-assign]
    trainer = Trainer(made, TrainConfig(12, lr=3e-3, warmup=1, schedule="constant"), tmp_path)
    for module in made.modules().values():
        module.train()
    first, again = (float(made.loss(one, torch.Generator())[0].detach()) for _ in range(2))
    assert first == again, "dropout follows the step's generator"
    losses = [trainer.advance()["loss"] for _ in range(6)]
    assert losses[-1] < 0.9 * losses[0]


# ── what is left behind ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_what_is_saved_predicts_the_same(tmp_path: Path) -> None:
    base = replace(composed_base(clips()), name="own")
    made = objective(base, "new", silence=Silence(0, 1, 0))
    trainer = Trainer(made, TrainConfig(2, lr=1e-2, warmup=1, bf16=False), tmp_path / "runs")
    trainer.run()
    for module in (base.network.unet, *base.composer.modules):  # type: ignore[union-attr]
        for p in module.eval().parameters():
            p.data = p.data.half().float()  # as it is saved
    save_video(base, tmp_path / "own")
    assert json.loads((tmp_path / "own" / "unet" / "config.json").read_text())["in_channels"] == 12
    loaded = ModelStore(dtype=torch.float32, device="cpu").base(str(tmp_path / "own"))
    assert loaded.spec.frames == FRAMES and loaded.spec.compositions == tuple(CHANNELS) and loaded.spec.style
    assert loaded.composer is not None and base.composer is not None
    x, film = torch.randn(4, FRAMES, 16, 16), torch.rand(1, 2, FRAMES, 24, 24)
    answers = []
    for one, composer in ((base, base.composer), (loaded, loaded.composer)):
        with torch.no_grad():
            told: Any = composer.stc["motion"](film, (16, 16))[0]
            style: Any = composer.style(torch.ones(1, 32))  # type: ignore[misc]
            ports = Ports(
                context=(Tokens(one.texts.batch(["a word"])[0]), Tokens(style)), channels=(Channel("stc", told),)
            )
            answers.append(one.network.predict(collate([Row(x, torch.tensor(500.0), ports)], one.spec)))
    assert float((answers[0] - answers[1]).abs().max()) < 2e-3, "half-precision words are all that differs"


def saved(family: str, folder: Path) -> None:
    base = tiny.base(family).base
    save_base(base, folder)
    halved(base.vae, folder / "vae")
    base.texts.tokenizers[0].save_pretrained(folder / "tokenizer")


@pytest.mark.slow
def test_what_is_added_to_a_network_of_pictures_is_saved_alone(tmp_path: Path) -> None:
    saved("sd1", tmp_path / "pictures")
    pictures = ModelStore(dtype=torch.float32, device="cpu").base(str(tmp_path / "pictures"))
    base = composed_base(video_base(pictures, FRAMES))
    learned = {n: p for n, p in base.network.unet.named_parameters() if is_temporal(n) or n == "conv_in.weight"}
    for p in learned.values():
        p.data = torch.randn(p.shape).mul(0.1).half().float()
    save_video(base, tmp_path / "added", "../pictures", lender=pictures.network.unet)
    file = tmp_path / "added" / "unet" / "diffusion_pytorch_model.safetensors"
    assert set(read_header(file)) == set(learned)
    store = ModelStore(dtype=torch.float32, device="cpu")
    assert store.view(str(tmp_path / "added")).spec.compositions == tuple(CHANNELS)
    loaded = store.base(str(tmp_path / "added"))
    x, words = torch.randn(4, FRAMES, 16, 16), Tokens(base.texts.batch(["a word"])[0])
    row = Row(x, torch.tensor(500.0), Ports(context=(words,)))
    base.network.unet.eval()
    with torch.no_grad():
        ours, theirs = (one.network.predict(collate([row], one.spec)) for one in (base, loaded))
    torch.testing.assert_close(ours, theirs)
    digests = [Library(offline=True).find(str(tmp_path / n)).digest for n in ("pictures", "added")]
    assert digests[0] != digests[1]

    index = tmp_path / "added" / "model_index.json"
    said = json.loads(index.read_text())
    index.write_text(json.dumps({k: v for k, v in said.items() if k != "infuse_base"}))
    with pytest.raises(WeightsError, match=r"model: .*only what is added to another UNet.*infuse_base"):
        ModelStore(dtype=torch.float32).base(str(tmp_path / "added"))
    index.write_text(json.dumps(said))
    (tmp_path / "pictures").rename(tmp_path / "other")
    saved("sdxl", tmp_path / "pictures")
    with pytest.raises(WeightsError, match="model: the UNet of .* with what .* lends to it"):
        ModelStore(dtype=torch.float32).base(str(tmp_path / "added"))
