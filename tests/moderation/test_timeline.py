"""Timelines and charts: what is drawn where, the same in words, and text that stays text."""

import re
from xml.etree import ElementTree as ET

import pytest

from moderation.chart import Series, draw_course
from moderation.timeline import LEFT, STYLES, WIDTH, Bar, Curve, Timeline, clock, draw, pattern_definitions

LINE = Timeline(
    20_000,
    [Curve("music", [(0, 5000, 0.0), (5000, 10_000, 1.0), (15_000, 20_000, 0.5)]), Curve("speech", [(0, 20_000, 0.25)])],
    [Bar("music", 5000, 10_000, 0.9), Bar("speech", 0, 5000), Bar("music", 15_000, 20_000), Bar("hum", 1, 2)],
    (5000, 10_000),
)


@pytest.mark.parametrize(
    ("ms", "told"),
    [(0, "0:00"), (7000, "0:07"), (7450, "0:07.4"), (59_990, "1:00"), (754_500, "12:34.5"), (3_723_000, "1:02:03"), (-0, "0:00")],
)
def test_time_codes(ms, told):
    assert clock(ms) == told


def test_words_say_what_the_drawing_shows():
    assert LINE.words() == (
        "0:20 of audio; probabilities: music up to 100%, speech up to 25%; "
        "segments: music 0:10 in 2 segments, speech 0:05 in 1 segment, other 0:00 in 1 segment; the rule points to 0:05 to 0:10."
    )
    assert Timeline(0).words() == "Nothing was measured."
    assert "and 3 more that are not drawn" in Timeline(1000, (), [Bar("music", 0, 1)], None, 3).words()


def test_bars_and_curves_lie_where_their_audio_is():
    svg = ET.fromstring(draw(LINE, "t", "x"))
    bars = [each.attrib for each in svg.iter("rect") if each.get("class") == "bar"]
    scale = (WIDTH - LEFT - 4) / 20_000
    assert [(float(bar["x"]), float(bar["width"])) for bar in bars[:2]] == [
        (pytest.approx(LEFT + 5000 * scale, abs=0.1), pytest.approx(5000 * scale, abs=0.2)),
        (pytest.approx(LEFT + 15_000 * scale, abs=0.1), pytest.approx(5000 * scale, abs=0.2)),
    ]
    assert len({bar["y"] for bar in bars}) == 3, "a row for each kind"
    music, speech = (each.attrib for each in svg.iter("path") if each.get("class") == "curve")
    assert music["d"].count("M") == 2, "a gap is a gap"
    assert ("stroke-dasharray" in music, "stroke-dasharray" in speech) == (False, True)


def test_the_drawing_stays_inside_its_frame_whatever_lies_beyond_the_audio():
    odd = Timeline(1000, [Curve("music", [(-500, 5000, 7.0)])], [Bar("ai_vocal", 900, 9000), Bar("speech", 0, 1)], (500, 99_000))
    numbers = [float(x) + float(width) for x, width in re.findall(r'x="([\d.]+)"[^>]*? width="([\d.]+)"', draw(odd, "t", "x"))]
    assert numbers
    assert max(numbers) <= WIDTH


def test_bars_differ_by_pattern_and_not_by_colour_alone():
    assert len({style.pattern for style in STYLES.values()}) == len(STYLES)
    assert len({style.dashes for kind, style in STYLES.items() if kind in {"music", "speech", "ai_vocal"}}) == 3
    assert all(f'id="pattern-{style.pattern}"' in pattern_definitions() for style in STYLES.values())


@pytest.mark.parametrize("colour", sorted({style.colour for style in STYLES.values()}))
def test_colours_can_be_seen_on_white(colour):
    def linear(part: str) -> float:
        share = int(part, 16) / 255
        return share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4

    red, green, blue = (linear(colour[place : place + 2]) for place in (1, 3, 5))
    assert 1.05 / (0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05) >= 4.5


def test_titles_are_text():
    title = "</title><script>alert(1)</script> \u202e & \n"
    for svg in (draw(LINE, "t", title), draw_course([Series("<b>", [(0, 1, 1)])], "c", title, ("from", "to"))):
        root = ET.fromstring(svg)
        assert root.find("title").text == "</title><script>alert(1)</script> \\u202e & \\n"
        assert root.find(".//script") is None


def test_a_chart_says_its_peaks_and_limits():
    svg = draw_course([Series("music", [(0, 0.5, 3.0), (0.5, 1, 4.0)], 4), Series("ai_music", [])], "c", "x", ("from", "to"))
    assert ET.fromstring(svg).find("desc").text == "music: at most 4 of 4; ai_music: at most 0."
