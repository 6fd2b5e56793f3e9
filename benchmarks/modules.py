"""The modules that are found in the well-known kinds of CNN, and what prune-blocks leaves of them at a rate of 0.5.

    python benchmarks/modules.py [--networks resnet18,…] [--variants] [--cache DIR] [--check]

Exports the networks of torchvision, timm and ultralytics (those that are installed) without trained weights and with
10 classes, and prints a row for each: the modules that a person would count, those found, those with a layer that can
be pruned, and the parameters left. The last line is JSON.

With `--variants` each network is exported by both of PyTorch's exporters, with a fixed and a dynamic batch, with
BatchNormalization folded and kept, and the modules have to be the same ones. With `--check` the pruned network is
executed beside the original with the removed channels masked, and has to agree to 1e-4. `--cache` keeps the exported
files.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import itertools
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
import torch
from torch import nn

from wootz.passes.analysis.cost import parameters
from wootz.passes.analysis.module_boundaries import check_modules
from wootz.passes.errors import WootzError
from wootz.passes.ir.model import Model
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.transforms.fold_constants import FoldConstants

ROOT = Path(__file__).parents[1]
RATE = 0.5
CLASSES = 10
TOLERANCE = 1e-4
"""max|a - b| / max|b|. Rounding shows in networks with random weights more than in trained ones."""


@dataclass(frozen=True)
class Network:
    """A network to export: how it is made, the edge of its images, and the modules that a person would count."""

    family: str
    name: str
    library: str
    expected: int
    edge: int = 64
    build: Callable[[], nn.Module] | None = None
    note: str = ""
    """Why another number is found."""

    def make(self) -> nn.Module:
        torch.manual_seed(0)
        network = self.build() if self.build else _from_library(self.library, self.name)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.copy_(torch.randn_like(parameter) * (2 / max(1, parameter[0].numel())) ** 0.5)
        return network.eval()


@dataclass(frozen=True)
class Variant:
    """A way of exporting."""

    name: str
    dynamo: bool
    dynamic: bool
    folded: bool


VARIANTS = (
    Variant("torchscript", dynamo=False, dynamic=False, folded=True),
    Variant("torchscript, dynamic batch, unfolded", dynamo=False, dynamic=True, folded=False),
    Variant("torchscript, dynamic batch", dynamo=False, dynamic=True, folded=True),
    Variant("dynamo", dynamo=True, dynamic=False, folded=True),
    Variant("dynamo, dynamic batch", dynamo=True, dynamic=True, folded=True),
)


def _from_library(library: str, name: str) -> nn.Module:
    if library == "timm":
        import timm

        return timm.create_model(name, pretrained=False, num_classes=CLASSES)
    if library == "torchvision":
        import torchvision

        options: dict[str, Any] = {"weights": None, "num_classes": CLASSES}
        if name in ("googlenet", "inception_v3"):
            options |= {"aux_logits": False, "init_weights": False}
        if name.startswith(("fcn", "deeplab")):
            options |= {"weights_backbone": None, "aux_loss": False}
            return _FirstOutput(getattr(torchvision.models.segmentation, name)(**options), "out")
        return getattr(torchvision.models, name)(**options)
    from ultralytics.nn.tasks import DetectionModel

    return _FirstOutput(DetectionModel(f"{name}.yaml", nc=CLASSES, verbose=False), 0)


class _FirstOutput(nn.Module):
    """A network that gives one of the outputs of another."""

    def __init__(self, network: nn.Module, key: str | int):
        super().__init__()
        self.network, self.key = network, key

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x)[self.key]


def _without_large_head(name: str, features: int) -> nn.Module:
    """VGG and AlexNet with one small fully connected layer: the weights of the original's would hide the others."""
    import torchvision

    network = getattr(torchvision.models, name)(weights=None, num_classes=CLASSES)
    network.avgpool, network.classifier = nn.AdaptiveAvgPool2d(1), nn.Linear(features, CLASSES)
    return network


