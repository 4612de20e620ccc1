// Stops the growing answer without a run of the page's script: no click is lost to another that is under way.
let stop = () => {};

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.defaultPrevented) return;
  if (document.querySelector('[data-testid="stPopoverBody"], [role="dialog"]')) return;
  stop();
});

export default function ({ data, parentElement }) {
  const button = parentElement.querySelector("button");
  const mine = () => {
    button.disabled = true;
    fetch(`answers/${data.answer}/stop`, { method: "POST" }).catch(() => (button.disabled = false));
  };
  button.disabled = false;
  button.onclick = stop = mine;
  return () => {
    if (stop === mine) stop = () => {};
  };
}
