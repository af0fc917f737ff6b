"""Looks inside a running A1111 for the live cases: what hangs on its modules, what it holds, and faults on purpose.

Not part of the extension people install: it is there only in a WebUI whose extensions folder has a link to the folder
above this one. Four routes: GET ``/faceid-inside/state`` and ``/usage``, POST ``/fault`` and ``/reload``.
"""

import functools
import gc
import logging
import sys
import types
import zlib
from importlib import import_module
from pathlib import Path

import psutil
import torch
from fastapi import HTTPException
from modules import script_callbacks, sd_unet, shared

ROUTE = "/faceid-inside"
_DEPTH = 6  # of wrappers inside wrappers
# What the WebUI changes by itself when checkpoints come and go, FaceID or not: which mode a module is in, and the Lora
# extension's copies of weights. The weights themselves are compared, and so are the names of what is merged into them.
_HOSTS_OWN = ("training", "network_weights_backup", "network_bias_backup")
_planted = []
"""Undo functions of the faults that are planted now."""
_fired = []
"""Kinds of the faults that came to pass since the last clearing."""


# What is there ------------------------------------------------------------------------------------------------------


def read_state():
    """Texts by name, the same as long as nothing was put on a module, a class or a function, or taken away."""
    model = shared.sd_model
    state = {}
    for name, module in model.named_modules():
        state[f"module {name}"] = describe_module(module)
    for kind in {type(module) for module in model.modules()}:
        for key, value in vars(kind).items():
            if callable(value):
                state[f"class {kind.__module__}.{kind.__qualname__}.{key}"] = describe(value)
    for name, module in list(sys.modules.items()):
        if name.startswith("modules.") and isinstance(module, types.ModuleType):
            state[f"code {name}"] = describe_code(module)
    networks = getattr(sys.modules.get("networks"), "loaded_networks", [])
    state["loaded networks"] = repr([network.name for network in networks])
    state["weights"] = weigh(model)
    return state


def describe_module(module):
    attributes = {}
    for key, value in vars(module).items():
        if key in _HOSTS_OWN or (key == "network_current_names" and not value):
            continue
        if key in ("_parameters", "_buffers"):
            attributes[key] = {name: describe(tensor) for name, tensor in value.items()}
        elif key == "_modules":
            attributes[key] = {name: type(child).__qualname__ for name, child in value.items()}
        elif key.endswith("_hooks"):
            attributes[key] = [describe(hook) for hook in value.values()]
        else:
            attributes[key] = describe(value)
    return repr(sorted(attributes.items()))


def describe_code(module):
    """Its functions, and the methods of its own classes."""
    found = {}
    for key, value in vars(module).items():
        if isinstance(value, types.FunctionType):
            found[key] = describe(value)
        elif isinstance(value, type) and value.__module__ == module.__name__:
            found[key] = {name: describe(method) for name, method in vars(value).items() if callable(method)}
    return repr(sorted(found.items()))


def describe(value, depth=0):
    """A text that tells a wrapped function from a bare one, and is the same for the same thing made again."""
    if isinstance(value, torch.Tensor):
        return f"{tuple(value.shape)} {value.dtype} {value.device}"
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)[:200]
    if isinstance(value, types.MethodType):
        return f"method {describe(value.__func__, depth)}"
    if isinstance(value, functools.partial):
        return f"partial {describe(value.func, depth)}"
    if isinstance(value, types.FunctionType):
        inner = [describe(cell, depth + 1) for cell in _enclosed(value) if callable(cell)] if depth < _DEPTH else []
        return f"{value.__module__}.{value.__qualname__}:{value.__code__.co_firstlineno}{inner or ''}"
    if isinstance(value, (tuple, list, set, frozenset)) and len(value) < 20:
        items = [describe(item, depth + 1) for item in value] if depth < _DEPTH else len(value)
        return f"{type(value).__name__} {items}"
    return type(value).__qualname__


def _enclosed(function):
    """What a function holds from around it."""
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not filled yet
            continue


def weigh(model):
    """A checksum of all parameters and buffers."""
    total = 0
    for tensor in model.state_dict().values():
        data = tensor.detach().to("cpu").contiguous().flatten()
        total = zlib.crc32(data.view(torch.uint8).numpy() if data.numel() else b"", total)
    return f"{total:08x}"


