"""What is committed names no person and no machine, holds no secret, and binds nobody.

Every file that git tracks is looked through, and the pages where they have been made. A pattern
that refuses too much is answered in `ALLOWED`, with a reason.
"""

import getpass
import json
import re
import socket
import subprocess
import tomllib
from importlib.metadata import Distribution
from pathlib import Path

import licences
import PIL.Image
import PIL.PngImagePlugin
import pins
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
IMAGES = {".gif", ".jpeg", ".jpg", ".png", ".webp"}

# No pattern may match itself: this file is looked through, too.
PATTERNS = {
    "a home folder": rb"(?<![\w.~])/(?:home|Users)/\w",
    "root's home folder": rb"(?<![\w.~])/(?:root)\b",
    "a work folder": rb"(?<![\w.~])/(?:work|workspaces?|builds|tmp|var/folders)/\w",
    "a home folder of Windows": rb"(?i)\b[a-z]:[\\/]+Users[\\/]",
    "a key of AWS": rb"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a private key": rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY",
    "a token of GitHub": rb"\b(?:gh[opsur]_[A-Za-z0-9]{30}|github_pat_\w{20})",
    "a token of GitLab": rb"\bglpat-[\w-]{20}",
    "a token of Hugging Face": rb"\bhf_[A-Za-z0-9]{30}",
    "a token of Slack": rb"\bxox[a-z]-[\w-]{10}",
    "a token of PyPI": rb"\bpypi-[\w-]{40}",
    "a key of Google": rb"\bAIza[\w-]{35}",
    "a key of a language model": rb"(?<![\w-])sk-[\w-]{20}",
    "a JSON web token": rb"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{5}",
    "a secret by its name": (
        rb"(?i)(?<![a-z])(?:password|passwd|secret|token|api[_-]?key|access[_-]?key)[\"']?\s*[:=]"
        rb"\s*[\"']?(?=[a-z_+/=.-]*[0-9])[\w+/=.-]{12}"
    ),
    "a password in a URL": rb"(?i)\b[a-z][a-z0-9+.-]*://[^\s/:@\"']+:[^\s/@\"']+@",
    # Domains that exist for examples are nobody's.
    "an e-mail address": (
        rb"(?i)\b[\w.+-]+@(?!example\.)(?:[a-z0-9-]+\.)+"
        rb"(?!example\b|invalid\b|test\b)[a-z]{2,}\b"
    ),
}
# Put together, so that this file does not hold what it looks for.
PLANTED = [
    ("a home folder", "see file:///ho", "me/ann/main"),
    ("a home folder", "at /Us", "ers/ann"),
    ("root's home folder", '"/ro', 'ot"'),
    ("root's home folder", "cache: /ro", "ot/.cache"),
    ("a work folder", "/wo", "rk/main/stages"),
    ("a work folder", "in /t", "mp/pytest-3"),
    ("a work folder", "/var/fol", "ders/zz/T"),
    ("a home folder of Windows", "C:\\", "Users\\ann"),
    ("a home folder of Windows", r"c:\\", r"users\\ann"),
    ("a key of AWS", "AKIA", "ABCDEFGHIJKLMNOP"),
    ("a private key", "-----BEGIN ", "PRIVATE KEY-----"),
    ("a private key", "-----BEGIN OPENSSH ", "PRIVATE KEY-----"),
    ("a token of GitHub", "gh", "p_" + 36 * "a"),
    ("a token of GitHub", "github", "_pat_" + 22 * "a"),
    ("a token of GitLab", "glpat", "-" + 20 * "a"),
    ("a token of Hugging Face", "hf", "_" + 34 * "a"),
    ("a token of Slack", "xoxb", "-123456789012"),
    ("a token of PyPI", "pypi", "-" + 40 * "a"),
    ("a key of Google", "AIza", 35 * "a"),
    ("a key of a language model", "key sk", "-" + 32 * "a"),
    ("a JSON web token", "eyJhbGciOiJIUzI1NiJ9.", "eyJzdWIiOiJhbm4ifQ.c2lnbmVk"),
    ("a secret by its name", "password", "=correct7horse9battery"),
    ("a secret by its name", '"token"', ': "abcdefgh12345678"'),
    ("a secret by its name", "AWS_SECRET_ACCESS_KEY", "=wJalrXUtnFEMI7K7MDENG"),
    ("a password in a URL", "https://ann:", "hunter2@host/path"),
    ("an e-mail address", "Ann <ann.lee", "@uni.edu>"),
]
HARMLESS = [
    "$work/clone ~/home/x https://host.org/home/x data/work/x /tmp /rooted :root{",
    "dvc repro train@digits-siamese, actions/checkout@v4, precision@5, test@example.org",
    "password=os.environ['PASSWORD'] token: ${{ secrets.TOKEN }} tokens = split_into_tokens(text)",
    "https://host:8080/path task-1 risk-of-a-false-alarm-in-a-long-word",
]
ALLOWED = {  # what a file may hold although it is refused, and why
    ("tests/test_readers.py", b"/tmp/evil"): "a member of a hostile archive, which is refused",
    ("tests/test_committed.py", b"/tmp/evil"): "the line above",
}
# Names of people and machines that are words, too.
COMMON = {"admin", "build", "builder", "codespace", "container", "debian", "digits", "docker",
          "jovyan", "keras", "localhost", "python", "runner", "sandbox", "student", "teacher",
          "ubuntu", "vagrant", "vscode"}  # fmt: skip


