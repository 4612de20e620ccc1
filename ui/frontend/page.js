// What all pages have beyond Streamlit. Goes to `leave`, the sign-in page, when the session has ended. Puts the cursor
// into the chat input when the page or another conversation opens (not on touch screens, where that would open the
// keyboard, nor away from what somebody has opened or is typing into). `focus` names what is open, `draft` whose question
// is being written.
const OPEN = '[data-testid="stPopoverBody"], [role="dialog"]';
let focused = null;

// Without a connection, a line says so. Streamlit's own message would cover what one is reading.
const offline = document.createElement("div");
offline.id = "offline";
offline.setAttribute("role", "status");
document.body.append(offline);
let lost = null;

function look() {
  // Code that is wider than the page scrolls, and must be reachable without a mouse.
  for (const code of document.querySelectorAll("pre:not([tabindex])")) code.tabIndex = 0;
  for (const input of document.querySelectorAll("textarea:not([dir])")) input.dir = "auto";
  const app = document.querySelector('[data-testid="stApp"]');
  if (!app || app.dataset.testConnectionState === "CONNECTED") {
    clearTimeout(lost);
    lost = null;
    offline.textContent = "";
    return;
  }
  lost ??= setTimeout(() => (offline.textContent = "Connection lost. Reconnecting … Nothing is lost; you can keep reading."), 1000);
  for (const dialog of document.querySelectorAll('[role="dialog"]')) {
    if (dialog.textContent.includes("Connection error")) dialog.querySelector('button[aria-label="Close"]')?.click();
  }
}
new MutationObserver(look).observe(document.body, {
  childList: true, subtree: true, attributes: true, attributeFilter: ["data-test-connection-state"],
});

// A long text that is pasted becomes a file of the question: folded, and as it is.
const LONG_LINES = 20, LONG_TEXT = 3000;
const KINDS = [
  ["diff", /^(diff --git |--- \S+\n\+\+\+ |@@ -\d)/m],
  ["log", /^(Traceback \(most recent|\[?\d{4}-\d\d-\d\d[T ]\d\d:\d\d.*\n\[?\d{4}-)/m],
  ["html", /^\s*<(!doctype html|html|head|body|div)\b/i],
  ["xml", /^\s*<\?xml/],
  ["sh", /^#!.*\b(ba|z)?sh\b/],
  ["c", /^\s*#include\s*[<"]/m],
  ["go", /^package \w+$/m],
  ["rs", /^\s*(pub )?(fn \w+\(|use [\w:]+::|impl\b.*\{|struct \w+ \{)/m],
  ["java", /^\s*(public|private|protected) (static |final |abstract )*(class|interface|void|\w+) /m],
  ["py", /^\s*(async def|def|class) \w+.*:\s*$|^(from [\w.]+ )?import [\w., ]+$/m],
  ["ts", /^\s*(export )?(interface|type) \w+|^\s*(const|let) \w+: \w+/m],
  ["js", /^\s*(export |const |let |function |import .* from )/m],
  ["sql", /^\s*(select|insert into|create table|update|with) .+/i],
  ["css", /^[^{}\n]+\{\s*\n\s*[\w-]+:\s*[^;]+;/m],
  ["md", /^#{1,4} \S.*$/m],
];

function kind(text) {
  try {
    JSON.parse(text);
    return "json";
  } catch {
    return KINDS.find(([, pattern]) => pattern.test(text))?.[0] ?? "txt";
  }
}

document.addEventListener("paste", (event) => {
  const text = event.clipboardData?.getData("text/plain") ?? "";
  const chat = event.target.closest?.('[data-testid="stChatInput"]');
  const picker = chat?.querySelector("input[type=file]");
  if (!picker || (text.length < LONG_TEXT && text.split("\n").length < LONG_LINES)) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  const names = [...chat.querySelectorAll('[data-testid="stFileChipName"]')].map((each) => each.textContent);
  const ending = kind(text);
  let name = `pasted.${ending}`;
  for (let number = 2; names.includes(name); number++) name = `pasted-${number}.${ending}`;
  const files = new DataTransfer();
  files.items.add(new File([text], name, { type: "text/plain" }));
  picker.files = files.files;
  picker.dispatchEvent(new Event("change", { bubbles: true }));
}, true);

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

// A question that is being written is kept, for each conversation apart, until it is sent.
const INPUT = '[data-testid="stChatInputTextArea"]';
let drafted = null; // what the text in the input belongs to
let sent = false; // what is written from now on belongs to the conversation that opens next

function drafts() {
  const tab = (localStorage.getItem("duoserve.preferences") ?? "").includes('"keep":"tab"');
  return tab ? sessionStorage : localStorage;
}

function keepDraft(text) {
  try {
    if (text) drafts().setItem(`duoserve.draft.${drafted}`, text);
    else drafts().removeItem(`duoserve.draft.${drafted}`);
  } catch (error) {
    console.warn("draft", error); // losing it is no reason to stop somebody who writes
  }
}

document.addEventListener("input", ({ target }) => {
  if (drafted && target.matches?.(INPUT)) keepDraft(target.value);
});

// The input is empty as soon as a question is on its way.
function noticeSent() {
  setTimeout(() => {
    if (!drafted || document.querySelector(INPUT)?.value) return;
    keepDraft("");
    sent = true;
  });
}
document.addEventListener("keydown", (event) => event.key === "Enter" && event.target.matches?.(INPUT) && noticeSent());
document.addEventListener("click", (event) => event.target.closest?.('[data-testid="stChatInputSubmitButton"]') && noticeSent());

function openDraft(wanted, tries = 20) {
  const input = document.querySelector(INPUT);
  if (!input) {
    if (tries) setTimeout(openDraft, 100, wanted, tries - 1);
    return;
  }
  const first = drafted === null; // somebody may have begun to write before this ran
  const typed = sent || first ? input.value : "";
  drafted = wanted;
  sent = false;
  const kept = drafts().getItem(`duoserve.draft.${wanted}`) ?? "";
  const text = first ? [kept, typed].filter(Boolean).join("\n") : typed || kept;
  if (typed) keepDraft(text);
  if (text === input.value) return;
  // As if it was typed, so that Streamlit knows of it.
  Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, "value").set.call(input, text);
  input.dispatchEvent(new Event("input", { bubbles: true }));
}

// What lies outside Streamlit's own element, like menus, is as light or dark as that.
function copyScheme() {
  const app = document.querySelector('[data-testid="stApp"]');
  if (app) document.documentElement.style.colorScheme = getComputedStyle(app).colorScheme;
}
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => setTimeout(copyScheme, 500));

// Back and forward. Streamlit runs the page for them, too, but as well with addresses that are out of date.
let component = null; // as it was passed last
window.addEventListener("popstate", () => {
  const address = new URLSearchParams(window.location.search).get("c") ?? "";
  component?.setStateValue("went", { address, number: String(Math.random()) });
});

function receive(passed) {
  const { data } = passed;
  if (!data.leave) component = passed;
  copyScheme();
  if (data.leave) return window.location.assign(data.leave);
  if (data.draft && data.draft !== drafted) openDraft(data.draft);
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
