"""How a network's predictions compare with the truth over all rows, and what they depend on."""

from altrelu_dist.diagnosis.comparing import diagnose
from altrelu_dist.diagnosis.figures import (
    Calibration,
    Confusion,
    Density,
    Diagnosis,
    Histogram,
    Residuals,
)

__all__ = ["Calibration", "Confusion", "Density", "Diagnosis", "Histogram", "Residuals", "diagnose"]
