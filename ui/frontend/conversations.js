// The list of conversations in the sidebar: searching and opening them, and renaming, pinning, filing and deleting from
// the row. It reads the browser's storage (storage.js) by itself: the server is told only what somebody does with which.
// Python's side is views/sidebar.py. Input: {open, running}, ids. Output: `action`, what somebody has asked for.
const SHOWN = 40, CLOSED = "duoserve.folders.closed", AROUND = 40; // letters before a match in a snippet
const DAYS = ["Today", "Yesterday", "Last 7 days", "Older"];

let component = null; // as it was passed last
let list = null; // the element that holds the rows
let field = null; // where one searches
let known = []; // all conversations, without their messages
let items = []; // the rows
let reading = 0; // number of the last look into the storage
let drawn = ""; // the JSON that the list shows
let everything = false; // instead of the first 40
let busy = false; // a menu is open or a name is being typed: the list stays as it is

const element = (tag, className = "", text = "") => {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
};
const act = (action) => component.setTriggerValue("action", { nonce: Math.random(), ...action });

const closedFolders = () => new Set(JSON.parse(localStorage.getItem(CLOSED) ?? "[]"));

function rememberFolder(name, open) {
  const closed = closedFolders();
  if (open) closed.delete(name);
  else closed.add(name);
  localStorage.setItem(CLOSED, JSON.stringify([...closed]));
}

// --- the menu of a row ---

const menu = element("div", "menu");
menu.setAttribute("role", "menu");
menu.hidden = true;
document.body.append(menu);
let opener = null;

function closeMenu(focus = false) {
  if (menu.hidden) return;
  menu.hidden = true;
  opener?.setAttribute("aria-expanded", "false");
  if (focus) opener?.focus();
  busy = false;
  draw();
}

// `items` are [label, function] or null for a line between them; a function that returns true keeps the menu open.
function fillMenu(items) {
  menu.replaceChildren(...items.map((item) => {
    if (!item) return element("hr");
    const button = element("button", "", item[0]);
    button.type = "button";
    button.setAttribute("role", "menuitem");
    button.onclick = () => {
      if (item[1]() !== true) closeMenu();
    };
    return button;
  }));
  const box = opener.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = menu;
  menu.style.left = `${Math.max(8, Math.min(box.left, window.innerWidth - width - 8))}px`;
  menu.style.top = `${box.bottom + height + 8 < window.innerHeight ? box.bottom + 4 : Math.max(8, box.top - height - 4)}px`;
  menu.querySelector("button, input")?.focus();
}

function openMenu(button, items) {
  const again = opener === button && !menu.hidden;
  closeMenu();
  if (again) return;
  opener = button;
  menu.setAttribute("role", "menu");
  busy = true;
  menu.hidden = false;
  button.setAttribute("aria-expanded", "true");
  menu.setAttribute("aria-label", button.getAttribute("aria-label"));
  fillMenu(items);
}

menu.onkeydown = (event) => {
  const items = [...menu.querySelectorAll("button")];
  const at = items.indexOf(document.activeElement);
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (event.key === "Escape") closeMenu(true);
  else if (event.key === "Tab") return closeMenu();
  else if (step && items.length) items[(at + step + items.length) % items.length].focus();
  else return;
  event.preventDefault();
  event.stopPropagation();
};
document.addEventListener("pointerdown", (event) => {
  if (!menu.contains(event.target) && !opener?.contains(event.target)) closeMenu();
}, true);
window.addEventListener("resize", () => closeMenu());
document.addEventListener("scroll", ({ target }) => target.contains?.(opener) && closeMenu(), true);

function itemsOf(each, row) {
  return [
    ["Rename", () => void rename(row, each.name, (name) => act({ do: "rename", id: each.id, name }))],
    [each.pinned ? "Unpin" : "Pin", () => void act({ do: "pin", id: each.id, pinned: !each.pinned })],
    ["Move to folder …", () => chooseFolder(each)],
    null,
    ["Delete", () => void act({ do: "delete", id: each.id, name: each.name })],
  ];
}

