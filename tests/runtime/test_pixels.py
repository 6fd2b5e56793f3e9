"""How it is found out which pixels a network was trained on."""

import io
import os
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wootz.frontend.caffe.importer import import_caffe
from wootz.passes.errors import WootzError
from wootz.passes.ir.files import load
from wootz.passes.ir.text import parse_text
from wootz.passes.plan.pixel_conventions import CONVENTIONS
from wootz.passes.plan.transform import InputTransform
from wootz.passes.transforms.image_classifier import as_image_classifier
from wootz.runtime.data.dataset import Split
from wootz.runtime.pixels import (
    PixelQuestion,
    choose_pixels,
    hellinger_distance,
    statistics_distances,
    try_conventions,
)
from wootz.runtime.session import Device

AS_EXPORTED = InputTransform(channel_order="RGB")
ONE_THREAD = Device(threads=1)
SHARED = Path(os.environ.get("WOOTZ_SHARED", Path(__file__).parents[3] / "shared"))


def images(dark, light, count=200, size=4):
    """Of two classes, about as bright as these two numbers in red, green and blue."""
    generator = np.random.default_rng(0)
    labels = np.arange(count) % 2
    colour = np.where(labels[:, None] == 0, dark, light)[:, :, None, None]
    noise = generator.integers(-2, 3, (count, 3, size, size))
    return Split((colour + noise).astype(np.uint8), labels)


def network(stem="n = Identity(x)", threshold=0.0, signature="float[N,3,4,4] x", size="4,4"):
    """Answers 1 where the mean of `n`, made of `x` by `stem`, is above the threshold, else 0."""
    return parse_text(
        f"""<ir_version: 8, opset_import: ["" : 18]> g ({signature}) => (float[N,2] y) {{
            {stem} k = Constant<value = float[2,3,1,1] {{-1, -1, -1, 1, 1, 1}}>()
            b = Constant<value = float[2] {{{3 * threshold}, {-3 * threshold}}}>()
            c = Conv(n, k, b) p = GlobalAveragePool(c) y = Flatten(p) }}"""
    )


def batch_normalization(mean, variance):
    numbers = {"m": mean, "v": variance, "ones": [1] * 3, "zeros": [0] * 3}
    constants = " ".join(
        f"{name} = Constant<value = float[3] {{{','.join(map(str, values))}}}>()" for name, values in numbers.items()
    )
    return f"{constants} e = Constant<value = float[3,3,1,1] {{1,0,0,0,1,0,0,0,1}}>() i = Conv(x, e)" + (
        " n = BatchNormalization(i, ones, zeros, m, v)"
    )


def ask(model, split, **known):
    return choose_pixels(PixelQuestion(model, split, AS_EXPORTED, device=ONE_THREAD, **known))


AROUND_IMAGENET_MEAN = images((117, 110, 98), (130, 122, 109))
AROUND_THE_MIDDLE = images((120, 120, 120), (135, 135, 135))
AROUND_CAFFE_MEAN = images((150, 117, 30), (150, 117, 100))


@pytest.mark.parametrize(
    ("name", "model", "split"),
    [
        ("imagenet", network(), AROUND_IMAGENET_MEAN),
        ("-1..1", network(), AROUND_THE_MIDDLE),
        ("0..1", network(threshold=0.5), AROUND_THE_MIDDLE),
        ("raw", network(threshold=127.5), AROUND_THE_MIDDLE),
    ],
)
def test_the_trial_finds_the_only_one_that_works(name, model, split):
    choice = ask(model, split)
    assert choice.transform == CONVENTIONS[name].applied(AS_EXPORTED)
    assert next(iter(choice.tried)) == name
    assert choice.tried[name].accuracy.accuracy == 1
    assert f"{name} is taken" in choice.why
    assert all(f"{other} " in choice.why for other in CONVENTIONS)


def test_those_that_are_clearly_worse_leave_the_trial():
    tried = try_conventions(PixelQuestion(network(), AROUND_IMAGENET_MEAN, AS_EXPORTED), {
        name: CONVENTIONS[name].applied(AS_EXPORTED) for name in ("raw", "imagenet")
    })  # fmt: skip
    assert [(name, found.accuracy.images) for name, found in tried.items()] == [("imagenet", 50), ("raw", 50)]
    assert tried["raw"].above_guessing == 0


