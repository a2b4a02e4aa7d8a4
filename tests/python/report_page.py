"""Works the report's page as a reader would, in a browser without a screen.

    report_page.py BROWSER PAGE.html [FOLDER FOR SCREENSHOTS]

Exits with 0 and a line for each thing that was tried, or with 1 and what is wrong.
"""

import os
import pathlib
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from browser import Browser  # noqa: E402

ARROWS = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
SCHEMES = {"light": "dark", "dark": "light"}

# Contrast of every text with what lies below it (WCAG 2), worst first.
CONTRAST = """(() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const lum = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const below = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] > 0.99) return c;
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !e.checkVisibility()) continue;
    if (["SCRIPT", "STYLE", "OPTION"].includes(e.tagName)) continue;
    const style = getComputedStyle(e);
    const ink = parse(e.closest("svg") ? style.fill : style.color);
    const [a, b] = [lum(ink), lum(below(e))].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), e.tagName + "." + e.getAttribute("class"), e.textContent.trim().slice(0, 40)]);
  }
  found.sort((x, y) => x[0] - y[0]);
  return found.slice(0, 3);
})()"""


class Page:
    def __init__(self, browser, address):
        self.b, self.address = browser, address
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility", "DOM"):
            browser.call(f"{domain}.enable")

    def open(self):
        self.b.call("Page.navigate", url=self.address)
        self.b.until("document.readyState === 'complete'", "the page is loaded")

    def tried(self, what):
        print(f"tried: {what}")

    def focus(self, selector):
        self.b.run(f"document.querySelector({selector!r}).focus()")

    def check(self, script, what):
        value = self.b.run(script)
        assert value, f"{what}: {script} is {value!r}"

    def arrow(self, name):
        self.b.key(name, number=ARROWS[name])


def images(p):
    broken = p.b.run(
        "Promise.all([...document.images].map((i) => i.decode().then(() => '', () => i.alt)))"
        ".then((all) => all.filter((a) => a))"
    )
    assert broken == [], f"images that do not decode: {broken}"
    without = p.b.run("[...document.images].filter((i) => !i.alt.trim()).length")
    assert without == 0, f"{without} images without a text"
    p.tried(f"{p.b.run('document.images.length')} images decode and have a text")


