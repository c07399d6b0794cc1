"""Settings of all tests."""

import os

import hypothesis

# What the user has set for git, and proxies, which would stand between a test and its own server.
os.environ |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
os.environ |= dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost")

# By default an example that takes more than 200 ms fails: speed belongs in benchmarks, and a busy
# machine is slow now and then.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")