def read_usage():
    """Counts that must not grow with the number of jobs; bytes for memory."""
    gc.collect()
    process = psutil.Process()
    tensors = [item for item in gc.get_objects() if type(item) in (torch.Tensor, torch.nn.Parameter)]
    modules = list(shared.sd_model.modules())
    hooks = sum(len(vars(m)[key]) for m in modules for key in vars(m) if key.endswith("_hooks"))
    patches = sys.modules.get("lib_faceid.core.patch")
    return {
        "memory": process.memory_info().rss,
        "handles": process.num_fds() if hasattr(process, "num_fds") else process.num_handles(),
        "files": len(process.open_files()),
        "tensors": len(tensors),
        "tensor bytes": sum(tensor.nbytes for tensor in tensors),
        "attributes": sum(len(vars(module)) for module in modules),
        "hooks": hooks,
        "callbacks": sum(len(found) for found in script_callbacks.callback_map.values()),
        "patches": [patch.label for patch in patches.live_patches()] if patches else [],
        "fired": list(_fired),
        "folder": extension_folder(),
    }


def extension_folder():
    """The name of FaceID's folder among the extensions; empty where it was never loaded."""
    package = sys.modules.get("lib_faceid")
    return Path(package.__file__ or "").parent.parent.name if package else ""


# Faults -------------------------------------------------------------------------------------------------------------


def plant(kind, call):
    """Let something go wrong at the ``call``-th time from now on, once; ``bypass`` lasts until the next clearing."""
    clear()
    FAULTS[kind](call)


def clear():
    while _planted:
        _planted.pop()()
    _fired.clear()


def _counting(kind, call, error, undo):
    """A function that raises at its ``call``-th call, after the fault was taken away."""
    left = [call]

    def count(*_):
        left[0] -= 1
        if left[0] == 0:
            _planted.remove(undo)
            undo()
            _fired.append(kind)
            raise error

    return count


def _on_unet(kind, error):
    def plant_it(call):
        unet = shared.sd_model.model.diffusion_model
        handles = []

        def undo():
            handles.pop().remove()

        _planted.append(undo)
        handles.append(unet.middle_block.register_forward_pre_hook(_counting(kind, call, error, undo)))

    return plant_it


def _on_method(kind, module, owner, name, error):
    def plant_it(call):
        cls = getattr(import_module(module), owner)
        original = vars(cls)[name]

        def undo():
            setattr(cls, name, original)

        count = _counting(kind, call, error, undo)

        def failing(*args, **kwargs):
            count()
            return original(*args, **kwargs)

        _planted.append(undo)
        setattr(cls, name, failing)

    return plant_it


class _Engine:
    """A UNet that draws without the modules of the checkpoint, as TensorRT's does."""

    def forward(self, x, timesteps, context, *args, **kwargs):
        _fired.append("bypass")
        return 0.5 * x


def _bypass(call):
    sd_unet.current_unet = _Engine()
    _planted.append(lambda: setattr(sd_unet, "current_unet", None))


FAULTS = {
    "sampling": _on_unet("sampling", RuntimeError("planted: an error in sampling")),
    "memory": _on_unet("memory", torch.cuda.OutOfMemoryError("planted: out of memory")),
    "tap": _on_method("tap", "lib_faceid.core.session", "Session", "rows_and_gains", ValueError("planted: in a tap")),
    "removal": _on_method("removal", "lib_faceid.core.patch", "HookPatch", "_remove", OSError("planted: in removal")),
    "bypass": _bypass,
}


# Routes -------------------------------------------------------------------------------------------------------------


def add_routes(_, app):
    @app.get(f"{ROUTE}/state")
    def state():
        return read_state()

    @app.get(f"{ROUTE}/usage")
    def usage():
        return read_usage()

    @app.post(f"{ROUTE}/fault")
    def fault(asked: dict):
        kind = asked.get("kind", "")
        if kind and kind not in FAULTS:
            raise HTTPException(status_code=422, detail=f"no fault {kind}; there are {', '.join(FAULTS)}")
        clear()
        if kind:
            plant(kind, int(asked.get("call", 1)))
        return {}

    @app.post(f"{ROUTE}/reload")
    def reload(asked: dict):
        """ "Reload UI", with these extensions disabled; without the field it stays as it is."""
        if "disabled" in asked:
            shared.opts.data["disabled_extensions"] = list(asked["disabled"])
        shared.state.request_restart()
        return {}


script_callbacks.on_app_started(add_routes)
logging.getLogger("faceid").warning("FaceID: the inside view for the live cases is on; take it out of a WebUI for use")
