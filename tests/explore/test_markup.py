"""The parts of the page say what is so."""

import re
from dataclasses import replace

import torch

from zsteer.explore import markup
from zsteer.explore.edits import View
from zsteer.steering.metrics import Scored

IMAGES = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
REFERENCE = torch.tensor([[-1.0, -1.0], [0.0, 0.0], [1.0, 1.0]])
VIEW = View(
    before=IMAGES,
    now=IMAGES + 255,
    judged=Scored(("Smiling", "<b>"), torch.zeros(2, 2), torch.tensor([[1.0, -6.0], [2.0, -6.0]]), REFERENCE),
    gain=1.5,
    side_effect=0.25,
    warnings=[],
)


def test_bars_show_the_change_of_each_attribute():
    html = markup.bars(VIEW, "Smiling", ["<b>"], "judge")
    up, down = re.findall(r'<button class="bar(.*?)</button>', html, flags=re.DOTALL)
    assert up.startswith(" aim present") and 'data-change="1.500"' in up and ">+1.5<" in up
    assert 'class="move up" style="left:50.0%;width:25.0%"' in up
    assert down.startswith(" held") and ">-6.0<" in down
    assert 'class="move down" style="left:0.0%;width:50.0%"' in down  # a bar ends at 3 σ
    assert "<b>" not in up + down and "&lt;b&gt;" in down


def test_pictures_have_the_start_behind_what_is_now():
    html = markup.pictures([("penalty", VIEW), ("ascent", replace(VIEW, side_effect=None))])
    assert re.findall(r'data-side="(\w+)"', html) == ["start", "now", "rival"]
    assert html.count('class="then"') == 4
    assert "+1.50 σ, others 0.25 σ" in html
    start, now = markup.address(IMAGES[0]), markup.address(IMAGES[0] + 255)
    assert start != now and html.count(f'"{start}"') == 2 + 4 and html.count(f'"{now}"') == 4


def test_faces_can_be_chosen_alone_or_all():
    assert re.findall(r'chosen" data-face="(\S+)"', markup.faces(IMAGES, 1)) == ["1"]
    assert re.findall(r'chosen" data-face="(\S+)"', markup.faces(IMAGES, None)) == ["-1"]
    assert 'data-face="-1"' not in markup.faces(IMAGES[:1], 0)
