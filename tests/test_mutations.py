"""Damaged, wrongly packed and hostile archives, under watch: see mutations.py."""

import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PATHS = {"PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)])}


def test_300_archives_are_refused_or_read_as_they_were():
    command = [sys.executable, "-W", "ignore", HERE / "mutations.py", "300", "1"]
    ended = subprocess.run(command, capture_output=True, text=True, env=os.environ | PATHS)
    assert not ended.stderr
    found = json.loads(ended.stdout)
    assert (found["wrong"], found["done that is forbidden"], ended.returncode) == ([], [], 0)
    assert sum(found["ends"].values()) == 300


def test_the_watch_sees_what_is_forbidden():
    code = """
import os, socket, mutations
seen = mutations.watch()
os.system("true")
socket.socket()
open("outside", "w").close()
os.remove("outside")
os.makedirs("data", exist_ok=True)
assert not [each for each in seen if "makedirs" in each]
for word in ("os.system", "socket", "outside"):
    assert any(word in each for each in seen), word
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | PATHS)
