"""FaceID in the WebUI: the panel, and what happens at each callback. Everything else is in lib_faceid.

The host runs this file again at every "Reload UI", and lib_faceid once; so registration is here and may be repeated.
"""

import logging

from modules import scripts
from modules.ui_components import InputAccordion

from lib_faceid.hosts.a1111 import webui
from lib_faceid.hosts.a1111.jobs import Jobs
from lib_faceid.hosts.a1111.panel import PanelServices
from lib_faceid.hosts.a1111.sampling import on_denoise
from lib_faceid.hosts.detect import PEOPLE, is_supported
from lib_faceid.ui.accordion import build_panel, read_panel

_jobs = Jobs(PEOPLE, read_panel)


def _guarded(step, p, args, *values):
    """The host prints an exception of a script and makes the picture without it; nothing may be missing in silence."""
    try:
        step(p, *values)
    except Exception as error:
        logging.getLogger("faceid").exception("FaceID: an error before sampling")
        _jobs.accident(p, error, args)


class FaceIDScript(scripts.Script):
    """Always there, in txt2img and img2img; does nothing while its box is not ticked."""

    def title(self):
        return "FaceID"

    def show(self, is_img2img):
        return scripts.AlwaysVisible if is_supported() else False

    def ui(self, is_img2img):
        panel = build_panel(InputAccordion, "img2img" if is_img2img else "txt2img", PanelServices(PEOPLE))
        self.infotext_fields = panel.infotext_fields
        self.paste_field_names = []
        return panel.controls

    def before_process(self, p, *args):
        _guarded(_jobs.begin, p, args, args)

    def process(self, p, *args):
        _guarded(_jobs.prepare, p, args)

    def before_process_batch(self, p, *args, **kwargs):
        _guarded(_jobs.begin_batch, p, args)

    def process_before_every_sampling(self, p, *args, **kwargs):
        _guarded(_jobs.before_sampling, p, args)

    def postprocess_batch(self, p, *args, **kwargs):
        _guarded(_jobs.end_batch, p, args)


webui.on_each_denoise(on_denoise)
