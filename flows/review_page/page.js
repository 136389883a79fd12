"use strict";
const audio = document.querySelector("audio");
const objects = Array.from(document.querySelectorAll("a.object"));

const seek = (seconds) => {
  audio.currentTime = seconds;
  audio.play();
};

if (audio) {
  for (const code of document.querySelectorAll("[data-seek]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "seek";
    button.textContent = code.textContent;
    button.setAttribute("aria-label", `Play from ${code.textContent}`);
    button.addEventListener("click", () => seek(Number(code.dataset.seek)));
    code.replaceChildren(button);
  }
}

const step = (places, link) => {
  if (!objects.length) {
    document.querySelector(`a[rel=${link}]`)?.click();
    return;
  }
  const at = objects.indexOf(document.activeElement);
  objects[at < 0 ? 0 : Math.min(Math.max(at + places, 0), objects.length - 1)].focus();
};

const playOrPause = () => {
  if (!audio) return;
  if (audio.paused) audio.play();
  else audio.pause();
};

document.addEventListener("keydown", (event) => {
  const within = event.target instanceof Element ? event.target : document.body;
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || within.closest("input, select, textarea")) return;
  const own = within.closest("button, a, audio, summary");
  if (event.key === "j") step(1, "next");
  else if (event.key === "k") step(-1, "prev");
  else if (event.key === " " && !own && audio) playOrPause();
  else {
    const answer = Array.from(document.querySelectorAll("button[data-key]")).find((each) => each.dataset.key === event.key);
    if (!answer) return;
    answer.click();
  }
  event.preventDefault();
});
