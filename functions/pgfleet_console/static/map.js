// The slider says its time while it is moved, and shows what holds then once it is let go.
"use strict";

const slider = document.querySelector("[data-clock]");
const two = (number) => String(number).padStart(2, "0");

slider.addEventListener("input", () => {
  const minute = Number(slider.value);
  document.getElementById(slider.dataset.clock).textContent = `${two(Math.floor(minute / 60))}:${two(minute % 60)}`;
});
slider.addEventListener("change", () => slider.form.requestSubmit());