def committed() -> list[Path]:
    """Return the files that git tracks, and the pages where they have been made."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        listed = b""
    if not listed:
        pytest.skip("not a git checkout")
    tracked = [ROOT / name for name in listed.decode().split("\0") if name]
    return [path for path in (*tracked, *ROOT.glob("reports/*.html")) if path.is_file()]


def of_this_machine() -> dict[str, bytes]:
    """Return patterns of the names that this machine and its user have, where they are no words."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # of a container, where nobody has a name
        user = ""
    home = str(Path.home())
    names = {"this user's name": user, "this host's name": socket.gethostname().partition(".")[0]}
    own = {
        what: rb"(?i)(?<![a-z0-9])" + re.escape(name).encode() + rb"(?![a-z0-9])"
        for what, name in names.items()
        if len(name) > 4 and name.lower() not in COMMON
    }
    return own | ({"this user's home folder": re.escape(home).encode()} if len(home) > 5 else {})


def text_of(content: bytes) -> bytes:
    """Return a text as it is, and of anything else what can be read in it."""
    if b"\0" not in content:
        return content
    return b"\n".join(re.findall(rb"[\x20-\x7e]{8,}", content))


def found(content: bytes, patterns: dict[str, bytes]) -> list[str]:
    """Return what was found, each with its line, and not the text itself: it may be a secret."""
    text = text_of(content)
    return [
        f"{what} in line {len(text[: match.start() + 1].splitlines())}"
        for what, pattern in patterns.items()
        for match in re.finditer(pattern, text)
    ]


def described(path: Path) -> dict[str, object]:
    """Return what an image says beside its pixels, but for the program that drew it."""
    with PIL.Image.open(path) as image:
        image.load()
        info = {key: value for key, value in image.info.items() if isinstance(value, str | bytes)}
    return {key: info[key] for key in info.keys() - {"transparency"} if not drawn_by(key, info)}


def drawn_by(key: str, info: dict) -> bool:
    return key == "Software" and str(info[key]).startswith("Matplotlib version")


def test_no_committed_file_names_a_person_or_machine_or_holds_a_secret():
    patterns = PATTERNS | of_this_machine()
    wrong = []
    for path in committed():
        name, content = path.relative_to(ROOT).as_posix(), path.read_bytes()
        for where, allowed in ALLOWED:
            if where == name:
                content = content.replace(allowed, b"")
        wrong += [f"{name}: {each}" for each in found(name.encode() + b"\n", patterns)]
        wrong += [f"{name}: {each}" for each in found(content, patterns)]
    assert not wrong, "\n".join(wrong)


def test_no_committed_image_says_more_than_its_pixels():
    said = {path.name: described(path) for path in committed() if path.suffix.lower() in IMAGES}
    assert not {name: info for name, info in said.items() if info}


@pytest.mark.parametrize(("what", "first", "rest"), PLANTED)
def test_a_pattern_finds_what_it_is_for(what, first, rest):
    pattern = {what: PATTERNS[what]}
    planted = (first + rest).encode()
    assert found(b"one\n" + planted + b"\n", pattern) == [f"{what} in line 2"]
    assert found(b"\0\1 not text: " + planted + b"\0", pattern) == [f"{what} in line 1"]


def test_every_pattern_is_planted():
    assert {what for what, *_ in PLANTED} == set(PATTERNS)


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_harmless_is_not_found(text):
    assert not found(text.encode(), PATTERNS)


