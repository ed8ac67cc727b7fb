"""Seeds: a number, a list, or random, which becomes a number that is kept (cases U11, W10)."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from infuse import Recipe
from infuse.errors import RecipeError


def test_a_list_of_seeds_says_how_many() -> None:
    for said in ([3, 5, 8], (3, 5, 8), "3,5,8", "[3, 5, 8]"):
        data: dict[str, Any] = {"prompt": "a", "seed": said}
        recipe = Recipe(**data)
        assert (recipe.seeds, recipe.count) == ((3, 5, 8), 3)
        assert Recipe(**recipe.dump()) == recipe
    assert Recipe(seed=7, count=3).seeds == (7, 8, 9)


def test_random_becomes_a_number_once() -> None:
    for said in ("random", -1, "-1", "Random"):
        data: dict[str, Any] = {"seed": said}
        recipe = Recipe(**data)
        with pytest.raises(ValueError, match="random"):
            recipe.seeds  # noqa: B018
        one, other = recipe.seeded(), recipe.seeded()
        assert isinstance(one.seed, int) and 0 <= one.seed < 2**32 and one != other
        assert one.seeded() == one and Recipe(**one.dump()) == one


def test_a_generator_is_its_seed() -> None:
    data: dict[str, Any] = {"generator": torch.Generator().manual_seed(7)}
    assert Recipe(**data) == Recipe(seed=7)
    data = {"generator": [torch.Generator().manual_seed(i) for i in (4, 9)]}
    assert Recipe(**data).seeds == (4, 9)
    used = torch.Generator().manual_seed(7)
    torch.rand(3, generator=used)
    with pytest.raises(RecipeError, match="has drawn already"):
        Recipe(**{"generator": used})


@pytest.mark.parametrize(("data", "words"), [
    ({"seed": -2}, ("greater than or equal to 0", "random")), ({"seed": 2**63}, ("less than",)), ({"seed": True}, ("integer",)),
    ({"seed": "seven"}, ("no seed",)), ({"seed": []}, ("empty",)), ({"seed": [1, -1]}, ("greater than or equal to 0",)),
    ({"seed": [1, 2], "count": 3}, ("2 seeds",)), ({"seed": 2**63 - 1, "count": 2}, ("leaves the range", str(2**63 - 2))),
    ({"seed": 1.5}, ("integer",)), ({"seed": None}, ("integer",)),
])  # fmt: skip
def test_what_is_no_seed_is_a_letter(data: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(RecipeError) as letter:
        Recipe(**data)
    assert letter.value.field in ("seed", "count") and all(w in letter.value.message for w in words), letter.value


def test_the_last_seed_of_all_is_one() -> None:
    assert Recipe(seed=2**63 - 2, count=2).seeds == (2**63 - 2, 2**63 - 1)
