"""Where a station sends its events: a file of JSON lines, a webhook, MQTT. What is not delivered yet waits in the database."""

from __future__ import annotations

import http.client
import json
import logging
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from adcore_runtime.errors import ConfigError
from adcore_runtime.station.store import Store

POLL = 0.3  # seconds between two looks for new events
TIMEOUT = 10.0  # seconds for an answer
LONGEST_WAIT = 60.0  # seconds between two tries
REFUSED = (400, 413, 415, 422)  # HTTP: this event is not wanted, and would not be the next time either
BATCH = 50  # events between two notes of how far a sink is

log = logging.getLogger(__name__)


class Refused(Exception):
    """The receiver does not want this event."""


class Channel(Protocol):
    """A way to somewhere."""

    def send(self, text: str) -> None:
        """Deliver one event, as JSON; OSError where it has to be tried again, Refused where that is no use."""

    def close(self) -> None:
        """Let go of the connection."""


class JsonLines:
    """Appends events to a file; a last line that a kill has cut is dropped first, since its event is sent again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: Any = None

    def send(self, text: str) -> None:
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self._path, "ab+")  # noqa: SIM115 -- open while the station runs
            self._file.truncate(_whole_lines(self._file))
        try:
            self._file.write(text.encode() + b"\n")
            self._file.flush()
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()


class Webhook:
    """POSTs each event to a URL."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._opener = urllib.request.build_opener(_NoRedirect)

    def send(self, text: str) -> None:
        request = urllib.request.Request(self._url, text.encode(), {"Content-Type": "application/json"})
        try:
            with self._opener.open(request, timeout=TIMEOUT):
                pass
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in REFUSED:
                raise Refused(f"HTTP {error.code}") from None
            raise OSError(f"HTTP {error.code}") from None
        except urllib.error.URLError as error:
            raise OSError(str(error.reason)) from None
        except http.client.HTTPException as error:
            raise OSError(f"{type(error).__name__}: {error}") from None

    def close(self) -> None:
        pass


class Mqtt:
    """Publishes each event under a topic, with quality of service 1: delivered when the broker has said so."""

    def __init__(self, url: str) -> None:
        try:
            from paho.mqtt.client import Client
        except ImportError:
            raise ConfigError("MQTT needs paho-mqtt: pip install 'adcore-runtime[mqtt]'") from None
        self._make, self._url = Client, urlsplit(url)
        self._client: Any = None

    def send(self, text: str) -> None:
        try:
            if self._client is None:
                self._client = self._connected()
            told = self._client.publish(self._url.path.strip("/"), text, qos=1)
            told.wait_for_publish(TIMEOUT)
            if not told.is_published():
                raise OSError("the broker does not answer")
        except (OSError, ValueError, RuntimeError) as error:
            self.close()  # with what waits in the client: the event is sent again
            raise OSError(str(error)) from None

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.disconnect()
            client.loop_stop()

    def _connected(self) -> Any:
        from paho.mqtt.enums import CallbackAPIVersion

        client = self._make(CallbackAPIVersion.VERSION2, reconnect_on_failure=False)  # `send` does
        if self._url.username:
            client.username_pw_set(self._url.username, self._url.password)
        if self._url.scheme == "mqtts":
            client.tls_set()
        client.connect(self._url.hostname, self._url.port or (8883 if self._url.scheme == "mqtts" else 1883))
        client.loop_start()
        return client


class Sink:
    """Sends the events of a store through a channel, in order, each at least once."""

    def __init__(self, name: str, channel: Channel, store: Store) -> None:
        self.name, self._channel, self._store = name, channel, store
        self._number, self._noted = (store.delivered(name),) * 2
        self._failures, self.problem = 0, ""

    def turn(self) -> float:
        """Send what waits, up to a failure; the seconds until the next turn."""
        events = self._store.events_after(self._number, BATCH)
        try:
            for event in events:
                self._send(event)
                self._number = event["number"]
        except OSError as error:
            if not self._failures:
                log.warning("%s: %s; events wait in the database until it is back", self.name, error)
            self._failures, self.problem = self._failures + 1, str(error)
            return min(2.0 ** (self._failures - 1), LONGEST_WAIT)
        finally:
            if self._number != self._noted:
                self._store.set_delivered(self.name, self._number)
                self._noted = self._number
        if events and self._failures:
            log.warning("%s: is back", self.name)
            self._failures, self.problem = 0, ""
        return 0.0 if len(events) == BATCH else POLL

    def state(self) -> dict[str, Any]:
        """Its name, how many events wait, and why they do."""
        (waiting,) = self._store.select("SELECT COUNT(*) AS count FROM events WHERE id > ?", self._number)
        return {"name": self.name, "waiting": waiting["count"], "problem": self.problem}

    def close(self) -> None:
        """Let go of the connection."""
        self._channel.close()

    def _send(self, event: dict[str, Any]) -> None:
        try:
            self._channel.send(json.dumps(event))
        except Refused as error:
            log.warning("%s: refuses event %s (%s); it is left out", self.name, event["number"], error)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST would become a GET, and look as if it was delivered."""

    def redirect_request(self, *_: Any) -> None:
        return None


CHANNELS: dict[str, Callable[[str], Channel]] = {"http": Webhook, "https": Webhook, "mqtt": Mqtt, "mqtts": Mqtt}


def open_sink(address: str, store: Store) -> Sink:
    """A sink from `FILE.jsonl`, `http(s)://...` or `mqtt(s)://[USER:PASSWORD@]HOST[:PORT]/TOPIC`.

    ConfigError for anything else, or where paho-mqtt is absent.
    """
    if address.endswith(".jsonl") and "://" not in address:
        return Sink(os.path.abspath(address), JsonLines(Path(address)), store)
    try:
        parts = urlsplit(address)
        named, topic, _ = parts.hostname, parts.path.strip("/"), parts.port
    except ValueError:
        parts, named, topic = urlsplit(""), None, ""
    if parts.scheme not in CHANNELS or not named or (parts.scheme.startswith("mqtt") and not topic):
        raise ConfigError(
            f"--sink {_without_secrets(address)}: give FILE.jsonl, http://HOST/PATH, https://HOST/PATH or mqtt://HOST/TOPIC"
        )
    return Sink(_without_secrets(address), CHANNELS[parts.scheme](address), store)


def _without_secrets(address: str) -> str:
    """An address as it may be shown: without user, password and query."""
    scheme, mark, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path.partition('?')[0]}"


def _whole_lines(file: Any) -> int:
    """The bytes of a file up to the end of its last whole line."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - 4096)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
