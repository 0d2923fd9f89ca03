"""The classic networks with random weights; spatial sizes can be reduced, widths and depths are the published ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx

from insitu.bench.networks import Network, resnet18, resnet50

VGG16 = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)


def vgg16(size: int = 224, classes: int = 1000) -> onnx.ModelProto:
    net = Network("vgg16", (1, 3, size, size))
    x = "x"
    for width in VGG16:
        x = net.conv(x, width, 3) if width else net.pool(x, 2, stride=2)
    x = net.dense(net.dense(net.flatten(x), 4096, "Relu"), 4096, "Relu")
    return net.model(net.dense(x, classes))


MOBILE = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def mobilenet_v2(size: int = 224, classes: int = 1000) -> onnx.ModelProto:
    net = Network("mobilenet_v2", (1, 3, size, size), batch_norm=True)
    x = net.conv("x", 32, 3, stride=2, act="Relu6")
    for expand, out, count, first in MOBILE:
        for block in range(count):
            stride, inside = (first if block == 0 else 1), net.channels(x) * expand
            y = net.conv(x, inside, 1, act="Relu6") if expand > 1 else x
            y = net.conv(net.conv(y, inside, 3, stride=stride, group=inside, act="Relu6"), out, 1, act="")
            x = net.add(y, x, act="") if net.shapes[x] == net.shapes[y] else y
    return net.model(net.dense(net.average(net.conv(x, 1280, 1, act="Relu6")), classes))


def squeezenet(size: int = 224, classes: int = 1000) -> onnx.ModelProto:
    """SqueezeNet 1.1."""
    net = Network("squeezenet", (1, 3, size, size))

    def fire(x: str, squeeze: int, expand: int) -> str:
        s = net.conv(x, squeeze, 1)
        return net.concat([net.conv(s, expand, 1), net.conv(s, expand, 3)])

    x = net.pool(net.conv("x", 64, 3, stride=2, pad=0), 3, stride=2)
    x = net.pool(fire(fire(x, 16, 64), 16, 64), 3, stride=2)
    x = net.pool(fire(fire(x, 32, 128), 32, 128), 3, stride=2)
    for squeeze, expand in ((48, 192), (48, 192), (64, 256), (64, 256)):
        x = fire(x, squeeze, expand)
    return net.model(net.average(net.conv(x, classes, 1)))


INCEPTION = (
    (64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64), (), (192, 96, 208, 16, 48, 64), (160, 112, 224, 24, 64, 64),
    (128, 128, 256, 24, 64, 64), (112, 144, 288, 32, 64, 64), (256, 160, 320, 32, 128, 128), (),
    (256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128),
)  # fmt: skip


def googlenet(size: int = 224, classes: int = 1000) -> onnx.ModelProto:
    net = Network("googlenet", (1, 3, size, size))
    x = net.pool(net.conv("x", 64, 7, stride=2), 3, stride=2, pad=1)
    x = net.pool(net.conv(net.conv(x, 64, 1), 192, 3), 3, stride=2, pad=1)
    for widths in INCEPTION:
        if not widths:
            x = net.pool(x, 3, stride=2, pad=1)
            continue
        a, b, c, d, e, f = widths
        branches = [net.conv(x, a, 1), net.conv(net.conv(x, b, 1), c, 3), net.conv(net.conv(x, d, 1), e, 5)]
        x = net.concat([*branches, net.conv(net.pool(x, 3, stride=1, pad=1), f, 1)])
    return net.model(net.dense(net.average(x), classes))


def densenet(size: int = 224, classes: int = 1000, blocks: Sequence[int] = (6, 12, 24, 16)) -> onnx.ModelProto:
    """DenseNet-121: normalisation and activation before each convolution."""
    net = Network("densenet121", (1, 3, size, size))
    x = net.pool(net.conv("x", 64, 7, stride=2, norm=True), 3, stride=2, pad=1)
    for index, count in enumerate(blocks):
        for _ in range(count):
            y = net.conv(net.act(net.norm(x)), 128, 1, norm=True)
            x = net.concat([x, net.conv(y, 32, 3, act="")])
        if index < len(blocks) - 1:
            x = net.conv(net.act(net.norm(x)), net.channels(x) // 2, 1, act="")
            x = net.pool(x, 2, stride=2, kind="AveragePool")
    return net.model(net.dense(net.average(net.act(net.norm(x))), classes))


def tc_resnet8(frames: int = 98, classes: int = 12) -> onnx.ModelProto:
    """Temporal convolutions over speech features, the features as channels."""
    net = Network("tc_resnet8", (1, 40, 1, frames), batch_norm=True)
    x = net.conv("x", 16, (1, 3))
    for width in (24, 32, 48):
        short = net.conv(x, width, 1, stride=(1, 2))
        y = net.conv(net.conv(x, width, (1, 9), stride=(1, 2)), width, (1, 9), act="")
        x = net.add(y, short)
    return net.model(net.dense(net.average(x), classes))


def unet(size: int = 128, width: int = 32) -> onnx.ModelProto:
    """A U-Net whose way up is 1x1 convolution to four times the channels and depth to space by reshapes."""
    net = Network("unet", (1, 3, size, size))

    def double(x: str, out: int) -> str:
        return net.conv(net.conv(x, out, 3), out, 3)

    def up(x: str, out: int) -> str:
        import numpy as np

        n, _, h, w = net.shapes[x]
        y = net.conv(x, 4 * out, 1)
        y = net.node("Reshape", [y, net.tensor(np.array([n, out, 2, 2, h, w]))], (n, out, 2, 2, h, w))
        y = net.node("Transpose", [y], (n, out, h, 2, w, 2), perm=[0, 1, 4, 2, 5, 3])
        return net.node("Reshape", [y, net.tensor(np.array([n, out, 2 * h, 2 * w]))], (n, out, 2 * h, 2 * w))

    x, skips = double("x", width), []
    for step in range(1, 5):
        skips.append(x)
        x = double(net.pool(x, 2, stride=2), width << step)
    for step in range(3, -1, -1):
        x = double(net.concat([skips[step], up(x, width << step)]), width << step)
    return net.model(net.conv(x, 2, 1, act=""))


def mlp(widths: Sequence[int] = (784, 512, 512, 10)) -> onnx.ModelProto:
    net = Network("mlp", (1, widths[0]))
    x = "x"
    for out in widths[1:-1]:
        x = net.dense(x, out, "Relu")
    return net.model(net.dense(x, widths[-1]))


NETWORKS: dict[str, Callable[..., onnx.ModelProto]] = {
    "vgg16": vgg16, "resnet18": resnet18, "resnet50": resnet50, "mobilenet_v2": mobilenet_v2, "squeezenet": squeezenet,
    "googlenet": googlenet, "densenet121": densenet, "tc_resnet8": tc_resnet8, "unet": unet, "mlp": mlp,
}  # fmt: skip
