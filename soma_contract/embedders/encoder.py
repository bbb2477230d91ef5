"""Running the model: word pieces in, vectors out.  Blocking; many threads may use one encoder at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from soma_contract.embedders.graph import HIDDEN, MAX_LENGTH
from soma_contract.tokenizer import shared_tokenizer

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

BATCH_TOKENS = 512
"""Padded tokens of one run: enough to fill the matrix kernels, few enough to stay in the processor's cache."""
WINDOW = MAX_LENGTH - 2
MAX_WINDOWS = 8
"""How much of a long text token vectors are taken from; its dense vector is that of the first window."""

Pieces = Sequence[int]
"""The word pieces of a text as the model takes them: with the markers at both ends, at most 256."""


def open_session(model: Path | bytes) -> InferenceSession:
    """Open a model to run on the calling thread alone, without touching what its graph already decided."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # The extended passes would fuse Add + LayerNormalization into an operator that is ten times as slow on CPUs.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


class Encoder:
    """The model and its tokenizer, loaded."""

    def __init__(self, session: InferenceSession) -> None:
        self._session = session
        self._tokenizer = shared_tokenizer()
        vocabulary = self._tokenizer.get_vocab()
        self._first, self._last = vocabulary["[CLS]"], vocabulary["[SEP]"]

    @property
    def vocabulary(self) -> dict[str, int]:
        """Word pieces and their ids."""
        return self._tokenizer.get_vocab()

    def pieces(self, text: str) -> list[int]:
        """Cut ``text`` into the pieces the model takes; what exceeds its 256 is left out."""
        return self.windows(text, 1)[0]

    def windows(self, text: str, limit: int = MAX_WINDOWS) -> list[list[int]]:
        """Cut ``text`` into rows of pieces that together cover it, up to ``limit``; at least one, maybe empty."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        starts = range(0, min(max(len(ids), 1), limit * WINDOW), WINDOW)
        return [[self._first, *ids[start : start + WINDOW], self._last] for start in starts]

    def dense(self, rows: Sequence[Pieces]) -> NDArray[np.float32]:
        """Embed rows of pieces: float32 (rows, 384), unit norm."""
        out = np.zeros((len(rows), HIDDEN), np.float32)
        for batch in _batches(rows):
            (out[batch],) = self._session.run(["dense"], _padded([rows[index] for index in batch]))
        return out

    def hidden(self, rows: Sequence[Pieces]) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
        """Embed rows of pieces, and give each row's last hidden states: float32 (pieces, 384), not normed."""
        out = np.zeros((len(rows), HIDDEN), np.float32)
        states: list[NDArray[np.float32]] = [out] * len(rows)
        for batch in _batches(rows):
            out[batch], hidden = self._session.run(["dense", "hidden"], _padded([rows[index] for index in batch]))
            for place, index in enumerate(batch):
                states[index] = hidden[place, : len(rows[index])]
        return out, states


def _batches(rows: Sequence[Pieces]) -> Iterator[list[int]]:
    """Indices of rows of about the same length, so that little is padded, up to BATCH_TOKENS together."""
    batch: list[int] = []
    for index in sorted(range(len(rows)), key=lambda index: len(rows[index])):
        if batch and (len(batch) + 1) * len(rows[index]) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _padded(rows: Sequence[Pieces]) -> dict[str, NDArray[np.int32]]:
    shape = len(rows), max(map(len, rows))
    ids, mask = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = row
        mask[place, : len(row)] = 1
    return {"input_ids": ids, "mask": mask}
