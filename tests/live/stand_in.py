"""A WebUI of a few lines for the suite's own tests: it answers as A1111 does, with noise for pictures.

A picture depends on what a real one depends on; a unit that acts makes it brighter. ``faults`` switch mistakes on.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import numpy as np

from .client import Picture, encode_picture
from .fixtures import vectors
from .job import SCRIPT

Answer = tuple[int, Any]
_EFFECT = 30  # grey levels at weight 1
_DECIDING = ("prompt", "steps", "sampler_name", "cfg_scale", "width")


class StandIn:
    """``faults``: names of mistakes, see where they are asked for. ``settings`` are the WebUI's, ``posted`` every path
    that was posted to."""

    def __init__(self, adapters: tuple[str, ...] = ("faceid-live-faceid_sd15.bin",)) -> None:
        self.faults: set[str] = set()
        self.adapters = adapters
        self.settings: dict[str, Any] = {"sd_model_checkpoint": "a.safetensors", "batch_cond_uncond": True}
        self.scripts = ["faceid", "x/y/z plot"]
        self.posted: list[str] = []
        self._left, self._count = 0, 0

    def get(self, path: str) -> Answer:
        lists = {
            "/sdapi/v1/options": self.settings,
            "/sdapi/v1/cmd-flags": {"api": True},
            "/sdapi/v1/samplers": [{"name": "Euler"}],
            "/sdapi/v1/scripts": {"txt2img": self.scripts, "img2img": self.scripts},
            "/sdapi/v1/sd-models": [_model("a", "0a1b"), _model("b", "2c3d")],
        }
        return (200, lists[path]) if path in lists else (404, {"detail": "Not Found"})

    def post(self, path: str, body: Mapping[str, Any]) -> Answer:
        self.posted.append(path)
        if path == "/sdapi/v1/options":
            self.settings.update(body)
            return 200, None
        if not path.endswith(("txt2img", "img2img")):
            return 200, {}
        now = self.settings | body.get("override_settings", {})
        if "settings stay" in self.faults:
            self.settings = now
        return self._draw(body, now)

    def _draw(self, body: Mapping[str, Any], settings: Mapping[str, Any]) -> Answer:
        units = body["alwayson_scripts"].get(SCRIPT, {}).get("args", [])
        acting = [unit for unit in units if unit.get("enabled", True) and unit.get("weight", 0.8)]
        problem = next((told for unit in acting if (told := self._problem_of(unit))), "")
        shown = acting if not problem or "face anyway" in self.faults else []
        weight = sum(unit.get("weight", 0.8) * self._looks(unit, body) for unit in shown)
        left, self._left = self._left, self._left + (bool(units) and self._leaves_something(settings))
        if problem and all(unit.get("on_fail", "stop") == "stop" for unit in acting):
            return (500 if "wrong status" in self.faults else 422), {"detail": problem}
        pictures = [self._picture(body, settings, place, weight) + left for place in range(body["batch_size"])]
        text = "cat\nSteps: 4" + self._fields(acting, problem)
        info = {"infotexts": [text] * len(pictures), "all_seeds": [0] * len(pictures), "index_of_first_image": 0}
        return 200, {"images": [encode_picture(picture) for picture in pictures], "info": json.dumps(info)}

    def _looks(self, unit: Mapping[str, Any], body: Mapping[str, Any]) -> float:
        """About 1, a little different for each person where the positive side counts."""
        if body["cfg_scale"] == 0 and "wrong sides" not in self.faults:
            return 1.0
        return 1.0 if "one for all" in self.faults or unit.get("embeddings") == vectors() else 1.4

    def _leaves_something(self, settings: Mapping[str, Any]) -> bool:
        return "leftovers" in self.faults or ("split leftovers" in self.faults and not settings["batch_cond_uncond"])

    def _problem_of(self, unit: Mapping[str, Any]) -> str:
        if unit["adapter"] in self.adapters:
            return ""
        folder = "/srv/webui/models" if "paths" in self.faults else "models"
        return f"There is no adapter {unit['adapter']} in {folder}/ip-adapter, sorry: look there."

    def _fields(self, acting: list[Any], problem: str) -> str:
        if problem:
            return "" if "silence" in self.faults else f", {SCRIPT} note: {json.dumps(problem)}"
        return f', {SCRIPT}: "adapter: x, weight: 1"' if acting and "no text" not in self.faults else ""

    def _picture(self, body: Mapping[str, Any], settings: Mapping[str, Any], place: int, weight: float) -> Picture:
        decides = [*(body.get(name) for name in _DECIDING), body["seed"] + place, settings["sd_model_checkpoint"]]
        rng = np.random.default_rng(zlib.crc32(json.dumps(decides).encode()))
        noise = rng.integers(60, 180, (body["height"], body["width"], 3))
        effect = (1 if "weak" in self.faults else _EFFECT) * weight
        if "wrong rows" in self.faults and not settings["batch_cond_uncond"]:
            effect /= 2
        if "always on" in self.faults and body["alwayson_scripts"]:
            effect += 1
        if "unstable" in self.faults:
            self._count += 1
            effect += self._count % 2
        return (noise + round(effect)).astype(np.uint8)  # at most 239: nothing is cut off


def _model(name: str, digest: str) -> dict[str, Any]:
    file = f"{name}.safetensors"
    return {"title": f"{file} [{digest}]", "model_name": name, "filename": f"models/Stable-diffusion/{file}"}


@contextmanager
def serving(webui: StandIn) -> Iterator[str]:
    """Its address, for the time of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(*webui.get(self.path))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(*webui.post(self.path, json.loads(body)))

        def _answer(self, status: int, content: Any) -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
