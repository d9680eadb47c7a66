"""What is logged by others: loggers that Ultralytics starts because they are installed, and names in its lines."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from logging import LogRecord
from pathlib import Path
from typing import Any

from yolo_kd.engine import ultra


def drop_mlflow_without_store(callbacks: dict[str, list[Callable[..., Any]]]) -> None:
    """Leave MLflow out where nobody named a store and it cannot open its own: it would warn in every training.

    mlflow-skinny has no SQLAlchemy, and so no local data base, which is MLflow's default. Where a store is named
    (MLFLOW_TRACKING_URI), MLflow stays, and says itself what it cannot open.

    Args:
        callbacks: A trainer's, by event; changed in place.
    """
    mlflow = sys.modules.get("mlflow")  # Ultralytics' callbacks import it, unless its settings turn it off
    uri, named = getattr(mlflow, "get_tracking_uri", str)(), getattr(mlflow, "is_tracking_uri_set", bool)()
    if named or not uri.startswith("sqlite") or find_spec("sqlalchemy") is not None:
        return
    for functions in callbacks.values():
        functions[:] = [f for f in functions if f.__module__ != "ultralytics.utils.callbacks.mlflow"]


@contextmanager
def named_finally(part: Path, name: str) -> Iterator[None]:
    """Inside, the log does not name a file that is soon renamed, but what Ultralytics was asked to save as."""

    def rename(record: LogRecord) -> bool:
        record.msg = str(record.msg).replace(f" saved as {part},", f" saved as {name}," if name else "")
        return True

    ultra.LOGGER.addFilter(rename)
    try:
        yield
    finally:
        ultra.LOGGER.removeFilter(rename)
