"""Settings of all tests."""

import os

import hypothesis
import pytest

from stages.backend import keras

# What the user has set for git, and proxies, which would stand between a test and its own server.
os.environ |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
os.environ |= dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost")

# The same examples each time, so that no commit fails by chance; `--hypothesis-profile=exploring`
# draws others. By default one that takes more than 200 ms fails: speed belongs in benchmarks, and
# a busy machine is slow now and then.
hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True)
hypothesis.settings.register_profile("exploring", deadline=None)
hypothesis.settings.load_profile("repeatable")


@pytest.hookimpl(tryfirst=True)  # before any fixture
def pytest_runtest_setup():
    """Seed Python, NumPy and the backend: a network's weights are the same in every run."""
    keras.utils.set_random_seed(0)
