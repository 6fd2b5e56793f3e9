"""The page of a run, read by a parser; how it looks is for eyes."""

import base64
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import msgspec
import pytest
from msgspec.structs import replace

from wootz.passes.errors import InputError
from wootz.runtime.events import RunStarted
from wootz.runtime.reporting.report import write_report
from wootz.runtime.result import (
    BlockSymbol,
    FailedBlockResult,
    FailedFullNetworkResult,
    FailedNetworkResult,
    FullNetworkResult,
    InfeasibleNetworkResult,
    RunResult,
    TrainedNetworkResult,
)

EXPLORATIONS = ("", "full network", "best, block-trained", "best, default")
VOID = ("meta", "img", "source", "br")


class Page(HTMLParser):
    """The tables of a page as lists of rows of cells, its text, its images, and the rows that are folded."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.tables, self.folded, self.images, self.texts, self.marked = [], [], 0, [], [], []
        self.feed(text)
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.images += [values[name] for name in ("src", "srcset") if name in values]
        if tag in VOID:
            return
        self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
            self.folded += "details" in self.open
            if values.get("class") == "best":
                self.marked.append(self.tables[-1][-1])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("style", "title"):
            return
        data = data.replace("\N{NO-BREAK SPACE}", " ")
        self.texts.append(data)
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    def table(self, *headings):
        """The rows below these headings, by their first cell."""
        (rows,) = (table[1:] for table in self.tables if table[0] == list(headings))
        return {row[0]: row[1:] for row in rows}

    @property
    def facts(self):
        """Those of all tables of two columns."""
        return dict(row for table in self.tables for row in table if len(row) == 2)

    def rows(self, heading):
        """Those of all tables whose first column is called `heading`."""
        return [row for table in self.tables if table[0][0] == heading for row in table[1:]]


def page_of(folder, result) -> Page:
    result.save(folder)
    return Page(write_report(folder).read_text())


@pytest.mark.parametrize(("count", "modules"), [(1, 2), (20, 8), (500, 16)])
def test_every_network_and_block_is_there_and_long_tables_are_folded(tmp_path, run_result, count, modules):
    result = run_result(count=count, modules=modules)
    page = page_of(tmp_path, result)
    rows = page.rows("configuration")
    evaluated = (*result.block_trained.evaluated, *result.baseline.evaluated)
    assert len(rows) == len(evaluated)
    for row, network in zip(rows, evaluated, strict=True):
        assert row[1] == f"{network.model_size:,}"
        if isinstance(network, TrainedNetworkResult):
            assert row[5] == f"{100 * network.quality:.2f} %"
            assert row[6].split(",")[0] == str(network.steps)
            assert ("bound met" in row[6], "known" in row[7]) == (network.ended == "bound met", network.reused)
        else:
            assert row[4].startswith("failed: the training diverged")
    blocks = page.rows("no.")
    assert [row[0] for row in blocks] == [str(i + 1) for i in range(len(result.blocks))]
    lengths = (len(result.block_trained.evaluated), len(result.baseline.evaluated), len(blocks))
    assert page.folded == sum(1 + length - 20 for length in lengths if length > 20), "with a line of headings each"
    assert [row[1] for row in page.marked] == [f"{e.best.model_size:,}" for e in (result, result.baseline)]


def test_the_summary_compares_what_was_found(tmp_path, run_result):
    result = run_result()
    page = page_of(tmp_path, result)
    summary = page.table(*EXPLORATIONS)
    assert summary["parameters"] == ["1,200,000", "460,000", "460,000"]
    assert summary["latency, ms"] == ["3.50", "1.80", "1.80"]
    assert summary["test accuracy"] == ["88.0 ± 1.4 %", "84.0 ± 1.6 %", "74.0 ± 1.9 %"]
    assert summary["the same, fine-tuned too"] == ["88.5 ± 1.4 %", "", ""]
    assert summary["networks tried"] == ["–", "4 of 5", "4 of 5"]
    assert (
        "Known before this run: 2 of 6 blocks, 1 of 4 networks, 1 of 4 default networks: 14 min of training"
        in page.text
    )
    assert "1 network was not needed" in page.text


def test_steps_that_early_ends_saved_are_told(tmp_path, run_result):
    page = page_of(tmp_path, run_result(count=20))
    summary = page.table(*EXPLORATIONS)
    assert summary["steps saved by early ends"] == ["–", "120", "120"]


def test_the_network_before_and_after_comes_first(tmp_path, run_result):
    page = page_of(tmp_path, run_result())
    assert page.tables[0][0] == ["", "full", "best", "best of full"]
    rows = {tuple(row) for row in page.tables[0]}
    for row in (
        ("parameters", "1,200,000", "460,000", "38 %"),
        ("file", "4.81 MB", "1.85 MB", "38 %"),
        ("latency, 2 threads", "3.5 ms", "1.8 ms", "1.94 × as fast"),
        ("validation accuracy", "90.0 ± 1.9 %", "85.0 ± 2.3 %", "-5.0 points"),
        ("full, tuned too", "88.5 ± 1.4 %", "", "-4.5 points"),
    ):
        assert row in rows, row
    assert "network = onnxruntime.InferenceSession('best.onnx')" in page.text


def test_how_it_came_about(tmp_path, run_result):
    page = page_of(tmp_path, run_result(seed=17))
    for name, said in {
        "images": "1,000 for training, 250 for validation, 540 for the test",
        "input": "data, float32 [N, 1, 8, 8], NCHW",
        "size": "8 × 8",
        "photographs of other sizes": "squashed: each side gets its length",
        "channels": "grey",
        "pixels": "(pixel - mean) * scale, pixels from 0 to 255; mean 128; scale 0.0078125",
        "where that is from": "said by <the network's file>",
        "seed": "17",
    }.items():
        assert page.facts[name] == said
    solvers = page.table("", "full network", "fine-tuning", "pre-training")
    assert solvers["type"] == ["SGD", "SGD", "Adam"]
    assert solvers["stepvalue"] == ["–", "50, 75", "–"]
    assert "wootz run 'net <1>' --seed 0" in page.text
    given = run_result(solvers=replace(run_result().solvers, teacher=None))
    assert page_of(tmp_path, given).table("", "fine-tuning", "pre-training")["base_lr"] == ["0.01", "0.002"]


def test_nothing_is_taken_for_html(tmp_path, run_result):
    """Whatever names, notes and commands have in them."""
    evil = "<script>alert(1)</script>&amp;"
    result = run_result(
        network=evil, data=evil, input_source=evil, learned_from=evil, notes=(evil,), modules_source=evil,
        classes=(evil,),
        input=replace(run_result().input, name=evil),
        environment=replace(run_result().environment, command=evil, executor=evil),
        solvers=replace(run_result().solvers, teacher={"type": evil, evil: evil}),
    )  # fmt: skip
    result.save(tmp_path)
    text = write_report(tmp_path).read_text()
    assert "<script" not in text
    assert Page(text).text.count(evil) >= 10


def test_numbers_are_not_torn_from_what_they_are_counted_in(tmp_path, run_result):
    run_result(count=20).save(tmp_path)
    text = re.sub(r"<style>.*?</style>", "", write_report(tmp_path).read_text(), flags=re.DOTALL)
    assert "38\N{NO-BREAK SPACE}%" in text
    assert not re.search(r"\d (%|±|×|ms\b)", text)


def test_latency_has_no_column_where_it_was_not_measured(tmp_path, run_result):
    full = FullNetworkResult(
        configuration=(0.0, 0.0), model_size=1, flops=1, model="t", quality=1, test_quality=None, origin="given"
    )
    page = page_of(tmp_path, run_result(**NOTHING, full=full, speed=None))
    assert "latency" not in page.text


def test_the_page_tells_what_was_found(tmp_path, run_result):
    page = page_of(tmp_path, run_result(notes=("Block 1(0.3) diverged.",)))
    for text in ("38 % of the full network's parameters", "a validation accuracy of 85.00 %", "It is in best.onnx",
                 "net <1>", "Block 1(0.3) diverged."):  # fmt: skip
        assert text in page.text, text
    assert page.rows("configuration")[3][-1] == "1 5", "its blocks, by their numbers"


def test_many_notes_are_folded(tmp_path, run_result):
    page = page_of(tmp_path, run_result(notes=tuple(f"note {i}" for i in range(20))))
    assert "14 more notes" in page.text
    assert "note 19" in page.text


def test_each_plot_is_there_for_light_and_dark_pages_and_nothing_is_fetched(
    tmp_path, run_result, whole_run, write_events
):
    page = page_of(write_events(tmp_path, whole_run), run_result())
    assert {file.name for file in tmp_path.glob("*.svg")} == {"sizes.svg", "curves.svg", "blocks.svg", "tasks.svg"}
    assert len(page.images) == 8
    for image in page.images:
        kind, _, content = image.partition(",")
        assert kind == "data:image/svg+xml;base64"
        assert ElementTree.fromstring(base64.b64decode(content)).tag.endswith("svg")
    dark, light = page.images[:2]
    assert b"#16181c" in base64.b64decode(dark.partition(",")[2])
    assert base64.b64decode(light.partition(",")[2]) == (tmp_path / "tasks.svg").read_bytes()


def test_what_the_workers_did_when(tmp_path, run_result, whole_run, write_events):
    page = page_of(write_events(tmp_path, whole_run), run_result())
    assert "the 2 workers were busy 73 % of the time" in page.text
    (tmp_path / "events.jsonl").unlink()
    without = page_of(tmp_path, run_result())
    assert "busy" not in without.text


def test_events_without_a_task_make_no_plot(tmp_path, run_result, whole_run, write_events):
    page_of(write_events(tmp_path, [e for e in whole_run if isinstance(e, RunStarted)]), run_result())
    assert not (tmp_path / "tasks.svg").exists()


def test_the_same_result_gives_the_same_page(tmp_path, run_result, whole_run, write_events):
    run_result().save(write_events(tmp_path, whole_run))
    first = write_report(tmp_path).read_bytes()
    assert write_report(tmp_path).read_bytes() == first


ARCHITECTURE = {"configuration": (0.5, 0.5), "model_size": 400, "flops": 800}
FAILED = tuple(
    FailedNetworkResult(**ARCHITECTURE, index=i, reason="it diverged", blocks=(None, None)) for i in range(2)
)
NOTHING = {"best": None, "baseline": None, "networks": (), "networks_evaluated": 0, "blocks": (), "groups": ()}
SYMBOL = (BlockSymbol(module="res2a", rate=0.3),)


def test_a_run_without_blocks_baseline_or_success(tmp_path, run_result):
    page = page_of(tmp_path, run_result(**NOTHING))
    assert "No network meets the constraints" in page.text
    assert "nothing was pre-trained" in page.text
    assert not list(tmp_path.glob("*.svg"))


def test_what_misses_a_constraint_is_counted(tmp_path, run_result):
    missed = InfeasibleNetworkResult(**ARCHITECTURE, index=9, violates="ModelSize < 300")
    result = run_result()
    page = page_of(tmp_path, run_result(networks=(*result.networks, missed)))
    assert "1 misses a constraint that is known before training" in page.text


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({**NOTHING, "full": FailedFullNetworkResult(**ARCHITECTURE, reason="it diverged", origin="fine-tuned")},
         "The full network could not be trained"),
        ({**NOTHING, "networks": FAILED, "networks_evaluated": 2}, "None of the 2 networks could be trained"),
        ({**NOTHING, "blocks": (FailedBlockResult(symbols=SYMBOL, networks=2, reason="it diverged"),)}, "it diverged"),
        ({**NOTHING, "blocks": (FailedBlockResult(symbols=SYMBOL, networks=2, reason="it diverged", reused=True),)},
         "it diverged (known before)"),
    ],
)  # fmt: skip
def test_what_failed_is_told_as_such(tmp_path, run_result, changes, told):
    saved = run_result(**changes)
    page = page_of(tmp_path, saved)
    assert RunResult.load(tmp_path) == saved
    assert told in page.text
    assert "it diverged" in page.text


def test_a_folder_without_a_result(tmp_path):
    with pytest.raises(InputError, match=r"no result.json"):
        write_report(tmp_path)


def test_further_files_are_shown_beside_the_best_network(tmp_path, run_result, finishing):
    page = page_of(tmp_path, msgspec.structs.replace(run_result(), finishing=finishing))
    assert [row[:2] + row[3:] for row in page.rows("file")] == [
        ["best.onnx", "1,850,000", "85.0 ± 2.3 %", "84.0 ± 1.6 %", "met"],
        ["  embed-normalization", "1,850,100", "85.0 ± 2.3 %", "84.0 ± 1.6 %", ""],
        ["best.embed-normalization.int8.onnx", "470,000", "84.5 ± 2.3 %", "83.0 ± 1.6 %", "met"],
        ["best.float16.onnx", "930,000", "70.0 ± 2.9 %", "69.0 ± 2.0 %", "missed"],
    ]
    assert "best.float16.onnx misses Accuracy >= 0.8 by 10.00 points" in page.text
    assert "Further files" not in page_of(tmp_path, run_result()).text


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("error", [0.0, 0.25])
def test_blocks_that_keep_their_first_weights_say_so(run_result, tmp_path, error):
    """Their errors are equal, and may all be 0."""
    result = run_result()
    kept = tuple(replace(b, initial_error=error, final_error=error, kept="first weights") for b in result.blocks)
    page = page_of(tmp_path, replace(result, blocks=kept))
    table = page.table("no.", "block", "networks", "error before", "after", "steps")
    assert {tuple(row[2:4]) for row in table.values()} == {(f"{error:.4g}", f"{error:.4g}, first weights")}
