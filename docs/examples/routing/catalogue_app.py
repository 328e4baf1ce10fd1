"""The Modal app that runs what is routed there: `modal deploy catalogue_app.py`."""

from durable_monty_modal.app import build_app

app = build_app("catalogue", modules=["catalogue"])
