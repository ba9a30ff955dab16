// What the console does in the browser; without it the pages still work, but do not move.
"use strict";

const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

// ------------------------------------------------------------------ times, in the viewer's zone
const absolute = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const today = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "long" });
const STEPS = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];

function awayText(at) {
  const seconds = (at - Date.now()) / 1000;
  for (const [unit, size] of STEPS) {
    if (Math.abs(seconds) >= size || unit === "second") {
      return relative.format(Math.trunc(seconds / size), unit);
    }
  }
}

function timeText(element) {
  const at = new Date(element.dateTime);
  if (element.hasAttribute("data-ago")) return awayText(at);
  const isToday = at.toDateString() === new Date().toDateString();
  return (isToday ? today : absolute).format(at);
}

function localize(root) {
  for (const element of $$("time[datetime]", root)) {
    const text = timeText(element);
    if (element.textContent !== text) element.textContent = text;
  }
}

// ---------------------------------------------------------------------- what is put into the page
const csrf = () => $("meta[name=csrf]")?.content ?? "";

function put(target, html) {
  const parsed = document.createElement("template");
  parsed.innerHTML = html;
  localize(parsed.content);
  window.Idiomorph.morph(target, parsed.content, {
    morphStyle: "innerHTML",
    ignoreActiveValue: true,
    callbacks: {
      // What a person has opened, ticked or begun to type stays as it is.
      beforeAttributeUpdated: (name, node) =>
        !(name === "open" && node.matches("dialog, details")) &&
        !(name === "checked" && node.matches("input")) &&
        !(name === "disabled" && node.hasAttribute("data-kept")),
    },
  });
  document.dispatchEvent(new CustomEvent("console:shown", { detail: target }));
}

// --------------------------------------------------------------------------- pages that move
const live = $("[data-live]");
const pulse = $("[data-pulse]");
let stream = null;

function say(state, text) {
  if (!pulse) return;
  pulse.hidden = false;
  pulse.classList.toggle("lost", state === "lost");
  if (pulse.textContent !== text) pulse.textContent = text;
}

function lookOn() {
  if (!live || stream || document.hidden) return;
  stream = new EventSource("/live?at=" + encodeURIComponent(location.pathname + location.search));
  stream.onopen = () => say("live", "live");
  stream.onmessage = (event) => put(live, event.data);
  stream.onerror = () => {
    say("lost", "not live");
    // The browser comes back by itself, unless it was refused: then signing in is what helps.
    if (stream.readyState === EventSource.CLOSED) {
      stream = null;
      setTimeout(lookOn, 5000);
    }
  };
}

function lookAway() {
  // A browser has few connections to one server; a page that nobody sees needs none.
  stream?.close();
  stream = null;
}

document.addEventListener("visibilitychange", () => (document.hidden ? lookAway() : lookOn()));
addEventListener("pagehide", lookAway);
addEventListener("pageshow", lookOn);

// ------------------------------------------------------ forms that show something while one types
let asked = 0;

async function fill(form) {
  const target = document.getElementById(form.dataset.fill);
  const number = ++asked;
  const body = new URLSearchParams(new FormData(form));
  const headers = { "x-part": "1", "x-csrf": csrf() };
  target.setAttribute("aria-busy", "true");
  try {
    const answer = await fetch(form.dataset.from, { method: "POST", body, headers });
    const html = await answer.text();
    if (number === asked) put(target, html);
  } catch {
    if (number === asked) target.textContent = "The console cannot be reached.";
  } finally {
    target.removeAttribute("aria-busy");
  }
}

document.addEventListener("console:shown", (event) => {
  const form = $(`form[data-fill="${event.detail.id}"]`);
  if (!form) return;
  // What is wrong stands at its field, too.
  const told = new Map($$("[data-problem-for]", event.detail).map((one) => [one.dataset.problemFor, one.textContent]));
  for (const place of $$("[data-problem]", form)) {
    place.textContent = told.get(place.dataset.problem) ?? "";
    place.closest("label").classList.toggle("wrong", told.has(place.dataset.problem));
  }
});

// Of the fields that belong to a kind, those of the chosen kind are shown.
function showKinds(select) {
  for (const label of $$("[data-kinds]", select.form)) {
    label.hidden = !label.dataset.kinds.split(" ").includes(select.value);
  }
}

