"""Where words and sentences end, as ICU finds them, in offsets of Python characters.

Enter at ``streams`` (boundaries of a long text, a window at a time) or ``word_count``. It knows no strategy.
"""
