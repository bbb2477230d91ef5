"""The local cross-encoder with a tiny real model: it prefers texts that share a token with the query."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from memory_server.stores.rerank.onnx import OnnxReranker

WORDS = ["[PAD]", "[UNK]", "[SEP]", "tea", "coffee", "train", "late"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model whose logit is the sum of the second segment's token ids."""
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="$A", pair="$A [SEP] $B:1", special_tokens=[("[SEP]", WORDS.index("[SEP]"))]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "w"])
        for name in ("input_ids", "attention_mask", "token_type_ids")
    ]
    nodes = [
        helper.make_node("Mul", ["input_ids", "attention_mask"], ["held"]),
        helper.make_node("Mul", ["held", "token_type_ids"], ["second"]),
        helper.make_node("Cast", ["second"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["numbers", "axes"], ["logits"], keepdims=1),
    ]
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 1])]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, [axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, str(tmp_path / "model.onnx"))
    return tmp_path


async def test_pairs_are_scored_in_order_whatever_their_length(folder: Path) -> None:
    async with OnnxReranker(folder) as reranker:
        texts = ["tea", "train late", "coffee", *["tea tea"] * 20]
        found = await reranker.scores("tea", texts, deadline_s=5)
    ids = {word: number for number, word in enumerate(WORDS)}
    expected = [ids["tea"], ids["train"] + ids["late"], ids["coffee"], *[2 * ids["tea"]] * 20]
    assert np.allclose(expected, found)


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"SOMA_RERANK_ONNX.*model\.onnx"):
        OnnxReranker(tmp_path)
