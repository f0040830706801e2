"""Bridges to other libraries; nothing in jflow imports this room."""

from jflow.interop.nnx import nnx_net

__all__ = ["nnx_net"]
