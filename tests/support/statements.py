"""What a registry asks of its database, and how the database goes about it."""

from pathlib import Path
from typing import Any

import sqlalchemy as sa


class Statements:
    """Every statement that SQLite runs, and how it plans to."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def listen(self, connection: Any, _: object) -> None:
        connection.set_trace_callback(self.seen.append)

    def scans(self, path: Path) -> list[str]:
        """The plans that look at every row of a table; not those of tables that have just one."""
        single = ("SCAN one_row", "SCAN CONSTANT ROW")
        engine = sa.create_engine(f"sqlite:///{path}")
        with engine.connect() as connection:
            explained = [
                str(row[3])
                for text in self.seen
                if text.split()[0] in ("SELECT", "INSERT", "UPDATE", "DELETE")
                for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}")
            ]
        engine.dispose()
        return [plan for plan in explained if plan.startswith("SCAN") and plan not in single]
