"""A store that is open: a database, and the folder of files beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from infuse.server import migrations
from infuse.server.database import Database, writes
from infuse.server.files import Files
from infuse.server.ids import Ids
from infuse.server.keeping import Keep
from infuse.server.letters import StoreError
from infuse.server.turns import Quota


class Opened:
    """`where`: a folder, in which everything lies; or the address of a PostgreSQL database (postgresql://user@host/name), and the
    folder `files` that all its users share. quota, keep: what an owner may have at once; what stays, and how long.

    Raises StoreError if the database or the folder does not do its part, at any call; then nothing was changed.
    """

    def __init__(
        self,
        where: str | Path,
        files: str | Path | None = None,
        *,
        quota: Quota | None = None,
        keep: Keep | None = None,
        patience: float = 10.0,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.quota, self.keep = quota or Quota(), keep or Keep()
        address = str(where)
        if "://" not in address:
            folder = Path(where)
            with writes(f"the folder {folder}"):
                folder.mkdir(parents=True, exist_ok=True)
            address, files = f"sqlite:///{folder / 'jobs.sqlite'}", files or folder / "files"
        self.database = Database(address, patience, clock)
        if files is None:
            raise StoreError("files", "a store in PostgreSQL wants a folder for what is made. Name one that all its workers share.")  # fmt: skip
        self.files, self._ids = Files(Path(files)), Ids()
        try:
            with self.database.writing() as c:
                migrations.bring_up(c)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
