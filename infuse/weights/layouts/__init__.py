"""One file for each layout that weights are published in: what its tensors are called, and how modules come of them."""
