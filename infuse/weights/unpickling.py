"""A pickle is read by a child process that may do little: so much memory, so many seconds, tensors and nothing else.

The reader takes weights only and runs no code of the file. Should a file all the same make it crash, or unpack into more
than fits, that ends the child and becomes a letter.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

from infuse.errors import WeightsError

SPARE = 4 * 2**30
"""Bytes that the child may take beside three times the file's."""
SLOW = 10 * 2**20
"""Bytes a second that any disk reads and writes."""
PATIENCE = 120.0
"""Seconds beside those, for importing torch on a busy machine."""
REFUSED = 3
"""Exit code of a child that has written its letter."""


def unpickled(source: Path, out: Path, memory: int | None = None, seconds: float | None = None) -> int:
    """Write the tensors of a pickle as safetensors, in a child process; returns their number.

    memory: bytes, and seconds, that the child may take; by the file's size if left out. Raises WeightsError.
    """
    size = source.stat().st_size
    memory, seconds = memory or SPARE + 3 * size, seconds or PATIENCE + 4 * size / SLOW
    code = "from infuse.weights.unpickling import child; child()"
    path = os.pathsep.join(p for p in (str(Path(__file__).parents[2]), *sys.path) if p)
    env = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    words = [sys.executable, "-c", code, str(source), str(out), str(memory)]
    try:
        done = subprocess.run(words, env=env, capture_output=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        raise WeightsError("source", f"{source.name} was not read within {seconds:.0f} s, and was given up. {BETTER}") from None  # fmt: skip
    last = done.stdout.decode("utf-8", "replace").strip().rpartition("\n")[2]
    if done.returncode == REFUSED:
        said = json.loads(last)
        raise WeightsError("source", said["message"])
    if done.returncode != 0 or not out.is_file():
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
        raise WeightsError("source", f"{source.name} ended the process that read it ({how}): it is damaged, or unpacks into more than it should. {BETTER}")  # fmt: skip
    return int(json.loads(last)["tensors"])


BETTER = "Download it again, or take the .safetensors version of this model."


def child() -> None:
    """What the child does with its arguments: source, out, bytes. Its last line of output is JSON."""
    source, out, memory = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    import torch  # noqa: F401  before the limit: its libraries are no tensors of the file
    from safetensors.torch import save_file

    from infuse.weights.formats import read_header, read_tensors

    _limit(memory)
    try:
        if _unpacked(source) > memory:
            raise MemoryError
        header = read_header(source, "source")
        tensors = {k: t.contiguous().clone() for k, t in read_tensors(source).items()}  # names may share memory
        save_file(tensors, out, metadata={"format": "pt", **header.metadata})
    except Exception as error:
        if _is_memory(error):
            _refuse(f"{source.name} unpacks into more than {memory / 2**30:.1f} GiB, and was given up. {BETTER}")
        if not isinstance(error, WeightsError):
            raise
        _refuse(error.message)
    print(json.dumps({"tensors": len(tensors)}))


def _unpacked(source: Path) -> int:
    """Bytes that an archive says it holds; torch packs nothing, so that an honest one is as large as its file."""
    if not zipfile.is_zipfile(source):
        return 0
    with zipfile.ZipFile(source) as archive:
        return sum(entry.file_size for entry in archive.infolist())


def _is_memory(error: BaseException | None) -> bool:
    """Was it, or what it came from, a want of memory?"""
    while error is not None:
        text = str(error).lower()
        if isinstance(error, MemoryError) or "alloc" in text or "out of memory" in text:
            return True
        error = error.__cause__ or error.__context__
    return False


def _refuse(message: str) -> None:
    print(json.dumps({"message": message}), flush=True)
    os._exit(REFUSED)


def _limit(memory: int) -> None:
    """Of data in memory, mapped files apart; where the system has such limits."""
    try:
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        most = memory + used
        resource.setrlimit(resource.RLIMIT_DATA, (most if hard < 0 else min(most, hard), hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    except (ImportError, AttributeError, ValueError, OSError):
        return
