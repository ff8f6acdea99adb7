"""Which kernels ran: nothing falls back to a slower path without being counted."""

from pynn._core import kernel_counts, reset_kernel_counts

__all__ = ["kernel_counts", "reset_kernel_counts"]
