"""How fast this machine can be at best: what a large matrix product reaches, and what a training step takes."""

import time

import torch

from qualm.models._product import product

TRAINING = 3  # times the work of a forward pass that a training step takes: the backward pass is two more
SIZE, LEAST, MOST = 1024, 3, 0.15  # rows of the matrices, products at least, and seconds at most


def peak(device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> float:
    """Floating point operations a second of a matrix product, the best of a few: the machine's limit in practice."""
    device, size = torch.device(device), SIZE if torch.device(device).type == "cpu" else 4 * SIZE
    a = torch.randn(size, size, device=device, generator=torch.Generator(device).manual_seed(0)).to(dtype)
    best, began, done = float("inf"), time.perf_counter(), 0
    while done < LEAST or time.perf_counter() - began < MOST:
        at = time.perf_counter()
        float(product(a, a)[0, 0])  # waits until it is there
        best, done = min(best, time.perf_counter() - at), done + 1
    return 2 * size**3 / best
