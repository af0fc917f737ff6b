"""The border to packages that may fail in any way they like."""

from __future__ import annotations

from types import TracebackType


class Probe:
    """``with Probe() as probe:`` around an import or a call of an optional package keeps what it raised.

    Native extensions raise types that share nothing but Exception: onnxruntime's Fail and InvalidProtobuf, protobuf's
    VersionError, numpy's ValueError about its binary interface. KeyboardInterrupt and the like pass through.
    """

    def __init__(self) -> None:
        self.error: Exception | None = None

    def __enter__(self) -> Probe:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        del kind, trace
        if isinstance(error, Exception):
            self.error = error
        return self.error is not None

    @property
    def reason(self) -> str:
        """One line: "ImportError: no module named x"; empty when nothing was raised."""
        if self.error is None:
            return ""
        return " ".join(f"{type(self.error).__name__}: {self.error}".split())[:300].rstrip(": ")
