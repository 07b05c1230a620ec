"""Tasks for seqio: importing this package registers them all.

Where the package t5 is used, too, import it first: a task of ours steps back
where t5 has one of the same name, but not the other way round.
"""

from . import gsm8k, number_words, superglue, triviaqa, wmt22

__all__ = ['gsm8k', 'number_words', 'superglue', 'triviaqa', 'wmt22']
