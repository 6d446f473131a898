"""Java's regular expressions in those of ``regex``: each difference between the two languages, by example."""

from __future__ import annotations

import pytest

from penstock.config.java_regex import PatternUnusable, compile_java


def starts(pattern: str, text: str) -> list[int]:
    return [match.start() for match in compile_java(pattern).finditer(text)]


EXAMPLES: list[tuple[str, str, list[int]]] = [
    ("\n# ", "a\n# b", [1]),
    (r"(?<!\n)\n\n(?!\n)", "a\n\nb\n\n\nc", [1]),
    # Line terminators are \n \r \r\n \u0085 \u2028 \u2029.
    (".", "a\n\r\x85\u2028\u2029b", [0, 6]),
    ("(?s).", "a\n", [0, 1]),
    ("(?s:.).", "\nab", [0]),
    ("^", "a\nb\r\nc\x85d\n", [0, 2, 5, 7]),
    ("^", "", []),
    ("$", "a\r\nb\u2029", [1, 4, 5]),
    ("(?-m)^", "a\nb", [0]),
    ("(?-m)$", "a\nb\n", [3, 4]),
    (r"\Z", "a\r\n", [1, 3]),
    (r"\z", "a\n", [2]),
    (r"\A", "a\na", [0]),
    (r"\R", "a\r\nb\x0bc", [1, 4]),
    # Classes.
    (r"\h", "a\xa0b\u3000c\n", [1, 3]),
    (r"\H", " a", [1]),
    (r"\v", "a\x0bb\n", [1, 3]),
    (r"[\h.]", "a.b c", [1, 3]),
    (r"[^\v]", "\na", [1]),
    (r"\w", "é1_", [1, 2]),
    (r"\d", "٣3", [1]),
    (r"\s", "\xa0 ", [1]),
    (r"\B", "é ab", [0, 1, 3]),
    (r"\b", "é a", [2, 3]),
    ("[]a]", "]ab", [0, 1]),
    ("[a-c|~&]", "d|b~&", [1, 2, 3, 4]),
    ("[a-]", "b-a", [1, 2]),
    ("[a[bc]]", "abd", [0, 1]),
    ("[a-c&&[^b]]", "abc", [0, 2]),
    ("[a-z&&[def]&&[^e]x]", "defx", [0, 2]),
    ("[^a&&[ab]]", "abc", [1, 2]),
    (r"[\w&&\D]", "a1_", [0, 2]),
    (r"[^\W\d]", "a1 _", [0, 3]),
    (r"[+--]", "+,-.", [0, 1, 2]),
    (r"[a-c-e]", "bd-e", [0, 2, 3]),
    (r"[\w-]", "a- ", [0, 1]),
    (r"[a||b~~c]", "a|~c", [0, 1, 2, 3]),
    (r"[\Qa-\Ec\n]", "b-c\n", [1, 2, 3]),
    (r"[\x41-\x{43}]", "ACD", [0, 1]),
    # Properties.
    (r"\p{Lu}", "aBcÉ", [1, 3]),
    (r"\pL", "1é", [1]),
    (r"\p{IsL}\p{gc=Nd}", "é3", [0]),
    (r"\P{L}", "é3", [1]),
    (r"\p{Punct}", "a!`]", [1, 2, 3]),
    (r"\p{Alpha}", "é1a", [2]),
    (r"[\p{Lu}\d]", "aB3", [1, 2]),
    (r"\p{IsHan}\p{sc=Hiragana}", "漢か", [0]),
    (r"\p{IsAlphabetic}", "1é", [1]),
    (r"[\p{IsWhite_Space}&&[^\n]]", "\n\u2003", [1]),
    (r"\p{InGreek}|\P{block=Basic Latin}", "aβ", [1]),
    (r"\p{IsTitlecase}\p{IsDigit}", "ǅ3", [0]),
    (r"\p{javaLowerCase}", "Aé", [1]),
    (r"[\p{javaLetterOrDigit}_]+", "é3_!", [0]),
    (r"\p{javaWhitespace}", "\xa0\x1c", [1]),
    (r"[^\p{L}\d]", "é3٣", [2]),
    # Case is ASCII's.
    ("(?i)ab|É", "AB é É", [0, 5]),
    ("a(?i:b)", "aB AB", [0]),
    ("a(?i)b", "aB AB", [0]),
    ("(a(?i)b)b", "aBb aBB", [0]),
    ("(?i)k[i-l]", "KI \u212ai k\u017f", [0]),
    (r"(?i)(a)\1", "aA", [0]),
    (r"(?i)\p{Lu}\p{Lower}", "éA", [0]),
    (r"(?i:a)(?-i:[\p{L}x])", "AÉ", [0]),
    (r"(?i)[\p{Nd}g-yK&&[^H-I]]", "3Gkh\u212aZé", [0, 1, 2]),
    ("(?i)[Y-b]", "yzA_bxc", [0, 1, 2, 3, 4]),
    ("(?i:[^a])", "aAb", [2]),
    (r"\X", "e\u0301a", [0, 2]),
    # Quoting and escapes.
    (r"\Qa.b\E+", "a.bb axb", [0]),
    (r"\Q(", "(", [0]),
    (r"\x41\x{1F600}A\uD83D\uDE00\0101\cM\e\t", "A😀A😀A\r\x1b\t", [0]),
    (r"\N{DIGIT ONE}", "1", [0]),
    (r"\#\-\ ", "#- ", [0]),
    # Groups and repetition.
    (r"(?<one>a)\k<one>(b)\2", "aabb", [0]),
    (r"(a)\10", "aa0", [0]),
    ("a++a", "aaa", []),
    ("(?<=a|bc)d", "ad bcd", [1, 5]),
    ("(?>a|ab)c", "abc ac", [4]),
    ("(?:a{2}|b{1,2}|c{3,}){1,2}?", "aabccc", [0, 2, 3]),
    ("(?=a)a(?!b)", "abac", [2]),
]


