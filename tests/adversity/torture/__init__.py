"""Long runs that try to break what Soma promises; ``./dev torture --tier ci|night|release``.

``__main__`` reads the command line, ``parts`` are the experiments, ``tiers`` how big they are.  What agents did is a
``history``, judged by ``linearizability`` and by what the truth holds afterwards (``verdicts``).
"""
