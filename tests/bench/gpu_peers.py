"""Training steps of torchvision's networks in PyTorch on one GPU, images a second: what
tools/gpu-check.sh sets beside gpu_bench's. bf16 autocast, channels-last, SGD; eager and compiled."""
import sys
import time

import torch
import torchvision


def rate(model, batch, steps=20):
    model = model.cuda().to(memory_format=torch.channels_last).train()
    images = torch.randn(batch, 3, 224, 224, device="cuda").to(memory_format=torch.channels_last)
    labels = torch.zeros(batch, dtype=torch.long, device="cuda")
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, nesterov=True)

    def run(model):
        def step():
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cuda", torch.bfloat16):
                loss = torch.nn.functional.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()

        for _ in range(5):
            step()
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(steps):
            step()
        torch.cuda.synchronize()
        return batch * steps / (time.perf_counter() - start)

    return run(model), run(torch.compile(model))


def main():
    if not torch.cuda.is_available():
        print("no GPU for PyTorch")
        return 77
    torch.backends.cudnn.benchmark = True
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}")
    print("images a second              eager  compiled")
    for name, batch in (("resnet18", 256), ("resnet50", 128)):
        eager, compiled = rate(getattr(torchvision.models, name)(), batch)
        print(f"{name:16} batch {batch:4} {eager:8.0f} {compiled:9.0f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
