"""Tasks for seqio: importing this package registers all of them.

If the package t5 is used as well, import it first: a task of ours steps back
where t5 has registered one of the same name, but t5's do not step back.
"""

from . import gsm8k, number_words, superglue, triviaqa, wmt22

__all__ = ['gsm8k', 'number_words', 'superglue', 'triviaqa', 'wmt22']
