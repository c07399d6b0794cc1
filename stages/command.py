"""How a stage is started from the command line, and how it says what is wrong.

A stage is run as ``python -m stages.<name> <what>``. What a person can mend (a param, an
archive, a full disk) ends as one line on standard error and exit code 1, without a traceback.
A traceback is left for what only a programmer can mend.
"""

import re
import sys
from collections.abc import Callable

# Each backend says by an exception of its own that a device has no memory left.
_DEVICE_IS_FULL = re.compile("(?i)(OOM when allocating|RESOURCE_EXHAUSTED|out of memory).{0,100}")


_LONGEST = 800  # characters of a message that anyone reads


class UserError(Exception):
    """Something a person can mend: the message says what, where, what was expected, what to do.

    It may quote what it found, which may be of any length: what is too much is left out in the
    middle, between where it happened and what to do.
    """

    def __init__(self, message: str):
        half = _LONGEST // 2
        fits = len(message) <= _LONGEST
        super().__init__(message if fits else f"{message[:half]} … {message[-half:]}")


def run(stage: Callable[..., None]) -> None:
    """Call `stage` with the words of the command line and turn its failures into one line.

    Args:
        stage: the `main` of a stage; the names of its parameters are the usage line, its module's
            docstring is the help.

    Raises:
        SystemExit: with code 1 and one line for a `UserError`, an `OSError` (full disk, missing
            or unreadable file) or exhausted memory, of the machine or a device, 2 for a wrong
            number of words, 130 when interrupted.
    """
    module = sys.modules[stage.__module__].__spec__.name
    expected = stage.__code__.co_varnames[: stage.__code__.co_argcount]
    words = sys.argv[1:]
    usage = " ".join([f"usage: python -m {module}", *(f"<{word}>" for word in expected)])
    if words in (["-h"], ["--help"]):
        print(usage, (sys.modules[stage.__module__].__doc__ or "").strip(), sep="\n\n")
        return
    if len(words) != len(expected):
        print(usage, file=sys.stderr)
        raise SystemExit(2)
    try:
        stage(*words)
    except UserError as error:
        failure = str(error)
    except OSError as error:
        failure = f"{error.filename or 'input or output'}: {error.strerror or error}"
    except MemoryError as error:
        failure = f"out of memory: {error}"
    except KeyboardInterrupt:
        print(f"{module}: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        if not (found := _DEVICE_IS_FULL.search(str(error))):
            raise
        failure = (
            f"out of memory on the device ({found[0].strip()}); lower codes.batch in "
            "params.yaml, or training.batch, with which a training starts anew; with the batch as "
            "it is, the epochs that were finished are kept"
        )
    else:
        return
    print(f"{' '.join([module, *words])}: {' '.join(failure.split())}", file=sys.stderr)
    raise SystemExit(1)
