"""Count a PyTorch function's memory traffic, FLOPs and launches, without a GPU.

>>> import torch
>>> from simulator.evidence.tracing import trace
>>> a, b = torch.empty(64, 128, device="meta"), torch.empty(128, 32, device="meta")
>>> traced = trace(torch.matmul, a, b)
>>> traced.flops, traced.bytes_read, traced.bytes_written, traced.launches
(524288, 49152, 8192, 1)
"""

from simulator.evidence.tracing.recorder import Trace, TracedOperation, trace

__all__ = ["Trace", "TracedOperation", "trace"]