def test_scores_that_are_no_numbers_are_wrong():
    model = network("n = Sqrt(x)", threshold=0.7)
    tried = ask(model, images((10, 10, 10), (200, 200, 200))).tried
    assert tried["0..1"].accuracy.accuracy == 1
    assert tried["-1..1"].accuracy.accuracy == pytest.approx(0.5, abs=0.1)


def test_statistics_decide_between_those_that_the_trial_does_not_tell_apart():
    """Black and white are told apart on any pixels around 0; the BatchNormalization was trained on one's."""
    split = images((10, 10, 10), (245, 245, 245))
    for name, mean, variance in (("imagenet", (0.05, 0.19, 0.42), (4.1, 4.2, 4.2)), ("-1..1", [0] * 3, [0.85] * 3)):
        choice = ask(network(batch_normalization(mean, variance)), split)
        assert choice.transform == CONVENTIONS[name].applied(AS_EXPORTED)
        assert min(choice.tried["imagenet"].accuracy.accuracy, choice.tried["-1..1"].accuracy.accuracy) == 1
        assert "does not tell" in choice.why
        assert next(iter(choice.distances)) == name


def test_a_new_head_is_judged_by_statistics():
    split = images((10, 10, 10), (245, 245, 245))
    for name, (mean, variance) in {
        "imagenet": ((0.05, 0.19, 0.42), (4.1, 4.2, 4.2)), "-1..1": ([0] * 3, [0.85] * 3),
        "0..1": ([0.5] * 3, [0.21] * 3), "raw": ([127.5] * 3, [13800] * 3),
    }.items():  # fmt: skip
        choice = ask(network(batch_normalization(mean, variance)), split, is_trained=False)
        assert choice.transform == CONVENTIONS[name].applied(AS_EXPORTED)
        assert not choice.tried
        assert list(choice.distances.values()) == sorted(choice.distances.values())
        assert f"{name} is taken" in choice.why
        assert "close" not in choice.why


def test_close_and_far_statistics_are_said():
    split = images((10, 10, 10), (245, 245, 245))
    between = ask(network(batch_normalization([0.1] * 3, [1.9] * 3)), split, is_trained=False)
    assert "is close: --normalize says otherwise" in between.why
    neither = ask(network(batch_normalization([5000.0] * 3, [10.0] * 3)), split, is_trained=False)
    assert "none is near: --normalize says otherwise" in neither.why


def test_distances_are_those_of_what_the_layers_read():
    split = images((10, 10, 10), (245, 245, 245), count=40)
    mean, variance = np.array([30.0, 100, 200]), np.array([100.0, 5000, 13000])
    model = network(batch_normalization(mean, variance))
    distances = statistics_distances(PixelQuestion(model, split, AS_EXPORTED), {"raw": AS_EXPORTED})
    read = split.images.astype(np.float64)
    expected = hellinger_distance(read.mean((0, 2, 3)), read.var((0, 2, 3)), mean, variance)
    assert distances["raw"] == pytest.approx(expected, rel=1e-4)


