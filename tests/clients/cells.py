"""One cell of the driver matrix: something that was tried, and how it went."""

import contextlib
import traceback


@contextlib.contextmanager
def cell(what):
    """Prints `CELL <tab> what <tab> ok`, or `failed` with the reason; the next cell is tried all the same."""
    try:
        yield
    except Exception as error:  # whatever a driver raises is a result here
        reason = " ".join(str(error).split())[:300] or traceback.format_exc().splitlines()[-1]
        print(f"CELL\t{what}\tfailed: {type(error).__name__}: {reason}", flush=True)
    else:
        print(f"CELL\t{what}\tok", flush=True)


def expect(found, wanted):
    if found != wanted:
        raise AssertionError(f"{found!r} instead of {wanted!r}")


def refused(call, *words):
    """Calls, and wants an error whose text holds all the words."""
    try:
        call()
    except Exception as error:
        missing = [word for word in words if word not in str(error)]
        if missing:
            raise AssertionError(f"the error does not say {missing}: {error}") from error
    else:
        raise AssertionError("no error")
