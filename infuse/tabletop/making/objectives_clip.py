"""Teach a small CLIP the tabletop: pictures and captions meet in one space, and the picture's side can be asked.

The contrastive loss alone would be content with whatever tells the pictures of a batch apart. Two auxiliary questions,
which solids (shape and colour pairs) and which room, make sure that the image embedding carries what an IP-Adapter needs.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from infuse.tabletop.captions import describe
from infuse.tabletop.dataset import Dataset
from infuse.tabletop.judge import COLOUR_NAMES, ROOM_NAMES, SHAPE_NAMES
from infuse.tabletop.making.objectives_judge import damaged, labels_of, picked
from infuse.tabletop.tokenizer import END, START

PIXELS, WIDTH = 64, 128
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # OpenAI CLIP's


def vision_tower() -> CLIPVisionModelWithProjection:
    """64 x 64 pixels as 8 x 8 patches, four layers, 128 numbers out."""
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            image_size=PIXELS, patch_size=8, hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=4,
            num_attention_heads=4, projection_dim=WIDTH,
        )
    )  # fmt: skip


def text_tower(tokenizer: CLIPTokenizer) -> CLIPTextModelWithProjection:
    """77 tokens, four layers, 128 numbers out."""
    start, end = tokenizer.convert_tokens_to_ids([START, END])  # pyright: ignore[reportGeneralTypeIssues]  a list of two
    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=4,
            num_attention_heads=4, projection_dim=WIDTH, max_position_embeddings=77,
            bos_token_id=start, eos_token_id=end, pad_token_id=end,
        )
    )  # fmt: skip


def save_image_processor(folder: Path) -> None:
    """Write the preprocessing that belongs to `vision_tower`, readable by transformers' CLIPImageProcessor."""
    from transformers import CLIPImageProcessorPil  # needs Pillow, as only this function does

    size, crop = {"shortest_edge": PIXELS}, {"height": PIXELS, "width": PIXELS}
    CLIPImageProcessorPil(size=size, crop_size=crop, image_mean=list(MEAN), image_std=list(STD)).save_pretrained(folder)


def to_pixel_values(images: Tensor) -> Tensor:
    """(b, 3, h, w) square pictures in 0..1 to (b, 3, 64, 64), standardised: the processor's work on tensors."""
    small = F.interpolate(images, (PIXELS, PIXELS), mode="bicubic", antialias=True).clamp(0, 1)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    return (small - mean) / std


class Questions(nn.Module):
    """From an image embedding to logits: (b, 32) which shape and colour pairs are there, (b, 6) floor and (b, 6) wall."""

    def __init__(self) -> None:
        super().__init__()
        self.pairs = nn.Linear(WIDTH, len(SHAPE_NAMES) * len(COLOUR_NAMES))
        self.floor, self.wall = nn.Linear(WIDTH, len(ROOM_NAMES)), nn.Linear(WIDTH, len(ROOM_NAMES))

    def forward(self, embeds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(b, 128) image embeddings, not normalised."""
        return self.pairs(embeds), self.floor(embeds), self.wall(embeds)


class Temperature(nn.Module):
    """The learned sharpness of the contrast, as in CLIP; a logarithm, starting at 1 / 0.07."""

    def __init__(self) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.tensor(2.659))

    def forward(self, similarity: Tensor) -> Tensor:
        """Cosines to logits."""
        return similarity * self.log.clamp(max=4.6).exp()


class ClipObjective:
    """`rebuilt` (m, 128, 128, 3) uint8 holds the first m pictures after the autoencoder, used for half of each batch."""

    def __init__(
        self, tokenizer: CLIPTokenizer, data: Dataset, *, rebuilt: np.ndarray | None = None, batch_size: int = 64
    ) -> None:
        self.vision, self.text = vision_tower(), text_tower(tokenizer)
        self.questions, self.temperature = Questions(), Temperature()
        self.tokenizer, self.data, self.rebuilt, self.batch_size = tokenizer, data, rebuilt, batch_size
        self.scenes = [data.scene(i) for i in range(len(data))]
        labels = labels_of(self.scenes)
        self.rooms, self.pairs = labels.room, np.zeros((len(data), 32), np.float32)
        for row, things in zip(self.pairs, labels.things, strict=True):
            for colour, shape, _ in things[things[:, 0] >= 0]:
                row[shape * len(COLOUR_NAMES) + colour] = 1

    def modules(self) -> Mapping[str, nn.Module]:
        """Both towers, the questions and the temperature."""
        return {
            "vision": self.vision, "text": self.text, "questions": self.questions, "temperature": self.temperature,
        }  # fmt: skip

    def batch(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """Pictures, damaged a little; a caption each; and the answers."""
        picks, images = picked(self.data, self.rebuilt, self.batch_size, rng)
        texts = [describe(self.scenes[i], rng).text for i in picks]
        tokens = self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        return {
            "pixel_values": to_pixel_values(damaged(images, rng)),
            "input_ids": tokens.input_ids,
            "pairs": torch.from_numpy(self.pairs[picks]),
            "rooms": torch.from_numpy(self.rooms[picks]),
        }

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """The symmetric contrastive loss plus the questions'."""
        image = self.vision(batch["pixel_values"]).image_embeds.float()
        text = self.text(batch["input_ids"]).text_embeds.float()
        logits = self.temperature(F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T)
        own = torch.arange(len(logits))
        contrast = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
        pairs, floor, wall = self.questions(image)
        asked = 20 * F.binary_cross_entropy_with_logits(pairs, batch["pairs"])
        room = F.cross_entropy(floor, batch["rooms"][:, 0]) + F.cross_entropy(wall, batch["rooms"][:, 1])
        right = (logits.argmax(1) == own).float().mean()
        numbers = {"contrast": float(contrast.detach()), "pairs": float(asked.detach()), "room": float(room.detach())}
        return contrast + asked + room, numbers | {"retrieved": float(right)}


@torch.no_grad()
def retrieval(objective: ClipObjective, data: Dataset, count: int = 500, seed: int = 0) -> dict[str, float]:
    """Among `count` held-out pictures: how often a picture finds its caption first, and how well it answers questions."""
    for module in objective.modules().values():
        module.eval()
    scenes = [data.scene(i) for i in range(count)]
    texts = [describe(scene, np.random.default_rng((seed, i))).text for i, scene in enumerate(scenes)]
    images = torch.from_numpy(np.array(data.rgb[:count])).permute(0, 3, 1, 2).float().div(255)
    image = objective.vision(to_pixel_values(images)).image_embeds
    tokens = objective.tokenizer(texts, padding=True, return_tensors="pt")
    text = objective.text(tokens.input_ids).text_embeds
    best = (F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T).argsort(1, descending=True)
    own = torch.arange(count)[:, None]
    pairs, floor, wall = objective.questions(image)
    labels = labels_of(scenes)
    truth = np.zeros((count, 32), bool)
    for row, things in zip(truth, labels.things, strict=True):
        row[[s * len(COLOUR_NAMES) + c for c, s, _ in things if c >= 0]] = True
    room = torch.from_numpy(labels.room)
    return {
        "first": float((best[:, :1] == own).float().mean()),
        "among_five": float((best[:, :5] == own).any(1).float().mean()),
        "all_pairs_right": float(((pairs > 0).numpy() == truth).all(1).mean()),
        "floor": float((floor.argmax(1) == room[:, 0]).float().mean()),
        "wall": float((wall.argmax(1) == room[:, 1]).float().mean()),
    }