def test_the_distance_is_that_of_the_densities():
    """By the definition, integrated: 1 less the integral of the root of the product."""
    x = np.linspace(-60, 60, 200001)

    def density(mean, variance):
        return np.exp(-((x - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)

    pairs = [((0, 1), (0, 1)), ((0, 1), (3, 4)), ((-2, 9), (5, 0.5))]
    expected = [1 - np.trapezoid(np.sqrt(density(*p) * density(*q)), x) for p, q in pairs]
    one, other = (np.array([pair[i] for pair in pairs], float).T for i in (0, 1))
    assert hellinger_distance(*one, *other) == pytest.approx(np.mean(expected), abs=1e-4)


def test_without_any_evidence_it_is_the_most_usual():
    split = images((10, 10, 10), (245, 245, 245))
    choice = ask(network(), split, is_trained=False)
    assert choice.transform == CONVENTIONS["imagenet"].applied(AS_EXPORTED)
    assert "Nothing tells how pixels become the network's input" in choice.why
    floats = Split(split.images / np.float32(255), split.labels)
    assert ask(network(), floats, is_trained=False).transform == AS_EXPORTED, "they are rather made for the network"


NODES = {
    "raw": "h = Constant<value = float {127.5}>() a = Div(x, h) o = Constant<value = float {1}>() n = Sub(a, o)",
    "0..1": """m = Constant<value = float[1,3,1,1] {0.485, 0.456, 0.406}>() a = Sub(x, m)
               s = Constant<value = float[1,3,1,1] {0.229, 0.224, 0.225}>() n = Div(a, s)""",
    "-1..1": "o = Constant<value = float {1}>() a = Add(x, o) h = Constant<value = float {0.5}>() n = Mul(a, h)",
}


@pytest.mark.parametrize("name", NODES)
def test_nodes_that_normalise_decide_the_units(name):
    """A new head doesn't let labels decide; these do, and say so."""
    choice = ask(network(NODES[name]), AROUND_IMAGENET_MEAN, is_trained=False)
    assert choice.transform == CONVENTIONS[name].applied(AS_EXPORTED)
    assert choice.why.startswith("The network normalises its input itself (")
    assert not choice.tried


@pytest.mark.parametrize(("name", "mean", "variance"), [("raw", 120, 3000), ("0..1", 0.45, 0.06), ("-1..1", 0, 0.25)])
def test_a_batch_normalization_behind_the_input_decides_the_units(name, mean, variance):
    constants = batch_normalization([mean] * 3, [variance] * 3).replace("i = Conv(x, e) n", "n").replace("(i,", "(x,")
    choice = ask(network(constants), AROUND_IMAGENET_MEAN, is_trained=False)
    assert choice.transform == CONVENTIONS[name].applied(AS_EXPORTED)


def test_a_mean_that_is_subtracted_from_blue_to_red_means_bgr():
    for mean, order in (("103.939, 116.779, 123.68", "BGR"), ("123.68, 116.779, 103.939", "RGB")):
        stem = f"m = Constant<value = float[1,3,1,1] {{{mean}}}>() n = Sub(x, m)"
        choice = ask(network(stem), AROUND_CAFFE_MEAN, is_trained=False)
        assert choice.transform == replace(AS_EXPORTED, channel_order=order)
        kept = ask(network(stem), AROUND_CAFFE_MEAN, is_trained=False, channel_order="RGB")
        assert kept.transform == AS_EXPORTED


def test_nodes_that_mislead_are_found_out_by_the_labels():
    """They subtract 0.5 of pixels around the middle, but the network was trained on pixels -1..1 less 0.5."""
    stem = "h = Constant<value = float {0.5}>() n = Sub(x, h)"
    split = images((185, 185, 185), (197, 197, 197))
    choice = ask(network(stem), split)
    assert choice.transform == CONVENTIONS["-1..1"].applied(AS_EXPORTED)
    assert ask(network(stem), split, is_trained=False).transform == CONVENTIONS["0..1"].applied(AS_EXPORTED)


def test_a_network_that_only_guesses_is_refused_with_the_table():
    split = AROUND_IMAGENET_MEAN
    shuffled = Split(split.images, np.random.default_rng(1).permutation(split.labels))
    with pytest.raises(WootzError, match=r"only guesses.*imagenet \d+.*raw .*--allow-untrained goes on") as refusal:
        ask(network(), shuffled)
    assert "\n" not in str(refusal.value)
    choice = ask(network(batch_normalization((0.02, 0.0, 0.0), (0.01, 0.01, 0.01))), shuffled, may_guess=True)
    assert choice.transform == CONVENTIONS["imagenet"].applied(AS_EXPORTED), "the statistics can still tell"
    assert "the network only guesses" in choice.why.lower()
    assert "imagenet is taken" in choice.why


def test_what_is_stated_is_taken_if_the_network_knows_the_classes_on_it():
    right = CONVENTIONS["0..1"].applied(AS_EXPORTED)
    question = PixelQuestion(network(threshold=0.5), AROUND_THE_MIDDLE, right, stated_by="--scale")
    assert choose_pixels(question).transform == right
    assert not choose_pixels(question).why


def test_what_is_stated_wrongly_is_refused_with_what_is_better():
    question = PixelQuestion(network(threshold=0.5), AROUND_THE_MIDDLE, AS_EXPORTED, stated_by="--mean")
    with pytest.raises(WootzError, match=r"as --mean has them the network only guesses: 0\.\.1 .*--normalize 0\.\.1"):
        choose_pixels(question)
    allowed = choose_pixels(replace(question, may_guess=True))
    assert allowed.transform == AS_EXPORTED
    assert "as --mean has them the network only guesses" in allowed.why
    assert choose_pixels(replace(question, is_trained=False)).transform == AS_EXPORTED


def test_the_order_of_channels_that_is_given_holds():
    """The classes differ in blue alone; Caffe's means are of blue, green and red."""
    red_only = "k = Constant<value = float[3,3,1,1] {1,0,0,1,0,0,1,0,0}>() n = Conv(x, k)"
    for order, split in (("BGR", AROUND_CAFFE_MEAN), ("RGB", images((30, 117, 150), (100, 117, 150)))):
        model = network(red_only.replace("k ", "q ").replace(", k)", ", q)"), threshold=65)
        choice = ask(model, split, channel_order=order)
        assert choice.transform == replace(AS_EXPORTED, channel_order=order)
        assert choice.tried["raw"].accuracy.accuracy == 1


def test_a_network_of_caffes_may_have_colours_from_red_to_blue():
    """The classes differ in red alone, which the network reads first, and wants without its mean."""
    model = network("q = Constant<value = float[3,3,1,1] {1,0,0,1,0,0,1,0,0}>() n = Conv(x, q)", threshold=30)
    split = images((140, 90, 40), (170, 90, 40))
    choice = choose_pixels(PixelQuestion(model, split, InputTransform(), device=ONE_THREAD))
    assert choice.transform == CONVENTIONS["caffe"].applied(InputTransform(), "RGB")
    assert "caffe RGB 100" in choice.why
    assert "caffe RGB" not in ask(network(), AROUND_IMAGENET_MEAN).tried, "that is for Caffe's order alone"


def redness(threshold, stem=""):
    """Answers 1 where the first channel of the input is above the threshold."""
    return network(f"{stem or 't = Identity(x)'} q = Constant<value = float[3,3,1,1] {{1,0,0,1,0,0,1,0,0}}>()"
                   " n = Conv(t, q)", threshold=threshold)  # fmt: skip


BLUE_TELLS = images((120, 117, 40), (120, 117, 85))
"""By blue from 0 to 1, and under no other convention, a network tells these with a threshold of 0.25."""


def test_channels_are_tried_the_other_way_round():
    """The network reads blue first: in the order of exporters it would always answer the same."""
    choice = ask(redness(0.25), BLUE_TELLS)
    assert choice.transform == CONVENTIONS["0..1"].applied(AS_EXPORTED, "BGR")
    assert "0..1 BGR is taken" in choice.why
    given = PixelQuestion(
        redness(0.25), BLUE_TELLS, AS_EXPORTED, channel_order="RGB", device=ONE_THREAD, may_guess=True
    )
    assert choose_pixels(given).transform.channel_order == "RGB"


def by_red(share, count=200, bluer=0):
    """Images that blue tells always, and red for this share of them."""
    labels = np.arange(count) % 2
    seen = np.where(np.arange(count) % 40 < 40 * share, labels, 1 - labels)
    pixels = np.full((count, 3, 4, 4), 60, np.uint8)
    pixels[:, 0], pixels[:, 2] = (np.where(values, 85, 40)[:, None, None] for values in (seen, labels))
    pixels[:, 2] += np.uint8(bluer)
    return Split(pixels, labels)


def test_a_network_that_knows_something_in_the_wrong_order_is_tried_in_the_other():
    choice = ask(redness(0.25), by_red(0.75))
    assert choice.transform == CONVENTIONS["0..1"].applied(AS_EXPORTED, "BGR")
    assert choice.tried["0..1"].accuracy.accuracy == pytest.approx(0.75, abs=0.1)
    assert ask(redness(0.25), by_red(0.99)).transform == CONVENTIONS["0..1"].applied(AS_EXPORTED)


def test_statistics_help_where_answers_in_the_other_order_are_better_but_not_clearly():
    split = by_red(0.9, count=60, bluer=10)
    blue, green, red = (float(split.images[:, c].mean() / 255) for c in (2, 1, 0))
    variance = (22.5 / 255) ** 2
    for means, order in (((blue, green, red), "BGR"), ((red, green, blue), "RGB")):
        stem = batch_normalization(means, (variance, 0, variance)).replace("n = ", "t = ")
        choice = ask(redness((0.28 - means[0]) / np.sqrt(variance + 1e-5), stem), split)
        assert choice.transform == CONVENTIONS["0..1"].applied(AS_EXPORTED, order)


def test_nodes_behind_turned_channels_decide_and_answers_correct_the_order():
    flip = "i = Constant<value = int64[3] {2, 1, 0}>() f = Gather<axis = 1>(x, i)"
    subtracted = NODES["0..1"].replace("(x, m)", "(f, m)").replace("n = ", "t = ")
    by_nodes = ask(redness(0, f"{flip} {subtracted}"), AROUND_IMAGENET_MEAN, is_trained=False)
    assert by_nodes.transform == CONVENTIONS["0..1"].applied(AS_EXPORTED, "BGR"), "the mean of red is the last one's"
    plain = NODES["0..1"].replace("0.485, 0.456, 0.406", "0.25, 0.25, 0.25").replace("n = ", "t = ")
    assert ask(redness(0, plain), BLUE_TELLS, is_trained=False).transform.channel_order == "RGB"
    choice = ask(redness(0, plain), by_red(0.75))
    assert choice.transform.channel_order == "BGR"


@pytest.mark.parametrize(
    ("signature", "stem"),
    [
        ("float[1,4,4,3] x", "n = Transpose<perm = [0,3,1,2]>(x)"),
        (
            "float[1,4,4,3] x",
            """m = Constant<value = float[3] {1, 1, 1}>() a = Mul(x, m) o = Constant<value = float {0.0}>()
            s = Add(a, o) n = Transpose<perm = [0,3,1,2]>(s)""",
        ),
        ("float[8,3,4,4] x", "n = Identity(x)"),
        ("float[N,H,W,3] x", "n = Transpose<perm = [0,3,1,2]>(x)"),
        ("uint8[N,3,H,W] x", "n = Cast<to = 1>(x)"),
    ],
)
def test_networks_in_other_layouts_are_tried_alike(signature, stem):
    exported = network(stem, threshold=0.5, signature=signature)
    model, changes = as_image_classifier(exported, size=(4, 4) if "H" in signature else ())
    assert changes
    assert ask(model, AROUND_THE_MIDDLE).transform == CONVENTIONS["0..1"].applied(AS_EXPORTED)


def photographs(archive, count):
    """Some of the training images in an archive of class folders, resized to 224 where they are not 32 wide."""
    with tarfile.open(SHARED / "data" / archive) as tar:
        files = [m for m in tar if "/train/" in m.name and m.name.endswith(".jpg")]
        names = sorted({Path(m.name).parent.name for m in files})
        chosen = [files[i] for i in np.random.default_rng(0).permutation(len(files))[:count]]
        pixels = [Image.open(io.BytesIO(tar.extractfile(m).read())).convert("RGB") for m in chosen]
    sized = [p if p.width == 32 else p.resize((224, 224), Image.Resampling.BICUBIC) for p in pixels]
    labels = np.array([names.index(Path(m.name).parent.name) for m in chosen])
    return Split(np.stack([np.asarray(p).transpose(2, 0, 1) for p in sized]), labels)


@pytest.mark.skipif(not (SHARED / "pretrained").is_dir(), reason="needs the networks in WOOTZ_SHARED")
@pytest.mark.parametrize(
    ("name", "archive", "is_trained", "expected"),
    [
        ("resnet20_cifar10", "cifar10_32_small.tar.gz", True, "imagenet"),
        ("resnet20_cifar10", "cifar10_32_small.tar.gz", False, "imagenet"),
        ("efficientnet_lite0", "flowers5_160.tar.gz", False, "-1..1"),
    ],
)
def test_real_networks(name, archive, is_trained, expected):
    model, _ = as_image_classifier(load(SHARED / "pretrained" / f"{name}.onnx"))
    choice = ask(model, photographs(archive, 300 if is_trained else 30), is_trained=is_trained)
    assert choice.transform == CONVENTIONS[expected].applied(AS_EXPORTED)
    assert "close" not in choice.why


@pytest.mark.skipif(not (SHARED / "zoo").is_dir(), reason="needs the networks in WOOTZ_SHARED")
def test_a_real_network_of_caffes_that_says_nothing():
    folder = SHARED / "zoo" / "weights" / "cifar10_quick_everpeace_V1"
    imported = import_caffe(folder / "net.prototxt", folder / "net.caffemodel")
    assert not imported.says_pixels
    question = PixelQuestion(imported.model, photographs("cifar10_32_small.tar.gz", 300), imported.test_transform)
    choice = choose_pixels(question)
    assert choice.transform == CONVENTIONS["caffe"].applied(imported.test_transform, "RGB")
    assert choice.tried["caffe RGB"].accuracy.accuracy > 0.7
