"""One look for each family of files: each says what a table of tensors is, or that it is none of its own."""
