"""What the checks found, as data: results, the report of a method, and what counts as equal. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

# Agreement to this share counts as equal: independent sums in double precision differ by far less, and anything that
# a method learns from data changes its numbers by far more.
TOLERANCE = 1e-7

LOADS = ("hooks", "its hooks, card and options keep the contract, and what it requires is there")
FRESH = ("fresh_process", "a process that has fitted and replied before gives the same as a fresh one")


@dataclass(frozen=True)
class Result:
    """One check of one method.

    name, proves  the check, and what it shows when it is ok
    status        ok, failed or skipped
    reason        why it failed and how to mend that, or why it was skipped; empty if ok
    """

    name: str
    proves: str
    status: Literal["ok", "failed", "skipped"]
    reason: str = ""


@dataclass(frozen=True)
class Report:
    """All checks of one method. `source` says where its code lies, `seconds` how long it took."""

    method: str
    source: str
    results: tuple[Result, ...]
    seconds: float

    @property
    def ok(self) -> bool:
        return not self.failed

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the checks that failed."""
        return tuple(r.name for r in self.results if r.status == "failed")

    def text(self) -> str:
        """For a terminal, or for the message of a failing test."""
        width = max(len(r.name) for r in self.results)
        lines = [f"{r.name:<{width}}  {r.status:<7}  {r.reason or r.proves}" for r in self.results]
        count = {status: sum(r.status == status for r in self.results) for status in ("ok", "failed", "skipped")}
        summary = ", ".join(f"{number} {status}" for status, number in count.items() if number)
        return "\n".join([*lines, "", f"{self.method} ({self.source}): {summary}, {self.seconds:.1f} s"])

    def as_json(self) -> dict[str, Any]:
        """Plain data for --json."""
        checks = [{"name": r.name, "proves": r.proves, "status": r.status, "reason": r.reason} for r in self.results]
        return {
            "method": self.method,
            "source": self.source,
            "ok": self.ok,
            "failed": list(self.failed),
            "seconds": round(self.seconds, 2),
            "checks": checks,
        }
