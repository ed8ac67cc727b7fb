"""diffusers and transformers change the whole process while they are imported and while they build, so one thread at a time lets them.

Both replace themselves in `sys.modules` by a lazy module at the end of their import. A thread that waited for that import
in another one is handed the original, which has no attributes (CPython looks the name up before it waits). So whoever
needs them calls `prime` first.
"""

from __future__ import annotations

from importlib import import_module
from threading import RLock

FRIENDS = ("diffusers", "transformers")

building = RLock()
"""To be held while a network is built: until it is, diffusers, transformers and accelerate replace
`nn.Module.register_parameter`, `torch.nn.init` and torch's default dtype for everybody, and put back what they found. Two
at once put back each other's."""

_importing = RLock()
_there: set[str] = set()


def prime(*modules: str) -> None:
    """Import diffusers, transformers, and these modules that use them, whole. Costs a set's look-up once they are there.

    Raises ImportError if one of them is not installed.
    """
    wanted = (*FRIENDS, *modules)
    if _there.issuperset(wanted):
        return
    with _importing:
        for name in wanted:
            import_module(name)
            _there.add(name)
