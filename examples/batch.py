"""Many recipes at once: they share network calls, and each gets what it would have got alone."""

import infuse

sd = infuse.load("tabletop")
prompts = ("a large red cube", "a small green cone on a brown floor", "two white spheres")
recipes = [infuse.Recipe(prompt=prompt, steps=12, seed=seed) for prompt in prompts for seed in (1, 2)]
for i, result in enumerate(sd.run_all(*recipes)):
    for path in result.save(f"batch-{i}.png"):
        print(path)
