// The page works without this script, one form at a time. With it, photos are dropped, pasted and captioned in place.
"use strict";

const form = document.getElementById("form");
const results = document.getElementById("results");
const status = document.getElementById("status");
const AT_ONCE = 3;
const RETRIES = 8;

document.documentElement.classList.add("js");

function fromTemplate(id, name) {
  const card = document.getElementById(id).content.firstElementChild.cloneNode(true);
  card.querySelector(".name").textContent = name;
  return card;
}

function failed(name, sentence) {
  const card = fromTemplate("failed", name);
  card.querySelector(".error").textContent = sentence;
  return card;
}

function say(sentence) {
  status.textContent = sentence;
}

async function ask(fields) {
  const body = new FormData();
  body.append("csrfmiddlewaretoken", form.elements.csrfmiddlewaretoken.value);
  for (const [name, value] of Object.entries(fields)) body.append(name, value);
  for (let trial = 0; ; trial += 1) {
    const response = await fetch(form.action, { method: "POST", body, headers: { "X-Fragment": "1" } });
    if (response.status !== 429 || trial === RETRIES) return response;
    const seconds = Number(response.headers.get("Retry-After")) || 1;
    await new Promise((done) => setTimeout(done, 1000 * seconds * (1 + Math.random())));
  }
}

async function caption({ name, fields, card }) {
  let answer;
  try {
    const response = await ask(fields);
    const fragment = document.createElement("template");
    fragment.innerHTML = await response.text();
    answer = fragment.content.firstElementChild;
    if (!answer?.matches(".result, .error")) { // a whole page, perhaps a proxy's
      answer = failed(name, response.status === 403 ? "The form has expired: load the page again."
        : `The server cannot do this now (${response.status}): try again later.`);
    }
  } catch {
    answer = failed(name, "The server cannot be reached: try again later.");
  }
  const pending = card.querySelector(".photo");
  card.replaceWith(answer);
  if (pending?.src.startsWith("blob:")) URL.revokeObjectURL(pending.src);
  const text = answer.querySelector("textarea")?.value ?? answer.querySelector(".error")?.textContent;
  say(`${name}: ${text ?? answer.textContent}`);
}

async function captionAll(jobs) {
  const before = results.firstChild;
  for (const job of jobs) results.insertBefore(job.card, before);
  if (!jobs.length) return;
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  jobs[0].card.scrollIntoView({ behavior: calm ? "auto" : "smooth", block: "nearest" });
  say(jobs.length === 1 ? "Looking at the photo." : `Looking at ${jobs.length} photos.`);
  const waiting = jobs.filter((job) => job.fields);
  const work = async () => {
    while (waiting.length) await caption(waiting.shift());
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
}

function fileJob(file) {
  const megabytes = Number(form.dataset.maxMegabytes);
  if (file.size > 1e6 * megabytes) {
    const sentence = `The photo has more than ${megabytes} MB: send a smaller one.`;
    say(`${file.name}: ${sentence}`);
    return { name: file.name, card: failed(file.name, sentence) };
  }
  const card = fromTemplate("pending", file.name);
  const photo = card.querySelector(".photo");
  photo.onerror = () => photo.remove(); // the server may know a format that the browser does not
  photo.src = URL.createObjectURL(file);
  return { name: file.name, fields: { photos: file }, card };
}

function captionFiles(files) {
  captionAll(Array.from(files, fileJob));
}

form.addEventListener("change", (event) => {
  if (!event.target.matches(".file")) return;
  captionFiles(event.target.files);
  event.target.value = ""; // so that the same photo can be chosen again
});

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const button = event.submitter;
  if (button?.name !== "example") return;
  const card = fromTemplate("pending", button.value);
  card.querySelector(".photo").src = button.querySelector("img").src;
  captionAll([{ name: button.value, fields: { example: button.value }, card }]);
});

// Drop and paste
const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
document.addEventListener("dragover", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dragging");
});
document.addEventListener("drop", (event) => {
  document.body.classList.remove("dragging");
  if (!hasFiles(event)) return;
  event.preventDefault();
  captionFiles(event.dataTransfer.files);
});
document.addEventListener("paste", (event) => {
  if (!event.clipboardData.files.length) return;
  event.preventDefault();
  captionFiles(event.clipboardData.files);
});

// Alt text
async function copy(field) {
  try {
    await navigator.clipboard.writeText(field.value);
  } catch { // no clipboard without HTTPS
    field.select();
    document.execCommand("copy");
  }
}

results.addEventListener("click", async (event) => {
  const button = event.target.closest("button");
  const field = button?.closest(".result")?.querySelector("textarea");
  if (!field) return;
  if (button.matches(".copy")) {
    await copy(field);
    button.textContent = "Copied";
    say("Copied.");
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  } else if (button.matches(".use")) {
    field.value = button.dataset.alt;
    say(`Alt text: ${field.value}`);
  } else if (button.matches(".word")) {
    button.focus(); // Safari does not focus a button that is tapped
  }
});
