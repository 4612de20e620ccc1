// Stops the growing answer without a run of the page's script: no click is lost to another that is under way.
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.defaultPrevented) return;
  if (document.querySelector('[data-testid="stPopoverBody"], [role="dialog"]')) return;
  document.querySelector(".stop:not([hidden])")?.click();
});

function receive({ data, parentElement }) {
  if (parentElement.querySelector("button")?.dataset.answer === data.answer) return;
  // Made here, not in HTML: what can be seen works at once.
  const button = document.createElement("button");
  button.type = "button";
  button.className = "bordered stop";
  button.title = "Esc";
  button.textContent = "■ Stop";
  button.dataset.answer = data.answer;
  button.onclick = () => {
    // Gone at once: the page has it until its script has run, and by then the next answer may grow.
    button.hidden = true;
    fetch(`answers/${data.answer}/stop`, { method: "POST" })
      .then((response) => (button.hidden = response.ok), () => (button.hidden = false));
  };
  parentElement.replaceChildren(button);
}
