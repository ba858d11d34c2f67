"""The scikit-learn pipeline from runs to the log response."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats
from sklearn.base import BaseEstimator, RegressorMixin, TransformerMixin
from sklearn.pipeline import Pipeline, make_pipeline

from green_screen.statistics.coding import Matrix
from green_screen.statistics.model_matrix import Design

if TYPE_CHECKING:
    from typing import Self  # of Python 3.11


class ModelMatrix(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Turns runs into rows of a design's matrix, NaN where a factor has a level it does not know.

    The design is fixed before the fit, so nothing is learnt from the runs.
    """

    def __init__(self, design: Design) -> None:
        """Encode with `design`."""
        self.design = design

    def fit(self, runs: pd.DataFrame, y: Any = None) -> Self:
        """Do nothing: the design is fixed."""
        return self

    def __sklearn_is_fitted__(self) -> bool:
        """Say that no fit is needed."""
        return True

    def transform(self, runs: pd.DataFrame) -> Matrix:
        """Return the model matrix, runs x columns."""
        return self.design.matrix(runs)


class LeastSquares(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Least squares by the normal equations, with prediction intervals.

    The columns are few and well scaled, so a fit costs one small Gram matrix; where the matrix
    lacks rank, the solution of least norm is taken, and only what all solutions agree on is
    predicted.

    Attributes:
        coef_: Coefficients, one a column.
        gram_inverse_: Pseudo-inverse of the Gram matrix.
        row_space_: Projector onto the row space of the matrix.
        residual_variance_: Residual sum of squares over the residual degrees of freedom.
        residual_df_: Those degrees of freedom.
    """

    def fit(self, matrix: Matrix, y: Matrix) -> Self:
        """Fit the coefficients."""
        gram = matrix.T @ matrix
        values, vectors = np.linalg.eigh(gram)
        kept = values > 1e-9 * values[-1]
        basis = vectors[:, kept]
        self.gram_inverse_ = (basis / values[kept]) @ basis.T
        self.row_space_ = basis @ basis.T
        self.coef_ = self.gram_inverse_ @ (matrix.T @ y)
        self.residual_df_ = len(y) - int(kept.sum())
        residual = np.asarray(y) - matrix @ self.coef_
        self.residual_variance_ = (
            float(residual @ residual) / self.residual_df_ if self.residual_df_ > 0 else np.nan
        )
        return self

    def estimable(self, matrix: Matrix) -> npt.NDArray[np.bool_]:
        """Return for each row whether the runs of the fit determine its mean.

        It must lie in the row space of their matrix; Searle, Linear Models (Wiley, 1971), section
        5.4.
        """
        outside = np.linalg.norm(matrix - matrix @ self.row_space_, axis=1)
        return np.asarray(outside < 1e-6)

    def predict(self, matrix: Matrix) -> Matrix:
        """Return the fitted mean of each row, NaN where it is not estimable."""
        return np.where(self.estimable(matrix), matrix @ self.coef_, np.nan)

    def half_width(self, matrix: Matrix, alpha: float) -> Matrix:
        """Return half the width of the 1 - alpha prediction interval of a new run of each row.

        t * s * sqrt(1 + x' (X'X)^-1 x); Draper and Smith, Applied Regression Analysis, section 3.
        NaN where the mean is not estimable or no residual degrees of freedom are left.
        """
        leverage = ((matrix @ self.gram_inverse_) * matrix).sum(axis=1)
        t = stats.t.ppf(1 - alpha / 2, max(self.residual_df_, 1))
        half = t * np.sqrt(self.residual_variance_ * (1.0 + leverage))
        return np.where(self.estimable(matrix), half, np.nan)


def energy_pipeline(design: Design) -> Pipeline:
    """Return the scikit-learn pipeline from runs to the log response."""
    return make_pipeline(ModelMatrix(design), LeastSquares())
