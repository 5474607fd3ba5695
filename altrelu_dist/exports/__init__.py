"""Trained networks as files that other programs run, without this package."""

from altrelu_dist.exports.methods import ExportMethods
from altrelu_dist.exports.registry import TARGETS, export, made

__all__ = ["TARGETS", "ExportMethods", "export", "made"]
