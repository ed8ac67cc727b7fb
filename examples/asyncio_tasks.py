"""Inside of an asyncio program: every task awaits its own picture, and all of them share one engine."""

import asyncio

import infuse

sd = infuse.load("tabletop")


async def picture(prompt: str, name: str) -> None:
    ticket = sd.submit(infuse.Recipe(prompt=prompt, steps=12))
    result = await ticket  # a thread beside the loop does the work
    result.save(name)


async def main() -> None:
    try:
        async with asyncio.timeout(600):
            await asyncio.gather(picture("a large red cube", "task-1.png"), picture("a blue sphere", "task-2.png"))
    except infuse.InfuseError as error:
        print(f"not made: {error}")


asyncio.run(main())