@pytest.mark.parametrize(("pattern", "text", "expected"), EXAMPLES)
def test_a_pattern_matches_where_java_matches(pattern: str, text: str, expected: list[int]) -> None:
    assert starts(pattern, text) == expected


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(", "missing )"),
        ("a)", "unbalanced parenthesis"),
        ("*a", "nothing to repeat"),
        ("[a", "it ends too early"),
        ("a\\", "it ends too early"),
        ("a{", r"must be written \{"),
        ("a{,3}", r"must be written \{"),
        ("[a[b]", "it ends too early"),
        ("[a&&]", "&& in a class joins two sets"),
        ("[&&a]", "&& in a class joins two sets"),
        ("[b-a]", "bad character range"),
        (r"[a-\d]", "a range in a class ends in a set"),
        (r"\p{IsHun}", "the property IsHun is not known"),
        (r"\p{javaNone}", "the property javaNone is not known"),
        (r"\p{Letter}", "the property Letter is not known"),
        (r"\p{^L}", "the property ^L is not known"),
        ("(?<a>b)(?<a>c)", "two groups are named a"),
        (r"\p{L", "{...} is missing"),
        (r"\kx", "<...> is missing"),
        (r"\N{NO SUCH}", "no character named NO SUCH"),
        (r"\x{110000}", "no character 110000"),
        (r"\G", r"\G is not supported"),
        (r"\y", r"\y is not supported"),
        ("(?x) a", "the flag x"),
        ("(?u)a", "the flag u"),
        ("(?P<a>b)", "no construct of Java"),
        ("(?#a)", "no construct of Java"),
        ("(?R)", "the flag R"),
        ("(?1)", "no construct of Java"),
        ("(?|a)", "no construct of Java"),
        (r"(a)\2", "invalid group reference"),
        ("a{99999999999}", "repeat count too big"),
    ],
)
def test_what_is_not_supported_or_java_would_refuse_has_a_reason(pattern: str, reason: str) -> None:
    with pytest.raises(PatternUnusable) as caught:
        compile_java(pattern)
    assert reason in str(caught.value)


@pytest.mark.parametrize("pattern", [*(pattern for pattern, _, _ in EXAMPLES), "^$", r"(?m)^\s*$", r".*\z", "(?-m)^|$"])
@pytest.mark.parametrize("text", ["", "\n", "a\n\nb b\n", "AB é\tk\n1_b\n\n", "\x0b\x0c a.bb aabb\n"])
def test_the_quick_spelling_for_texts_with_line_feeds_alone_matches_alike(pattern: str, text: str) -> None:
    quick = compile_java(pattern, line_feeds_only=True)
    assert [match.span() for match in quick.finditer(text)] == [
        match.span() for match in compile_java(pattern).finditer(text)
    ]
