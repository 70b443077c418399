// Pausing the live log: while it is paused the list says that there are newer events, and stays.
const button = document.getElementById("tail");

function setPaused(paused) {
  button.setAttribute("aria-pressed", String(paused));
  button.querySelector("span").textContent = paused ? button.dataset.resume : button.dataset.pause;
  button.querySelector("use").setAttribute("href", button.querySelector("use").getAttribute("href").replace(/#.*/, paused ? "#player-play" : "#player-pause"));
  document.body.classList.toggle("lists-paused", paused);
  if (!paused) document.querySelector("#log .new-bar:not([hidden]) [data-show-new]")?.click();
}

button?.addEventListener("click", () => setPaused(button.getAttribute("aria-pressed") !== "true"));
