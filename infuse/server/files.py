"""Files by the SHA-256 of what is in them. One that is there is whole, and equal contents are one file.

Written beside, fsynced, renamed, and the folder fsynced: only then may a row of the database speak of it. So a row never
names a file that is not there; a file that no row names is what a killed writer left, and is swept.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex

from infuse.server.database import writes
from infuse.server.letters import StoreError


class Files:
    """A folder: `ab/abcdef...` are contents, `writing/` is what is being written, `previews/` what will be forgotten."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._writing = folder / "writing"
        self._previews = folder / "previews"

    def place(self, sha256: str) -> Path:
        return self.folder / sha256[:2] / sha256

    def put(self, data: bytes) -> str:
        """Keep these bytes; their SHA-256. Raises StoreError if they cannot be written whole."""
        sha256 = hashlib.sha256(data).hexdigest()
        place = self.place(sha256)
        with writes(f"the folder {self.folder}"):
            if self.whole(sha256):
                os.utime(place)  # nobody sweeps it away as an old one
            else:  # a broken one is replaced
                place.parent.mkdir(parents=True, exist_ok=True)
                self._written(data, place, durable=True)
            for folder in (place.parent, self.folder):
                _settled(folder)
        return sha256

    def _written(self, data: bytes, place: Path, durable: bool) -> None:
        self._writing.mkdir(parents=True, exist_ok=True)
        beside = self._writing / f"{place.name}.{token_hex(8)}"
        try:
            with beside.open("xb") as file:
                file.write(data)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            beside.replace(place)
        finally:
            beside.unlink(missing_ok=True)

    def whole(self, sha256: str) -> bool:
        """Is it there, and what it was?"""
        try:
            with self.place(sha256).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == sha256
        except OSError:
            return False

    def there(self, sha256: str) -> bool:
        return self.place(sha256).exists()

    def read(self, sha256: str, what: str) -> bytes:
        """The bytes, verified. what: how a letter calls them. Raises StoreError if they are gone or not what they were."""
        try:
            data = self.place(sha256).read_bytes()
        except OSError as error:
            raise StoreError("store", f"{what} cannot be read: its file {sha256[:12]} is gone or not ours to read ({error.strerror}). "
                                      "Retry the job to make it again, or upload the file again.") from error  # fmt: skip
        if hashlib.sha256(data).hexdigest() != sha256:
            raise StoreError("store", f"{what} is broken on disk: its file {sha256[:12]} does not hold what was written. "
                                      "Retry the job to make it again, or upload the file again.")  # fmt: skip
        return data

    # ── previews: one for each job, the newest, worth nothing once the job has ended ────────────────────────────────

    def preview(self, job: str, data: bytes) -> None:
        with writes(f"the folder {self.folder}"):
            self._previews.mkdir(parents=True, exist_ok=True)
            self._written(data, self._previews / job, durable=False)

    def previewed(self, job: str) -> bytes | None:
        try:
            return (self._previews / job).read_bytes()
        except OSError:
            return None

    def forget_preview(self, job: str) -> None:
        (self._previews / job).unlink(missing_ok=True)

    # ── what is there ───────────────────────────────────────────────────────────────────────────────────────────────

    def idle(self, seconds: float) -> Iterator[str]:
        """SHA-256 of files that nobody has written for so long."""
        before = time.time() - seconds
        for folder in self.folder.glob("??"):
            for entry in os.scandir(folder):
                if entry.is_file() and entry.stat().st_mtime <= before:
                    yield entry.name

    def remove(self, sha256: str) -> int:
        """The bytes that were freed."""
        place = self.place(sha256)
        try:
            size = place.stat().st_size
            place.unlink()
        except FileNotFoundError:
            return 0
        return size

    def tidy(self, running: set[str], seconds: float) -> None:
        """Remove what killed writers began, and previews of jobs that are not running."""
        before = time.time() - seconds
        for folder, kept in ((self._writing, set[str]()), (self._previews, running)):
            for path in folder.glob("*") if folder.exists() else ():
                if path.name not in kept and path.stat().st_mtime <= before:
                    path.unlink(missing_ok=True)


def _settled(folder: Path) -> None:
    """Names in a folder survive a loss of power once the folder itself was fsynced."""
    if os.name == "nt":  # folders are no files there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