def test_names_of_this_machine_are_looked_for(monkeypatch):
    monkeypatch.setattr(getpass, "getuser", lambda: "annlee")
    monkeypatch.setattr(socket, "gethostname", lambda: "box-of-ann.lan")
    monkeypatch.setattr(Path, "home", lambda: Path("/people/al"))
    text = b"by AnnLee on box-of-ann in /people/al/x; annleee"
    assert len(found(text, of_this_machine())) == 3
    monkeypatch.setattr(getpass, "getuser", lambda: "runner")
    monkeypatch.setattr(socket, "gethostname", lambda: "vm")
    monkeypatch.setattr(Path, "home", lambda: Path("/", "root"))
    assert not of_this_machine()


def test_what_is_allowed_is_still_there():
    for name, allowed in ALLOWED:
        assert allowed in (ROOT / name).read_bytes(), f"{name}: no longer needs to be allowed"


@pytest.mark.parametrize("key", ["Author", "Comment", "Software", "Source"])
def test_what_a_drawn_image_says_is_found(tmp_path, key):
    said = PIL.PngImagePlugin.PngInfo()
    said.add_text(key, "ann")
    PIL.Image.new("L", (2, 2)).save(tmp_path / "drawn.png", pnginfo=said)
    assert described(tmp_path / "drawn.png") == {key: "ann"}


# Versions


def test_every_distribution_is_pinned_within_its_bounds():
    pinned = pins.read()
    assert not pins.needed(pins.EXTRAS).keys() - pinned.keys(), "run python tests/pins.py"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = project["dependencies"] + project["optional-dependencies"]["test"]
    for requirement in map(Requirement, asked):
        version = pinned[canonicalize_name(requirement.name)]
        assert version in requirement.specifier, f"{requirement}: {version} is pinned"


def test_the_pinned_versions_made_the_committed_figures():
    runs, on_gpu = list(ROOT.glob("metrics/*/*/run.json")), []
    assert runs
    for path in runs:
        run = json.loads(path.read_text(encoding="utf-8"))
        pinned, names = pins.read(), ("keras", "numpy", "tensorflow")
        if run["device"].startswith("gpu"):
            pinned, names = pins.read(pins.GPU), ("keras", "numpy", "jax")
            on_gpu.append(path.parent.name)
        found = {name: run["versions"][name] for name in names}
        assert found == {name: pinned[name] for name in found}, path
    assert on_gpu == ["tinyimagenet-best"]


# Licences


def test_every_licence_is_known_and_in_the_table():
    needed, table = pins.needed(licences.EXTRAS), licences.read()
    assert {"dvc", "keras", "numpy", "tensorflow"} < needed.keys()
    silent = {name for name, found in needed.items() if licences.licence_of(found) is None}
    assert not silent, "read their files, and add them to READ in tests/licences.py"
    assert not needed.keys() - table.keys(), "run python tests/licences.py"


def test_no_licence_binds_this_project():
    found = pins.needed(licences.EXTRAS)
    here = {name: licences.licence_of(each) for name, each in found.items()}
    for name, licence in (*licences.read().items(), *here.items()):
        allowed = licences.FREE | (licences.NOTED if name in licences.NOTES else set())
        assert licences.names(licence) <= allowed, f"{name}: {licence}"


def test_the_page_of_licences_is_as_it_is_written():
    rows = licences.read()
    assert licences.NOTES.keys() <= rows.keys()
    assert licences.TABLE.read_text(encoding="utf-8") == licences.render(rows)


@pytest.mark.parametrize(
    ("metadata", "text", "licence"),
    [
        ("License-Expression: MIT", "", "MIT"),
        ("License: Apache 2.0", "", "Apache-2.0"),
        ("Classifier: License :: OSI Approved :: MIT License", "", "MIT"),
        ("License: BSD", "Redistribution and use in source and binary forms", "BSD-2-Clause"),
        (
            "Classifier: License :: OSI Approved :: BSD License",
            "Redistribution and use in source and\n binary forms ... used to endorse\n or promote",
            "BSD-3-Clause",
        ),
        ("License: BSD", "Do what you like", None),
        ("License: GPLv3", "", None),
        ("Classifier: Topic :: Games", "", None),
    ],
)
def test_a_licence_is_what_a_distribution_says(tmp_path, metadata, text, licence):
    folder = tmp_path / "some-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Name: some\nVersion: 1.0\n{metadata}\n")
    (folder / "LICENSE").write_text(text)
    (folder / "RECORD").write_text("some-1.0.dist-info/LICENSE,,\n")
    assert licences.licence_of(Distribution.at(folder)) == licence
