"use strict";
(() => {
  const root = document.documentElement;
  const status = document.querySelector(".status");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const calm = matchMedia("(prefers-reduced-motion: reduce)");

  // Light and dark: the system's, until the reader chooses. Files may have no storage.
  const stored = {
    get: () => { try { return localStorage.getItem("deepsim-theme"); } catch { return null; } },
    set: (value) => { try { localStorage.setItem("deepsim-theme", value); } catch { /* not kept */ } },
  };
  const toggle = document.querySelector(".theme");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  const showTheme = () => toggle.setAttribute("aria-pressed", String(isDark()));
  if (["light", "dark"].includes(stored.get())) root.dataset.theme = stored.get();
  toggle.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    stored.set(root.dataset.theme);
    showTheme();
  });
  dark.addEventListener("change", showTheme);
  showTheme();

  // Choice of a run: parts of the section with its key are seen.
  for (const select of document.querySelectorAll("[data-choose]")) {
    const section = select.closest("section");
    const show = () => {
      for (const part of section.querySelectorAll("[data-of]")) {
        part.hidden = !part.dataset.of.split(" ").includes(select.value);
      }
      section.dispatchEvent(new Event("chosen"));
    };
    select.addEventListener("change", show);
    show(); // a reloaded page keeps the choice of its select
  }

  for (const slider of document.querySelectorAll("[data-slider]")) {
    const input = slider.querySelector("input");
    const show = () => {
      slider.style.setProperty("--at", `${input.value}%`);
      input.setAttribute("aria-valuetext", `${input.value} % reconstruction`);
    };
    input.addEventListener("input", show);
    show();
  }

  for (const player of document.querySelectorAll("[data-player]")) {
    const frames = [...player.querySelectorAll(".frame")];
    const button = player.querySelector(".play");
    const word = button.querySelector(".word");
    const input = player.querySelector("input");
    const output = player.querySelector("output");
    let timer = 0;
    let direction = 1;
    const at = () => Number(input.value);
    const show = () => {
      frames.forEach((frame, i) => { frame.hidden = i !== at(); });
      const caption = frames[at()].dataset.caption;
      output.textContent = caption;
      input.setAttribute("aria-valuetext", caption);
    };
    const next = () => {
      const last = frames.length - 1;
      if (player.dataset.turn === "back") {
        if (at() >= last) direction = -1;
        if (at() <= 0) direction = 1;
        input.value = String(at() + direction);
      } else {
        input.value = String(at() >= last ? 0 : at() + 1);
      }
      show();
    };
    const play = (playing) => {
      clearInterval(timer);
      // Someone who wants less motion and still asks for it gets single images, slowly.
      const delay = calm.matches ? Math.max(1200, Number(player.dataset.delay)) : Number(player.dataset.delay);
      timer = playing ? setInterval(next, delay) : 0;
      button.setAttribute("aria-pressed", String(playing));
      word.textContent = playing ? "Pause" : "Play";
    };
    button.addEventListener("click", () => play(!timer));
    input.addEventListener("input", () => { play(false); show(); });
    player.closest("section").addEventListener("chosen", () => play(false));
    show();
  }

  let clear = 0;
  const say = (text) => {
    clearTimeout(clear);
    status.textContent = text;
    clear = setTimeout(() => { status.textContent = ""; }, 2500);
  };
  for (const button of document.querySelectorAll("[data-copy]")) {
    const code = button.previousElementSibling;
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(code.textContent);
        say("Copied");
      } catch {
        // Where the clipboard is out of reach, one key copies what is selected.
        getSelection().selectAllChildren(code);
        say("Selected: copy it with Ctrl+C");
      }
    });
  }
})();
