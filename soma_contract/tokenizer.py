"""Counting tokens for budgets, with the word pieces of the local model.

Other models cut words differently; for English text the counts agree within about a fifth, which is what a budget
needs.  The tokenizer is loaded once a process and is safe to use from many threads.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from soma_contract.embedders.wheel import model_files

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@cache
def shared_tokenizer() -> Tokenizer:
    """Load the tokenizer, without the padding and truncation of its file; callers must not change its settings.

    Raises ModelMissingError when the model's wheel is not installed.
    """
    from tokenizers import Tokenizer

    tokenizer: Tokenizer = Tokenizer.from_file(str(model_files().tokenizer))
    # The file pads every text to 128 tokens and cuts it there, which makes short texts four times as slow.
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def count_tokens(text: str) -> int:
    """Count the word pieces of ``text``, without the markers a model puts around them."""
    return len(shared_tokenizer().encode(text, add_special_tokens=False).ids) if text else 0


def truncate(text: str, max_tokens: int) -> str:
    """Cut ``text`` after at most ``max_tokens`` tokens, at the end of a word where there is one; never longer."""
    if max_tokens <= 0:
        return ""
    encoding = shared_tokenizer().encode(text, add_special_tokens=False)
    if len(encoding.ids) <= max_tokens:
        return text
    words, kept = encoding.word_ids, max_tokens
    while kept and words[kept - 1] == words[kept]:
        kept -= 1
    # A single word longer than the budget is cut between its pieces.
    return text[: encoding.offsets[(kept or max_tokens) - 1][1]]


def token_text(token_id: int) -> str:
    """The word piece of an id as the vocabulary spells it (``##`` continues a word); "" for an unknown id."""
    return shared_tokenizer().id_to_token(int(token_id)) or ""
