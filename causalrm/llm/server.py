"""A server on loopback that speaks the chat completions protocol, well or badly."""

from __future__ import annotations

import json
import math
import os
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pandas as pd

from causalrm.core.errors import DataError
from causalrm.llm.reply import LanguageModel

#: What the server can do wrong. "cut" closes the connection in the middle of the body,
#: "truncated" sends half a body as if it were whole; "legacy" and "completions" send
#: log-probabilities in the two older shapes.
FAULTS = (
    *("400", "401", "404", "429", "500", "503", "reset", "cut", "truncated", "not_json"),
    *("no_choices", "no_logprobs", "bad_logprobs", "refusal", "legacy", "completions"),
)


class LoopbackServer:
    """Serve a language model on 127.0.0.1, at a port that the system chooses.

    For tests, and for tools that want a service. Use it as a context manager.

    Parameters
    ----------
    model : LanguageModel
        Answers the requests: its `complete` is called with one prompt each. A single user
        message whose content is a string is handed on as that string.
    faults : sequence of str or None, optional
        What to do wrong (:data:`FAULTS`), request by request in the order of arrival and from
        the start again at the end; None answers properly.
    delay : float, default 0
        Seconds before every reply, faults included.
    retry_after : str, optional
        The header sent with 429 and 503.
    api_key : str, optional
        If it is given, other keys are rejected with 401.

    Attributes
    ----------
    base_url : str
        To give to :class:`OpenAICompatible`.
    counts : Counter
        Requests by what was done: "ok" or the fault.
    answered : Counter
        Proper answers, which a service would bill, by the prompt's text.
    times : list of float
        When requests arrived, by `time.monotonic`.
    largest : int
        The most requests that were under way at once.

    Examples
    --------
    >>> import json, urllib.request
    >>> from causalrm.llm import FunctionModel
    >>> with LoopbackServer(FunctionModel(str.upper)) as server:
    ...     body = {"messages": [{"role": "user", "content": "hello"}]}
    ...     url = server.base_url + "/chat/completions"
    ...     with urllib.request.urlopen(url, json.dumps(body).encode()) as reply:
    ...         json.load(reply)["choices"][0]["message"]["content"]
    'HELLO'
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        faults: Sequence[str | None] = (),
        delay: float = 0.0,
        retry_after: str | None = None,
        api_key: str | None = None,
    ) -> None:
        if unknown := [f for f in faults if f is not None and f not in FAULTS]:
            raise DataError(f"faults must be among {FAULTS}; got {unknown[0]!r}.")
        self.model, self.faults, self.delay = model, tuple(faults), delay
        self.retry_after, self._api_key = retry_after, api_key
        self.counts: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.times: list[float] = []
        self.largest = self._active = 0
        self._lock = threading.Lock()
        self._http: _HTTPServer | None = None

    @property
    def base_url(self) -> str:
        """Address of the running server."""
        if self._http is None:
            raise DataError("The server is not running: use it in a with statement.")
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def __enter__(self) -> LoopbackServer:
        self._http = _HTTPServer(("127.0.0.1", 0), _Handler)
        self._http.owner = self
        threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
            self._http = None

    def _next_fault(self) -> str | None:
        with self._lock:
            n = len(self.times)
            self.times.append(time.monotonic())
            return self.faults[n % len(self.faults)] if self.faults else None

    def _enter(self, change: int) -> None:
        with self._lock:
            self._active += change
            self.largest = max(self.largest, self._active)

    def _count(self, what: str, prompt: str | None = None) -> None:
        with self._lock:
            self.counts[what] += 1
            if prompt is not None:
                self.answered[prompt] += 1


class _HTTPServer(ThreadingHTTPServer):
    owner: LoopbackServer
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay quiet: clients that hang up are part of what is tested."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _HTTPServer

    def log_message(self, format: str, *args: Any) -> None:
        """Write nothing to the terminal."""

    def do_POST(self) -> None:
        owner = self.server.owner
        owner._enter(+1)
        try:
            self._post(owner)
        finally:
            owner._enter(-1)

    def _post(self, owner: LoopbackServer) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = owner._next_fault()
        key = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if owner._api_key is not None and key != owner._api_key:
            fault = "401"
        try:
            request = json.loads(raw)
            messages = request["messages"]
        except (ValueError, KeyError, TypeError):
            fault, request, messages = "400", {}, []
        time.sleep(owner.delay)
        if fault is not None and fault.isdigit():
            owner._count(fault)
            # Services do repeat keys in their messages.
            error = {"message": f"status {fault} for the key {key}", "type": "error"}
            self._send(int(fault), json.dumps({"error": error}).encode())
        elif fault == "reset":
            owner._count(fault)
            # Closing with a linger time of zero sends RST in place of FIN.
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.close_connection = True
            os.close(self.connection.detach())
        else:
            self._answer(owner, request, messages, fault)

    def _answer(
        self, owner: LoopbackServer, request: dict[str, Any], messages: Any, fault: str | None
    ) -> None:
        names = ("model", "messages", "stream", "n")
        decoding = {k: v for k, v in request.items() if k not in names}
        plain = len(messages) == 1 and messages[0].get("role") == "user"
        plain = plain and isinstance(messages[0].get("content"), str)
        prompt = messages[0]["content"] if plain else messages
        row = owner.model.complete([prompt], **decoding).iloc[0]
        if row["status"] == "error":
            owner._count("500")
            error = {"message": row["reason"], "type": "error"}
            self._send(500, json.dumps({"error": error}).encode())
            return
        body = json.dumps(_body(row, request, fault), ensure_ascii=False).encode(errors="replace")
        if fault in ("truncated", "cut"):
            owner._count(fault)
            half = body[: len(body) // 2]
            self._send(200, half, length=len(body) if fault == "cut" else None)
            # a client may use the connection again unless the body was cut short
            self.close_connection = fault == "cut"
        elif fault == "not_json":
            owner._count(fault)
            self._send(200, b"<html>Bad gateway</html>")
        elif fault == "no_choices":
            owner._count(fault)
            self._send(200, b'{"choices": []}')
        else:
            owner._count(fault or "ok", prompt if isinstance(prompt, str) else json.dumps(prompt))
            self._send(200, body)

    def _send(self, status: int, body: bytes, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body) if length is None else length))
        if status in (429, 503) and self.server.owner.retry_after is not None:
            self.send_header("Retry-After", self.server.owner.retry_after)
        self.end_headers()
        self.wfile.write(body)


def _body(row: pd.Series[Any], request: dict[str, Any], fault: str | None) -> dict[str, Any]:
    places = row["logprobs"] if request.get("logprobs") and fault != "no_logprobs" else None
    choice: dict[str, Any] = {
        "index": 0,
        "message": {"role": "assistant", "content": row["text"], "refusal": None},
        "finish_reason": row["finish_reason"] or "stop",
        "logprobs": None,
    }
    body = {"id": "simulated", "object": "chat.completion", "created": 0, "choices": [choice]}
    body["model"] = request.get("model", "simulated")
    counts = [
        int(row[n]) if pd.notna(row[n]) else 0 for n in ("prompt_tokens", "completion_tokens")
    ]
    body["usage"] = {
        "prompt_tokens": counts[0],
        "completion_tokens": counts[1],
        "total_tokens": sum(counts),
    }
    if fault == "refusal":
        choice["message"] |= {"content": None, "refusal": "I cannot answer that."}
    elif fault == "bad_logprobs":
        choice["logprobs"] = {"content": [{"token": "A", "logprob": "high", "top_logprobs": []}]}
    elif places and fault == "legacy":
        body["completion_probabilities"] = [
            {
                "content": place["token"],
                "probs": [{"tok_str": t, "prob": math.exp(v)} for t, v in place["top"]],
            }
            for place in places
        ]
    elif places and fault == "completions":
        choice["logprobs"] = {
            "tokens": [place["token"] for place in places],
            "token_logprobs": [place["logprob"] for place in places],
            "top_logprobs": [dict(place["top"]) for place in places],
        }
    elif places:
        content = [
            {**_entry(p["token"], p["logprob"]), "top_logprobs": [_entry(*t) for t in p["top"]]}
            for p in places
        ]
        choice["logprobs"] = {"content": content, "refusal": None}
    return body


def _entry(token: str, logprob: float) -> dict[str, Any]:
    """Write a token with its bytes; an escaped one is a part of a character."""
    if token.startswith("\\x"):
        raw = bytes.fromhex(token.replace("\\x", ""))
    else:
        raw = token.encode(errors="replace")
    return {"token": token, "logprob": logprob, "bytes": list(raw)}
