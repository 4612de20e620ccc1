// Goes to `leave`, the sign-in page, when the session has ended. Puts the cursor into the chat input when the page or
// another conversation opens (not on touch screens, where that would open the keyboard, nor away from what somebody
// has opened or is typing into). `focus` names what is open.
const OPEN = '[data-testid="stPopoverBody"], [role="dialog"]';
let focused = null;

// Code that is wider than the page scrolls, and must be reachable without a mouse.
new MutationObserver(() => {
  for (const code of document.querySelectorAll("pre:not([tabindex])")) code.tabIndex = 0;
}).observe(document.body, { childList: true, subtree: true });

export default function ({ data }) {
  if (data.leave) return window.location.assign(data.leave);
  if (data.focus === focused || !window.matchMedia("(pointer: fine)").matches) return;
  focused = data.focus;
  let tries = 20;
  const look = () => {
    const input = document.querySelector('[data-testid="stChatInputTextArea"]');
    if (document.activeElement?.matches("input, textarea") || document.querySelector(OPEN)) return;
    if (input) input.focus();
    else if (tries--) setTimeout(look, 100);
  };
  look();
}
