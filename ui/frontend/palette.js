// Ctrl+K finds a conversation or a command; Ctrl+/ lists the shortcuts. Conversations come from the browser's storage
// (storage.js). Python's side is views/palette.py. Input: {commands}: [label, action] of what Python carries out.
// Output: `action`, what somebody has chosen.
const SHOWN = 12; // conversations
const MAC = /Mac|iPhone|iPad/.test(navigator.platform);
const CONTROL = MAC ? "⌘" : "Ctrl";

let component = null; // as it was passed last
const act = (action) => component.setTriggerValue("action", { nonce: Math.random(), ...action });

const element = (tag, className = "", text = "") => {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
};

function keys(text) {
  const made = element("span", "keys");
  made.append(...text.split(" ").map((key) => element("kbd", "", key === "Mod" ? CONTROL : key)));
  return made;
}

const last = (selector) => [...document.querySelectorAll(selector)].at(-1);
const buttonOf = (message, label) => [...(message?.querySelectorAll(".actions button") ?? [])].find((each) => each.textContent === label);

// What the page itself does: [label, keys, a function for the element that does it when it is clicked].
const HERE = [
  ["Edit the last question", "↑", () => buttonOf(last(".message.user"), "Edit")],
  ["Copy the last answer", "", () => buttonOf(last(".message.assistant"), "Copy")],
  ["Regenerate the last answer", "", () => buttonOf(last(".message.assistant"), "Regenerate")],
  ["About this service", "", () => document.querySelector('[data-testid="stPageLink"] a[href$="about"]')],
];
const SHORTCUTS = [
  ["Mod K", "Find a conversation or a command"],
  ["Mod Shift O", "New chat"],
  ["Enter", "Send"],
  ["Shift Enter", "New line"],
  ["/", "Insert a prompt, at the start of a question"],
  ["↑", "Edit the last question, while the input is empty"],
  ["Mod Enter", "Send an edited question"],
  ["Esc", "Stop the answer; close what is open"],
  ["Mod /", "This list"],
];

function dialog(className, label) {
  const made = element("dialog", className);
  made.setAttribute("role", "dialog");
  made.setAttribute("aria-label", label);
  made.onclick = (event) => event.target === made && made.close(); // beside it
  made.onclose = () => made.remove();
  made.addEventListener("keydown", (event) => {
    event.stopPropagation();
    if (event.key === "Escape") made.close();
  });
  return made;
}

function showShortcuts() {
  const made = dialog("palette shortcuts", "Keyboard shortcuts");
  const close = element("button", "close", "×");
  close.type = "button";
  close.setAttribute("aria-label", "Close");
  close.onclick = () => made.close();
  const listed = element("dl");
  for (const [combination, meaning] of SHORTCUTS) {
    const key = element("dt");
    key.append(keys(combination));
    listed.append(key, element("dd", "", meaning));
  }
  made.append(close, element("h2", "", "Keyboard shortcuts"), listed);
  document.body.append(made);
  made.showModal();
}

function commands() {
  const here = HERE.map(([label, combination, find]) => ({ label, combination, find })).filter(({ find }) => find());
  return [
    { label: "New chat", combination: "Mod Shift O", run: () => act({ do: "new" }) },
    ...component.data.commands.map(([label, action]) => ({ label, run: () => act(action) })),
    ...here.map(({ label, combination, find }) => ({ label, combination, run: () => find()?.click() })),
    { label: "Keyboard shortcuts", combination: "Mod /", run: showShortcuts },
  ];
}

async function showPalette() {
  const made = dialog("palette", "Find a conversation or a command");
  const input = element("input");
  input.placeholder = "Find a conversation or a command";
  input.setAttribute("aria-label", input.placeholder);
  input.setAttribute("role", "combobox");
  input.setAttribute("aria-expanded", "true");
  input.setAttribute("aria-controls", "palette-list");
  const list = element("ul");
  list.id = "palette-list";
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-label", "Matches");
  made.append(input, list);
  document.body.append(made);
  made.showModal();
  const offered = commands();
  const conversations = ((await window.duoserveStorage?.list()) ?? []).sort((a, b) => (a.updated < b.updated ? 1 : -1));
  let at = 0;

  function mark() {
    [...list.querySelectorAll('[role="option"]')].forEach((each, number) => {
      each.setAttribute("aria-selected", String(number === at));
      if (number !== at) return;
      input.setAttribute("aria-activedescendant", each.id);
      each.scrollIntoView({ block: "nearest" });
    });
  }
  function option(label, hint, run) {
    const item = element("li");
    item.setAttribute("role", "option");
    item.id = `palette-${list.querySelectorAll('[role="option"]').length}`;
    const name = element("span", "name", label);
    name.dir = "auto";
    item.append(name);
    if (hint) item.append(hint);
    item.onpointermove = () => {
      at = [...list.querySelectorAll('[role="option"]')].indexOf(item);
      mark();
    };
    item.onclick = () => {
      made.close();
      run();
    };
    list.append(item);
  }
  function heading(text) {
    const item = element("li", "heading", text);
    item.setAttribute("role", "presentation");
    list.append(item);
  }
  function draw() {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const matches = (text) => words.every((word) => text.toLowerCase().includes(word));
    const found = conversations.filter(({ title, folder }) => matches(`${title} ${folder ?? ""}`)).slice(0, SHOWN);
    const able = offered.filter(({ label }) => matches(label));
    list.replaceChildren();
    at = 0;
    if (found.length) heading("Conversations");
    for (const { id, title, folder } of found) {
      const hint = folder ? element("span", "hint", folder) : null;
      option(title || "New conversation", hint, async () => act({ do: "open", id, stored: await stored(id) }));
    }
    if (able.length) heading("Commands");
    for (const { label, combination, run } of able) option(label, combination ? keys(combination) : null, run);
    if (!found.length && !able.length) heading("Nothing matches.");
    mark();
  }
  input.oninput = draw;
  input.onkeydown = (event) => {
    const items = list.querySelectorAll('[role="option"]');
    if (event.key === "ArrowDown") at = (at + 1) % items.length;
    else if (event.key === "ArrowUp") at = (at - 1 + items.length) % items.length;
    else if (event.key === "Enter" && !event.isComposing) items[at]?.click();
    else return;
    event.preventDefault();
    mark();
  };
  draw();
}

// With an answer that was growing there is more to look up than the conversation.
async function stored(id) {
  const kept = await window.duoserveStorage.get(id);
  return kept?.answering ? null : kept;
}

document.addEventListener("keydown", (event) => {
  const open = document.querySelector("dialog.palette");
  if (!(event.ctrlKey || event.metaKey) || event.altKey || !["k", "/"].includes(event.key.toLowerCase())) return;
  event.preventDefault();
  event.stopPropagation();
  open?.close();
  if (!component || !component.parentElement.isConnected) return;
  if (event.key === "/") showShortcuts();
  else if (!open) showPalette();
}, true);

function receive(passed) {
  component = passed;
}
