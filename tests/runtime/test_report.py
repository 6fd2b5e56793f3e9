import pytest

from wootz.passes.errors import InputError
from wootz.runtime.report import write_report
from wootz.runtime.result import (
    ExplorationResult,
    FailedBlockResult,
    FailedFullNetworkResult,
    FailedNetworkResult,
    FullNetworkResult,
    RunResult,
    TrainedBlockResult,
    TrainedNetworkResult,
)


def network(index: int, parameters: int, accuracy: float, blocks=()) -> TrainedNetworkResult:
    return TrainedNetworkResult(
        index=index,
        configuration=f"[0.{index}, 0.5]",
        parameters=parameters,
        flops=2 * parameters,
        initial_accuracy=accuracy / 2,
        accuracy=accuracy,
        curve=((0, accuracy / 2), (50, accuracy * 0.9), (100, accuracy)),
        seconds=1.5,
        blocks=blocks,
    )


def result(**changes) -> RunResult:
    fields = {
        "model": "net <1>",
        "data": "digits",
        "objective": "min ModelSize constraint Accuracy >= 0.8",
        "classes": ("a", "b"),
        "modules": ("m1", "m2"),
        "modules_source": "marks in the prototxt",
        "subspace_size": 4,
        "feasible": 3,
        "processes": 1,
        "environment": "test",
        "full": FullNetworkResult("trained", 1000, 2000, 0.9, ((0, 0.1), (100, 0.9)), 3.0, test_accuracy=0.88),
        "blocks": (
            TrainedBlockResult("1(0.3)", 2, 0.5, 0.01, 100, False),
            TrainedBlockResult("2(0.5)", 3, 0.4, 0.02, 100, True),
        ),
        "teacher_passes": 1,
        "pretraining_seconds": 12.3,
        "block_trained": ExplorationResult(
            (network(3, 400, 0.7), network(1, 543, 0.85, ("1(0.3)", "-"))), 1, 3.0, 0.84
        ),
        "default": ExplorationResult((network(3, 400, 0.6), network(1, 543, 0.7)), None, 3.5),
        "seconds": 20.0,
    }
    return RunResult(**{**fields, **changes})


def test_a_result_survives_its_file(tmp_path):
    saved = result()
    saved.save(tmp_path)
    assert RunResult.load(tmp_path) == saved


def test_the_page_tells_what_was_found(tmp_path):
    result(notes=("Block 1(0.3) diverged.",)).save(tmp_path)
    page = write_report(tmp_path).read_text()
    for text in ("<b>543</b>", "54 % of the full", "85.00 %", "84.00 %", "none meets the constraints", "1(0.3) | -"):
        assert text in page
    assert "net &lt;1&gt;" in page
    assert "Block 1(0.3) diverged." in page
    assert {f.name for f in tmp_path.glob("*.png")} == {"sizes.png", "curves.png", "blocks.png"}


def test_a_run_without_blocks_baseline_or_success(tmp_path):
    nothing = ExplorationResult((network(0, 400, 0.7),), None, 3.0)
    result(blocks=(), default=None, block_trained=nothing).save(tmp_path)
    page = write_report(tmp_path).read_text()
    assert "No network meets the constraints" in page
    assert "nothing was pre-trained" in page
    assert not (tmp_path / "blocks.png").exists()


def failed_network(index: int) -> FailedNetworkResult:
    return FailedNetworkResult(index=index, configuration="[0.5, 0.5]", parameters=400, flops=800, failed="it diverged")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"full": FailedFullNetworkResult("trained from scratch", 1000, 2000, "it diverged"), "blocks": (),
          "block_trained": ExplorationResult(), "default": None}, "The full network could not be trained"),
        ({"block_trained": ExplorationResult((failed_network(0), failed_network(1))), "default": None},
         "None of the 2 networks could be trained"),
        ({"block_trained": ExplorationResult((failed_network(0), network(1, 543, 0.7)))},
         "No network meets the constraints"),
        ({"blocks": (FailedBlockResult("1(0.3)", 2, "it diverged", False),)}, "it diverged"),
        ({"blocks": (FailedBlockResult("1(0.3)", 2, "it diverged", True),
                     TrainedBlockResult("2(0.5)", 2, 0.4, 0.02, 100, False))}, "it diverged (reused)"),
    ],
)  # fmt: skip
def test_what_failed_is_told_as_such(tmp_path, changes, told):
    saved = result(**changes)
    saved.save(tmp_path)
    assert RunResult.load(tmp_path) == saved
    page = write_report(tmp_path).read_text()
    assert told in page
    assert "it diverged" in page


@pytest.mark.parametrize("content", [None, "{}", "no json", "[]", "3", b"\xff"])
def test_a_folder_without_a_result(tmp_path, content):
    if content is not None:
        (tmp_path / "result.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=r"no result.json|not the result of a run"):
        write_report(tmp_path)
