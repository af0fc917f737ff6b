"""The WebUI over HTTP: requests, pictures, the text of pictures, and settings that are put back. Standard library,
numpy and PIL.
"""

from __future__ import annotations

import base64
import io
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Picture = NDArray[np.uint8]
Json = Mapping[str, Any]
_PATIENCE = 1800.0  # seconds for one answer: a checkpoint may be loaded, and a CPU draws slowly
# A value with a comma, a colon or a line break is written as a JSON string (modules/infotext_utils.py, quote).
_QUOTED = r'"(?:\\.|[^"\\])*"'


class Unreachable(Exception):
    """Nobody answers at the address."""


class Refused(Exception):
    """An answer other than 200: its status, and ``detail`` where it has one, otherwise the beginning of its text."""

    def __init__(self, path: str, status: int, detail: str) -> None:
        super().__init__(f"{path} answered {status}: {detail or 'nothing'}")
        self.status, self.detail = status, detail


@dataclass(frozen=True, eq=False)
class Drawn:
    """What came back for a job: all images, those that are pictures (grids left out), and the texts of the pictures."""

    images: tuple[Picture, ...]
    pictures: tuple[Picture, ...]
    infotexts: tuple[str, ...]

    @property
    def text(self) -> str:
        """The text of the first picture."""
        return self.infotexts[0] if self.infotexts else ""


class Client:
    """One WebUI. Raises Unreachable or Refused."""

    def __init__(self, address: str, patience: float = _PATIENCE) -> None:
        self.address, self._patience = address.rstrip("/"), patience

    def get(self, path: str) -> Any:
        """The JSON that is at the path."""
        return self._ask(path, None)

    def post(self, path: str, body: Json) -> Any:
        """The JSON that is answered."""
        return self._ask(path, json.dumps(body).encode())

    def draw(self, mode: str, body: Json) -> Drawn:
        """Have pictures made; ``mode`` is "txt2img" or "img2img"."""
        return read_drawn(self.post(f"/sdapi/v1/{mode}", body))

    def _ask(self, path: str, data: bytes | None) -> Any:
        request = urllib.request.Request(self.address + path, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=self._patience) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            raise Refused(path, error.code, _detail(error.read())) from error
        except (OSError, json.JSONDecodeError) as error:  # URLError and timeouts are OSErrors
            raise Unreachable(f"No WebUI with --api answers at {self.address} ({error}).") from error


def _detail(body: bytes) -> str:
    text = body.decode(errors="replace")
    try:
        content = json.loads(text)
    except json.JSONDecodeError:
        return text[:300]
    found = content.get("detail") or content.get("errors") if isinstance(content, dict) else None
    return found if isinstance(found, str) else text[:300]


def read_drawn(answer: Json) -> Drawn:
    """Decode the answer to a job."""
    info = json.loads(answer["info"])
    images = tuple(decode_picture(text) for text in answer["images"])
    first = int(info.get("index_of_first_image", 0))
    count = len(info.get("all_seeds") or images)
    return Drawn(images, images[first : first + count], tuple(info.get("infotexts", ()))[first : first + count])


def decode_picture(text: str) -> Picture:
    """Base64 of an image file as (H, W, 3) RGB."""
    with Image.open(io.BytesIO(base64.b64decode(text.partition(",")[2] or text))) as image:
        return np.asarray(image.convert("RGB"))


def encode_picture(picture: Picture) -> str:
    """(H, W, 3) RGB as base64 of a PNG."""
    data = io.BytesIO()
    Image.fromarray(picture).save(data, format="PNG")
    return encode_bytes(data.getvalue())


def encode_bytes(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def infotext_field(text: str, name: str) -> str | None:
    """The value of a field in the text of a picture, without its quotes; None where it has no such field."""
    found = re.search(rf"(?:^|, |\n){re.escape(name)}: ({_QUOTED}|[^,\n]*)", text)
    if found is None:
        return None
    value = found[1]
    return json.loads(value) if value.startswith('"') else value.strip()


class Settings:
    """The WebUI's settings: what they were at the start, and their way back.

    A1111 puts the settings of a single request back only where they are saved in its config.json
    (modules/processing.py, process_images), so what a request has left behind is put back here.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._start: dict[str, Any] = dict(client.get("/sdapi/v1/options"))
        self._wanted = dict(self._start)
        self._touched: set[str] = set()

    def knows(self, name: str) -> bool:
        """Whether this WebUI has such a setting."""
        return name in self._start

    def assume(self, **values: Any) -> None:
        """Values at the start of settings that the WebUI has but does not list: they were never saved."""
        self._start = values | self._start
        self._wanted = values | self._wanted

    def hold(self, **values: Any) -> None:
        """Change settings until ``restore``."""
        self._wanted.update(values)
        self._touched.update(values)
        self._client.post("/sdapi/v1/options", values)

    def settle(self, names: Iterable[str]) -> None:
        """Put back what a request with its own settings has left behind."""
        self._touched.update(names)
        now = self._client.get("/sdapi/v1/options")
        left = {name: self._wanted[name] for name in names if now.get(name) != self._wanted.get(name)}
        changed = {name: value for name, value in left.items() if value is not None}
        if changed:
            self._client.post("/sdapi/v1/options", changed)

    def restore(self) -> None:
        """As at the start."""
        self._wanted = dict(self._start)
        self.settle(sorted(self._touched))
