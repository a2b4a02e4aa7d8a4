"use strict";
(() => {
  const at = (id) => document.getElementById(id);
  const random = (n) => {
    // Unbiased: values beyond the last whole multiple are drawn again.
    const word = new Uint32Array(1);
    const limit = 2 ** 32 - (2 ** 32 % n);
    do crypto.getRandomValues(word);
    while (word[0] >= limit);
    return word[0] % n;
  };
  const questions = [];
  ASKED.photos.forEach((_, photo) => {
    for (let a = 0; a < ASKED.runs.length; a++)
      for (let b = a + 1; b < ASKED.runs.length; b++)
        questions.push(random(2) ? { photo, left: a, right: b } : { photo, left: b, right: a });
  });
  for (let i = questions.length - 1; i > 0; i--) {
    const j = random(i + 1);
    [questions[i], questions[j]] = [questions[j], questions[i]];
  }
  const session = Array.from({ length: 16 }, () => random(16).toString(16)).join("");
  const answers = [];
  let shown = 0;
  at("length").textContent = `${questions.length} questions, about ${Math.ceil(questions.length / 12)} min.`;

  const show = () => {
    const i = answers.length;
    at("done").style.width = `${(100 * i) / questions.length}%`;
    at("done").setAttribute("aria-valuenow", i);
    at("done").setAttribute("aria-valuemax", questions.length);
    if (i === questions.length) return finish();
    const q = questions[i];
    const { photo, made } = ASKED.photos[q.photo];
    at("count").textContent = `${i + 1} of ${questions.length}`;
    at("photo").src = photo;
    at("left").querySelector("img").src = made[q.left];
    at("right").querySelector("img").src = made[q.right];
    at("back").disabled = i === 0;
    shown = performance.now();
  };
  const choose = (side) => {
    const q = questions[answers.length];
    if (at("ask").hidden || !q) return;
    answers.push({
      photo: ASKED.photos[q.photo].name,
      left: ASKED.runs[q.left],
      right: ASKED.runs[q.right],
      chosen: ASKED.runs[q[side]],
      ms: Math.round(performance.now() - shown),
    });
    show();
  };
  const finish = () => {
    at("ask").hidden = true;
    at("end").hidden = false;
    at("end").focus();
    at("answers").value = JSON.stringify({ page: ASKED.page, session, runs: ASKED.runs, answers }, null, 1);
  };
  at("start").addEventListener("click", () => {
    at("begin").hidden = true;
    at("ask").hidden = false;
    show();
  });
  at("left").addEventListener("click", () => choose("left"));
  at("right").addEventListener("click", () => choose("right"));
  at("back").addEventListener("click", () => {
    answers.pop();
    show();
  });
  addEventListener("keydown", (event) => {
    if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "ArrowLeft") choose("left");
    if (event.key === "ArrowRight") choose("right");
  });
  let saved = false;
  at("save").addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([at("answers").value], { type: "application/json" }));
    link.download = `answers-${session}.json`;
    link.click();
    saved = true;
  });
  addEventListener("beforeunload", (event) => {
    if (answers.length > 0 && !saved) event.preventDefault();
  });
})();
