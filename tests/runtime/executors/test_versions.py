from importlib import metadata

from wootz.runtime.executors.versions import installed_versions, version_difference


def test_the_first_difference_is_told() -> None:
    here = {"ONNX Runtime": "1.19.2", "numpy": "2.1.0"}
    assert version_difference(dict(here), here) == ""
    assert version_difference(here | {"numpy": "2.0.0"}, here) == "it has numpy 2.0.0, this process 2.1.0"
    assert version_difference({"numpy": "2.1.0"}, here) == "it has ONNX Runtime (none), this process 1.19.2"


def test_versions_are_those_of_the_packages() -> None:
    versions = installed_versions()
    assert versions["onnx"] == metadata.version("onnx")
    assert all(versions.values())
