"""How fast, and beside whom: `python -m benchmarks` on a CPU, `.gpu` and `.load` on a GPU. See docs/performance.md.

Whoever is compared stands in one process and takes turns (`rounds`), on the same random weights (`networks`), with the same
requests (`asked`). Neither infuse nor its tests import anything from here.
"""
