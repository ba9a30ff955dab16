// Dragging a run to another day or hour opens the form that shows what would change.
"use strict";

let carried = null;

document.addEventListener("dragstart", (event) => {
  const entry = event.target.closest?.("[data-move]");
  if (!entry) return;
  carried = { move: entry.dataset.move, clock: entry.dataset.clock };
  // A link that is dragged would be carried as its address.
  event.dataTransfer.setData("text/plain", entry.textContent.trim());
  event.dataTransfer.effectAllowed = "move";
});

document.addEventListener("dragover", (event) => {
  if (carried && event.target.closest?.("[data-day]")) event.preventDefault();
});

document.addEventListener("drop", (event) => {
  const place = event.target.closest?.("[data-day]");
  if (!carried || !place) return;
  event.preventDefault();
  const { hour, day } = place.dataset;
  const clock = hour ? hour + carried.clock.slice(2) : carried.clock;
  const { zone } = place.closest("[data-zone]").dataset;
  location.assign(`${carried.move}&${new URLSearchParams({ day, clock, zone })}`);
});

document.addEventListener("dragend", () => (carried = null));
