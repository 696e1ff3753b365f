"""A process that checks a method: it imports the plugin and sends what each check found (`isolated` is its driver)."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

from harness.contract import load_with_required, time_limit
from harness.errors import HarnessError
from harness.testkit.conformance import Checking, proved
from harness.testkit.lab import Lab, message
from harness.workers import channel


def check(driver: channel.Driver, name: str, files: list[str], folder: Path) -> None:
    """All checks, and then the trial that a fresh process makes, too."""
    driver.tell("checks", {"checks": proved()})  # before any plugin is imported
    checking = Checking(name, files, folder, lambda: driver.tell("step"))
    driver.tell("source", {"source": checking.source})
    told = False
    for result in checking.results():
        driver.tell("result", asdict(result))
        if checking.lab and checking.lab.works and not told:
            told = True
            driver.tell("works")
    if checking.lab and checking.lab.works:
        trial(driver, checking.lab)


def fresh(driver: channel.Driver, name: str, files: list[str], folder: Path) -> None:
    """The trial alone."""
    trial(driver, Lab(load_with_required(name, files), name, folder, step=lambda: driver.tell("step")))


def trial(driver: channel.Driver, lab: Lab) -> None:
    """Tell what comes of a trial that no check makes, or why nothing does."""
    try:
        replies, numbers = lab.elsewhere()
    except Exception as error:
        driver.tell("failed", {"reason": message(error, lab.method)})
        return
    driver.tell("trial", {"replies": replies}, **numbers)


def main() -> None:
    """Answer one question."""
    driver = channel.Driver(*channel.own_streams())
    asked = driver.next()
    fields = asked.fields
    try:
        with time_limit(fields["timeout"]):
            {"check": check, "fresh": fresh}[asked.kind](
                driver, fields["name"], fields["files"], Path(fields["folder"])
            )
        driver.tell("end")
    except HarnessError as error:
        driver.send(channel.failure(error))
    except channel.Closed:
        pass
    os._exit(0)  # threads of a plugin are not waited for