function chooseFolder(each) {
  const move = (folder) => act({ do: "move", ids: [each.id], folder });
  const folders = [...new Set(known.map(({ folder }) => folder).filter(Boolean))].sort((one, other) => one.localeCompare(other));
  fillMenu([
    ...folders.filter((name) => name !== each.folder).map((name) => [name, () => void move(name)]),
    ...(each.folder ? [[`Out of “${each.folder}”`, () => void move("")]] : []),
  ]);
  menu.setAttribute("role", "group"); // a menu has no fields
  for (const button of menu.children) button.removeAttribute("role");
  const form = element("form");
  const name = element("input");
  name.placeholder = "New folder";
  name.maxLength = 60;
  name.setAttribute("aria-label", "New folder");
  form.append(name);
  form.onsubmit = (event) => {
    event.preventDefault();
    if (!name.value.trim()) return;
    move(name.value.trim());
    closeMenu();
  };
  menu.append(form);
  menu.querySelector("button, input").focus();
  return true;
}

// The name becomes an input; Enter or leaving it keeps what was typed, Escape does not.
function rename(row, before, done) {
  setTimeout(() => {
    busy = true;
    const input = element("input", "renaming");
    input.value = before;
    input.maxLength = 200;
    input.setAttribute("aria-label", "New name");
    row.replaceChildren(input);
    const finish = (keep) => {
      if (!input.isConnected) return;
      input.onblur = null;
      const name = input.value.trim();
      if (keep && name && name !== before) done(name);
      busy = false;
      drawn = "";
      draw();
    };
    input.onkeydown = (event) => {
      if (event.key === "Enter" && !event.isComposing) finish(true);
      else if (event.key === "Escape") finish(false);
      else return;
      event.preventDefault();
      event.stopPropagation();
    };
    input.onblur = () => finish(true);
    input.focus();
    input.select();
  });
}

// --- what is listed ---

function day(time) {
  const midnight = (moment) => new Date(moment).setHours(0, 0, 0, 0); // in this browser's time zone
  const days = Math.round((midnight(Date.now()) - midnight(time)) / 86_400_000);
  return DAYS[days < 1 ? 0 : days === 1 ? 1 : days < 7 ? 2 : 3];
}

function asRow({ id, title, pinned, folder, updated, snippet }) {
  const group = pinned ? "Pinned" : folder ? "" : day(updated);
  return { id, name: title || "New conversation", pinned, folder: folder ?? "", group, updated, snippet };
}

// Pinned ones, folders, then the others by day; the newest first.
function inOrder(one, other) {
  const place = ({ pinned, folder }) => (pinned ? 0 : folder ? 1 : 2);
  return place(one) - place(other) ||
    (place(one) === 1 && one.folder.localeCompare(other.folder)) || new Date(other.updated) - new Date(one.updated);
}

const small = (text) => text.toLocaleLowerCase();
const wordsOf = (text) => small(text).split(/\s+/).filter(Boolean);

function textsOf({ messages }) {
  return messages.flatMap(({ text, attachments }) => [text, ...(attachments ?? []).map((each) => each.name)]);
}

// The first place where one of the words occurs in what was asked and answered.
function snippet(conversation, words) {
  for (const text of textsOf(conversation)) {
    const line = text.replace(/\s+/g, " ");
    const at = Math.min(...words.map((word) => small(line).indexOf(word)).filter((each) => each >= 0));
    if (at === Infinity) continue;
    const start = Math.max(0, at - AROUND), end = at + 2 * AROUND;
    return `${start ? "…" : ""}${line.slice(start, end)}${end < line.length ? "…" : ""}`;
  }
  return "";
}

// The conversations in which every word occurs.
async function search(words, mine) {
  const found = [];
  await window.duoserveStorage.each((conversation) => {
    const all = small([conversation.title, ...textsOf(conversation)].join("\n"));
    if (words.every((word) => all.includes(word))) {
      found.push({ ...conversation, messages: null, snippet: snippet(conversation, words) });
    }
    return mine === reading; // otherwise somebody has typed on
  });
  return found;
}

async function read() {
  const mine = ++reading, words = wordsOf(field.value);
  const all = await window.duoserveStorage.list();
  const found = words.length ? await search(words, mine) : all;
  if (mine !== reading) return;
  known = all;
  items = found.map(asRow).sort(inOrder);
  field.hidden = all.length < 2 && !words.length;
  draw();
}

function begin() {
  if (!window.duoserveStorage) return setTimeout(begin, 20); // the page's other component brings it
  window.duoserveStorage.addEventListener("change", read);
  document.addEventListener("visibilitychange", read); // a day may have passed
  read();
}

// --- the list ---

async function open(id) {
  const stored = await window.duoserveStorage.get(id);
  // With an answer that was growing there is more to look up than the conversation.
  act({ do: "open", id, stored: stored?.answering ? null : stored });
}

