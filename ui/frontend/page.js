// Goes to `leave`, the sign-in page, when the session has ended. Puts the cursor into the chat input when the page or
// another conversation opens (not on touch screens, where that would open the keyboard, nor away from what somebody
// has opened or is typing into). `focus` names what is open.
const OPEN = '[data-testid="stPopoverBody"], [role="dialog"]';
let focused = null;

new MutationObserver(() => {
  // Code that is wider than the page scrolls, and must be reachable without a mouse.
  for (const code of document.querySelectorAll("pre:not([tabindex])")) code.tabIndex = 0;
}).observe(document.body, { childList: true, subtree: true });

// What is copied has no invisible word joiners (see markdown.py). The clipboard API exists only on HTTPS and localhost;
// elsewhere an older way, with a selection, still works, and Streamlit's own copy buttons find it here, too.
const withoutJoiners = (text) => text.replaceAll(":\u2060", ":");

document.addEventListener("copy", (event) => {
  const text = event.target.value === undefined ? String(document.getSelection()) : "";
  if (!text.includes(":\u2060")) return;
  event.clipboardData.setData("text/plain", withoutJoiners(text));
  event.preventDefault();
});

function copySelected(text) {
  const before = document.activeElement;
  const area = document.createElement("textarea");
  area.value = text;
  area.readOnly = true; // no keyboard on a phone
  area.style.cssText = "position:fixed;top:0;opacity:0";
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  before?.focus({ preventScroll: true });
  if (!done) throw new Error("the browser does not let this page copy");
}

const clipboard = navigator.clipboard;
const write = clipboard ? clipboard.writeText.bind(clipboard) : async (text) => copySelected(text);
const writeText = (text) => write(withoutJoiners(text));
if (clipboard) clipboard.writeText = writeText;
else Object.defineProperty(navigator, "clipboard", { value: { writeText } });

// A file that the browser could not send would be left out of the question without a word: nothing is sent instead.
const unsent = document.createElement("div");
unsent.id = "unsent";
unsent.setAttribute("role", "alert");
document.body.append(unsent);

function withhold(event) {
  const chat = event.target.closest?.('[data-testid="stChatInput"]');
  const broken = chat?.querySelector('[data-testid="stFileChip"][aria-invalid="true"]');
  const sends = event.type === "click"
    ? event.target.closest('[data-testid="stChatInputSubmitButton"]')
    : event.key === "Enter" && !event.shiftKey && event.target.matches("textarea");
  if (!chat || !sends) return;
  unsent.textContent = "";
  if (!broken) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  const name = broken.querySelector('[data-testid="stFileChipName"]').textContent;
  const why = broken.querySelector('[role="alert"]')?.textContent.replace(/^Error: /, "") ?? "";
  const box = chat.getBoundingClientRect();
  unsent.textContent = `Not sent: “${name}” cannot be attached. ${why} Remove it, or choose another.`;
  unsent.style.left = `${box.left}px`;
  unsent.style.width = `${box.width}px`;
  unsent.style.bottom = `${window.innerHeight - box.top + 8}px`;
}
document.addEventListener("keydown", withhold, true);
document.addEventListener("click", withhold, true);
document.addEventListener("click", (event) => {
  if (event.target.closest?.('[data-testid="stFileChipDeleteBtn"]')) unsent.textContent = "";
}, true);

export default function ({ data }) {
  if (data.leave) return window.location.assign(data.leave);
  if (!data.focus || data.focus === focused || !window.matchMedia("(pointer: fine)").matches) return;
  focused = data.focus;
  let tries = 20;
  const find = () => {
    const input = document.querySelector('[data-testid="stChatInputTextArea"]');
    if (document.activeElement?.matches("input, textarea") || document.querySelector(OPEN)) return;
    if (input) input.focus();
    else if (tries--) setTimeout(find, 100);
  };
  find();
}
