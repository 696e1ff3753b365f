"""`harness chat`: a talk with the model of a stored run, or with two beside each other, in the terminal or a pipe."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.commands import completion
from harness.commands.common import (
    RUNS,
    Json,
    Plugins,
    Quiet,
    RunsDir,
    app,
    check_runs_dir,
    example,
    print_json,
    progress,
)
from harness.errors import HarnessError, did_you_mean
from harness.text import one_line, terminal

if TYPE_CHECKING:
    from harness.runs import Answer, Side, Talk

HELP = "/new begins a new dialogue, /persona NAME talks as another person, /quit ends"
WORDS = ("/new", "/persona", "/quit", "/help")


@app.command("chat")
@example("chat")
def chat_command(
    run: Annotated[
        str, typer.Argument(help="Id of a stored run, or the beginning of one.", autocompletion=completion.run_ids)
    ],
    persona: Annotated[str, typer.Option(help="The person whose adapter answers.")],
    beside: Annotated[
        str | None,
        typer.Option(
            help="Another stored run that answers the same: its id, or its method.", autocompletion=completion.stored
        ),
    ] = None,
    dialogue: Annotated[
        str | None,
        typer.Option(help="Id of a test dialogue that gives the system message. [default: the person's first one]"),
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="Where the run's backbone is now. [default: as in the run]")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, ... [default: as in the run]")] = None,
    runs_dir: RunsDir = RUNS,
    plugin: Plugins = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Chat with the model of a stored run, using the adapter of one person.

    The prompt is built as in the run. The system message is that of a test dialogue of the run. Each model sees its
    own earlier replies.

    /new begins a new dialogue. /persona NAME talks as another person. /quit or Ctrl-D ends the talk. Write //
    to begin a turn with /.

    Where stdin is a pipe or a file, each line is a turn. With --json each turn is one line of JSON.
    """
    from harness.contract import load_extensions
    from harness.runs import find_beside, find_run, open_sides

    check_runs_dir(runs_dir)
    files, shown = plugin or [], progress(quiet)
    load_extensions(files)
    runs = [find_run(runs_dir, run)]
    if beside is not None:
        runs.append(find_beside(runs_dir, runs[0], beside))
    sides = open_sides(runs, persona, shown.note, backbone, device, files)
    _Chat(sides, shown, as_json).hold(persona, dialogue)


class _Chat:
    """What is read and written while people talk."""

    def __init__(self, sides: Sequence[Side], shown: Any, as_json: bool) -> None:
        from harness.compare import short_names

        self.sides, self.shown, self.as_json = sides, shown, as_json
        self.names = short_names([side.run.record for side in sides])
        self.by_hand = sys.stdin.isatty()
        self.talk: Talk
        self.persona = ""

    def hold(self, persona: str, dialogue: str | None) -> None:
        """Read turns and answer them until the talk ends.

        A fault of one turn is told by hand, and the talk goes on. In a script it ends the command.
        """
        if self.by_hand:
            typer.echo(HELP, err=True)
        self._meet(persona, dialogue)
        with _newline_at_interruption():
            for line in _lines(self.by_hand, lambda: f"{one_line(self.persona)}> "):
                try:
                    if self._obeyed(line):
                        return
                except HarnessError as error:
                    if not self.by_hand:
                        raise
                    typer.echo(f"harness: {terminal(error)}", err=True)

    def _obeyed(self, line: str) -> bool:
        """Do what a line asks for; whether it ends the talk."""
        word, _, rest = line.strip().partition(" ")
        if line.startswith("//") or not word.startswith("/"):
            self._say(line.removeprefix("/") if line.startswith("//") else line)
        elif word == "/new":
            self._begin()
        elif word == "/persona" and rest.strip():
            self._meet(rest.strip(), None)
        elif word == "/help":
            typer.echo(HELP, err=True)
        elif word != "/quit":
            why = "needs a NAME" if word == "/persona" else f"is no command here; {did_you_mean(word, WORDS)}"
            raise HarnessError(f"{word} {why} (write // to begin a turn with /)")
        return word == "/quit"

    def _meet(self, persona: str, dialogue: str | None) -> None:
        from harness.runs import Talk

        speakers = [side.speaker(persona, dialogue) for side in self.sides]
        for speaker in speakers:
            if difference := speaker.difference():
                self.shown.warn(difference)
        self.talk, self.persona = Talk(speakers), persona
        self._introduce()

    def _begin(self) -> None:
        from harness.runs import Talk

        self.talk = Talk(self.talk.speakers)
        self._introduce()

    def _introduce(self) -> None:
        """The system message, for those who talk by hand."""
        if not self.by_hand:
            return
        scenes: dict[str, list[str]] = {}
        for name, speaker in zip(self.names, self.talk.speakers, strict=True):
            system = "".join(message.text for message in speaker.scene.system) or "no system message"
            scenes.setdefault(f"{speaker.scene.dialogue}: {system}", []).append(name)
        for scene, names in scenes.items():
            who = f"{' and '.join(names)} {'answer' if len(names) > 1 else 'answers'} {self.persona}"
            typer.echo(terminal(f"{who} as in the dialogue {scene}"), err=True)

    def _say(self, text: str) -> None:
        from harness.show import side_by_side

        answers = self.talk.say(text)
        if self.as_json:
            print_json(self._as_json(text, answers), indent=None)
        else:
            typer.echo(side_by_side(self.names, [answer.reply for answer in answers]))
        for name, answer in zip(self.names, answers, strict=True):
            if answer.cut and not self.as_json:
                self.shown.note(f"{name}: the oldest turns do not fit into the prompt any more and were left out")

    def _as_json(self, text: str, answers: Sequence[Answer]) -> dict[str, Any]:
        replies = [
            {"run": side.run.id, "method": side.run.record.method, "reply": answer.reply, "cut": answer.cut}
            for side, answer in zip(self.sides, answers, strict=True)
        ]
        return {"persona": self.persona, "turn": self.talk.turns - 1, "user": text, "replies": replies}


@contextlib.contextmanager
def _newline_at_interruption() -> Iterator[None]:
    """After ^C the terminal's cursor stands behind what was typed."""
    try:
        yield
    except KeyboardInterrupt:
        if sys.stderr.isatty():
            typer.echo(err=True)
        raise


def _lines(by_hand: bool, prompt: Callable[[], str]) -> Iterator[str]:
    """The lines of stdin that are not empty. Raises HarnessError for one that is no text."""
    if by_hand:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 (input then edits lines and knows earlier ones)
    number = 0
    while True:
        number += 1
        try:
            line = input(prompt()) if by_hand else sys.stdin.readline()
            line.encode()
        except EOFError:
            typer.echo(err=True)
            return
        except UnicodeError as error:
            raise HarnessError(f"line {number} of stdin is not UTF-8 text") from error
        if not by_hand and not line:
            return
        if line.strip():
            yield line.rstrip("\r\n")
