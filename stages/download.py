"""Fetch a dataset's archives, each from the first place that gives the right bytes.

An archive is identified by its digest, never by where it came from: a mirror that a person names
in NEURAL_CODES_MIRROR (a folder or an http(s) URL) is tried before the sources in params.yaml.
What an interrupted run has received is kept in .resume, outside the outs that DVC deletes before
a stage, and continued by the next run; data/raw/<dataset> appears when every archive is right, and
`prepare` removes what was kept.
"""

import hashlib
import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

import requests
import urllib3
from tqdm import tqdm

from stages import files, params
from stages.command import UserError, run

MIRROR = "NEURAL_CODES_MIRROR"
CHUNK = 64 * 1024  # bytes; about a second of the slowest host, which is what a cut may lose
TIMEOUT = (10, 60)  # seconds to connect, and without a byte before a connection counts as cut
ATTEMPTS = 4  # in a row without a byte gained, before a source is given up
PAUSE = 1.0  # seconds before another attempt, doubled each time
LONGEST_PAUSE = 60.0  # seconds, whatever a server's Retry-After asks for
BUSY = (429, 500, 502, 503, 504)  # HTTP statuses that may be gone at the next attempt


class SourceError(Exception):
    """Why one source does not give the archive: the next one is tried."""


class MismatchError(SourceError):
    """What was received is not part of the archive, and has been removed."""


class _Retry(urllib3.Retry):
    """urllib3's retries, never waiting longer than `LONGEST_PAUSE`."""

    def get_retry_after(self, response: urllib3.HTTPResponse) -> float | None:
        seconds = super().get_retry_after(response)
        return None if seconds is None else min(seconds, LONGEST_PAUSE)


def connect() -> requests.Session:
    """Return a session that tries again when a server is away or busy."""
    retries = _Retry(
        total=ATTEMPTS - 1,
        status_forcelist=BUSY,
        allowed_methods=["GET"],
        backoff_factor=PAUSE,
        raise_on_status=False,  # the last answer is returned: its status says more
    )
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, requests.adapters.HTTPAdapter(max_retries=retries))
    return session


def store(
    chunks: Iterable[bytes],
    partial: Path,
    accepted: list[str],
    *,
    start: int = 0,
    total: int | None = None,
    kind: str = "a local file",
) -> None:
    """Write `chunks` after the first `start` bytes of `partial`, and check the whole.

    Args:
        chunks: the bytes as they come.
        partial: the file; what it holds is kept when `start` is not 0.
        accepted: the sha256 digests that are right.
        start: the size of `partial`, or 0 to begin anew.
        total: the size of the whole in bytes where it is known, for the progress bar.
        kind: what the source says the content is, for the message.

    Raises:
        MismatchError: when the digest is another; `partial` is then removed.
    """
    with (
        open(partial, "a+b" if start else "w+b") as file,
        # disable=None: a bar on a terminal, nothing in a log
        tqdm(total=total, initial=start, unit="B", unit_scale=True, disable=None) as bar,
    ):
        file.seek(0)
        sha256 = hashlib.file_digest(file, "sha256")
        for chunk in chunks:
            file.write(chunk)
            sha256.update(chunk)
            bar.update(len(chunk))
        size = file.tell()
    if sha256.hexdigest() not in accepted:
        partial.unlink()
        raise MismatchError(f"wrong content: {size:,} bytes, {kind}, sha256 {sha256.hexdigest()}")


def copy(source: Path, partial: Path, accepted: list[str]) -> None:
    """Copy a mirror's file to `partial`.

    Raises:
        SourceError: when the mirror lacks the file, or its digest is wrong.
    """
    if not source.is_file():
        raise SourceError("no such file")
    with open(source, "rb") as file:
        chunks = iter(lambda: file.read(CHUNK), b"")
        store(chunks, partial, accepted, total=source.stat().st_size)


def receive(url: str, partial: Path, accepted: list[str], session: requests.Session) -> None:
    """Ask `url` once for what `partial` still lacks.

    Raises:
        SourceError: when the server cannot be reached or refuses.
        MismatchError: when it does not continue where `partial` ends, or the digest is wrong.
        urllib3.exceptions.HTTPError: when the connection is cut; what came is kept.
    """
    start = _size(partial)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            status, found = response.status_code, response.headers
            continues = found.get("Content-Range", "").startswith(f"bytes {start}-")
            if start and (status == 416 or (status == 206 and not continues)):
                partial.unlink()
                raise MismatchError(f"HTTP {status} for the bytes from {start:,} on")
            if status != 200 and not (start and status == 206):
                raise SourceError(f"HTTP {status} {response.reason}")
            length = found.get("Content-Length", "")
            kind = found.get("Content-Type", "no content type")
            if length.isdecimal() and int(length) < start and kind.startswith("text/html"):
                raise SourceError(f"a page of {length} bytes instead of the rest")  # a login?
            start = start if status == 206 else 0  # 200: the server sends all of it again
            store(
                # the bytes as sent: some servers declare a .tar.gz to be gzip-encoded
                response.raw.stream(CHUNK, decode_content=False),
                partial,
                accepted,
                start=start,
                total=start + int(length) if length.isdecimal() else None,
                kind=kind,
            )
    except requests.RequestException as error:
        raise SourceError(_reason(error)) from None


