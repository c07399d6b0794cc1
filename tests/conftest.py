"""Settings of all tests."""

import hypothesis

# By default an example that takes more than 200 ms fails: speed belongs in benchmarks, and a busy
# machine is slow now and then.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")