class UNet(nn.Module):
    """The U-Net of Ronneberger et al. (2015), with padding and an eighth of its width."""

    def __init__(self, widths: tuple[int, ...] = (8, 16, 32, 64)):
        super().__init__()
        self.down = nn.ModuleList(_pair(a, b) for a, b in zip((3, *widths), widths, strict=False))
        wide = widths[::-1]
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, 2) for a, b in itertools.pairwise(wide))
        self.merge = nn.ModuleList(_pair(2 * b, b) for b in wide[1:])
        self.head = nn.Conv2d(widths[0], 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for down in self.down[:-1]:
            skips.append(down(x))
            x = nn.functional.max_pool2d(skips[-1], 2)
        x = self.down[-1](x)
        for up, merge, skip in zip(self.up, self.merge, reversed(skips), strict=True):
            x = merge(torch.cat((skip, up(x)), 1))
        return self.head(x)


class SSD(nn.Module):
    """MobileNetV2 with predictions from two of its feature maps (Liu et al., 2016)."""

    def __init__(self) -> None:
        super().__init__()
        import torchvision

        features = torchvision.models.mobilenet_v2(weights=None).features
        self.early, self.late = features[:14], features[14:]
        self.extra = nn.Sequential(nn.Conv2d(1280, 256, 1), nn.ReLU(), nn.Conv2d(256, 512, 3, 2, 1), nn.ReLU())
        self.heads = nn.ModuleList(nn.Conv2d(width, 6 * (CLASSES + 4), 3, padding=1) for width in (96, 1280, 512))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = [self.early(x)]
        maps.append(self.late(maps[-1]))
        maps.append(self.extra(maps[-1]))
        predictions = [head(x).permute(0, 2, 3, 1).flatten(1) for head, x in zip(self.heads, maps, strict=True)]
        return torch.cat(predictions, 1)


class RetinaNet(nn.Module):
    """A ResNet-18 with a feature pyramid (Lin et al., 2017) and heads that its levels share."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        import torchvision

        body = torchvision.models.resnet18(weights=None)
        self.stem = nn.Sequential(body.conv1, body.bn1, body.relu, body.maxpool)
        self.stages = nn.ModuleList((body.layer1, body.layer2, body.layer3, body.layer4))
        self.lateral = nn.ModuleList(nn.Conv2d(inputs, width, 1) for inputs in (128, 256, 512))
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(3))
        self.classes, self.boxes = (
            nn.Sequential(
                *itertools.chain(*((nn.Conv2d(width, width, 3, padding=1), nn.ReLU()) for _ in range(4))),
                nn.Conv2d(width, outputs, 3, padding=1),
            )
            for outputs in (9 * CLASSES, 9 * 4)
        )

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        maps = [self.stem(x)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        merged = [lateral(x) for lateral, x in zip(self.lateral, maps[2:], strict=True)]
        for level in (1, 0):
            merged[level] = merged[level] + nn.functional.interpolate(merged[level + 1], scale_factor=2.0)
        levels = [smooth(x) for smooth, x in zip(self.smooth, merged, strict=True)]
        classes, boxes = (
            torch.cat([head(x).permute(0, 2, 3, 1).flatten(1, 2) for x in levels], 1)
            for head in (self.classes, self.boxes)
        )
        return classes.unflatten(2, (9, CLASSES)), boxes.unflatten(2, (9, 4))


class EDSR(nn.Module):
    """Super-resolution by residual blocks under one long skip (Lim et al., 2017), narrow."""

    def __init__(self, width: int = 32, blocks: int = 8) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, width, 3, padding=1)
        self.body = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1))
            for _ in range(blocks)
        )
        self.last = nn.Conv2d(width, width, 3, padding=1)
        self.tail = nn.Sequential(
            nn.Conv2d(width, 4 * width, 3, padding=1), nn.PixelShuffle(2), nn.Conv2d(width, 3, 3, padding=1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = x = self.head(x)
        for block in self.body:
            x = x + block(x)
        return self.tail(first + self.last(x))


def _pair(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in (inputs, outputs):
        layers += [nn.Conv2d(width, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


NETWORKS = (
    Network("ResNet", "resnet18", "torchvision", 8),
    Network("ResNet", "resnet50", "torchvision", 16),
    Network("ResNeXt", "resnext50_32x4d", "torchvision", 16),
    Network("WideResNet", "wide_resnet50_2", "torchvision", 16),
    Network("RegNet", "regnet_x_400mf", "torchvision", 22),
    Network("RegNet", "regnet_y_400mf", "torchvision", 16),
    Network("DenseNet", "densenet121", "torchvision", 4),
    Network("Inception", "googlenet", "torchvision", 9),
    Network("Inception", "inception_v3", "torchvision", 11, 96),
    Network("SqueezeNet", "squeezenet1_1", "torchvision", 8),
    Network("MobileNetV2", "mobilenet_v2", "torchvision", 17),
    Network("MobileNetV3", "mobilenet_v3_large", "torchvision", 15),
    Network(
        "MobileNetV4", "mobilenetv4_conv_small", "timm", 14, note="the first one, 32 → 32 → 32, counts as the stem"
    ),
    Network("EfficientNet", "efficientnet_b0", "torchvision", 16),
    Network("EfficientNetV2", "efficientnet_v2_s", "torchvision", 40),
    Network("MNASNet", "mnasnet1_0", "torchvision", 17),
    Network("ShuffleNetV2", "shufflenet_v2_x1_0", "torchvision", 16),
    Network("VGG", "vgg16_bn", "torchvision", 13, build=lambda: _without_large_head("vgg16_bn", 512)),
    Network("AlexNet", "alexnet", "torchvision", 5, build=lambda: _without_large_head("alexnet", 256)),
    Network("RepVGG", "repvgg_a0", "timm", 5),
    Network("MobileOne", "mobileone_s1", "timm", 5),
    Network("RepViT", "repvit_m0_9", "timm", 26),
    Network("MixNet", "mixnet_s", "timm", 16),
    Network("VoVNet", "ese_vovnet19b_dw", "timm", 4, note="and the separable convolutions of its stem"),
    Network("VoVNet", "ese_vovnet39b", "timm", 6),
    Network("SelecSLS", "selecsls42b", "timm", 6, note="and its head of four convolutions"),
    Network("CSPNet", "cspresnet50", "timm", 4),
    Network("CSPNet", "cspdarknet53", "timm", 5),
    Network("DLA", "dla34", "timm", 4, note="the two trees of the first level are one each"),
    Network("DPN", "dpn68", "timm", 22),
    Network("Res2Net", "res2net50_14w_8s", "timm", 16),
    Network("SKNet", "skresnet18", "timm", 8),
    Network("ResNeSt", "resnest14d", "timm", 4),
    Network("HRNet", "hrnet_w18_small", "timm", 2),
    Network("Xception", "xception41", "timm", 13, 96),
    Network("Xception", "legacy_xception", "timm", 13, 96),
    Network("ConvNeXt", "convnext_atto", "timm", 12),
    Network("ConvNeXt", "convnext_tiny", "timm", 18),
    Network("GhostNet", "ghostnet_100", "timm", 16),
    Network("HGNetV2", "hgnetv2_b0", "timm", 6),
    Network("U-Net", "unet", "none", 7, build=UNet),
    Network("EDSR", "edsr", "none", 8, 16, build=EDSR, note="and its last convolutions"),
    Network("RetinaNet", "retinanet", "torchvision", 11, 128, build=RetinaNet),
    Network("DeepLab", "deeplabv3_resnet50", "torchvision", 17, 96, note="and its head of two convolutions"),
    Network("FCN", "fcn_resnet50", "torchvision", 16, 96, note="and its head of two convolutions"),
    Network("SSD", "ssd", "torchvision", 18, build=SSD),
    Network("YOLO", "yolov8n", "ultralytics", 15, note="and the first convolutions"),
    Network("YOLO", "yolov5n", "ultralytics", 15, note="and the first convolutions"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", help="comma-separated; default all")
    parser.add_argument("--variants", action="store_true", help="compare what the exporters write")
    parser.add_argument("--check", action="store_true", help="execute the pruned network beside the masked original")
    parser.add_argument("--cache", type=Path, help="folder for the exported files")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    chosen = options.networks.split(",") if options.networks else [n.name for n in NETWORKS]
    oracles = _load(ROOT / "tests" / "passes" / "oracles.py") if options.check else None
    results = []
    print("| family | network | a person counts | found | with something to prune | parameters left | |")
    print(f"|{' --- |' * 7}")
    with _folder(options.cache) as folder:
        for network in (n for n in NETWORKS if n.name in chosen):
            if network.library != "none" and importlib.util.find_spec(network.library) is None:
                print(f"| {network.family} | {network.name} | {network.expected} | | | | no {network.library} |")
                continue
            row = _row(network, VARIANTS if options.variants else VARIANTS[:1], folder, oracles)
            results.append({"network": network.name, "expected": network.expected} | row)
            share = "" if row["left"] is None else f"{row['left']:.1%}"
            print(
                f"| {network.family} | {network.name} | {network.expected} | {row['found']} | {row['pruned']} "
                f"| {share} | {'; '.join(filter(None, (network.note, *row['remarks'])))} |",
                flush=True,
            )
    print(json.dumps(results))


def _row(network: Network, variants: tuple[Variant, ...], folder: Path, oracles: ModuleType | None) -> dict[str, Any]:
    remarks, tables = [], {}
    left = found = pruned = None
    for variant in variants:
        try:
            model = FoldConstants().apply(_exported(network, variant, folder)).model
            pruner = BlockPruner.of(model)
            check_modules(model, pruner.modules)
            tables[variant.name] = _table(pruner)
            if found is not None:
                continue
            found, pruned = len(pruner.modules), sum(bool(table.prunable) for table in pruner.convolutions)
            plan = pruner.plan({table.module: RATE for table in pruner.convolutions if table.prunable})
            smaller = pruner.materialize(plan)
            left = parameters(smaller) / parameters(model)
            if oracles is not None:
                feeds = oracles.random_feeds(model)
                results = oracles.run(smaller, feeds), oracles.run(oracles.zero_masked(model, plan), feeds)
                remarks += [f"differs by {d:.1e}" for d in map(oracles.difference, *results) if not d <= TOLERANCE]
        except (WootzError, AssertionError) as error:
            remarks.append(f"{variant.name}: {' '.join(str(error).split())}")
        except Exception as error:
            remarks.append(f"{variant.name}: {type(error).__name__}: {' '.join(str(error).split())[:80]}")
    first = next(iter(tables.values()), ())
    remarks += [f"other modules from {name}" for name, table in tables.items() if table != first]
    return {"found": found, "pruned": pruned, "left": left, "remarks": remarks}


def _table(pruner: BlockPruner) -> tuple[tuple[str, int], ...]:
    """What has to be the same whoever exported the network: the names of the modules, and the layers in each."""
    return tuple((table.module, len(table.convolutions)) for table in pruner.convolutions)


def _exported(network: Network, variant: Variant, folder: Path) -> Model:
    file = folder / f"{network.name}.{variant.name.replace(', ', '.').replace(' ', '-')}.onnx"
    if not file.exists():
        _export(network, variant, file)
    return Model.from_proto(onnx.load(file))


def _export(network: Network, variant: Variant, file: Path) -> None:
    image = torch.randn(2, 3, network.edge, network.edge)
    options: dict[str, Any] = {"input_names": ["image"], "opset_version": 18, "dynamo": variant.dynamo}
    if variant.dynamo:
        options |= {"external_data": False, "verbose": False}
        if variant.dynamic:
            options["dynamic_shapes"] = ({0: torch.export.Dim("N", min=1, max=64)},)
    else:
        options["opset_version"] = 17
        if variant.dynamic:
            options["dynamic_axes"] = {"image": {0: "N"}}
        if not variant.folded:
            options |= {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False}
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        torch.onnx.export(network.make(), (image,), file, **options)


@contextlib.contextmanager
def _folder(cache: Path | None) -> Iterator[Path]:
    if cache is None:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    else:
        cache.mkdir(parents=True, exist_ok=True)
        yield cache


def _load(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
