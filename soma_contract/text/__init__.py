"""Reading text without a model: keyword terms, sentences, names of actors, dates and questions.

Ingest and query go through the same functions, so both sides always agree.
"""

from soma_contract.text.actors import ActorNames, Mention, actor_match, known_actors, without_names
from soma_contract.text.analysis import Analyzer, analyzer
from soma_contract.text.dates import DateMention, date_match, named_date, spelled_date
from soma_contract.text.keywords import keyword_text
from soma_contract.text.questions import Form, asks_for_latest, asks_when, form_of, is_question
from soma_contract.text.sentences import split_sentences
from soma_contract.text.stop_words import stop_words

__all__ = [
    "ActorNames",
    "Analyzer",
    "DateMention",
    "Form",
    "Mention",
    "actor_match",
    "analyzer",
    "asks_for_latest",
    "asks_when",
    "date_match",
    "form_of",
    "is_question",
    "keyword_text",
    "known_actors",
    "named_date",
    "spelled_date",
    "split_sentences",
    "stop_words",
    "without_names",
]
