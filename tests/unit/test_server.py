"""The static server, asked over a real socket."""

from __future__ import annotations

import gzip
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from webkiln.errors import InputError, PortInUseError
from webkiln.server import Server, serve

SHARD = bytes(range(256)) * 40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    site = tmp_path / "site"
    (site / "model").mkdir(parents=True)
    (site / "index.html").write_text("<!doctype html><title>kiln</title>" + "warm " * 500)
    (site / "model/index.html").write_text("inner")
    (site / "model/plan.json").write_text("{}")
    (site / "model/simd.wasm").write_bytes(b"\0asm\1\0\0\0")
    (site / "model/kernels.wgsl").write_text("fn f() {}")
    (site / "model/shard.bin").write_bytes(SHARD)
    (site / "app.webmanifest").write_text("{}")
    (site / "webkiln.d.ts").write_text("export {}")
    (tmp_path / "secret.txt").write_text("secret")
    (site / "link.txt").symlink_to(tmp_path / "secret.txt")
    return site


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    with Server(folder, port=0) as running:
        yield running


def get(
    server: Server, path: str, method: str = "GET", **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, headers=named)
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def test_pages_are_cross_origin_isolated(server: Server) -> None:
    response, body = get(server, "/")
    assert response.status == 200
    assert b"<title>kiln</title>" in body
    assert response.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert response.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert response.headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_errors_carry_the_same_headers(server: Server) -> None:
    response, body = get(server, "/missing.bin")
    assert response.status == 404
    assert b"/missing.bin" in body
    assert response.headers["Cross-Origin-Embedder-Policy"] == "require-corp"


def test_isolation_can_be_left_out(folder: Path) -> None:
    with Server(folder, port=0, isolation=False) as server:
        response, _ = get(server, "/")
    assert "Cross-Origin-Opener-Policy" not in response.headers
    assert "Cross-Origin-Embedder-Policy" not in response.headers


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/model/simd.wasm", "application/wasm"),
        ("/model/kernels.wgsl", "text/wgsl; charset=utf-8"),
        ("/model/plan.json", "application/json"),
        ("/model/shard.bin", "application/octet-stream"),
        ("/app.webmanifest", "application/manifest+json"),
        ("/webkiln.d.ts", "text/plain; charset=utf-8"),
        ("/index.html", "text/html; charset=utf-8"),
    ],
)
def test_media_types(server: Server, path: str, media_type: str) -> None:
    for encoding in ("identity", "gzip"):
        response, _ = get(server, path, Accept_Encoding=encoding)
        assert response.headers["Content-Type"] == media_type


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1, 3 << 20])
def test_files_of_any_size_come_whole(server: Server, folder: Path, size: int) -> None:
    content = bytes(range(251)) * (size // 251 + 1)
    (folder / "model/any.bin").write_bytes(content[:size])
    response, body = get(server, "/model/any.bin")
    assert (response.status, body) == (200, content[:size])
    assert response.headers.get_all("content-length") == [str(size)]
    assert response.headers["etag"].startswith('"')
    assert response.headers["content-type"] == "application/octet-stream"


def test_range_request(server: Server) -> None:
    response, body = get(server, "/model/shard.bin", Range="bytes=300-399", Accept_Encoding="gzip")
    assert response.status == 206
    assert body == SHARD[300:400]
    assert response.headers["Content-Range"] == f"bytes 300-399/{len(SHARD)}"


def test_range_to_the_end_resumes_a_download(server: Server) -> None:
    response, body = get(server, "/model/shard.bin", Range="bytes=10000-")
    assert response.status == 206
    assert SHARD[:10000] + body == SHARD


def test_range_past_the_end_is_refused(server: Server) -> None:
    response, _ = get(server, "/model/shard.bin", Range=f"bytes={len(SHARD)}-")
    assert response.status == 416


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_unchanged_files_are_not_sent_again(server: Server, encoding: str) -> None:
    first, _ = get(server, "/index.html", Accept_Encoding=encoding)
    etag = first.headers["ETag"]
    response, body = get(server, "/index.html", Accept_Encoding=encoding, If_None_Match=etag)
    assert (response.status, body) == (304, b"")
    other, _ = get(server, "/index.html", Accept_Encoding=encoding, If_None_Match='"other"')
    assert other.status == 200


def test_changed_files_are_sent_again(server: Server, folder: Path) -> None:
    first, _ = get(server, "/index.html", Accept_Encoding="gzip")
    (folder / "index.html").write_text("rebuilt")
    response, body = get(
        server, "/index.html", Accept_Encoding="gzip", If_None_Match=first.headers["ETag"]
    )
    assert response.status == 200
    assert gzip.decompress(body) == b"rebuilt"


def test_text_is_compressed_and_weights_are_not(server: Server, folder: Path) -> None:
    page, body = get(server, "/", Accept_Encoding="gzip, br")
    assert page.headers["Content-Encoding"] == "gzip"
    assert page.headers["Vary"] == "accept-encoding"
    assert gzip.decompress(body) == (folder / "index.html").read_bytes()
    shard, body = get(server, "/model/shard.bin", Accept_Encoding="gzip")
    assert "Content-Encoding" not in shard.headers
    assert body == SHARD


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_head_tells_the_length_and_sends_nothing(server: Server, encoding: str) -> None:
    whole, content = get(server, "/index.html", Accept_Encoding=encoding)
    response, body = get(server, "/index.html", "HEAD", Accept_Encoding=encoding)
    assert (response.status, body) == (200, b"")
    assert (
        int(response.headers["Content-Length"])
        == len(content)
        == int(whole.headers["Content-Length"])
    )


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/model/../../secret.txt",
        "/link.txt",
        "//etc/passwd",
    ],
)
def test_nothing_outside_the_folder_is_served(server: Server, path: str) -> None:
    response, body = get(server, path)
    assert response.status == 404
    assert body != b"secret"


def test_a_folder_without_slash_redirects(server: Server) -> None:
    response, _ = get(server, "/model")
    assert response.status == 307
    assert response.headers["Location"].endswith("/model/")


def test_writing_is_refused(server: Server) -> None:
    response, _ = get(server, "/index.html", "POST")
    assert response.status == 405


def test_port_in_use_names_the_port_and_another(folder: Path, server: Server) -> None:
    with pytest.raises(
        PortInUseError, match=f"port {server.port} on localhost is in use"
    ) as caught:
        Server(folder, port=server.port)
    assert f"--port {server.port + 1}" in str(caught.value)


def test_stopping_frees_the_port(folder: Path) -> None:
    with Server(folder, port=0) as server:
        port = server.port
        get(server, "/")
    with Server(folder, port=port) as again:
        assert get(again, "/")[0].status == 200


def test_unknown_host(folder: Path) -> None:
    with pytest.raises(InputError, match=r"cannot listen on no-such-host\.invalid:0"):
        Server(folder, host="no-such-host.invalid", port=0)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        Server(tmp_path / "none", port=0)


def test_folder_without_a_page(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no index\.html"):
        serve(tmp_path, port=0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_ends_cleanly_on_a_signal(folder: Path, number: signal.Signals) -> None:
    program = (
        "import sys; from webkiln.server import serve; serve(sys.argv[1], port=0, ready=print)"
    )
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", program, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().rsplit(":", 1)[1].strip("/\n"))
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass
        time.sleep(0.1)
        process.send_signal(number)
        _, errors = process.communicate(timeout=10)
    assert process.returncode == 0
    assert errors == ""
