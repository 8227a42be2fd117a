"""A stand-in for a model on a GPU; needs PyTorch, in the workers alone."""

import os
import time
from typing import Any

import snakepit

SIDE = 16384  # weights of 1 GiB
CYCLES_PER_S = 1.7e9  # about what a GPU's clock does


class GpuAdapter(snakepit.Adapter):
    """Weights in the GPU's memory, and tools that keep the GPU busy."""

    def initialize(self) -> None:
        """Load the model: once in each worker."""
        import torch

        self.torch = torch
        self.weights = torch.randn(SIDE, SIDE, device="cuda")
        torch.cuda.synchronize()

    @snakepit.tool
    def model(self) -> tuple[int, int]:
        """Say which process holds the weights, and at which address of the GPU."""
        self.torch.cuda.synchronize()  # an error of an earlier kernel is raised here
        return os.getpid(), self.weights.data_ptr()

    @snakepit.tool
    def many_kernels(self) -> None:
        """Run short kernels for a minute: between two of them Python can be interrupted."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            self.weights @ self.weights
            self.torch.cuda.synchronize()

    @snakepit.tool
    def one_kernel(self, seconds: float) -> None:
        """Wait inside the driver for a long kernel: no signal gets the thread out of there."""
        self._sleep(seconds)
        self.torch.cuda.synchronize()

    @snakepit.tool(cancel_grace=10)
    def one_kernel_awaited(self, seconds: float) -> None:
        """As `one_kernel`, but a cancelled call has 10 s to come back before its worker goes."""
        self.one_kernel(seconds)

    @snakepit.tool
    def one_kernel_polled(self, seconds: float) -> None:
        """Wait for the same kernel in Python; the GPU ends it in its own time."""
        self._sleep(seconds)
        done = self.torch.cuda.Event()
        done.record()
        while not done.query():
            time.sleep(0.001)

    @snakepit.tool
    def poison(self) -> None:
        """Read beyond a tensor: after such an error CUDA is of no use in this process."""
        try:
            self.weights[self.torch.tensor([SIDE + 1], device="cuda")]
            self.torch.cuda.synchronize()
        except RuntimeError:
            os._exit(70)  # the call fails as WorkerDiedError, and the pool starts another worker

    @snakepit.tool
    def upload(self, array: Any) -> float:
        """Bring an array to the GPU; its last number."""
        return float(self.torch.from_numpy(array).to("cuda")[-1])

    @snakepit.tool
    def download(self, count: int) -> Any:
        """Numbers from the GPU, by way of an array of this process."""
        return self.torch.ones(count, device="cuda").cpu().numpy()

    @snakepit.tool
    def download_shared(self, count: int) -> Any:
        """Numbers from the GPU, straight into memory that the host sees."""
        array = snakepit.empty(count, "float32")
        self.torch.from_numpy(array).copy_(self.torch.ones(count, device="cuda"))
        return array

    def _sleep(self, seconds: float) -> None:
        self.torch.cuda._sleep(int(seconds * CYCLES_PER_S))
