"""What a run prints at the end."""

import io
import re
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from msgspec.structs import replace
from rich.console import Console

from wootz.runtime.result import SearchResult, Speed
from wootz.tools.summary import print_summary


def printed(result, folder, width=80) -> str:
    out = io.StringIO()
    print_summary(Console(file=out, width=width), result, folder)
    return out.getvalue()


def cells(text: str) -> dict[str, list[str]]:
    """The rows of the table of the network before and after, by what they are about."""
    lines = text[text.index("best of full") :].splitlines()[2:]
    rows = [[cell.strip() for cell in line[1:].split("  ") if cell.strip()] for line in lines if line.startswith(" ")]
    return {row[0]: row[1:] for row in rows if row}


@pytest.mark.parametrize(("count", "modules"), [(5, 2), (500, 40)])
def test_all_fits_80_columns(tmp_path, run_result, count, modules):
    text = printed(run_result(count=count, modules=modules), Path("/runs/net"))
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert re.search(r"\nbest:   /runs/net/best\.onnx\n        .* % of the parameters, .*\nrates:  \[0\.", text)
    assert "\nreport: /runs/net/report.html\n" in text


def test_the_network_before_and_after(tmp_path, run_result):
    assert cells(printed(run_result(), tmp_path)) == {
        "parameters": ["1,200,000", "460,000", "38 %"],
        "MFLOPs an image": ["2.50", "1.10", "44 %"],
        "file": ["4.81 MB", "1.85 MB", "38 %"],
        "latency, 2 threads": ["3.5 ms", "1.8 ms", "1.94 × as fast"],
        "half of the runs": ["3.4 to 3.7", "1.7 to 2"],
        "validation accuracy": ["90.0 ± 1.9 %", "85.0 ± 2.3 %", "-5.0 points"],
        "full, tuned too": ["88.5 ± 1.4 %", "-4.5 points"],
        "test accuracy": ["88.0 ± 1.4 %", "84.0 ± 1.6 %", "-4.0 points"],
    }


def test_of_a_search_it_says_how_many_it_tried_and_not_of_how_many(tmp_path, run_result):
    search = SearchResult(options=(), space=8, cost="ModelSize", scores=(), networks=())
    text = " ".join(printed(replace(run_result(), search=search), tmp_path).split())
    assert "block-trained 460,000 85.0 ± 2.3 % 84.0 ± 1.6 % 4 42 s" in text


def test_what_was_tried_and_the_time_by_phase(tmp_path, run_result):
    text = " ".join(printed(run_result(), tmp_path).split())
    for said in (
        "block-trained 460,000 85.0 ± 2.3 % 84.0 ± 1.6 % 4 of 5 42 s",
        "reused: 2 of 6 blocks, 1 of 4 networks, 1 of 4 default networks known: 14 min saved",
        "time: 87 s: planning and checks 1.0 s, full network 3.0 s, blocks 12 s, networks 30 s, default networks 40 s, "
        "writing 0.7 s",
    ):
        assert said in text, said


def test_a_network_that_is_not_faster_is_said_to_be_none(tmp_path, run_result):
    full, best = run_result().speed.full, run_result().speed.best
    slower = Speed(full=best, best=full, threads=1)
    assert cells(printed(run_result(speed=slower), tmp_path))["latency, 1 thread"][-1] == "not clearly faster"
    hardly = replace(best, high_ms=full.low_ms)
    assert "not clearly faster" in printed(run_result(speed=Speed(full=full, best=hardly, threads=1)), tmp_path)


def test_without_a_best_network_the_full_one_is_told_of(tmp_path, run_result):
    nothing = {"best": None, "networks": (), "networks_evaluated": 0, "speed": None, "baseline": None}
    text = printed(run_result(**nothing), Path("/runs/net"))
    assert "1,200,000" in text
    for absent in ("best", "latency", "onnxruntime"):
        assert absent not in text


@pytest.mark.parametrize(
    ("changes", "took"),
    [
        ({}, (1, 1, 8, 8)),
        ({"name": "it's \\", "shape": ("batch", 1, "h", "w"), "height": 6, "width": 5}, (1, 1, 6, 5)),
        ({"shape": (4, "h", "w", 3), "layout": "NHWC", "type": "uint8", "width": 5}, (4, 8, 5, 3)),
    ],
)
def test_the_last_lines_run_the_network_as_they_are(tmp_path, run_result, monkeypatch, changes, took):
    monkeypatch.chdir(tmp_path)
    image = replace(run_result().input, **changes)
    folder = tmp_path / "it's a 'run'"
    folder.mkdir()
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(image.type))
    data = onnx.helper.make_tensor_value_info(image.name, kind, image.shape)
    scores = onnx.helper.make_tensor_value_info("scores", onnx.TensorProto.INT64, (4,))
    graph = onnx.helper.make_graph([onnx.helper.make_node("Shape", [image.name], ["scores"])], "g", [data], [scores])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9),
              folder / "best.onnx")  # fmt: skip
    *_, first, second, third = printed(run_result(input=image), folder).splitlines()
    assert all(len(line) <= 80 for line in (first, second, third))
    known: dict[str, object] = {}
    exec("\n".join((first, second, third)), known)
    assert known["scores"].tolist() == list(took)
    assert f"# {image.height}x{image.width} grey, (pixel - mean) * scale: best.json" in first


def test_further_files_are_rows_beside_the_best_network(run_result, finishing):
    text = printed(replace(run_result(), finishing=finishing), Path("/runs/net"))
    assert max(map(len, text.splitlines())) <= 80
    lines = [" ".join(line.split()) for line in text[text.rindex("\n file") :].splitlines()]
    assert [line for line in lines if " ms " in line] == [
        "best.onnx 1.85 MB 1.8 ms 85.0 % 84.0 % met",
        "embed-normalization 1.85 MB 1.7 ms 85.0 % 84.0 %",
        "best.embed-normalization.int8.onnx 470 kB 0.9 ms 84.5 % 83.0 % met",
        "best.float16.onnx 930 kB 3.5 ms 70.0 % 69.0 % missed",
    ]
    assert [line for line in lines if line.startswith(("note:", "80.00", "84.50"))] == [
        "note: best.embed-normalization.int8.onnx: 1 of 5 layers stay in float32, for",
        "84.50 % instead of 80.00 %",
        "note: best.float16.onnx misses Accuracy >= 0.8 by 10.00 points",
        "note: best.float16.onnx misses Latency < 2 by 1.5 ms",
    ]


def test_the_best_network_is_judged_as_its_further_files_are(run_result, finishing):
    found = run_result()
    missing = replace(found, finishing=finishing, best=replace(found.best, quality=0.75))
    text = " ".join(printed(missing, Path("/runs/net")).split())
    assert "best.onnx 1.85 MB 1.8 ms 75.0 % 84.0 % missed" in text
    assert "note: best.onnx misses Accuracy >= 0.8 by 5.00 points" in text