def download(url: str, partial: Path, accepted: list[str], session: requests.Session) -> None:
    """Bring the archive at `url` to `partial`, going on after every cut while bytes are gained.

    Bytes kept from an earlier answer may be of another file than those that follow, so a wrong
    content that was put together is fetched once more from its beginning.

    Raises:
        SourceError: when this source does not give it.
    """
    furthest, failed, again = _size(partial), 0, False
    while True:
        start = _size(partial)
        try:
            return receive(url, partial, accepted, session)
        except MismatchError as error:
            if again or not start:
                raise
            print(f"{url}: {error}; once more from the beginning", flush=True)
            furthest, again = 0, True
        except urllib3.exceptions.HTTPError as error:
            failed = 0 if _size(partial) > furthest else failed + 1
            furthest = max(furthest, _size(partial))
            if failed == ATTEMPTS:
                raise SourceError(f"{_reason(error)}, {failed} times in a row") from None
            print(f"{url}: {_reason(error)}; going on from {furthest:,} bytes", flush=True)
            time.sleep(min(PAUSE * 2**failed, LONGEST_PAUSE))


def places(name: str, urls: list[str], mirror: str | None) -> list[str | Path]:
    """Return where to look for an archive, in order: the mirror's file, then the URLs.

    Raises:
        UserError: when the mirror is neither an http(s) URL nor a folder.
    """
    if not mirror:
        return list(urls)
    if mirror.startswith(("http://", "https://")):
        return [f"{mirror.rstrip('/')}/{name}", *urls]
    if not Path(mirror).is_dir():
        raise UserError(
            f"{MIRROR}={mirror}: no such folder; expected a folder or an http(s) URL that holds "
            f"{name}: correct it or unset it"
        )
    return [Path(mirror) / name, *urls]


def fetch(
    name: str, accepted: list[str], choices: list[str | Path], session: requests.Session
) -> Path:
    """Return the path of the whole archive in .resume, fetched unless an earlier run did.

    Args:
        name: the archive's file name.
        accepted: the sha256 digests that are right.
        choices: files and URLs, tried in order.
        session: for the URLs.

    Raises:
        UserError: when none of them gives the archive.
    """
    resume = files.state_folder("download", name, _short(*accepted))  # a file for each place
    resume.mkdir(parents=True, exist_ok=True)
    for partial in sorted(resume.iterdir()):
        if _sha256(partial) in accepted:
            print(f"{name}: whole since an earlier run", flush=True)
            return partial
    failures = []
    for place in choices:
        partial = resume / _short(str(place))
        print(f"{name}: from {place}", flush=True)
        try:
            if isinstance(place, Path):
                copy(place, partial, accepted)
            else:
                download(place, partial, accepted, session)
        except SourceError as error:
            failures.append(f"{place}: {error}")
            print(f"{name}: not from {place}: {error}", flush=True)
        else:
            print(f"{name}: {_size(partial):,} bytes, digest right", flush=True)
            return partial
    raise UserError(
        f"{name}: no source gave it: {'; '.join(failures) or 'none is listed in params.yaml'}; "
        f"expected sha256 {' or '.join(accepted)}; "
        f"set {MIRROR} to a folder that holds {name}, or try again to go on with what came"
    )


def fetch_all(
    digests: dict[str, list[str]],
    sources: dict[str, list[str]],
    *,
    folder: Path,
    mirror: str | None,
) -> None:
    """Make `folder` with all archives and their digests (archives.json), or leave it as it was.

    Args:
        digests: file name -> accepted sha256 digests; may be empty.
        sources: file name -> URLs, tried in order.
        folder: where the archives go, under their file names.
        mirror: a folder or an http(s) URL that is tried first, if any.

    Raises:
        UserError: when the mirror is no folder, or no source gives an archive.
    """
    with connect() as session:
        archives = {
            name: fetch(name, accepted, places(name, sources[name], mirror), session)
            for name, accepted in digests.items()
        }
    with files.replacing(folder) as partial:
        partial.mkdir()
        for name, archive in archives.items():
            link(archive, partial / name)
        found = {name: _sha256(partial / name) for name in archives}
        files.write_json(partial / "archives.json", found)
    for archive in archives.values():
        for other in archive.parent.iterdir():
            if other != archive:  # what came of it from places that did not give it all
                other.unlink()


def link(source: Path, target: Path) -> None:
    """Give a file a second name, or a copy where a file system knows one name only."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _short(*words: str) -> str:
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]


def _reason(error: Exception) -> str:
    """Return what an error of requests or urllib3 wraps, which is what a person can read."""
    cause = error.args[0] if error.args else error
    return str(getattr(cause, "reason", cause))


def main(dataset: str) -> None:
    """Fetch the archives of one dataset of params.yaml into data/raw/<dataset>."""
    wanted = params.load().dataset(dataset)
    fetch_all(
        wanted.digests,
        wanted.sources,
        folder=Path("data/raw", dataset),
        mirror=os.environ.get(MIRROR),
    )


if __name__ == "__main__":
    run(main)
