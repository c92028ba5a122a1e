"""quantizer_autograd.py QUANTIZER_GRADIENTS: every quantizer's values and gradients against PyTorch's autograd in double,
each written here as its paper has it: differentiable scales, and `x + (q - x).detach()` where a gradient goes straight
through. Exit 77 without torch or without TERNION_FULL."""
import os
import subprocess
import sys
import tempfile
import time

try:
    import numpy as np
    import torch
except ImportError:
    sys.exit(77)
if not os.environ.get("TERNION_FULL"):
    sys.exit(77)

OPTIMAL, MEAN, MAX, SPARSITY = range(4)
TENSOR, CHANNEL, GROUP = range(3)


def straight(value, through):
    """value forward, the gradient of `through`."""
    return through + (value - through).detach()


def runs(case):
    """The elements that share scale i, as index arrays into the flat weight."""
    index = np.arange(case.rows * case.cols).reshape(case.rows, case.cols)
    if case.granularity == TENSOR:
        return [index.ravel()]
    if case.granularity == CHANNEL:
        return list(index)
    return [row[i:i + case.group] for row in index for i in range(0, case.cols, case.group)]


def threshold(case, w):
    """D of TWN and TTQ; None: whatever is optimal."""
    if case.kind == MEAN:
        return case.value * w.abs().mean()
    if case.kind == MAX:
        return case.value * w.abs().max()
    return None


def chosen(case, w, i):
    """|w| > D. A sparsity's and an optimum's D are checked by other tests: taken as they are. Any D between the same
    two weights is the same one."""
    d, given = threshold(case, w), w.abs() > float(case.threshold[i])
    if d is None:
        return given
    if not torch.equal(w.abs() > d, given):
        raise AssertionError(f"{case.name()}: threshold {case.threshold[i]}, expected {float(d)}")
    return w.abs() > d


def twn(case, w, i, scale, scale_neg):
    kept = chosen(case, w.detach(), i)
    a = w.detach().abs()[kept].mean() if kept.any() else torch.tensor(1.0, dtype=torch.float64)
    return straight(a * torch.sign(w.detach()) * kept, w)


def ttq(case, w, i, scale, scale_neg):
    kept = chosen(case, w.detach(), i)
    plus, minus = kept & (w > 0), kept & (w < 0)
    q = scale * plus - scale_neg * minus
    factor = torch.where(plus, scale, torch.where(minus, scale_neg, torch.ones_like(w))).detach()
    return q + (w - w.detach()) * factor


def lsq(case, w, i, scale, scale_neg):
    gradient = 1 / np.sqrt(case.features * max(case.high, 1))
    s = scale * gradient + (scale - scale * gradient).detach()
    v = torch.clamp(w / s, case.low, case.high)
    return straight(torch.round(v), v) * s


def pact(case, w, i, scale, scale_neg):
    alpha, beta = scale * case.high, scale * case.low
    y = torch.minimum(torch.maximum(w, beta), alpha)
    return straight(torch.round(y / scale) * scale, y)


def dorefa(case, w, i, scale, scale_neg):
    if case.bits == 1:
        return straight(torch.where(w < 0, -1.0, 1.0) * w.detach().abs().mean(), w)
    n = 2 ** case.bits - 1
    m = torch.tanh(w.detach()).abs().max()
    x = torch.tanh(w) / (2 * m) + 0.5
    return 2 * straight(torch.round(n * x), n * x) / n - 1


def parq(case, w, i, scale, scale_neg):
    u, s = w.detach(), scale.detach()
    v = torch.clamp(u / s, case.low, case.high)
    if case.rho == 0:
        return straight(torch.round(v) * s, w)
    lower = torch.floor(v)
    middle = lower + 0.5
    soft = torch.minimum(torch.maximum(middle + (v - middle) / case.rho, lower), lower + 1)
    return straight(soft * s, w)


SCHEMES = {"twn": twn, "ttq": ttq, "lsq": lsq, "fixed": lsq, "dorefa": dorefa, "parq": parq,
           "lsq-activation": lsq, "pact-activation": pact}
TRAINED = {"ttq", "lsq", "fixed", "lsq-activation", "pact-activation"}


class Case:
    def __init__(self, file):
        words = file.readline().split()
        self.scheme = words[0].decode() if words else None
        if not words:
            return
        (self.bits, self.low, self.high, self.ternary, self.granularity, self.group,
         self.kind) = (int(x) for x in words[1:8])
        self.value = float(words[8])
        self.rows, self.cols, scales = (int(x) for x in words[9:12])
        self.rho = float(words[12])
        n = self.rows * self.cols

        def read(count):
            return np.frombuffer(file.read(4 * count), np.float32).astype(np.float64)
        self.w, self.g = read(n), read(n)
        self.scale, self.scale_neg, self.zero, self.threshold = (read(scales) for _ in range(4))
        self.values, self.dw = read(n), read(n)
        self.dscale, self.dscale_neg = read(scales), read(scales)

    def name(self):
        return (f"{self.scheme} bits {self.bits} {['tensor', 'channel', 'group'][self.granularity]} "
                f"threshold {self.kind} rho {self.rho}")


def near(got, want, what, case, where=None):
    error = np.abs(got - want) / (1 + np.abs(want))
    if where is not None:
        error = error[where]
    if error.size and error.max() > 2e-5:
        raise AssertionError(f"{case.name()}: {what} differs by {error.max():.3g}")


def check(case):
    for i, run in enumerate(runs(case)):
        w = torch.tensor(case.w[run], requires_grad=True)
        scale = torch.tensor(case.scale[i], requires_grad=True)
        scale_neg = torch.tensor(case.scale_neg[i], requires_grad=True)
        case.features = case.group if case.scheme.endswith("activation") else len(run)
        q = SCHEMES[case.scheme](case, w, i, scale, scale_neg)
        (q * torch.tensor(case.g[run])).sum().backward()
        near(case.values[run], q.detach().numpy(), "value", case)
        near(case.dw[run], w.grad.numpy(), "latent gradient", case)
        if case.scheme in TRAINED:
            near(case.dscale[i:i + 1], np.array([float(scale.grad)]), "scale gradient", case)
        if case.scheme == "ttq":
            near(case.dscale_neg[i:i + 1], np.array([float(scale_neg.grad)]), "dWn", case)


def main():
    seed = os.environ.get("TERNION_SEED", str(int(time.time())))
    cases, failures = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "cases")
        subprocess.run([sys.argv[1], path, seed], check=True)
        with open(path, "rb") as file:
            while (case := Case(file)).scheme:
                cases += 1
                try:
                    check(case)
                except AssertionError as error:
                    print(error)
                    failures += 1
    print(f"seed {seed}: {cases} cases, {failures} differ")
    return failures > 0 or cases < 90


sys.exit(main())
