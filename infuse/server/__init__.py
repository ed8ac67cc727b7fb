"""What other programs and people talk to: a durable queue of jobs, and what is built on it.

The room has an extra of its own (`serve`); whoever enters without it reads what to install.
"""

try:
    import sqlalchemy  # noqa: F401
except ImportError:
    raise ImportError('the server keeps its jobs with SQLAlchemy, which is not installed: pip install "infuse[serve]"') from None  # fmt: skip
