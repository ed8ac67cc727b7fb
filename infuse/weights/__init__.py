"""Weights: from a name to modules. `library` finds, `identify` says what it is, `base` and `controlnet` load it."""
