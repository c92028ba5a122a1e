"""training_speed.py [options] TRAINING_SPEED: a TTQ training step (forward, loss, backward, update) against the newest PyTorch's:
the same trained ternary quantization written as an autograd function, channels_last, foreach SGD with Nesterov momentum, fp32 and
bf16 autocast, eager and compiled. Both train the same network: PyTorch's, exported. Images are noise, the loader is not measured.

Every PyTorch contender is a process of its own; steps are taken in turns, and the best step of each counts. One thread in
processor time (for busy machines); with --wall N on N threads in wall time. A contender that has not made its first steps within
--limit seconds (torch.compile builds its kernels with g++ then) is reported as that. Needs torch, torchvision, onnx."""
import argparse
import multiprocessing
import os
import re
import shutil
import subprocess
import tempfile
import time
import warnings

import torch
import torchvision
from torch import nn
from torch.nn import functional as F

NETWORKS = {"resnet20": (32, 128), "resnet18": (64, 64), "densenet121": (64, 64)}  # pixels, batch
SCHEME = "ttq,tensor,max:0.05"


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


def network(architecture):
    torch.manual_seed(1)
    return resnet20() if architecture == "resnet20" else torchvision.models.get_model(architecture, weights=None)


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


def serve(pipe, architecture, size, batch, kind, compiled, threads):
    """A contender: makes a step, and says how long it took, for every request."""
    torch.set_num_threads(threads or 1)
    clock = time.perf_counter if threads else time.process_time
    net = ternary(network(architecture)).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(net.parameters(), 0.01, 0.9, weight_decay=1e-4, nesterov=True, foreach=True)
    net = torch.compile(net) if compiled else net
    x = torch.randn(batch, 3, size, size).to(memory_format=torch.channels_last)
    y = torch.arange(batch) % 10
    while pipe.recv():
        start = clock()
        try:
            with torch.autocast("cpu", torch.bfloat16, enabled=kind == "bf16"):
                loss = F.cross_entropy(net(x).float(), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        except Exception as error:  # torch.compile needs a working C++ toolchain
            pipe.send(f"{type(error).__name__}: {error}".splitlines()[0])
            return
        pipe.send(1e3 * (clock() - start))


class Peer:
    def __init__(self, mode, kind, *task):
        self.name, self.kind, self.best = f"PyTorch {torch.__version__} {mode} {kind}", kind, float("inf")
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        architecture, size, batch, threads = task
        self.process = context.Process(target=serve, daemon=True, args=(theirs, architecture, size, batch, kind,
                                                                        mode == "compile", threads))
        self.process.start()

    def step(self, limit):
        """Milliseconds, or what went wrong as text."""
        self.pipe.send(True)
        if not self.pipe.poll(limit):
            return f"not done within {limit:.0f} s"
        try:
            return self.pipe.recv()
        except EOFError:
            return "its process ended"

    def stop(self):
        self.process.kill()
        self.process.join()


def start_peers(options, architecture, size, batch):
    ready = []
    for mode in options.modes.split(","):
        if mode == "compile" and not shutil.which(os.environ.get("CXX", "g++")):
            print("  compile: torch.compile needs a C++ compiler; install g++ or set CXX")
            continue
        for kind in options.precisions.split(",") if mode != "none" else ():
            peer = Peer(mode, kind, architecture, size, batch, options.wall)
            end = time.monotonic() + options.limit
            done = 0.0
            for _ in range(2):
                done = peer.step(end - time.monotonic()) if not isinstance(done, str) else done
            if isinstance(done, str):
                print(f"  {peer.name}: {done}", flush=True)
                peer.stop()
            else:
                print(f"  {peer.name}: ready after {options.limit - end + time.monotonic():.0f} s", flush=True)
                ready.append(peer)
    return ready


def ours(options, model, batch, kind):
    environment = dict(os.environ, OMP_NUM_THREADS=str(options.wall or 1), OMP_WAIT_POLICY="passive")
    if not options.wall:
        environment["TERNION_CPU_TIME"] = "1"
    done = subprocess.run([options.runner, model, str(batch), str(options.steps), kind, SCHEME], check=True,
                          capture_output=True, text=True, env=environment)
    return float(re.search(r"best ([\d.]+)", done.stdout).group(1))


def take_turns(options, model, batch, peers):
    best = {kind: float("inf") for kind in options.precisions.split(",")}
    for _ in range(options.rounds):
        for kind in best:
            best[kind] = min(best[kind], ours(options, model, batch, kind))
        for peer in peers:
            for _ in range(options.steps):
                took = peer.step(options.limit)
                if isinstance(took, str):
                    raise SystemExit(f"{peer.name}: {took}")
                peer.best = min(peer.best, took)
    return best


def export(net, inputs, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the classic exporter, which keeps BatchNormalization, is the old one
        torch.onnx.export(net, inputs, path, dynamo=False, training=torch.onnx.TrainingMode.PRESERVE,
                          do_constant_folding=False)


def compare(options, architecture):
    size, batch = NETWORKS[architecture]
    size, batch = options.size or size, options.batch or batch
    print(f"{architecture} at {size} px, batch {batch}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        model = os.path.join(folder, "network.onnx")
        export(network(architecture).eval(), (torch.zeros(batch, 3, size, size),), model)
        peers = start_peers(options, architecture, size, batch)
        best = take_turns(options, model, batch, peers)
    for kind, took in best.items():
        print(f"  ternion {kind} {took:.1f} ms ({1e3 * batch / took:.0f} images/s)")
    for peer in peers:
        print(f"  {peer.name} {peer.best:.1f} ms: {peer.best / best[peer.kind]:.2f} x ternion's time", flush=True)
        peer.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runner", metavar="TRAINING_SPEED")
    parser.add_argument("--only", default=",".join(NETWORKS), metavar="NETWORK[,...]", help="of " + ", ".join(NETWORKS))
    parser.add_argument("--modes", default="eager,compile", help="PyTorch's, or none")
    parser.add_argument("--precisions", default="fp32,bf16")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3, help="of each contender in a round")
    parser.add_argument("--limit", type=float, default=1500, help="seconds a contender may take to its first steps")
    parser.add_argument("--size", type=int, help="pixels")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--wall", type=int, metavar="THREADS")
    options = parser.parse_args()
    for architecture in options.only.split(","):
        compare(options, architecture)


if __name__ == "__main__":
    main()
