// Stops the growing answer without a run of the page's script: no click is lost to another that is under way.
let stop = () => {};

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.defaultPrevented) return;
  if (document.querySelector('[data-testid="stPopoverBody"], [role="dialog"]')) return;
  stop();
});

function receive({ data, parentElement }) {
  let button = parentElement.querySelector("button");
  if (button?.dataset.answer !== data.answer) {
    // Made here, not in HTML: what can be seen works at once.
    button = document.createElement("button");
    button.type = "button";
    button.className = "stop";
    button.title = "Esc";
    button.textContent = "■ Stop";
    button.dataset.answer = data.answer;
    parentElement.replaceChildren(button);
  }
  const mine = () => {
    button.disabled = true;
    fetch(`answers/${data.answer}/stop`, { method: "POST" }).catch(() => (button.disabled = false));
  };
  button.onclick = stop = mine;
  return () => {
    if (stop === mine) stop = () => {};
  };
}
