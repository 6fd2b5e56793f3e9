"""What a run prints at the end."""

import io

from rich.console import Console

from wootz.tools.summary import print_summary


def printed(result, folder, width=80) -> str:
    out = io.StringIO()
    print_summary(Console(file=out, width=width), result, folder, folder / "report.html")
    return out.getvalue()


def test_the_table_fits_80_columns(tmp_path, run_result):
    text = printed(run_result(), tmp_path)
    table = text[: text.index("reused:")]
    assert "…" not in table
    assert max(map(len, table.splitlines())) <= 80
    for shown in ("90.0 ± 1.9 %", "fine-tuned too", "1,200,000", "84.0 ± 1.6 %", "4 of 5"):
        assert shown in table


def test_the_speed_is_told_and_where_it_is_none(tmp_path, run_result):
    result = run_result()
    assert "1.8 ms (1.7 to 2) an image instead of 3.5 ms (3.4 to 3.7): 1.94 × as fast on 2 threads" in printed(
        result, tmp_path
    )
    slower = type(result.speed)(full=result.speed.best, best=result.speed.full, threads=1)
    assert "not clearly faster on 1 thread" in printed(run_result(speed=slower), tmp_path)
    assert "speed:" not in printed(run_result(speed=None), tmp_path)
