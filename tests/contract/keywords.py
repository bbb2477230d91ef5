"""Reserved words of the languages that generate stubs from the protos, contextual ones aside."""

from __future__ import annotations

import keyword


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


KEYWORDS: dict[str, frozenset[str]] = {
    "Python": frozenset(keyword.kwlist),
    "Go": words(
        """
        break case chan const continue default defer else fallthrough for func go goto if import interface map package
        range return select struct switch type var
        """
    ),
    "Java": words(
        """
        abstract assert boolean break byte case catch char class const continue default do double else enum extends
        final finally float for goto if implements import instanceof int interface long native new package private
        protected public return short static strictfp super switch synchronized this throw throws transient try void
        volatile while true false null _
        """
    ),
    "Rust": words(
        """
        as async await break const continue crate dyn else enum extern false fn for gen if impl in let loop match mod
        move mut pub ref return self Self static struct super trait true type unsafe use where while abstract become
        box do final macro override priv try typeof unsized virtual yield
        """
    ),
    "TypeScript": words(
        """
        break case catch class const continue debugger default delete do else enum export extends false finally for
        function if import in instanceof new null return super switch this throw true try typeof var void while with
        as implements interface let package private protected public static yield await async
        """
    ),
}


def languages_with(word: str) -> set[str]:
    """The languages in which a word is reserved."""
    return {language for language, words in KEYWORDS.items() if word in words}


TAKEN: frozenset[str] = words(
    """
    reset string descriptor proto_message proto_reflect proto_methods
    class all_fields cached_size default_instance_for_type initialization_error_string parser_for_type serialized_size
    unknown_fields
    """
)
"""Field names that collide with methods of every generated message: of Go in the first line, then of Java."""
