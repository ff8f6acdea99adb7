"""Which kernels ran: nothing falls back to a slower path without being counted. And what they could reach at most.

`peak_flops` and `copy_rate` measure this machine in float32, with the threads and the instruction set in use:
operations per second (2 per multiply-add), and bytes per second, read and written, of a copy between two arrays that
have `nbytes` together. Each takes about 0.1 s.

>>> peak_flops() > 0 and copy_rate(2**20) > 0
True
"""

from pynn._core import copy_rate, kernel_counts, peak_flops, reset_kernel_counts

__all__ = ["copy_rate", "kernel_counts", "peak_flops", "reset_kernel_counts"]
