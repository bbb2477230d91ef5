"""Words that carry grammar instead of meaning, by language.

Keyword search drops them on both sides.  The list is longer than the classic 33 words because questions are
mostly made of such words ("when did she …"), and each one left in would match half of a conversation.
"may" is deliberately missing: it is a month.  Single letters are what contractions leave behind, because the
tokenizer splits at apostrophes ("don't" becomes "don", "t").
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_ENGLISH = """
a an the this that these those some any each every either neither both all no none such own same other another
i me my mine myself we us our ours ourselves you your yours yourself yourselves
he him his himself she her hers herself it its itself they them their theirs themselves one
who whom whose what which when where why how whether
am is are was were be been being have has had having do does did doing done
can could will would shall should might must ought cannot
about above across after against along among around at before behind below beneath beside between beyond by
down during for from in inside into near of off on onto out outside over since through throughout to toward
towards under until up upon with within without via per
and but or nor so yet if than then because as while although though unless
not only very too also just again once here there now ever more most less least few much many further still
s t d m ll re ve o y
don didn doesn isn aren wasn weren hasn haven hadn won wouldn couldn shouldn mustn needn ain shan
"""

STOP_WORDS: Mapping[str, frozenset[str]] = MappingProxyType({"english": frozenset(_ENGLISH.split())})
"""Stop words by Snowball language name; a language without an entry drops nothing."""


def stop_words(language: str) -> frozenset[str]:
    """Return the stop words of `language` (Snowball name, e.g. "english"), empty when none are known."""
    return STOP_WORDS.get(language, frozenset())
