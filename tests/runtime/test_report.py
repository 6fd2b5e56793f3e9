import pytest

from wootz.passes.errors import InputError
from wootz.runtime.report import write_report
from wootz.runtime.result import (
    BlockSymbol,
    FailedBlockResult,
    FailedFullNetworkResult,
    FailedNetworkResult,
    RunResult,
)


def test_the_page_tells_what_was_found(tmp_path, run_result):
    result = run_result(notes=("Block 1(0.3) diverged.",))
    result.save(tmp_path)
    page = write_report(tmp_path).read_text()
    for text in (f"<b>{result.best.model_size:,}</b>", "38 % of the full", "85.00 %", "1(0.3) | 2(0.5)"):
        assert text in page
    assert "net &lt;1&gt;" in page
    assert "Block 1(0.3) diverged." in page
    assert {f.name for f in tmp_path.glob("*.png")} == {"sizes.png", "curves.png", "blocks.png"}


def test_a_run_without_blocks_baseline_or_success(tmp_path, run_result):
    run_result(blocks=(), groups=(), baseline=None, best=None, networks=(), networks_evaluated=0).save(tmp_path)
    page = write_report(tmp_path).read_text()
    assert "No network meets the constraints" in page
    assert "nothing was pre-trained" in page
    assert not (tmp_path / "blocks.png").exists()


ARCHITECTURE = {"configuration": (0.5, 0.5), "model_size": 400, "flops": 800}
FAILED = tuple(
    FailedNetworkResult(**ARCHITECTURE, index=i, reason="it diverged", blocks=(None, None)) for i in range(2)
)
NOTHING = {"best": None, "baseline": None, "networks": (), "networks_evaluated": 0, "blocks": (), "groups": ()}
SYMBOL = (BlockSymbol(module="res2a", rate=0.3),)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({**NOTHING, "full": FailedFullNetworkResult(**ARCHITECTURE, reason="it diverged", origin="fine-tuned")},
         "The full network could not be trained"),
        ({**NOTHING, "networks": FAILED, "networks_evaluated": 2}, "None of the 2 networks could be trained"),
        ({**NOTHING, "blocks": (FailedBlockResult(symbols=SYMBOL, networks=2, reason="it diverged"),)}, "it diverged"),
        ({**NOTHING, "blocks": (FailedBlockResult(symbols=SYMBOL, networks=2, reason="it diverged", reused=True),)},
         "it diverged (reused)"),
    ],
)  # fmt: skip
def test_what_failed_is_told_as_such(tmp_path, run_result, changes, told):
    saved = run_result(**changes)
    saved.save(tmp_path)
    assert RunResult.load(tmp_path) == saved
    page = write_report(tmp_path).read_text()
    assert told in page
    assert "it diverged" in page


def test_a_folder_without_a_result(tmp_path):
    with pytest.raises(InputError, match=r"no result.json"):
        write_report(tmp_path)