let typing = 0;
document.addEventListener("input", (event) => {
  const form = event.target.closest("form[data-fill]");
  if (form) {
    clearTimeout(typing);
    typing = setTimeout(fill, 250, form);
  }
  if (event.target.matches("[data-kind]")) showKinds(event.target);
  if (event.target.matches("[data-must-be]")) check(event.target);
  if (event.target.matches("input[type=checkbox]")) countChosen();
});

function check(input) {
  const isRight = input.value.trim() === input.dataset.mustBe;
  $("button.danger", input.form).disabled = !isRight;
}

function countChosen() {
  for (const shown of $$("[data-chosen]")) {
    const form = shown.closest("form");
    const count = $$("input[name=id]:checked", form).length;
    shown.textContent = count ? `${count} chosen` : shown.dataset.chosen;
  }
}

document.addEventListener("submit", (event) => {
  const field = $("input[name=csrf]", event.target);
  if (field) field.value = csrf();
  const button = event.submitter;
  if (button && event.target.method === "post") {
    // After the browser has taken the form, so that the button's own value is in it.
    setTimeout(() => (button.disabled = true));
    setTimeout(() => (button.disabled = false), 4000);
  }
});

// ------------------------------------------------------------------------------------- clicks
document.addEventListener("click", async (event) => {
  const opener = event.target.closest("[data-open]");
  if (opener) openDialog(document.getElementById(opener.dataset.open));
  if (event.target.closest("[data-close]")) event.target.closest("dialog").close();
  const all = event.target.closest("[data-check-all]");
  if (all) {
    for (const box of $$("input[name=id]", all.closest("form"))) box.checked = all.checked;
    countChosen();
  }
  const copier = event.target.closest("[data-copy]");
  if (copier) {
    await navigator.clipboard?.writeText($("code", copier.closest("figure")).textContent);
    copier.textContent = "Copied";
    setTimeout(() => (copier.textContent = "Copy"), 1500);
  }
  const menu = event.target.closest("[data-menu]");
  if (menu) {
    const isOpen = $("#pages").classList.toggle("is-open");
    menu.setAttribute("aria-expanded", String(isOpen));
  }
  if (event.target.closest("[data-theme-switch]")) switchTheme();
});

function openDialog(dialog) {
  for (const input of $$("[data-must-be]", dialog)) {
    input.value = "";
    check(input);
  }
  dialog.showModal();
}

function switchTheme() {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  const chosen = (root.dataset.theme || system) === "dark" ? "light" : "dark";
  const isSystem = chosen === system;
  if (isSystem) delete root.dataset.theme;
  else root.dataset.theme = chosen;
  document.cookie = `pgfleet_theme=${isSystem ? "" : chosen}; path=/; samesite=strict; max-age=31536000`;
}

// ----------------------------------------------------------------------------------- keyboard
let afterG = 0;

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, textarea, select, [contenteditable]")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if ($("dialog[open]")) return;
  if (Date.now() - afterG < 1500) {
    afterG = 0;
    const link = $$("[data-go]").find((one) => one.dataset.go === event.key);
    if (link) {
      event.preventDefault();
      link.click();
    }
    return;
  }
  if (event.key === "g") afterG = Date.now();
  else if (event.key === "/") focusSearch(event);
  else if (event.key === "?") openDialog(document.getElementById("keys"));
  else if (event.key === "j" || event.key === "k") step(event.key === "j" ? 1 : -1);
});

function focusSearch(event) {
  event.preventDefault();
  const searches = $$("[data-key='/']");
  // The search of this page, where it has one, else that of the fleet.
  const search = searches.find((one) => one.closest("main")) ?? searches[0];
  search?.focus();
  search?.select();
}

function step(by) {
  const links = $$("main tbody tr :is(th, td) > a:first-of-type, main .rows li > a:first-of-type");
  const at = links.indexOf(document.activeElement);
  links[Math.min(links.length - 1, Math.max(0, at + by))]?.focus();
}

// ------------------------------------------------------------------------------------ the start
localize(document);
setInterval(localize, 10000, document);
lookOn();
$$("[data-kind]").forEach(showKinds);
$$("form[data-fill]").forEach(fill);
$$("main [data-must-be]").filter((input) => !input.closest("dialog")).forEach(check);
