"""A checkpoint of your own: python own_checkpoint.py sd15.safetensors (or a folder, or owner/name of the Hub)."""

import sys

import infuse

model = sys.argv[1] if len(sys.argv) > 1 else "v1-5-pruned-emaonly.safetensors"
sd = infuse.load(model)
recipe = infuse.Recipe(
    prompt="a photo of a red fox in the snow", negative_prompt="blurry", steps=25, guidance=7, seed=1
)

report = sd.check(recipe)  # from headers alone: nothing is loaded yet
print(f"{report.rows} rows, {report.memory / 1e9:.1f} GB of weights, {report.peak / 1e9:.1f} GB at most")
for path in sd.run(recipe).save("fox.png"):
    print(path)
