"""Keys that S3 takes and that break whoever treats a key as a path, a line, a URL or ASCII."""

from hypothesis import strategies as st

LONGEST_KEY_BYTES = 1024
ODD_KEYS = (
    "line\nbreak.wav",
    "carriage\r\nreturn.wav",
    "..",
    "../../etc/passwd",
    "a/../b.wav",
    "./a.wav",
    "/leading.wav",
    "a//b.wav",
    "a/b//",
    "100%.wav",
    "100%25.wav",
    "%2e%2e%2f.wav",
    "a+b c.wav",
    'quote".wav',
    "comma,semi;.wav",
    "<tag>&amp;.wav",
    "שלום/عربى.wav",
    "\u202egnp.wav",
    "é.wav",
    "e\u0301.wav",
    "tab\t.wav",
    " space ",
    "~tilde*?[x]{y}",
    "back\\slash.wav",
    "emoji🎧.wav",
    "k" * LONGEST_KEY_BYTES,
    "é" * (LONGEST_KEY_BYTES // 2),
    "null.json",
    "#hash?query=1&x",
)
KEYS = st.text(
    st.one_of(st.sampled_from("ab/.%+ \n\"',&<\\é\u202e🎧\U0010fffd"), st.characters(min_codepoint=9, exclude_categories=["Cs"])),
    min_size=1,
    max_size=40,
).filter(lambda key: key not in {".", ".."} and len(key.encode()) <= LONGEST_KEY_BYTES)
"""Any key of up to forty characters but controls that nobody's lists can hold: mostly those that mean something to somebody."""
