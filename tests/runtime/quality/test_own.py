"""The user's own metrics: what they are given, and how what goes wrong in them is told."""

import pickle
import textwrap
from functools import partial

import numpy as np
import pytest

from wootz.passes.errors import WootzError
from wootz.runtime.quality.own import check_sent, own_quality, read_quality

OUTPUTS = np.arange(20, dtype=np.float32).reshape(10, 2)
TARGETS = np.arange(10)


def measured(quality, outputs=None, full=None, targets=TARGETS, batch=4):
    tally = quality.begin()
    outputs, full = outputs or {"y": OUTPUTS}, full or {"y": OUTPUTS + 1}
    for start in range(0, 10, batch):
        part = slice(start, start + batch)
        cut = [{name: values[part] for name, values in arrays.items()} for arrays in (outputs, full)]
        tally.add(*cut, None if targets is None else targets[part])
    return tally.value


def written(folder, source):
    file = folder / "task.py"
    file.write_text(textwrap.dedent(source))
    return file


def returning(folder, value):
    """A metric that gives the same whatever a network does."""
    return f"{written(folder, f'def m(outputs): return {value}')}:m"


def test_a_function_gets_all_outputs_and_targets_at_once(tmp_path):
    file = written(
        tmp_path,
        """
        import numpy
        def score(outputs, targets):
            assert outputs.shape == (10, 2) and targets.shape == (10,)
            return float(numpy.mean(outputs[:, 0] * targets))
        def loss(y, t):
            return abs(y).mean()
        loss.higher_is_better = False
        def difference(full, outputs):
            return (full - outputs).max()
        def both(outputs):
            return outputs["a"].sum() + outputs["b"].sum()
    """,
    )
    score = read_quality(f"{file}:score")
    assert measured(score) == np.mean(OUTPUTS[:, 0] * TARGETS)
    assert (score.metric.name, score.metric.higher_is_better, score.metric.needs_labels) == ("score", True, True)
    assert not score.compares
    loss = read_quality(f"{file}:loss")
    assert measured(loss) == OUTPUTS.mean()
    assert not loss.metric.higher_is_better
    difference = read_quality(f"{file}:difference")
    assert measured(difference, targets=None) == 1
    assert (difference.compares, difference.metric.needs_labels) == (True, False)
    assert measured(read_quality(f"{file}:both"), outputs={"a": OUTPUTS, "b": OUTPUTS}) == 2 * OUTPUTS.sum()


def test_a_class_sums_up_over_batches(tmp_path):
    file = written(
        tmp_path,
        """
        class Mean:
            def __init__(self):
                self.total, self.count = 0.0, 0
            def add(self, outputs, targets):
                outputs *= 2  # of its own arrays
                self.total += outputs[:, 1] @ targets
                self.count += len(outputs)
            def value(self):
                return self.total / self.count
    """,
    )
    before = OUTPUTS.copy()
    assert measured(read_quality(f"{file}:Mean")) == 2 * OUTPUTS[:, 1] @ TARGETS / 10
    assert np.array_equal(OUTPUTS, before)


