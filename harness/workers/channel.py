"""Messages between a driver and a worker: JSON with arrays beside it. Nothing is pickled.

A message is two lengths, a JSON header and safetensors bytes. What comes is checked as the content of a file is.
"""

from __future__ import annotations

import json
import os
import queue
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from harness.errors import HarnessError, error_named

_HEAD = struct.Struct(">QQ")  # bytes of the header and of the arrays
MOST_BYTES = 2**36


@dataclass(frozen=True)
class Message:
    """kind: what is asked or told; fields: JSON; arrays: by name."""

    kind: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)


class Closed(Exception):  # noqa: N818 (an outcome, not an error)
    """The other side is gone."""


def failure(error: HarnessError) -> Message:
    """An error for the other side."""
    return Message("error", {"type": type(error).__name__, "text": str(error)})


def raised(message: Message, said: Callable[[str], str] = str) -> HarnessError:
    """The error in a message, as the class that it was there; said: what becomes of its text.

    Raises KeyError for a message that holds none.
    """
    return error_named(str(message.fields["type"]), said(str(message.fields["text"])))


def write(stream: BinaryIO, message: Message) -> None:
    """Send a message. Raises Closed."""
    header = json.dumps([message.kind, message.fields]).encode()
    body = save({name: np.ascontiguousarray(values) for name, values in message.arrays.items()})
    try:
        stream.write(_HEAD.pack(len(header), len(body)) + header + body)
        stream.flush()
    except (BrokenPipeError, ValueError) as error:
        raise Closed from error


def read(stream: BinaryIO) -> Message:
    """Wait for the next message. Raises Closed at the end, HarnessError for what is no message."""
    header_bytes, body_bytes = _HEAD.unpack(_exactly(stream, _HEAD.size))
    if header_bytes + body_bytes > MOST_BYTES:
        raise HarnessError("a worker sent an invalid message")
    header, body = _exactly(stream, header_bytes), _exactly(stream, body_bytes)
    try:
        kind, fields = json.loads(header)
        if not isinstance(kind, str) or not isinstance(fields, dict):
            raise TypeError(kind)
        return Message(kind, fields, load(body))
    except (ValueError, TypeError, RecursionError, SafetensorError) as error:
        raise HarnessError("a worker sent an invalid message") from error


def _exactly(stream: BinaryIO, count: int) -> bytes:
    parts = []
    while count:
        part = stream.read(min(count, 2**24))
        if not part:
            raise Closed
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


# ---- in the worker ----


class Driver:
    """The other side, as a worker sees it."""

    def __init__(self, inbound: BinaryIO, outbound: BinaryIO) -> None:
        self._outbound = outbound
        self._lock = threading.Lock()
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        threading.Thread(target=self._listen, args=(inbound,), daemon=True, name="harness-worker").start()

    def _listen(self, inbound: BinaryIO) -> None:
        """Take messages as they come, also while a plugin computes: a driver that is gone is seen at once."""
        try:
            while True:
                self._messages.put(read(inbound))
        except Closed:
            os._exit(0)

    def next(self) -> Message:
        return self._messages.get()

    def tell(self, kind: str, fields: Mapping[str, Any] | None = None, **arrays: np.ndarray) -> None:
        self.send(Message(kind, fields or {}, arrays))

    def send(self, message: Message) -> None:
        with self._lock:
            write(self._outbound, message)


def own_streams() -> tuple[BinaryIO, BinaryIO]:
    """The channel, taken from stdin and stdout, which plugins then find empty and leading to stderr."""
    inbound, outbound = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.close(nothing)
    return inbound, outbound
