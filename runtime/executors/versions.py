"""Which versions a process has of what results depend on."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata

_PACKAGES = {
    "Wootz": ("wootz",),
    "ONNX Runtime": ("onnxruntime", "onnxruntime-training", "onnxruntime-gpu"),
    "onnx": ("onnx",),
    "numpy": ("numpy",),
}


def installed_versions() -> dict[str, str]:
    """By name, '' for what isn't there. The builds of ONNX Runtime count as one."""
    return {name: _first_version(packages) for name, packages in _PACKAGES.items()}


def version_difference(there: Mapping[str, str], here: Mapping[str, str]) -> str:
    """The first difference as a clause: "it has onnx 1.16.0, this process 1.17.0"; '' where there is none."""
    for name, version in here.items():
        if there.get(name) != version:
            return f"it has {name} {there.get(name) or '(none)'}, this process {version or '(none)'}"
    return ""


def _first_version(packages: tuple[str, ...]) -> str:
    for package in packages:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return ""