function marked(text, words) {
  const lower = small(text), parts = [];
  if (lower.length !== text.length) return [text]; // in some languages, lower case has more letters
  for (let at = 0; at < text.length; ) {
    const found = words.map((word) => ({ start: lower.indexOf(word, at), word })).filter(({ start }) => start >= 0);
    const { start, word } = found.sort((one, other) => one.start - other.start)[0] ?? { start: text.length, word: "" };
    parts.push(text.slice(at, start));
    at = start + word.length;
    if (word) parts.push(element("mark", "", text.slice(start, at)));
  }
  return parts;
}

function more(name, items) {
  const button = element("button", "more", "⋯");
  button.type = "button";
  button.setAttribute("aria-label", `Actions for “${name}”`);
  button.setAttribute("aria-haspopup", "menu");
  button.setAttribute("aria-expanded", "false");
  button.onclick = () => openMenu(button, items());
  return button;
}

function row(each) {
  const made = element("li", "row");
  const opener = element("button", "open");
  opener.type = "button";
  opener.dataset.id = each.id;
  opener.title = each.name;
  if (each.id === component.data.open) opener.setAttribute("aria-current", "true");
  const name = element("span", "name", each.name);
  name.dir = "auto";
  opener.append(name);
  if (component.data.running.includes(each.id)) {
    const running = element("span", "running");
    running.setAttribute("role", "img");
    running.setAttribute("aria-label", "is being answered");
    opener.append(running);
  }
  if (each.snippet) {
    const around = element("span", "snippet");
    around.dir = "auto";
    around.append(...marked(each.snippet, wordsOf(field.value)));
    made.classList.add("found");
    opener.append(around);
  }
  opener.onclick = () => open(each.id);
  opener.ondblclick = () => rename(made, each.name, (name) => act({ do: "rename", id: each.id, name }));
  made.append(opener, more(each.name, () => itemsOf(each, made)));
  return made;
}

const idsIn = (folder) => known.filter((each) => each.folder === folder).map((each) => each.id);

function group(name, members) {
  const made = element("section");
  const rows = element("ul");
  rows.append(...members.map(row));
  if (!members[0].group) {
    const details = element("details", "folder");
    details.open = !closedFolders().has(name);
    details.ontoggle = () => rememberFolder(name, details.open);
    const summary = element("summary");
    summary.append(element("span", "name", name));
    details.append(summary, rows);
    made.className = "filed";
    made.append(details, more(name, () => [
      ["Rename folder", () => void rename(summary, name, (folder) => act({ do: "move", ids: idsIn(name), folder }))],
      ["Remove folder, keep its conversations", () => void act({ do: "move", ids: idsIn(name), folder: "" })],
    ]));
  } else {
    made.append(element("h2", "", name), rows);
  }
  return made;
}

function draw() {
  const source = JSON.stringify([component.data, items, everything, field.value]);
  if (busy || source === drawn) return;
  drawn = source;
  const focused = list.contains(document.activeElement) ? document.activeElement.dataset.id : null;
  const groups = new Map();
  for (const each of everything ? items : items.slice(0, SHOWN)) {
    const name = each.group || each.folder;
    groups.set(name, [...(groups.get(name) ?? []), each]);
  }
  list.replaceChildren(...[...groups].map(([name, those]) => group(name, those)));
  if (items.length > SHOWN && !everything) {
    const all = element("button", "all", `Show all ${items.length}`);
    all.type = "button";
    all.onclick = () => {
      everything = true;
      draw();
    };
    list.append(all);
  }
  if (field.value.trim() && !items.length) list.append(element("p", "none", "No conversation contains all of these words."));
  if (focused) list.querySelector(`[data-id="${focused}"]`)?.focus();
}

function receive(passed) {
  const first = !component;
  component = passed;
  const { parentElement } = passed;
  if (!list || !parentElement.contains(list)) {
    const nav = element("nav", "conversations");
    nav.setAttribute("aria-label", "Conversations");
    field = element("input", "search");
    field.type = "search";
    field.hidden = true;
    field.placeholder = "Search conversations";
    field.setAttribute("aria-label", "Search conversations");
    field.oninput = read;
    field.onkeydown = (event) => {
      if (event.key === "Enter") list.querySelector(".open")?.click();
      else if (event.key === "Escape") field.value = "";
      else return;
      event.stopPropagation();
      read();
    };
    list = element("div", "rows");
    nav.append(field, list);
    parentElement.append(nav);
    drawn = "";
  }
  if (first) begin();
  else draw();
}
