"""A made-up fit of head and expression: by the compiled loops, and by plain NumPy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flowkit_kernels.cpu.head_fit import Noise, Unknowns, fit
from flowkit_kernels.cpu.least_squares import partly_nonnegative

Array = npt.NDArray[np.float64]
COUNT, POSE, MODES, UNITS = 40, 6, 2, 3
FREE = 2 * POSE + MODES
NOISE = Noise(share=3.0, misfit=2.0, huber=1.5, sweeps=500)


def unknowns() -> Unknowns:
    known, unit = np.arange(POSE + MODES), np.arange(UNITS)
    begins = [FREE + phase * UNITS + unit for phase in (0, 1)]
    poses = [np.arange(POSE * phase, POSE * (phase + 1)) for phase in (0, 1)]
    places = [
        np.concatenate([pose, np.arange(2 * POSE, FREE), begin, begin + UNITS])
        for pose, begin in zip(poses, begins, strict=True)
    ]
    columns = np.concatenate([known, len(known) + unit, len(known) + unit])
    signs = np.repeat([1.0, -1.0, 1.0], [len(known), UNITS, UNITS])
    return Unknowns(POSE, FREE, np.linspace(0.5, 2, FREE + 3 * UNITS), columns, np.stack(places), signs)


class Case:
    """Columns and a flow that they explain but for noise and some samples that are far off."""

    def __init__(self, seed: int, valid: tuple[bool, bool] = (True, True)) -> None:
        rng = np.random.default_rng(seed)
        self.columns = rng.normal(size=(2, POSE + MODES + UNITS, 2 * COUNT))
        self.modes, self.undone = rng.normal(size=(MODES, COUNT)), rng.normal(size=(2, 2))
        self.flow = np.einsum("pkn,pk->pn", self.columns, rng.normal(size=self.columns.shape[:2]))
        self.flow += 0.1 * rng.normal(size=self.flow.shape)
        self.flow[:, ::7] += 20
        self.valid = np.array(valid)

    def fitted(self, steps: int) -> tuple[Array, Array, Array]:
        """Solution, matrix and what is left, by the compiled loops."""
        size = FREE + 3 * UNITS
        solution, matrix, left = np.zeros(size), np.empty((size, size)), np.zeros(2)
        columns = self.columns.copy()
        given = columns, self.modes, self.flow, self.valid, self.undone
        fit(*given, unknowns(), NOISE, steps, solution, matrix, left)
        return solution, matrix, left

    def expected(self, steps: int) -> tuple[Array, Array, Array]:
        """The same in NumPy."""
        known = unknowns()
        solution, left, weights = np.zeros(len(known.prior)), np.zeros(2), np.ones((2, COUNT))
        for _ in range(steps):
            matrix, vector = np.diag(known.prior), np.zeros(len(known.prior))
            columns = self.columns.copy()
            for phase in np.flatnonzero(self.valid):
                turn = (self.undone[phase] + solution[POSE * (phase + 1) - 2 : POSE * (phase + 1)]) / 100
                columns[phase, POSE : POSE + MODES] = np.concatenate(
                    [turn[0] * self.modes, turn[1] * self.modes], axis=1
                )
                wide = np.zeros((len(vector), 2 * COUNT))
                wide[known.places[phase]] = known.signs[:, None] * columns[phase][known.columns]
                weighted = wide * NOISE.share * np.tile(weights[phase], 2)
                matrix += weighted @ wide.T
                vector += weighted @ self.flow[phase]
            partly_nonnegative(matrix, vector, FREE, solution, NOISE.sweeps)
            strengths = solution[FREE:].reshape(3, UNITS)
            for phase in np.flatnonzero(self.valid):
                head = np.concatenate([solution[POSE * phase : POSE * (phase + 1)], solution[2 * POSE : FREE]])
                expression = (strengths[phase + 1] - strengths[phase]) @ columns[phase, POSE + MODES :]
                rest = self.flow[phase] - head @ columns[phase, : POSE + MODES] - expression
                length = np.hypot(*rest.reshape(2, COUNT))
                trusted = 1 / (1 + NOISE.misfit**2 * np.square(expression.reshape(2, COUNT)).sum(axis=0))
                scaled = length * np.sqrt(trusted)
                weights[phase] = trusted / np.maximum(1, scaled / (NOISE.huber * np.median(scaled) + 1e-6))
                left[phase] = np.median(length)
        return solution, matrix, left
