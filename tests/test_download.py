import hashlib
import http.server
import io
import json
import os
import random
import shutil
import socket
import threading
import types
from pathlib import Path

import pytest

from stages import download, files
from stages.command import UserError

NAME = "archive.tar.gz"
ARCHIVE = random.Random(0).randbytes(300_000)
REPACKED = random.Random(1).randbytes(310_000)
PAGE = b"<html>Please log in</html>"
FOLDER = Path("data/raw/some")


def sha256(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(download.MIRROR, raising=False)
    monkeypatch.setattr(download, "PAUSE", 0)
    monkeypatch.setattr(download, "LONGEST_PAUSE", 0)
    return tmp_path


def send(handler, status, content=b"", *, length=None, **headers):
    handler.send_response(status)
    handler.send_header("Content-Length", len(content) if length is None else length)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.server.sent.append(len(content))
    handler.wfile.write(content)


# Each of these makes an answer: a function of the request's handler.
def whole(content, **headers):
    return lambda handler: send(handler, 200, content, **headers)


def status(code, content=b"", **headers):
    return lambda handler: send(handler, code, content, **headers)


def ranged(content, *, stop=None):
    """Answer a range as asked for; the connection is cut at byte `stop`."""

    def answer(handler):
        start = int(handler.headers.get("Range", "bytes=0-")[len("bytes=") : -1])
        if start >= len(content):
            return send(handler, 416)
        rest, length = content[start:stop], len(content) - start
        if start == 0:
            return send(handler, 200, rest, length=length)
        span = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return send(handler, 206, rest, length=length, Content_Range=span)

    return answer


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("Range")))
        answers = self.server.answers.get(self.path, [status(404)])
        (answers.pop(0) if len(answers) > 1 else answers[0])(self)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    """A server on 127.0.0.1 whose `answers` to a path are given in turn, the last for ever."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.answers, server.asked, server.sent = {}, [], []
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def url(server):
    return f"{server.url}/{NAME}"


def fetch(*urls, mirror=None, digests=None):
    digests = {NAME: digests or [sha256(ARCHIVE)]}
    download.fetch_all(digests, {NAME: list(urls)}, folder=FOLDER, mirror=mirror)


def fetched():
    return {path.name: path.read_bytes() for path in FOLDER.iterdir() if path.suffix != ".json"}


def assert_nothing_made():
    assert not Path("data").exists()


def kept():
    return [path for path in Path(".resume").rglob("*") if path.is_file()]


def partials():
    """Return what is kept of unfinished archives: a finished one has a second name."""
    return [path for path in kept() if path.stat().st_nlink == 1]


def keep_partial(url, content):
    """Leave `content` as a run that was killed would have."""
    folder = files.state_folder("download", NAME, download._short(sha256(ARCHIVE)))
    folder.mkdir(parents=True)
    (folder / download._short(url)).write_bytes(content)


def test_the_digests_of_what_came_stand_beside_it(server, url):
    server.answers[f"/{NAME}"] = [whole(ARCHIVE)]
    fetch(url, digests=[sha256(b"another packing"), sha256(ARCHIVE)])
    assert json.loads((FOLDER / "archives.json").read_text()) == {NAME: sha256(ARCHIVE)}


def test_whole_download(server, url):
    server.answers[f"/{NAME}"] = [whole(ARCHIVE)]
    fetch(url)
    assert fetched() == {NAME: ARCHIVE}
    assert partials() == []
    assert [path.name for path in FOLDER.parent.iterdir()] == [FOLDER.name]


def test_no_archives_is_an_empty_folder():
    download.fetch_all({}, {}, folder=FOLDER, mirror=None)
    assert fetched() == {}


def test_a_folder_that_is_there_is_replaced(server, url):
    server.answers[f"/{NAME}"] = [whole(ARCHIVE)]
    FOLDER.mkdir(parents=True)
    (FOLDER / "old.zip").write_bytes(b"old")
    fetch(url)
    assert fetched() == {NAME: ARCHIVE}


def test_mirror_folder_is_tried_first(server, url, here):
    (here / NAME).write_bytes(ARCHIVE)
    fetch(url, mirror=str(here))
    assert fetched() == {NAME: ARCHIVE}
    assert server.asked == []
    assert (here / NAME).read_bytes() == ARCHIVE


def test_mirror_url_is_tried_first(server, url):
    server.answers[f"/mirror/{NAME}"] = [whole(ARCHIVE)]
    fetch(url, mirror=f"{server.url}/mirror/")
    assert fetched() == {NAME: ARCHIVE}
    assert server.asked == [(f"/mirror/{NAME}", None)]


def test_missing_mirror_folder_is_an_error(server, url):
    with pytest.raises(UserError, match=r"NEURAL_CODES_MIRROR=nowhere: no such folder"):
        fetch(url, mirror="nowhere")
    assert server.asked == []
    assert_nothing_made()


@pytest.mark.parametrize("as_url", [False, True])
def test_mirror_without_the_file_is_noted_and_passed_over(server, url, here, capsys, as_url):
    server.answers[f"/{NAME}"] = [whole(ARCHIVE)]
    fetch(url, mirror=f"{server.url}/mirror" if as_url else str(here))
    assert fetched() == {NAME: ARCHIVE}
    reason = "HTTP 404 Not Found" if as_url else "no such file"
    assert f"/{NAME}: {reason}" in capsys.readouterr().out


def test_mirror_file_with_a_wrong_digest_is_noted_and_passed_over(server, url, here, capsys):
    (here / NAME).write_bytes(b"other")
    server.answers[f"/{NAME}"] = [whole(ARCHIVE)]
    fetch(url, mirror=str(here))
    assert fetched() == {NAME: ARCHIVE}
    assert f"wrong content: 5 bytes, a local file, sha256 {sha256(b'other')}" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize("content", [ARCHIVE, REPACKED])
def test_either_of_two_digests(server, url, content):
    server.answers[f"/{NAME}"] = [whole(content)]
    fetch(url, digests=[sha256(ARCHIVE), sha256(REPACKED)])
    assert fetched() == {NAME: content}


def test_all_wrong_is_one_error_that_names_each(server, url, here):
    (here / NAME).write_bytes(b"other")
    server.answers[f"/{NAME}"] = [whole(PAGE, Content_Type="text/html")]
    with pytest.raises(UserError) as error:
        fetch(url, f"{server.url}/gone", mirror=str(here))
    message = str(error.value)
    assert f"{here / NAME}: wrong content: 5 bytes" in message
    assert f"{url}: wrong content: 26 bytes, text/html" in message
    assert f"{server.url}/gone: HTTP 404 Not Found" in message
    assert f"expected sha256 {sha256(ARCHIVE)}" in message
    assert f"set {download.MIRROR} to a folder that holds {NAME}" in message
    assert "\n" not in message
    assert server.asked == [(f"/{NAME}", None), ("/gone", None)]  # a wrong whole is not asked twice
    assert partials() == []
    assert_nothing_made()


def test_no_source_listed():
    with pytest.raises(UserError, match=r"none is listed in params.yaml"):
        fetch()


def test_404_then_the_next_source(server, url):
    server.answers[f"/{NAME}"] = [whole(ARCHIVE)]
    fetch(f"{server.url}/gone", url)
    assert fetched() == {NAME: ARCHIVE}


@pytest.mark.parametrize("code", download.BUSY)
def test_busy_server_is_asked_again(server, url, code):
    server.answers[f"/{NAME}"] = [status(code, Retry_After="86400"), status(code), whole(ARCHIVE)]
    fetch(url)
    assert fetched() == {NAME: ARCHIVE}
    assert len(server.asked) == 3


def test_server_that_stays_busy_is_given_up(server, url):
    server.answers[f"/{NAME}"] = [status(503)]
    with pytest.raises(UserError, match="HTTP 503 Service Unavailable"):
        fetch(url)
    assert len(server.asked) == download.ATTEMPTS
    assert_nothing_made()


def test_nobody_listening():
    with socket.socket() as taken:  # bound and not listening: a connection is refused
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(UserError, match="Connection refused") as error:
            fetch(f"http://127.0.0.1:{taken.getsockname()[1]}/{NAME}")
    assert "\n" not in str(error.value)
    assert_nothing_made()


def test_source_that_is_no_http_url():
    with pytest.raises(UserError, match="No connection adapters were found"):
        fetch(f"ftp://127.0.0.1/{NAME}")


def test_a_cut_is_continued_with_a_range(server, url):
    server.answers[f"/{NAME}"] = [ranged(ARCHIVE, stop=100_000), ranged(ARCHIVE)]
    fetch(url)
    assert fetched() == {NAME: ARCHIVE}
    assert server.asked == [(f"/{NAME}", None), (f"/{NAME}", "bytes=100000-")]
    assert server.sent == [100_000, 200_000]


def test_cuts_are_continued_while_bytes_are_gained(server, url):
    stops = range(20_000, len(ARCHIVE), 20_000)
    assert len(stops) > 2 * download.ATTEMPTS
    server.answers[f"/{NAME}"] = [ranged(ARCHIVE, stop=stop) for stop in stops] + [ranged(ARCHIVE)]
    fetch(url)
    assert fetched() == {NAME: ARCHIVE}
    assert sum(server.sent) == len(ARCHIVE)


def test_cuts_without_gain_are_given_up_and_the_next_run_continues(server, url):
    server.answers[f"/{NAME}"] = [ranged(ARCHIVE, stop=100_000)]
    with pytest.raises(UserError, match=r"IncompleteRead.* 4 times in a row"):
        fetch(url)
    assert len(server.asked) == 1 + download.ATTEMPTS
    assert_nothing_made()
    server.answers[f"/{NAME}"] = [ranged(ARCHIVE)]
    fetch(url)
    assert fetched() == {NAME: ARCHIVE}
    assert server.asked[-1] == (f"/{NAME}", "bytes=100000-")
    assert server.sent[-1] == 200_000
    assert partials() == []


def test_partial_of_one_source_is_not_continued_from_another(server, url):
    server.answers[f"/{NAME}"] = [ranged(ARCHIVE, stop=100_000)]
    server.answers["/repacked"] = [ranged(REPACKED)]
    fetch(url, f"{server.url}/repacked", digests=[sha256(ARCHIVE), sha256(REPACKED)])
    assert fetched() == {NAME: REPACKED}
    assert server.asked[-1] == ("/repacked", None)
    assert partials() == []


def test_server_that_ignores_the_range(server, url):
    keep_partial(url, ARCHIVE[:100_000])
    server.answers[f"/{NAME}"] = [whole(ARCHIVE)]
    fetch(url)
    assert fetched() == {NAME: ARCHIVE}
    assert server.asked == [(f"/{NAME}", "bytes=100000-")]


@pytest.mark.parametrize("content_range", ["bytes 0-299999/300000", "bytes 1000-1999/2000", "junk"])
def test_server_that_continues_elsewhere(server, url, content_range):
    keep_partial(url, ARCHIVE[:100_000])
    elsewhere = status(206, ARCHIVE, Content_Range=content_range)
    server.answers[f"/{NAME}"] = [elsewhere, whole(ARCHIVE)]
    fetch(url)
    assert fetched() == {NAME: ARCHIVE}
    assert server.asked[1:] == [(f"/{NAME}", None)]


@pytest.mark.parametrize("kept", [b"x" * 1000, b"x" * len(ARCHIVE), b"x" * 400_000])
def test_partial_with_wrong_bytes_is_fetched_anew(server, url, kept):
    keep_partial(url, kept)  # shorter than the archive, as long (HTTP 416), longer (HTTP 416)
    server.answers[f"/{NAME}"] = [ranged(ARCHIVE)]
    fetch(url)
    assert fetched() == {NAME: ARCHIVE}
    assert server.asked == [(f"/{NAME}", f"bytes={len(kept)}-"), (f"/{NAME}", None)]


def test_wrong_content_after_a_cut_is_fetched_anew_once_only(server, url):
    server.answers[f"/{NAME}"] = [ranged(REPACKED, stop=100_000), ranged(REPACKED)] * 3
    with pytest.raises(UserError, match="wrong content"):
        fetch(url)
    assert [asked for _, asked in server.asked] == [None, "bytes=100000-"] * 2
    assert partials() == []
    assert_nothing_made()


def test_partial_that_is_whole_is_taken_as_it_is(server, url):
    keep_partial(url, ARCHIVE)
    fetch(url)
    assert fetched() == {NAME: ARCHIVE}
    assert server.asked == []


def test_finished_archive_of_several_is_not_fetched_again(server):
    server.answers["/one.zip"] = [whole(ARCHIVE)]
    digests = {"one.zip": [sha256(ARCHIVE)], "two.zip": [sha256(REPACKED)]}
    sources = {name: [f"{server.url}/{name}"] for name in digests}
    with pytest.raises(UserError, match=r"two\.zip: no source gave it"):
        download.fetch_all(digests, sources, folder=FOLDER, mirror=None)
    assert_nothing_made()
    server.answers["/two.zip"] = [whole(REPACKED)]
    download.fetch_all(digests, sources, folder=FOLDER, mirror=None)
    assert fetched() == {"one.zip": ARCHIVE, "two.zip": REPACKED}
    assert [path for path, _ in server.asked] == ["/one.zip", "/two.zip", "/two.zip"]
    assert partials() == []


def test_an_archive_that_dvc_removes_before_it_has_saved_it_is_not_fetched_again(server, url):
    server.answers[f"/{NAME}"] = [whole(ARCHIVE)]
    for _ in range(2):  # killed after the stage, DVC runs it again, and removes its outs before
        shutil.rmtree(FOLDER, ignore_errors=True)
        fetch(url)
        assert fetched() == {NAME: ARCHIVE}
    assert len(server.asked) == 1
    files.forget_states("download", NAME)  # as `prepare` does
    assert kept() == []


@pytest.mark.parametrize(("error", "reason"), [(-1, "wrong content"), (1, "IncompleteRead")])
def test_wrong_content_length(server, url, error, reason):
    server.answers[f"/{NAME}"] = [whole(ARCHIVE, length=len(ARCHIVE) + error)]
    with pytest.raises(UserError, match=reason):
        fetch(url)
    assert_nothing_made()


def test_archive_declared_as_gzip_encoded_is_kept_as_sent(server, url):
    server.answers[f"/{NAME}"] = [whole(ARCHIVE, Content_Encoding="gzip")]
    fetch(url)
    assert fetched() == {NAME: ARCHIVE}


def test_redirect_keeps_the_range(server, url):
    keep_partial(url, ARCHIVE[:100_000])
    server.answers[f"/{NAME}"] = [status(302, Location="/moved")]
    server.answers["/moved"] = [ranged(ARCHIVE)]
    fetch(url)
    assert fetched() == {NAME: ARCHIVE}
    assert server.asked[-1] == ("/moved", "bytes=100000-")


def test_a_log_gets_lines_and_a_terminal_a_bar(server, url, capsys, monkeypatch):
    server.answers[f"/{NAME}"] = [whole(ARCHIVE)]
    fetch(url)
    written = capsys.readouterr()
    assert written.out.splitlines() == [
        f"{NAME}: from {url}",
        f"{NAME}: 300,000 bytes, digest right",
    ]
    assert written.err == ""
    files.forget_states("download", NAME)
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", terminal)
    fetch(url)
    assert "300k/300k" in terminal.getvalue()


def test_full_disk_leaves_nothing(server, url, monkeypatch):
    server.answers[f"/{NAME}"] = [whole(ARCHIVE)]

    def full(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(download.files, "write_json", full)
    with pytest.raises(OSError, match="No space left"):
        fetch(url)
    assert [path for path in Path("data").rglob("*") if path.is_file()] == []
    assert not FOLDER.exists()
    assert len(partials()) == 1  # what came is there for the next run


def test_main_reads_params_and_the_mirror(here, monkeypatch):
    (here / NAME).write_bytes(ARCHIVE)
    dataset = types.SimpleNamespace(digests={NAME: [sha256(ARCHIVE)]}, sources={NAME: []})
    everything = types.SimpleNamespace(dataset={"some": dataset}.__getitem__)
    monkeypatch.setattr(download.params, "load", lambda: everything)
    monkeypatch.setenv(download.MIRROR, str(here))
    download.main("some")
    assert fetched() == {NAME: ARCHIVE}
