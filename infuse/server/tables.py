"""What a store remembers, as tables: the same on SQLite and on PostgreSQL.

`jobs` is small and written often; a recipe with its pictures can have megabytes and is written once, so it lies beside,
in `requests`. Times are seconds since 1970.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

schema = MetaData()

about = Table("about", schema, Column("key", String(32), primary_key=True), Column("value", Text, nullable=False))
"""`schema`: the version of these tables. `files`: a row to be locked by whoever adds or removes files."""

owners = Table(
    "owners",
    schema,
    Column("owner", String(200), primary_key=True),
    Column("served", Integer, nullable=False, default=0),  # when it had its last turn, counted in turns of everybody
    Column("most_waiting", Integer),  # its own limits; none: those of the store
    Column("most_running", Integer),
)

jobs = Table(
    "jobs",
    schema,
    Column("id", String(32), primary_key=True),
    Column("owner", String(200), ForeignKey("owners.owner"), nullable=False),
    Column("state", String(16), nullable=False),
    Column("asked", String(64), nullable=False),  # the recipe's digest as it came: what an idempotency key stands for
    Column("digest", String(64), nullable=False),  # the same with its random seed drawn
    Column("made_with", String(64)),  # digest of the weights that it was made with, when it is done
    Column("dialect", String(32), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("deadline", Float),
    Column("key", String(200)),
    Column("created", Float, nullable=False),
    Column("started", Float),
    Column("ended", Float),
    Column("attempts", Integer, nullable=False, default=0),
    Column("most_attempts", Integer, nullable=False),
    Column("error", Text),
    Column("worker", String(200)),
    Column("leased_until", Float),
    Column("fence", Integer, nullable=False, default=0),  # grows with every lease: who holds an older one is refused
    Column("cancelling", Integer, nullable=False, default=0),
    Column("told", Integer, nullable=False, default=0),  # the id of its newest event
    UniqueConstraint("owner", "key"),
    Index("jobs_by_state", "state", "owner"),
    Index("jobs_by_digest", "digest"),
)

requests = Table(
    "requests",
    schema,
    Column("job", String(32), ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("recipe", Text, nullable=False),
    Column("beside", Text),  # what a dialect needs to answer, besides the recipe
)

events = Table(
    "events",
    schema,
    Column("job", String(32), ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("kind", String(16), nullable=False),
    Column("at", Float, nullable=False),
    Column("data", Text, nullable=False),
)

results = Table(
    "results",
    schema,
    Column("job", String(32), ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("sha256", String(64), nullable=False, index=True),
    Column("media_type", String(100), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("seed", BigInteger),
)

uses = Table(
    "uses",
    schema,
    Column("job", String(32), ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("sha256", String(64), primary_key=True, index=True),
)
"""Files that a job's recipe names by their hash: blobs, or what another job made."""

blobs = Table(
    "blobs",
    schema,
    Column("sha256", String(64), primary_key=True),
    Column("owner", String(200), ForeignKey("owners.owner"), primary_key=True),
    Column("media_type", String(100), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("at", Float, nullable=False),
)
