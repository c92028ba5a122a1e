"""training_speed.py [--wall N] [--no-compile] TERNION TRAINING_SPEED [ARCHITECTURE SIZE BATCH]...: a TTQ training step (forward,
loss, backward, update) against PyTorch's newest: the same trained ternary quantization written as an autograd function,
channels_last, foreach SGD with Nesterov momentum, fp32 and bf16 autocast, eager and compiled. Images are noise, the loader is
not measured. Rounds are interleaved, the best step of each counts. One thread in processor time (for busy machines); with
--wall on N threads in wall time."""
import os
import re
import subprocess
import sys
import tempfile
import time

import torch
import torchvision
from torch import nn
from torch.nn import functional as F

THREADS, clock, COMPILE = 1, time.process_time, True
ROUNDS, STEPS = 3, 3


class Ternarize(torch.autograd.Function):
    """Zhu et al., Trained Ternary Quantization: threshold 0.05 max|w|, one scale for each sign."""

    @staticmethod
    def forward(ctx, weight, positive, negative):
        threshold = 0.05 * weight.abs().amax()
        above, below = (weight > threshold).to(weight.dtype), (weight < -threshold).to(weight.dtype)
        ctx.save_for_backward(above, below, positive, negative)
        return positive * above - negative * below

    @staticmethod
    def backward(ctx, gradient):
        above, below, positive, negative = ctx.saved_tensors
        factor = positive * above + negative * below + (1 - above - below)
        return gradient * factor, (gradient * above).sum(), -(gradient * below).sum()


class TernaryConv(nn.Conv2d):
    @classmethod
    def of(cls, conv):
        new = cls(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding,
                  conv.dilation, conv.groups, conv.bias is not None)
        new.load_state_dict(conv.state_dict())
        scale = conv.weight.detach().abs().mean()
        new.positive, new.negative = nn.Parameter(scale.clone()), nn.Parameter(scale.clone())
        return new

    def forward(self, x):
        weight = Ternarize.apply(self.weight, self.positive, self.negative)
        return self._conv_forward(x, weight, self.bias)


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity() if stride == 1 and inputs == outputs else nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


def resnet20():
    blocks = [Block(i, o, s) for i, o, s in
              [(16, 16, 1)] * 3 + [(16, 32, 2)] + [(32, 32, 1)] * 2 + [(32, 64, 2)] + [(64, 64, 1)] * 2]
    return nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), *blocks,
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def ternary(net):
    """Every convolution but the first; the last linear layer stays float."""
    first = True
    for name, module in list(net.named_modules()):
        if isinstance(module, nn.Conv2d):
            if not first:
                parent = net.get_submodule(name.rpartition(".")[0])
                setattr(parent, name.rpartition(".")[2], TernaryConv.of(module))
            first = False
    return net


class Peer:
    def __init__(self, architecture, size, batch, kind, compiled):
        net = resnet20() if architecture == "resnet20" else torchvision.models.get_model(architecture, weights=None)
        net = ternary(net).to(memory_format=torch.channels_last).train()
        self.optimizer = torch.optim.SGD(net.parameters(), 0.01, 0.9, weight_decay=1e-4, nesterov=True, foreach=True)
        self.net = torch.compile(net) if compiled else net
        self.bf16, self.best = kind == "bf16", 1e9
        self.x = torch.randn(batch, 3, size, size).to(memory_format=torch.channels_last)
        self.y = torch.arange(batch) % 10

    def step(self):
        start = clock()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            loss = F.cross_entropy(self.net(self.x).float(), self.y)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.best = min(self.best, 1e3 * (clock() - start))


def peers(architecture, size, batch):
    made = {}
    for mode in ("eager", "compile") if COMPILE else ("eager",):
        for kind in ("fp32", "bf16"):
            peer = Peer(architecture, size, batch, kind, mode == "compile")
            try:
                peer.step()
                peer.step()
            except Exception as error:  # torch.compile needs a working C++ toolchain
                print(f"  PyTorch {mode} {kind} does not run: {type(error).__name__}")
                continue
            peer.best = 1e9
            made[f"{mode} {kind}"] = peer
    return made


def ours(runner, model, batch, kind):
    environment = dict(os.environ, OMP_NUM_THREADS=str(THREADS), OMP_WAIT_POLICY="passive")
    if clock is time.process_time:
        environment["TERNION_CPU_TIME"] = "1"
    done = subprocess.run([runner, model, str(batch), str(STEPS), kind, "ttq"], check=True, capture_output=True,
                          text=True, env=environment)
    return float(re.search(r"best ([\d.]+)", done.stdout).group(1))


def compare(ternion, runner, architecture, size, batch):
    with tempfile.TemporaryDirectory() as folder:
        model = os.path.join(folder, "network.onnx")
        subprocess.run([ternion, "create", architecture, "-q", "-o", model, "--input", f"3x{size}x{size}"], check=True)
        best = {"fp32": 1e9, "bf16": 1e9}
        made = peers(architecture, size, batch)
        for _ in range(ROUNDS):
            for kind in best:
                best[kind] = min(best[kind], ours(runner, model, batch, kind))
            for peer in made.values():
                for _ in range(STEPS):
                    peer.step()
    print(f"{architecture} at {size} px, batch {batch}: ternion fp32 {best['fp32']:.1f} ms "
          f"({1e3 * batch / best['fp32']:.0f} images/s), bf16 {best['bf16']:.1f} ms ({1e3 * batch / best['bf16']:.0f})")
    for mode, peer in made.items():
        print(f"  PyTorch {torch.__version__} {mode} {peer.best:.1f} ms: {peer.best / best[mode.split()[1]]:.2f}x", flush=True)
    fastest = min(peer.best for peer in made.values())
    print(f"  its fastest against our fastest: {fastest / min(best.values()):.2f}x", flush=True)


def main():
    global THREADS, clock, COMPILE
    arguments = sys.argv[1:]
    if arguments[0] == "--wall":
        THREADS, clock = int(arguments[1]), time.perf_counter
        del arguments[:2]
    if arguments[0] == "--no-compile":
        COMPILE = False
        del arguments[0]
    torch.set_num_threads(THREADS)
    ternion, runner, *rest = arguments
    rest = rest or ["resnet20", "32", "128", "resnet18", "64", "64", "densenet121", "64", "64"]
    for i in range(0, len(rest), 3):
        compare(ternion, runner, rest[i], int(rest[i + 1]), int(rest[i + 2]))


if __name__ == "__main__":
    main()
