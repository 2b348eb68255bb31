"""How a build directory was configured: a debug build's numbers mean little."""
import json

WANTED = ("buildtype", "b_lto", "b_sanitize", "static_binary")


def of(build):
    try:
        options = json.loads((build / "meson-info/intro-buildoptions.json").read_text(encoding="utf-8"))
    except OSError:
        return {}
    return {option["name"]: option["value"] for option in options if option["name"] in WANTED}
