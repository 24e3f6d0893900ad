"""Mean, variance and extremes of columns of numbers, chunk by chunk."""

import numpy as np


class Moments:
    """Weighted mean, variance and extremes of columns of numbers, chunk by chunk (Chan et al. 1979); NaN is missing.

    Attributes:
        weights: Total weight of the numbers of each column, (columns,).
        means: Their weighted means, (columns,).
        low: Their minima, (columns,), those of weight 0 included.
        high: Their maxima, (columns,).
    """

    def __init__(self, num_columns: int):
        self.weights = np.zeros(num_columns)
        self.means = np.zeros(num_columns)
        self.low = np.full(num_columns, np.inf)
        self.high = np.full(num_columns, -np.inf)
        self._squares = np.zeros(num_columns)

    def add(self, numbers: np.ndarray, weights: np.ndarray | None = None) -> None:
        """Add rows.

        Args:
            numbers: (n, columns) float64.
            weights: (n, 1) or (n, columns) float64, not negative. None: all are 1.
        """
        present = ~np.isnan(numbers)
        with np.errstate(over="ignore", invalid="ignore"):  # numbers that are too large have no finite deviation
            weights = np.where(present, 1.0 if weights is None else weights, 0.0)
            added = weights.sum(axis=0)
            means = (weights * np.where(present, numbers, 0)).sum(axis=0) / np.where(added > 0, added, 1)
            squares = (weights * np.where(present, numbers - means, 0) ** 2).sum(axis=0)
            totals = self.weights + added
            safe_totals = np.where(totals > 0, totals, 1)
            delta = np.where(added > 0, means - self.means, 0)
            self._squares = self._squares + squares + delta**2 * (self.weights * added / safe_totals)
            self.means = self.means + delta * (added / safe_totals)
        self.weights = totals
        self.low = np.fmin(self.low, np.where(present, numbers, np.inf).min(axis=0, initial=np.inf))
        self.high = np.fmax(self.high, np.where(present, numbers, -np.inf).max(axis=0, initial=-np.inf))

    @property
    def variances(self) -> np.ndarray:
        """Variances, (columns,), of the population; 0 without numbers."""
        return self._squares / np.where(self.weights > 0, self.weights, 1)

    @property
    def deviations(self) -> np.ndarray:
        """Standard deviations, (columns,), of the population."""
        return np.sqrt(self.variances)

    @property
    def varies(self) -> np.ndarray:
        """Whether each column has different numbers, (columns,)."""
        return self.low < self.high
