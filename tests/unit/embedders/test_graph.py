"""The int8 model against the exact one, both built from the real weights."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file

from soma_contract.embedders.encoder import Encoder, open_session
from soma_contract.embedders.graph import Weights, build_model
from soma_contract.embedders.token_vectors import fit_projection
from soma_contract.embedders.wheel import model_files

TEXTS = [
    "I moved to Lisbon last spring and still miss the snow.",
    "ok",
    "Which dog did the neighbours adopt after the storm?",
    "The invoice 2024-113 over 1,250.00 EUR was paid twice; the second transfer came back on Friday.",
    "def add(a, b): return a + b",
    "Remember: oat milk, two lemons, and call Grandma before nine.",
    "Die Besprechung wurde auf Donnerstag verschoben.",
    "She laughed. He did not. " * 25,
]


@pytest.fixture(scope="module")
def weights() -> Weights:
    return dict(load_file(model_files().weights))


@pytest.fixture(scope="module")
def exact(weights: Weights) -> Encoder:
    return Encoder(open_session(build_model(weights, quantise=False)))


@pytest.fixture(scope="module")
def small(weights: Weights) -> Encoder:
    return Encoder(open_session(build_model(weights)))


def test_int8_vectors_point_where_the_exact_ones_do(exact: Encoder, small: Encoder) -> None:
    rows = [exact.pieces(text) for text in TEXTS]
    cosines = (exact.dense(rows) * small.dense(rows)).sum(axis=1)
    assert cosines.min() > 0.98
    assert cosines.mean() > 0.99


def test_padding_changes_nothing(exact: Encoder) -> None:
    rows = [exact.pieces(text) for text in TEXTS]
    together = exact.dense(rows)
    for row, vector in zip(rows, together, strict=True):
        np.testing.assert_allclose(exact.dense([row])[0], vector, atol=1e-5)


def test_the_built_model_is_the_same_bytes_each_time(weights: Weights) -> None:
    assert build_model(weights) == build_model(weights)


@pytest.mark.slow
def test_the_projection_is_orthonormal_and_comes_out_the_same(exact: Encoder) -> None:
    first = fit_projection(lambda rows: exact.hidden(rows)[1], exact.vocabulary)
    # Other batch sizes give other rounding in the last place, as another machine does: the axes must hold still.
    again = fit_projection(
        lambda rows: [states for at in range(0, len(rows), 7) for states in exact.hidden(rows[at : at + 7])[1]],
        exact.vocabulary,
    )
    np.testing.assert_allclose(first.basis.T @ first.basis, np.eye(64), atol=1e-5)
    np.testing.assert_allclose(again.packed(), first.packed(), atol=2e-3)
