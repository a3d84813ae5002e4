"use strict";
// Labels stay in this browser until they are saved as a file; no text of an answer is stored.
const answers = JSON.parse(document.getElementById("answers").textContent);
const at = (id) => document.getElementById(id);
// Not of the sample ids: another model's sheet has the same ones, and other answers.
const key = "labels " + at("answers").dataset.digest;
const labels = remembered();
let current = Math.max(0, answers.findIndex((one) => !(one.sample_id in labels.given)));

function remembered() {
  try {
    const kept = JSON.parse(localStorage.getItem(key));
    if (kept && kept.given) return kept;
  } catch { /* a browser may refuse to store anything for a file */ }
  return { annotator: "", given: {} };
}

function remember() {
  try { localStorage.setItem(key, JSON.stringify(labels)); } catch { /* see above */ }
}

function show() {
  const one = answers[current];
  at("number").textContent = `Answer ${current + 1} of ${answers.length} · ${one.task}`;
  for (const name of ["question", "reference", "answer"]) {
    at(name).textContent = one[name];
    at(name).scrollTop = 0;
    // Only what scrolls needs a stop for the keyboard.
    if (at(name).scrollHeight > at(name).clientHeight + 1) at(name).tabIndex = 0;
    else at(name).removeAttribute("tabindex");
  }
  at("note").textContent = one.note;
  at("note").hidden = !one.note;
  for (const button of document.querySelectorAll("[data-label]")) {
    button.setAttribute("aria-pressed", String(labels.given[one.sample_id] === button.dataset.label));
  }
  const done = Object.keys(labels.given).length;
  at("progress").value = done;
  at("status").textContent = `${done} of ${answers.length} labelled`;
  at("back").disabled = current === 0;
  at("next").disabled = current === answers.length - 1;
  at("open").disabled = done === answers.length;
}

function go(to) {
  current = Math.min(Math.max(to, 0), answers.length - 1);
  show();
}

function give(label) {
  labels.given[answers[current].sample_id] = label;
  remember();
  go(current + 1);
}

function nextOpen() {
  const isOpen = (one) => !(one.sample_id in labels.given);
  const after = answers.findIndex((one, index) => index > current && isOpen(one));
  const found = after >= 0 ? after : answers.findIndex(isOpen);
  if (found >= 0) go(found);
}

// A spreadsheet takes such a cell for a formula, a number or a date.
const moved = /^[=+\-@\t\r']|^[\d\s.,:/eE+-]+$/;
const cell = (text) => `"${(moved.test(text) ? "'" + text : text).replaceAll('"', '""')}"`;

function save() {
  const lines = answers
    .filter((one) => one.sample_id in labels.given)
    .map((one) => [one.sample_id, labels.given[one.sample_id], labels.annotator, one.answer_mark, one.note])
    .map((cells) => cells.map(cell).join(","));
  const text = "sample_id,label,annotator,answer_mark,note\n" + lines.join("\n") + "\n";
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  const who = labels.annotator.replace(/[^A-Za-z0-9]+/g, "-");
  link.download = who ? `labels-${who}.csv` : "labels.csv";
  link.click();
  URL.revokeObjectURL(link.href);
}

at("annotator").value = labels.annotator;
at("annotator").addEventListener("input", (event) => {
  labels.annotator = event.target.value.trim();
  remember();
});
at("save").addEventListener("click", save);
at("back").addEventListener("click", () => go(current - 1));
at("next").addEventListener("click", () => go(current + 1));
at("open").addEventListener("click", nextOpen);
for (const button of document.querySelectorAll("[data-label]")) {
  button.addEventListener("click", () => give(button.dataset.label));
}
document.addEventListener("keydown", (event) => {
  if (event.target.tagName === "INPUT" || event.ctrlKey || event.metaKey || event.altKey) return;
  const label = { 1: "right", 2: "wrong", 3: "unsure" }[event.key];
  if (label) give(label);
  else if (event.key === "ArrowLeft") go(current - 1);
  else if (event.key === "ArrowRight") go(current + 1);
});
show();
