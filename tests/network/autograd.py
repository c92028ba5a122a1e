"""autograd.py GRADIENT_RUNNER [NAME...]: a training step of whole networks (loss, every gradient, the running
statistics, with batch and with running statistics) against PyTorch's autograd in double. Exit 77 without torch, or
without TERNION_FULL unless networks are named."""
import copy
import os
import subprocess
import sys
import tempfile
import warnings

import numpy as np

try:
    import torch
    import torch.nn.functional as F
    import torchvision
    from torch import nn
except ImportError:
    sys.exit(77)

SMOOTHING = 0.1
CLASSES = 10
DRAWS = 5
warnings.filterwarnings("ignore")


class Block(nn.Module):
    """Two 3x3 convolutions; where the width changes the shortcut is a slice and a pad (He's option A)."""

    def __init__(self, before, after):
        super().__init__()
        self.stride, self.pad = (1, 0) if before == after else (2, (after - before) // 2)
        self.conv1 = nn.Conv2d(before, after, 3, self.stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.pad:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))
        return F.relu(x + y)


class ResNet20(nn.Module):
    def __init__(self):
        super().__init__()
        widths = [16] * 4 + [32] * 3 + [64] * 3
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.blocks = nn.Sequential(*[Block(a, b) for a, b in zip(widths, widths[1:])])
        self.linear = nn.Linear(64, CLASSES)

    def forward(self, x):
        return self.linear(self.blocks(F.relu(self.bn1(self.conv1(x)))).mean([2, 3]))


def densenet():
    return torchvision.models.DenseNet(8, (3, 3, 3), 16, num_classes=CLASSES)


def from_torchvision(name, **options):
    return lambda: torchvision.models.get_model(name, weights=None, num_classes=CLASSES, **options)


def vgg():
    """VGG-11 with BatchNorm, for 32x32 images: two linear layers."""
    head = nn.Sequential(nn.Linear(512, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, CLASSES))
    return nn.Sequential(torchvision.models.vgg11_bn(weights=None).features, nn.Flatten(), head)


# name: network, side of the image, batch
NETWORKS = {
    "resnet20": (ResNet20, 32, 6),
    "densenet": (densenet, 64, 6),
    "squeezenet1_1": (from_torchvision("squeezenet1_1"), 64, 3),
    "mobilenet_v2": (from_torchvision("mobilenet_v2", width_mult=0.25), 64, 4),
    "resnet18": (from_torchvision("resnet18"), 64, 6),
    "vgg": (vgg, 32, 6),
}


def make(name, seed):
    torch.manual_seed(seed)
    build, side, batch = NETWORKS[name]
    net = build()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return net, torch.randn(batch, 3, side, side), torch.randint(0, CLASSES, (batch,))


def step(net, x, y, training, kind):
    """What PyTorch gives: name -> array; the loss is the sum over the batch."""
    net, x = copy.deepcopy(net).to(kind).train(training), x.to(kind, copy=True).requires_grad_(True)
    loss = F.cross_entropy(net(x), y, label_smoothing=SMOOTHING)
    loss.backward()
    found = {"loss": loss.detach().reshape(1) * len(y), "input": x.grad}
    found.update({k: p.grad for k, p in net.named_parameters()})
    if training:
        found.update({k: b for k, b in net.named_buffers() if k.endswith(("running_mean", "running_var"))})
    return {k: v.detach().double().numpy().ravel() for k, v in found.items()}


def ours(runner, folder, net, x, y, mode):
    files = [os.path.join(folder, f) for f in ("model.onnx", "input", "labels", "output")]
    torch.onnx.export(net.eval(), (x,), files[0], dynamo=False, training=torch.onnx.TrainingMode.PRESERVE,
                      do_constant_folding=False, opset_version=13, input_names=["input"], output_names=["logits"])
    x.numpy().tofile(files[1])
    y.numpy().astype(np.int32).tofile(files[2])
    done = subprocess.run([runner, files[0], str(len(y)), *files[1:], mode, str(SMOOTHING)], capture_output=True,
                          text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    found, at = {}, 0
    raw = open(files[3], "rb").read()
    while at < len(raw):
        end = raw.index(b"\n", at)
        name, count = raw[at:end].decode().rsplit(" ", 1)
        found[name] = np.frombuffer(raw, np.float32, int(count), end + 1).astype(np.float64)
        at = end + 1 + 4 * int(count)
    found["loss"] = found["loss"][:1]
    return found


def worst(found, want, floor):
    """The largest relative distance, and whose; gradients far under the network's own norm are noise."""
    return max((np.linalg.norm(found[k] - w) / max(np.linalg.norm(w), 0 if "running" in k else floor), k)
               for k, w in want.items())


def draw(runner, folder, name, training, modes, seed):
    """Whether all modes are near PyTorch in double, or as near as PyTorch in fp32 nearly is."""
    net, x, y = make(name, seed)
    want, single = (step(net, x, y, training, kind) for kind in (torch.float64, torch.float32))
    parameters = [v for k, v in want.items() if k not in ("loss", "input") and "running" not in k]
    floor = 1e-4 * np.sqrt(sum(float((g ** 2).sum()) for g in parameters))
    theirs, good = worst(single, want, floor)[0], True
    for mode in modes:
        found = ours(runner, folder, net, x, y, mode)
        missing = sorted(set(want) - set(found))
        distance, where = worst(found, want, floor) if not missing else (np.inf, f"no gradient of {missing}")
        good = good and distance < max(2e-5, 4 * theirs) and distance < 1e-3
        print(f"{name} {mode}, draw {seed}: {len(want)} arrays, {distance:.1e} ({where}); PyTorch in fp32 "
              f"{theirs:.1e}", flush=True)
    return good


def check(runner, folder, name, training, modes):
    """Several draws, one of which must be good: where a ReLU's input (of half a million) is so near 0 that fp32 sees
    its other side, an fp32 program is off by all that hangs on that activation. A wrong gradient is wrong in every
    draw."""
    return not any(draw(runner, folder, name, training, modes, seed) for seed in range(1, DRAWS + 1))


def main():
    names = sys.argv[2:] or (list(NETWORKS) if os.environ.get("TERNION_FULL") else [])
    if not names:
        return 77
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            failures += check(sys.argv[1], folder, name, True, ("training", "nofusion", "keepall"))
            failures += check(sys.argv[1], folder, name, False, ("inference",))
    return failures > 0


if __name__ == "__main__":
    sys.exit(main())
