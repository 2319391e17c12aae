"""The server answers its own page and nobody else, and nothing in a request leads to a file."""

import http.client
import json
import threading
from contextlib import contextmanager

import pytest
from review.results import session_of, some_cases

from gcnn_cli.errors import UsageError
from gcnn_cli.review.server import Server


@contextmanager
def serving(session, port=0):
    with Server(session, port) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    return some_cases(tmp_path_factory.mktemp("server"))


@pytest.fixture
def server(cases, tmp_path):
    with serving(session_of(cases, tmp_path)) as running:
        yield running


def ask(server, method="GET", address="overview", *, token=None, headers=(), body=None, path=None):
    """Send one request as the page would, with what is given instead; status, headers and content."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    sent = {"Host": f"127.0.0.1:{server.server_port}"}
    if method == "POST":
        sent |= {"Origin": f"http://127.0.0.1:{server.server_port}", "Content-Type": "application/json"}
    sent |= dict(headers)
    token = server.token if token is None else token
    connection.putrequest(method, path or f"/{token}/{address}", skip_host=True, skip_accept_encoding=True)
    content = json.dumps(body).encode() if body is not None else b""
    if method == "POST" and "Content-Length" not in sent:
        sent["Content-Length"] = str(len(content))
    for name, value in sent.items():
        if value is not None:
            connection.putheader(name, value)
    connection.endheaders(content)
    answer = connection.getresponse()
    found = answer.status, dict(answer.getheaders()), answer.read()
    connection.close()
    return found


def decision(server):
    entries = json.loads(ask(server, address="review/0")[2])["entries"]
    return {"kind": "accept", "key": entries[0]["key"]}


def test_the_page_gets_what_it_needs(server):
    for address, kind in (("", "text/html"), ("main.js", "text/javascript"), ("style.css", "text/css")):
        status, headers, content = ask(server, address=address)
        assert (status, headers["Content-Type"].split(";")[0]) == (200, kind)
        assert len(content) > 500
    assert ask(server, address="niivue.js")[1]["Content-Encoding"] == "gzip"
    overview = json.loads(ask(server)[2])
    assert overview["reader"] == "ada"
    assert [stop["fp_per_scan"] for stop in overview["stops"]] == ["0.25", "≤ 0.125", "-"]
    status, headers, content = ask(server, address="scan/0")
    assert status == 200
    assert content[344:348] == b"n+1\0"


def test_a_decision_is_taken(server):
    status, _, content = ask(server, "POST", "review/0", body=decision(server))
    assert status == 200
    assert json.loads(content)["entries"][0]["verdict"] == "accepted"


def test_every_answer_forbids_what_the_page_does_not_need(server):
    for address in ("", "overview", "scan/0", "nothing"):
        headers = ask(server, address=address)[1]
        assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self';")
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "Access-Control-Allow-Origin" not in headers
        assert headers["Server"] == "gcnn"


def test_without_the_token_nothing_is_there(server):
    assert len(server.token) > 40
    for token in ("", "x", server.token[:-1], server.token + "x", server.token.swapcase(), "%00"):
        status, _, content = ask(server, path=f"/{token}/overview")
        assert (status, json.loads(content)) == (404, {"error": "no such page"}), token
    assert ask(server, path="/")[0] == 404
    assert ask(server, path=f"/{server.token}")[0] == 404
    assert ask(server, "POST", "review/0", token="x", body=decision(server))[0] == 404


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "evil.example:{port}", "", None])
def test_another_host_is_refused(server, host):
    host = host and host.format(port=server.server_port)
    assert ask(server, headers={"Host": host}.items())[0] == 403
    assert ask(server, "POST", "review/0", headers={"Host": host}.items(), body={"kind": "undo"})[0] == 403


def test_the_name_localhost_is_this_machine(server):
    host = f"localhost:{server.server_port}"
    assert ask(server, headers={"Host": host}.items())[0] == 200
    origin = {"Host": host, "Origin": f"http://{host}"}
    assert ask(server, "POST", "review/0", headers=origin.items(), body=decision(server))[0] == 200


@pytest.mark.parametrize(
    "origin", [None, "null", "http://evil.example", "https://127.0.0.1:{port}", "http://127.0.0.1"]
)
def test_a_change_from_another_origin_is_refused(server, origin):
    sent = {"Origin": origin and origin.format(port=server.server_port)}
    assert ask(server, "POST", "review/0", headers=sent.items(), body=decision(server))[0] == 403
    assert json.loads(ask(server, address="review/0")[2])["entries"][0]["verdict"] == "open"


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"Content-Type": "text/plain"}, {"kind": "undo"}, 415),
        ({"Content-Type": None}, {"kind": "undo"}, 415),
        ({}, {"kind": "undo", "key": "x" * 10_000}, 413),
        ({"Content-Length": "99999999999"}, None, 413),
        ({"Content-Length": "-1"}, None, 413),
        ({"Content-Length": None, "Transfer-Encoding": "chunked"}, None, 413),
        ({}, {"kind": "explode"}, 422),
        ({}, {"kind": "add", "position_mm": [1e9, 0, 0], "diameter_mm": 5}, 422),
        ({}, [], 422),
    ],
)
def test_what_is_no_decision_is_refused(server, headers, body, status):
    assert ask(server, "POST", "review/0", headers=headers.items(), body=body)[0] == status


@pytest.mark.parametrize(
    "address",
    [
        "../overview", "..%2f..%2fetc/passwd", "scan/../../x", "/etc/passwd", "//etc/passwd",
        "main.js?x", "main.js/", "page/main.js", "niivue.js.gz", "%2e%2e/",
        "scan/1", "scan/-1", "scan/00000001", "scan/1e1", "scan/%D9%A3", "review/1", "review/", "scan/0/x",
    ],
)  # fmt: skip
def test_other_addresses_are_not_there(server, address):
    assert ask(server, path=f"/{server.token}/{address}")[0] == 404


def test_other_methods_are_refused(server):
    for method in ("PUT", "DELETE", "OPTIONS", "HEAD", "TRACE"):
        assert ask(server, method)[0] == 501
    assert ask(server, "POST", "overview", body={})[0] == 404
    assert ask(server, "POST", "scan/0", body={})[0] == 404


def test_it_listens_on_this_machine_only(server):
    assert server.server_address[0] == "127.0.0.1"


def test_the_log_does_not_hold_the_token(server, caplog):
    caplog.set_level("DEBUG", "gcnn")
    ask(server)
    ask(server, path=f"/{server.token}/nothing")
    assert "overview" in caplog.text
    assert server.token not in caplog.text


def test_tokens_differ(cases, tmp_path):
    with serving(session_of(cases, tmp_path)) as one, serving(session_of(cases, tmp_path, "bob")) as other:
        assert one.token != other.token
        with pytest.raises(UsageError, match=f"--port {one.server_port}: cannot be used"):
            Server(other.session, one.server_port)


def test_a_scan_that_cannot_be_read_is_an_answer(cases, tmp_path):
    session = session_of(cases, tmp_path)
    session.cases = [type(case)(case.result, case.report, tmp_path / "gone.mhd") for case in cases]
    with serving(session) as server:
        status, _, content = ask(server, address="scan/0")
        assert (status, json.loads(content)["error"]) == (422, f"{tmp_path}/gone.mhd: no such file or folder")
