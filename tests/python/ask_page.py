"""Answers the two-choice page as a person would, in a browser without a screen.

    ask_page.py BROWSER PAGE.html [FOLDER FOR SCREENSHOTS]

Always chooses the run of the smaller name, whichever side it is on. Prints what the page would save, or
exits with 1 and says what is wrong.
"""

import os
import pathlib
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from browser import Browser  # noqa: E402

KEYS = {"left": ("ArrowLeft", 37), "right": ("ArrowRight", 39)}
# Which run a side shows, by its image.
SIDE = """(() => {{
  const src = document.querySelector('#{side} img').src;
  for (const p of ASKED.photos) {{
    if (document.getElementById('photo').src !== p.photo) continue;
    const i = p.made.indexOf(src);
    if (i >= 0) return ASKED.runs[i];
  }}
}})()"""


def main():
    program, page, *shots = sys.argv[1:]
    b = Browser(program)
    try:
        answer(b, page, shots)
    finally:
        b.close()


def answer(b, page, shots):
    for domain in ("Page", "Runtime", "Log", "Network"):
        b.call(f"{domain}.enable")
    b.size(1000, 800)
    b.call("Page.navigate", url=pathlib.Path(page).resolve().as_uri())
    b.until("document.readyState === 'complete'", "the page is loaded")
    text = b.run("document.querySelector('main').innerText")
    names = b.run("ASKED.runs")
    assert not any(name in text for name in names), "a run is named before the questions"

    def shot(name):
        if shots:
            b.shot(os.path.join(shots[0], name))

    shot("ask-begin.png")
    b.run("document.getElementById('start').click()")
    total = b.run("ASKED.photos.length * ASKED.runs.length * (ASKED.runs.length - 1) / 2")
    went_back = False
    answered = 0
    while answered < total:
        count = b.run("document.getElementById('count').textContent")
        assert count == f"{answered + 1} of {total}", count
        if answered == 0:
            shot("ask-question.png")
            b.size(390, 780)
            wide = b.run("document.documentElement.scrollWidth")
            assert wide <= 390, f"{wide} pixels wide on a phone"
            low = b.run("document.querySelector('.pair').getBoundingClientRect().bottom")
            assert low <= 780, f"the choice ends at {low} of 780 pixels"
            shot("ask-phone.png")
            b.size(1000, 800)
        sides = {side: b.run(SIDE.format(side=side)) for side in KEYS}
        assert None not in sides.values() and sides["left"] != sides["right"], sides
        side = min(sides, key=sides.get)
        if answered == 1 and not went_back:
            # A slip of the finger, taken back.
            b.key(*[("ArrowLeft", "ArrowLeft"), ("ArrowRight", "ArrowRight")][side == "left"])
            b.until(f"document.getElementById('count').textContent !== '{count}'", "the next question")
            b.run("document.getElementById('back').click()")
            went_back = True
            continue
        if answered % 2:
            b.run(f"document.getElementById('{side}').click()")
        else:
            b.key(KEYS[side][0], number=KEYS[side][1])
        answered += 1
    b.until("!document.getElementById('end').hidden", "the end")
    shot("ask-end.png")
    saved = b.run("document.getElementById('answers').value")
    wrong = [
        e
        for e in b.events
        if e["method"] in ("Runtime.exceptionThrown", "Log.entryAdded")
        or e["method"] == "Runtime.consoleAPICalled"
    ]
    fetched = [
        e["params"]["request"]["url"]
        for e in b.events
        if e["method"] == "Network.requestWillBeSent"
        and not e["params"]["request"]["url"].startswith(("file:", "data:"))
    ]
    assert not wrong, wrong
    assert not fetched, fetched
    print(saved)


if __name__ == "__main__":
    main()
