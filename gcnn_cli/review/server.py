"""HTTP on 127.0.0.1 for one page in one browser of this machine.

What keeps others out:

- The address begins with a random token, compared in constant time. Any other address is not found.
- The Host header must be that of the server: a page elsewhere whose name was pointed at 127.0.0.1 (DNS rebinding) is
  refused even if it knew the token.
- Changes come as JSON by POST from the page's own origin only.
- Addresses are looked up in a table. No part of a request becomes a path: the page's files are read at the start, and
  a scan is named by its number in the list.
- The page's content security policy allows nothing from elsewhere, so it works offline and sends nothing out.
"""

import hmac
import json
import logging
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any

from gcnn_cli.errors import GcnnError, InputError, OutputError, UsageError, printable
from gcnn_cli.output.json_reading import parse_json
from gcnn_cli.review.session import Session

log = logging.getLogger("gcnn")

HOST = "127.0.0.1"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_FILES = {  # address below the token: file of the package, its type, its packing
    "": ("page/index.html", "text/html; charset=utf-8", ""),
    "style.css": ("page/style.css", "text/css; charset=utf-8", ""),
    "main.js": ("page/main.js", "text/javascript; charset=utf-8", ""),
    "viewer.js": ("page/viewer.js", "text/javascript; charset=utf-8", ""),
    "rings.js": ("page/rings.js", "text/javascript; charset=utf-8", ""),
    "niivue.js": ("niivue/niivue.js.gz", "text/javascript; charset=utf-8", "gzip"),
}
_NUMBERED = re.compile(r"(review|scan)/(0|[1-9][0-9]{0,5})")
_LARGEST_BODY = 10_000
_TIMEOUT_S = 60
_JSON = "application/json"


@dataclass(frozen=True)
class Page:
    """One file of the page."""

    content: bytes
    kind: str
    packing: str


class Server(ThreadingHTTPServer):
    """A server of one session on 127.0.0.1. port 0: any free one. Raises UsageError for a port in use."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, session: Session, port: int = 0) -> None:
        self.session = session
        self.token = secrets.token_urlsafe(32)
        folder = resources.files("gcnn_cli.review")
        self.pages = {
            address: Page(folder.joinpath(file).read_bytes(), kind, packing)
            for address, (file, kind, packing) in _FILES.items()
        }
        try:
            super().__init__((HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            raise UsageError(f"--port {port}: cannot be used: {getattr(error, 'strerror', error)}") from None

    @property
    def origins(self) -> dict[str, str]:
        """Origins of the page by the value of the Host header."""
        return {f"{name}:{self.server_port}": f"http://{name}:{self.server_port}" for name in (HOST, "localhost")}

    @property
    def address(self) -> str:
        """Address of the page."""
        return f"http://{HOST}:{self.server_port}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log a failure. A browser that leaves in the middle of an answer is none."""
        log.debug("%s: a request failed", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    timeout = _TIMEOUT_S

    def do_GET(self) -> None:
        address = self._address()
        if address is None:
            return
        session = self.server.session
        page = self.server.pages.get(address)
        if page is not None:
            self._send(HTTPStatus.OK, page.kind, page.content, packing=page.packing)
        elif address == "overview":
            self._answer(session.overview)
        elif (found := self._numbered(address)) is None:
            self._refuse(HTTPStatus.NOT_FOUND, "no such page")
        elif found[0] == "review":
            self._answer(lambda: session.review(found[1]))
        else:
            self._send_scan(found[1])

    def do_POST(self) -> None:
        address = self._address()
        if address is None:
            return
        host = self.headers.get("Host", "")
        if self.headers.get("Origin", "") != self.server.origins.get(host):
            self._refuse(HTTPStatus.FORBIDDEN, "changes come from the page itself only")
            return
        if self.headers.get("Content-Type", "").partition(";")[0].strip().lower() != _JSON:
            self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "changes come as JSON")
            return
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or len(length) > 6 or int(length) > _LARGEST_BODY:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "more than one decision")
            return
        body = self.rfile.read(int(length))
        found = self._numbered(address)
        if found is None or found[0] != "review":
            self._refuse(HTTPStatus.NOT_FOUND, "no such page")
            return
        number = found[1]
        self._answer(lambda: self.server.session.decide(number, _parsed(body)))

    def _address(self) -> str | None:
        """Return the address below the token, or None after refusing the request."""
        if self.headers.get_all("Host", []) not in ([host] for host in self.server.origins):
            self._refuse(HTTPStatus.FORBIDDEN, "this server is for 127.0.0.1 only")
            return None
        token, slash, address = self.path.removeprefix("/").partition("/")
        if not hmac.compare_digest(token.encode("utf-8", "replace"), self.server.token.encode()) or not slash:
            self._refuse(HTTPStatus.NOT_FOUND, "no such page")
            return None
        return address

    def _numbered(self, address: str) -> tuple[str, int] | None:
        """Return what is asked for of which case."""
        found = _NUMBERED.fullmatch(address)
        if found is None or int(found[2]) >= len(self.server.session.cases):
            return None
        return found[1], int(found[2])

    def _answer(self, ask: Callable[[], dict[str, Any]]) -> None:
        try:
            content = json.dumps(ask(), ensure_ascii=False, allow_nan=False).encode("utf-8")
        except GcnnError as error:
            self._refuse(_status(error), str(error))
        else:
            self._send(HTTPStatus.OK, _JSON, content)

    def _send_scan(self, number: int) -> None:
        try:
            parts = self.server.session.scan(number)
        except GcnnError as error:
            self._refuse(_status(error), str(error))
        else:
            self._send(HTTPStatus.OK, "application/octet-stream", *parts)

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        self.close_connection = True  # what follows in it was not read
        self._send(status, _JSON, json.dumps({"error": printable(reason)}, ensure_ascii=False).encode("utf-8"))

    def _send(self, status: HTTPStatus, kind: str, *parts: bytes | memoryview, packing: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(sum(len(part) for part in parts)))
        if packing:
            self.send_header("Content-Encoding", packing)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Referrer-Policy", "same-origin")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        for part in parts:
            self.wfile.write(part)

    def version_string(self) -> str:
        """Return the name of the server, without Python's version."""
        return "gcnn"

    def log_message(self, format: str, *args: Any) -> None:
        """Log a request without the token."""
        log.debug("%s", printable((format % args).replace(self.server.token, "TOKEN")))


def _parsed(body: bytes) -> Any:
    try:
        return parse_json(body.decode("utf-8"))
    except ValueError:
        raise InputError("not JSON") from None


def _status(error: GcnnError) -> HTTPStatus:
    return HTTPStatus.INTERNAL_SERVER_ERROR if isinstance(error, OutputError) else HTTPStatus.UNPROCESSABLE_ENTITY
