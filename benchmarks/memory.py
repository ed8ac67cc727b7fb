"""What one contender takes of a machine's memory: `python -m benchmarks.memory "infuse bfloat16"`, in a process that has no other."""

from __future__ import annotations

import argparse
import json

import torch

from benchmarks import machine
from benchmarks.asked import varied
from benchmarks.networks import SD15_STEPS, TINY, World
from benchmarks.run import contenders, request_of_memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    machine.quiet()
    (who,) = (c for c in contenders() if c.name == given.name)
    world = World(TINY if given.tiny else SD15_STEPS, who.dtype, given.device)
    before = machine.now(given.device)
    parts = [world.unet, world.controlnet(0), world.adapter(0), world.vae, world.eye, *world.texts]
    world.__dict__.pop("_pool", None)
    if (
        who.side == "infuse" and who.dtype.itemsize == 2
    ):  # as it reads files: else they would lie here twice, once in either order
        for module in parts[:2]:
            module.to(memory_format=torch.channels_last)
    weights = sum(p.numel() * p.element_size() for m in parts for p in m.parameters())
    who.prepare(world)
    machine.fresh(given.device)
    request = request_of_memory()
    who.run([request])
    who.run(varied([request], 1))
    print(
        json.dumps(
            {
                "weights": weights,
                "before": before,
                "peak": machine.peak(given.device),
                "after": machine.now(given.device),
            }
        )
    )


if __name__ == "__main__":
    main()