FAULTS = {
    "raises": ("def m(outputs):\n    x = 1\n    return outputs[99, 99]\n", r"task.py:3: IndexError: index 99"),
    "raises further down": (
        "def inner(y):\n    raise ValueError('no\\nlines')\n\ndef m(outputs):\n    return inner(outputs)\n",
        r"task.py:2: ValueError: no$",
    ),
    "not a number": ("\ndef m(outputs):\n    return float('nan')\n", r"task.py:2: m gave nan"),
    "infinite": ("def m(outputs):\n    return -1e999\n", r"task.py:1: m gave -inf"),
    "a text": ("def m(outputs):\n    return 'good'\n", r"task.py:1: m gave str, which is no number"),
    "an array": ("def m(outputs):\n    return outputs\n", r"task.py:1: m gave ndarray, which is no number"),
    "chance": (
        "import random\n\ndef m(outputs):\n    return random.random()\n",
        r"task.py:3: m changes from call to call: 0\.\d+ and 0\.\d+ of the same outputs",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_goes_wrong_is_told_in_one_line_with_file_and_line(tmp_path, fault):
    source, reason = FAULTS[fault]
    quality = read_quality(f"{written(tmp_path, source)}:m")
    with pytest.raises(WootzError, match=reason) as told:
        measured(quality)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("source", "name", "reason"),
    [
        ("m = 3\n", "m", r"task.py:1: m is no function, nor a class with add and value"),
        ("def m():\n    pass\n", "m", r"task.py:1: m takes nothing: a metric takes outputs"),
        ("def m(a, b, c):\n    pass\n", "m", r"task.py:1: m takes a, b, c: a metric takes outputs"),
        ("def m(outputs, targets, classes):\n    pass\n", "m", r"m takes outputs, targets, classes: a metric takes"),
        ("m = max\n", "m", r"task.py:1: it isn't known what m takes: write a function around it"),
        (
            "class Sum:\n    value = 0\n    def add(self, outputs): pass\nm = Sum()\n",
            "m",
            r"m is no function, nor a class with add and value: give the class Sum itself$",
        ),
        ("def Accuracy(outputs):\n    pass\n", "Accuracy", r"task.py:1: there is a metric Accuracy already"),
        ("def m(outputs:\n", "m", r"task.py:1: SyntaxError: "),
        ("x = 1\nimport not_there_at_all\n", "m", r"task.py:2: ModuleNotFoundError: No module named 'not_there"),
        ("x = 1\n", "m", r"task.py: there is no m in it"),
    ],
)
def test_what_is_no_metric_is_told_before_anything_is_trained(tmp_path, source, name, reason):
    with pytest.raises(WootzError, match=reason):
        read_quality(f"{written(tmp_path, source)}:{name}")


def test_a_file_that_is_not_there_and_a_text_that_is_none(tmp_path):
    with pytest.raises(WootzError, match=r"gone.py: can't be read: No such file"):
        read_quality(f"{tmp_path}/gone.py:m")
    with pytest.raises(WootzError, match=r"--metric mean_iou: give FILE.py:NAME"):
        read_quality("mean_iou")


def test_values_are_stored_under_the_source(tmp_path):
    first = read_quality(returning(tmp_path, 1))
    again = read_quality(f"{tmp_path / 'task.py'}:m")
    second = read_quality(returning(tmp_path, 2))
    assert first.text == again.text != second.text


def test_another_process_reads_the_file_which_has_to_be_the_same(tmp_path):
    quality = read_quality(returning(tmp_path, "outputs.sum()"))
    sent = pickle.dumps(quality)
    assert measured(pickle.loads(sent)) == OUTPUTS.sum()
    written(tmp_path, "def m(outputs):\n    return 0\n")
    with pytest.raises(WootzError, match=r"task.py: it is no longer what it was when the run began"):
        pickle.loads(sent)


def test_a_function_of_a_program_is_a_metric_of_that_process():
    def own(outputs):
        return outputs.sum()

    quality = own_quality(own)
    assert measured(quality) == OUTPUTS.sum()
    with pytest.raises(WootzError, match="the metric own is code of one process: for several, put it into a file"):
        check_sent(quality)


def test_a_metric_in_a_file_is_sent(tmp_path):
    check_sent(read_quality(returning(tmp_path, 1)))


class Share:
    """Whose methods call the instance otherwise."""

    def __init__(this, ignored=255):
        this.right, this.all, this.ignored = 0, 0, ignored

    def add(this, outputs, targets):
        this.right += int(np.sum((outputs[:, 0] == 2 * targets) & (targets != this.ignored)))
        this.all += len(targets)

    def value(this):
        return this.right / this.all


def share(outputs, ignored=255, targets=None, *, scale=1.0, **unused):
    return float(np.mean((outputs[:, 0] == 2 * targets) & (targets != ignored))) * scale


FORMS = {
    "another name for self": (Share, "Share", 1.0),
    "a partial of a class": (partial(Share, ignored=3), "Share", 0.9),
    "defaults": (share, "share", 1.0),
    "a partial": (partial(share, ignored=4), "share", 0.9),
    "a partial of a partial": (partial(partial(share, ignored=5), scale=0.5), "share", 0.45),
    "a lambda": (lambda outputs, targets: share(outputs, targets=targets), "metric", 1.0),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_metrics(form):
    function, name, value = FORMS[form]
    quality = own_quality(function)
    assert (quality.metric.name, quality.metric.needs_labels, quality.compares) == (name, True, False)
    assert measured(quality) == pytest.approx(value)
    assert own_quality(function).text == quality.text


def test_a_partial_is_better_where_its_function_is():
    def loss(outputs, scale):
        return float(outputs.mean()) * scale

    loss.higher_is_better = False
    assert not own_quality(partial(loss, scale=2)).metric.higher_is_better


def test_targets_that_have_names_come_as_they_were_given():
    def score(outputs, targets):
        assert set(targets) == {"a"}, "a dictionary, though there is a single array"
        return float(np.mean(outputs[:, 0] * targets["a"]))

    tally = own_quality(score).begin()
    for part in (slice(4), slice(4, 10)):
        tally.add({"y": OUTPUTS[part]}, {}, {"a": TARGETS[part]})
    assert tally.value == np.mean(OUTPUTS[:, 0] * TARGETS)
