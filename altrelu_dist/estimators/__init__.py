"""The estimators, as scikit-learn knows them."""

from altrelu_dist.estimators.regressor import AltReLURegressor

__all__ = ["AltReLURegressor"]
