"""A cross-encoder on this machine: a folder with model.onnx and tokenizer.json, as such models are exported."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from soma_contract.errors import ComponentUnavailableError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MAX_PIECES = 512
_BATCH = 16


class OnnxReranker:
    """The Reranker port on onnxruntime; one worker thread, so that the event loop never waits for the model."""

    def __init__(self, folder: Path) -> None:
        """Raises ValueError, naming the setting, when the folder lacks one of the two files."""
        for name in ("model.onnx", "tokenizer.json"):
            if not (folder / name).is_file():
                raise ValueError(f"SOMA_RERANK_ONNX: {folder} holds no {name}")
        self._folder = folder
        self._worker = ThreadPoolExecutor(1, "rerank")
        self._session: Any = None
        self._tokenizer: Tokenizer

    async def __aenter__(self) -> Self:
        await asyncio.get_running_loop().run_in_executor(self._worker, self._load)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._worker.shutdown(wait=False, cancel_futures=True)

    async def scores(self, query: str, texts: Sequence[str], *, deadline_s: float) -> list[float]:
        """Return the model's logits for (query, text), in the order of the texts.

        Raises ComponentUnavailableError when the model's output is not one finite number a pair.
        """
        loop = asyncio.get_running_loop()
        batches = [
            await loop.run_in_executor(self._worker, self._judged, query, texts[start : start + _BATCH])
            for start in range(0, len(texts), _BATCH)
        ]
        found = np.concatenate(batches)
        if found.shape != (len(texts),) or not np.isfinite(found).all():
            raise ComponentUnavailableError(component="rerank")
        return [float(score) for score in found]

    def _load(self) -> None:
        import onnxruntime
        from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            str(self._folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self._tokenizer = Tokenizer.from_file(str(self._folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MAX_PIECES, strategy="only_second")

    def _judged(self, query: str, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        pairs = self._tokenizer.encode_batch([(query, text) for text in texts])
        width = max(len(pair.ids) for pair in pairs)
        inputs = {
            "input_ids": np.array([pair.ids + [0] * (width - len(pair.ids)) for pair in pairs], np.int64),
            "attention_mask": np.array(
                [pair.attention_mask + [0] * (width - len(pair.ids)) for pair in pairs], np.int64
            ),
            "token_type_ids": np.array([pair.type_ids + [0] * (width - len(pair.ids)) for pair in pairs], np.int64),
        }
        wanted = {one.name for one in self._session.get_inputs()}
        logits = self._session.run(None, {name: value for name, value in inputs.items() if name in wanted})[0]
        return np.asarray(logits, np.float32).reshape(len(texts), -1)[:, 0]
