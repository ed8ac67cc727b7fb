"""What is kept can be counted while somebody else keeps more."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from infuse.constants import Constants
from infuse.spoken import Spoken


@pytest.fixture(autouse=True)
def _restless() -> Iterator[None]:
    """Threads change places as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_memory_is_counted_while_a_call_keeps_more() -> None:
    constants, words, stop = Constants(most=8), Spoken(torch.zeros(1, 2, 3), None), threading.Event()
    constants.of("words", (), lambda: words)
    layers = [nn.Linear(1, 1) for _ in range(200)]

    def calls() -> None:
        n = 0
        while not stop.is_set():
            n += 1
            words.once(("bias", n % 300), lambda: torch.zeros(1))
            words.kept[layers[n % 200]] = torch.zeros(1)
            constants.of(("words", n % 12), (), lambda: words)
            if n % 300 == 0:
                words.cache.clear()
                words.kept.clear()

    thread = threading.Thread(target=calls)
    thread.start()
    try:
        for _ in range(100):
            assert constants.nbytes >= 0
    finally:
        stop.set()
        thread.join()