def names(p):
    nodes = p.b.call("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "slider", "combobox", "link", "image", "region", "group", "navigation"}
    seen = set()
    for node in nodes:
        role = node.get("role", {}).get("value")
        if node.get("ignored") or role not in roles:
            continue
        assert node.get("name", {}).get("value", "").strip(), f"a {role} without a name: {node}"
        seen.add(role)
    assert {"button", "slider", "link", "image"} <= seen, f"only {seen}"
    heads = p.b.run("[...document.querySelectorAll('h1,h2,h3,h4')].map((h) => Number(h.tagName[1]))")
    assert heads.count(1) == 1 and heads[0] == 1, heads
    for a, b in zip(heads, heads[1:]):
        assert b <= a + 1, f"a heading skips a level: {heads}"
    p.tried(f"names of {sorted(seen)}, and {len(heads)} headings")


def slider(p):
    p.check("!!document.querySelector('[data-slider]')", "there is a slider")
    at = "Number(getComputedStyle(document.querySelector('[data-slider]')).getPropertyValue('--at').replace('%', ''))"
    edge = """(() => { const s = document.querySelector('[data-slider]');
        const r = s.querySelector('.pair').getBoundingClientRect();
        const d = s.querySelector('.divider').getBoundingClientRect();
        return (d.left + d.width / 2 - r.left) / r.width; })()"""
    assert p.b.run(at) == 50
    p.focus("[data-slider] input")
    for _ in range(5):
        p.arrow("ArrowRight")
    assert p.b.run(at) == 55, p.b.run(at)
    assert abs(p.b.run(edge) - 0.55) < 0.01, p.b.run(edge)
    p.check(
        "getComputedStyle(document.querySelector('[data-slider] .over:not([hidden])')).clipPath.includes('45%')"
        " || getComputedStyle(document.querySelector('[data-slider] .over:not([hidden])')).clipPath.includes('55%')",
        "the reconstruction is cut at the divider",
    )
    p.check(
        "document.querySelector('[data-slider] input').getAttribute('aria-valuetext').startsWith('55')",
        "the slider says where it is",
    )
    # The focus above may still be scrolling the page: what is clicked must have come to rest.
    x, y = p.b.run(
        """(async () => { const r = document.querySelector('[data-slider] .pair');
            const frame = () => new Promise((next) => requestAnimationFrame(() => requestAnimationFrame(next)));
            let b, last;
            do {
              r.scrollIntoView({block: 'center', behavior: 'instant'});
              last = r.getBoundingClientRect().top;
              await frame();
              b = r.getBoundingClientRect();
            } while (b.top !== last);
            return [b.left + b.width * 0.2, b.top + b.height / 2]; })()"""
    )
    p.b.click(x, y)
    p.b.until(f"{at} < 35", "a click moves the divider")
    p.tried("slider by keys and mouse")


def player(p, section):
    path = f"#{section} [data-of]:not([hidden]) [data-player]"
    p.check(f"!!document.querySelector('{path}')", f"#{section} has a player")
    seen = (
        f"[...document.querySelectorAll('{path}')[0].querySelectorAll('.frame')]"
        ".map((f, i) => [f.checkVisibility(), i]).filter(([v]) => v).map(([, i]) => i).join()"
    )
    words = f"document.querySelector('{path} output').textContent"
    p.b.run(f"document.querySelector('{path}').scrollIntoView({{block: 'center', behavior: 'instant'}})")
    assert p.b.run(seen) == "0", p.b.run(seen)
    before = p.b.run(words)
    p.focus(f"{path} input")
    p.arrow("ArrowRight")
    assert p.b.run(seen) == "1", "an arrow key shows the next frame"
    assert p.b.run(words) != before, "the caption follows"
    p.focus(f"{path} .play")
    p.b.key(" ", "Space", 32, " ")
    p.check(f"document.querySelector('{path} .play').getAttribute('aria-pressed') === 'true'", "it plays")
    p.check(f"document.querySelector('{path} .play').textContent.includes('Pause')", "and can be paused")
    p.b.until(f"{seen} !== '1'", "the player advances")
    p.b.key("Enter", "Enter", 13, "\r")
    p.check(f"document.querySelector('{path} .play').getAttribute('aria-pressed') === 'false'", "it stops")
    stopped = p.b.run(seen)
    time.sleep(1.2)
    assert p.b.run(seen) == stopped, "stopped is stopped"
    p.tried(f"player of #{section}")


def calm(p):
    p.b.prefers(reduced_motion="reduce")
    path = "#between [data-of]:not([hidden]) [data-player]"
    value = f"document.querySelector('{path} input').value"
    before = p.b.run(value)
    p.b.run(f"document.querySelector('{path} .play').click()")
    time.sleep(0.5)
    assert p.b.run(value) == before, "less motion is asked for: no animation"
    p.b.run(f"document.querySelector('{path} .play').click()")
    p.b.prefers(reduced_motion="no-preference")
    p.tried("less motion")


def choices(p):
    selects = p.b.run("[...document.querySelectorAll('select[data-choose]')].map((s) => s.id)")
    assert "choose-run" in selects, selects
    for name in selects:
        p.focus(f"#{name}")
        first = p.b.run(f"document.querySelector('#{name}').value")
        p.arrow("ArrowDown")
        chosen = p.b.run(f"document.querySelector('#{name}').value")
        assert chosen != first, f"{name}: an arrow key chooses the next run"
        p.check(
            f"""(() => {{ const s = document.querySelector('#{name}').closest('section');
                const all = [...s.querySelectorAll('[data-of]')];
                const right = all.every((e) => e.hidden !== e.dataset.of.split(' ').includes('{chosen}'));
                return right && all.some((e) => e.checkVisibility()); }})()""",
            f"{name}: what is seen is the chosen run's",
        )
        p.arrow("ArrowUp")
    p.tried(f"choice of a run in {len(selects)} sections")


def theme(p):
    ground = "getComputedStyle(document.body).backgroundColor"
    for scheme, other in SCHEMES.items():
        p.b.prefers(color_scheme=scheme)
        p.b.run("localStorage.clear()")
        p.open()
        before = p.b.run(ground)
        p.check(
            f"document.querySelector('.theme').getAttribute('aria-pressed') === '{str(scheme == 'dark').lower()}'",
            "the toggle knows the system's preference",
        )
        contrast(p, scheme)
        p.focus(".theme")
        p.b.key("Enter", "Enter", 13, "\r")
        assert p.b.run(ground) != before, f"the toggle leaves {scheme}"
        contrast(p, other)
        p.open()
        assert p.b.run(ground) != before, "the choice is kept"
        p.b.run("document.querySelector('.theme').click()")
        assert p.b.run(ground) == before, "and back"
    p.b.run("localStorage.clear()")
    p.b.prefers(color_scheme="light")
    p.open()
    p.tried("light, dark and the toggle")


def contrast(p, scheme):
    worst = p.b.run(CONTRAST)
    assert worst and worst[0][0] >= 4.5, f"hard to read in {scheme}: {worst}"


def keyboard(p):
    p.open()
    p.b.key("Tab", number=9)
    p.check("document.activeElement.classList.contains('skip')", "the first stop skips to the results")
    p.check("document.activeElement.getBoundingClientRect().left >= 0", "and is seen")
    for _ in range(4):
        p.b.key("Tab", number=9)
        p.check(
            "document.activeElement !== document.body && getComputedStyle(document.activeElement).outlineStyle !== 'none'",
            "what has the focus shows it",
        )
    p.tried("the tab key")


def narrow(p):
    for width in (360, 400, 768, 1280):
        p.b.size(width)
        wide = p.b.run(
            """[...document.querySelectorAll('select[data-choose]')].flatMap((s) =>
                 [...s.options].map((o) => { s.value = o.value; s.dispatchEvent(new Event('change'));
                   return document.documentElement.scrollWidth; }))
               .concat(document.documentElement.scrollWidth).reduce((a, b) => Math.max(a, b))"""
        )
        assert wide <= width, f"{wide} pixels wide in a window of {width}"
        p.b.run(
            "document.querySelectorAll('select[data-choose]').forEach((s) => "
            "{ s.selectedIndex = 0; s.dispatchEvent(new Event('change')); })"
        )
    p.tried("windows of 360, 400, 768 and 1280 pixels")


def copy(p):
    p.b.run("[...document.querySelectorAll('[data-copy]')].find((b) => b.checkVisibility()).focus()")
    p.b.key("Enter", "Enter", 13, "\r")
    p.b.until("document.querySelector('.status').textContent !== ''", "copying says something")
    p.tried("copying a command")


def quiet(p):
    """Nothing was fetched and nothing complained, in all that was done before."""
    for event in p.b.events:
        method, params = event["method"], event["params"]
        if method == "Network.requestWillBeSent":
            url = params["request"]["url"]
            assert url.startswith("data:") or url == p.address, f"a request: {url}"
        if method == "Runtime.exceptionThrown":
            raise AssertionError(f"an error: {params}")
        if method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            raise AssertionError(f"on the console: {params}")
        if method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            raise AssertionError(f"in the log: {params}")
    sent = sum(e["method"] == "Network.requestWillBeSent" for e in p.b.events)
    assert sent >= 1, "requests are seen at all"
    p.tried("no request but the page, nothing on the console")


def shots(p, folder):
    os.makedirs(folder, exist_ok=True)
    for name, width, scheme in (
        ("light", 1280, "light"),
        ("dark", 1280, "dark"),
        ("narrow", 360, "light"),
        ("narrow-dark", 360, "dark"),
    ):
        p.b.size(width)
        p.b.prefers(color_scheme=scheme)
        p.open()
        p.b.shot(os.path.join(folder, f"{name}.png"))


def main():
    program, page = sys.argv[1], pathlib.Path(sys.argv[2]).resolve()
    browser = Browser(program)
    try:
        p = Page(browser, page.as_uri())
        browser.size(1280)
        browser.prefers(color_scheme="light")
        p.open()
        images(p)
        names(p)
        slider(p)
        player(p, "between")
        player(p, "again")
        calm(p)
        choices(p)
        copy(p)
        narrow(p)
        browser.size(1280)
        theme(p)
        keyboard(p)
        quiet(p)
        if len(sys.argv) > 3:
            shots(p, sys.argv[3])
    except (AssertionError, RuntimeError) as error:
        print(f"wrong: {error}", file=sys.stderr)
        return 1
    finally:
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
